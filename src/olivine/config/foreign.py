"""JSON files that lie beside workflows and are something else: told by what they are, not by the keys they lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from olivine.config.parsing import KeyPath
from olivine.errors import ConfigError, Location, Problem, UnavailableError

MARKS: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset({"model_type", "architectures"}), "the config.json of a checkpoint", "give its folder as model_path"),
    (frozenset({"model", "search"}), "the genai_config.json of an ONNX Runtime GenAI model",
     "give its folder as model_path of an ONNXModel"),
    (frozenset({"base_model_name_or_path", "peft_type"}), "the adapter_config.json of an adapter",
     "give its folder as adapter_path"),
    (frozenset({"tokenizer_class"}), "the configuration of a tokenizer", "give the folder of its model as model_path"),
    (frozenset({"backend_extensions"}), "a configuration of Qualcomm's QNN backend", "give a workflow"),
    (frozenset({"graphs", "devices"}), "a configuration of Qualcomm's QNN backend", "give a workflow"),
)  # fmt: skip
"""Keys that together tell a file, what it is, and what to do."""


def refuse_foreign(raw: Mapping[str, Any], locate: Callable[[KeyPath], Location]) -> None:
    """Stop at a file that is no workflow but is known.

    Raises:
        UnavailableError: it lists passes of the compiler in AMD's VitisAI execution provider; each is named.
        ConfigError: it belongs to a model or to a vendor's runtime.
    """
    if "input_model" in raw:
        return
    passes = raw.get("passes")
    if isinstance(passes, list) and passes and all(isinstance(each, dict) and "plugin" in each for each in passes):
        raise UnavailableError(
            [
                Problem(
                    f"the pass {each.get('name', index)} ({each['plugin']}) is not available",
                    locate(("passes", index)),
                    "the file is no workflow, but a configuration of the compiler in AMD's VitisAI execution provider",
                    "name it in the options of that execution provider, and give the workflow beside it to olivine",
                )
                for index, each in enumerate(passes)
            ]
        )
    for keys, kind, remedy in MARKS:
        if keys <= set(raw) and "passes" not in raw:
            raise ConfigError(f"this is {kind}, and no workflow", where=locate(()), remedy=remedy)
