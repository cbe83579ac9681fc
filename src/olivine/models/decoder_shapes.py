"""Whether the weights of a plain decoder are of the shapes that its ``config.json`` asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from olivine.models.decoder import attention_rows

_LAYER = re.compile(r"model\.layers\.(\d+)\.")


def misfits(config: Mapping[str, Any], modules: Mapping[str, Sequence[int]]) -> list[str]:
    """Return one sentence for each matrix of another shape than ``config`` asks for, and for layers that are missing.

    Args:
        config: the checkpoint's ``config.json``. What it does not say is not checked.
        modules: shapes of the matrices by module name.
    """
    wanted = _shapes(config)
    found = []
    for module, shape in modules.items():
        for given, asked, what in zip(
            shape, wanted.get(module.rpartition(".")[2], ()), ("rows", "columns"), strict=False
        ):
            if asked is not None and given != asked:
                found.append(f"{module} has {given} {what}, and config.json asks for {asked}")
                break
    layers = config.get("num_hidden_layers")
    present = {int(match[1]) for module in modules if (match := _LAYER.match(module))}
    missing = sorted(set(range(layers)) - present) if isinstance(layers, int) else []
    if missing:
        found.append(f"config.json asks for {layers} layers, and there are no weights of layer {missing[0]}")
    return found


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int | None, int | None]]:
    """Return rows and columns of each kind of matrix; ``None`` where ``config`` does not say."""

    def number(key: str) -> int | None:
        value = config.get(key)
        return value if isinstance(value, int) else None  # some models have one for each layer

    hidden, inner, words = number("hidden_size"), number("intermediate_size"), number("vocab_size")
    query, key = attention_rows(config) or (None, None)
    return {
        "embed_tokens": (words, hidden),
        "lm_head": (words, hidden),
        "q_proj": (query, hidden),
        "k_proj": (key, hidden),
        "v_proj": (key, hidden),
        "qkv_proj": (None if query is None or key is None else query + 2 * key, hidden),
        "o_proj": (hidden, query),
        "gate_proj": (inner, hidden),
        "up_proj": (inner, hidden),
        "gate_up_proj": (None if inner is None else 2 * inner, hidden),
        "down_proj": (hidden, inner),
    }
