"""What a checkpoint's ``config.json`` must be to be reckoned with: counts that are counts, parts of their kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olivine.errors import Location, ModelError

LARGEST = {
    "num_hidden_layers": 10_000,
    "num_layers": 10_000,
    "n_layer": 10_000,
    "num_attention_heads": 1_000_000,
    "num_key_value_heads": 1_000_000,
    "n_head": 1_000_000,
    "head_dim": 1_000_000,
    "hidden_size": 100_000_000,
    "n_embd": 100_000_000,
    "intermediate_size": 1_000_000_000,
    "vocab_size": 1_000_000_000,
}
"""The counts that Olivine reckons with, and more than any model has of each."""
_LISTED = frozenset({"num_attention_heads", "num_key_value_heads", "intermediate_size", "head_dim"})
"""Those that some architectures give for every layer."""
_OBJECTS = ("quantization_config", "text_config", "vision_config", "audio_config", "auto_map")
_TEXTS = ("model_type", "torch_dtype", "dtype", "_name_or_path")


def check_config(config: Mapping[str, Any], file: Path) -> None:
    """Refuse a configuration whose counts would be reckoned with for ever, or whose parts are of another kind.

    Raises:
        ModelError: says which key.
    """
    for key, largest in LARGEST.items():
        value = config.get(key)
        listed = value if isinstance(value, list) and key in _LISTED else [value]
        for each in listed:
            if each is not None and (isinstance(each, bool) or not isinstance(each, int) or not 1 <= each <= largest):
                raise _wrong(file, key, value, f"a whole number from 1 to {largest:,}")
    for key in _OBJECTS:
        if not isinstance(config.get(key) or {}, dict):
            raise _wrong(file, key, config[key], "an object")
    for key in _TEXTS:
        if not isinstance(config.get(key) or "", str):
            raise _wrong(file, key, config[key], "a text")
    method = (config.get("quantization_config") or {}).get("quant_method")
    if method is not None and not isinstance(method, str):
        raise _wrong(file, "quantization_config.quant_method", method, "a text")
    architectures = config.get("architectures")
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(each, str) for each in architectures)
    ):
        raise _wrong(file, "architectures", architectures, "a list of names")
    if isinstance(config.get("text_config"), dict):
        check_config(config["text_config"], file)


def _wrong(file: Path, key: str, value: Any, wanted: str) -> ModelError:
    shown = repr(value)
    return ModelError(
        f"{key} in {file.name} is {shown if len(shown) < 60 else shown[:60] + ' ...'}, and must be {wanted}",
        where=Location(str(file), path=key),
        remedy="download the model again, or take another",
    )
