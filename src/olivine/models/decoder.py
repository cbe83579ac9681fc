"""What the tensors of a plain decoder are called, and what a fused one holds. Importable without numpy.

Llama, Mistral, Qwen, Phi-3, Gemma and their kin in transformers share these names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from olivine.models.checkpoint import TensorInfo

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""safetensors' words for types of unquantised weights."""

_MATRIX = re.compile(
    r"model\.layers\.\d+\.(?:self_attn\.(?:q|k|v|o|qkv)_proj|mlp\.(?:gate|up|down|gate_up)_proj)\.weight"
)
_VECTOR = re.compile(
    r"model\.layers\.\d+\.(?:\w*norm|self_attn\.\w+|mlp\.\w+)\.(?:weight|bias)"
    r"|model\.norm\.(?:weight|bias)|lm_head\.bias"
)
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_UNUSED = re.compile(r".*\.rotary_emb\.inv_freq")


def is_tied(config: Mapping[str, Any]) -> bool:
    """Return whether the checkpoint uses one matrix for the embedding and the output layer."""
    return bool(config.get("tie_word_embeddings", False))


def is_used(name: str) -> bool:
    """Return whether the tensor ``name`` shapes the model; old checkpoints hold some that are computed anew."""
    return not _UNUSED.fullmatch(name)


def why_not_plain(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> str | None:
    """Return what keeps a checkpoint from being a plain, unquantised decoder, or ``None``."""
    for name, tensor in tensors.items():
        if not is_used(name):
            continue
        if tensor.dtype not in FLOATS:
            return f"{name} is stored as {tensor.dtype}"
        matrix = len(tensor.shape) == 2 and (name in (EMBEDDING, HEAD) or _MATRIX.fullmatch(name))
        if not matrix and not (len(tensor.shape) == 1 and _VECTOR.fullmatch(name)):
            return f"{name} is no tensor of a plain decoder"
    if EMBEDDING not in tensors:
        return f"there is no {EMBEDDING}"
    if any(name.endswith("qkv_proj.weight") for name in tensors) and attention_rows(config) is None:
        return "config.json does not say how many attention heads there are"
    return None


def misfits(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Return in words which tensors of a plain decoder are missing, or not of the shape that ``config.json`` says."""
    hidden, intermediate, vocabulary = (config.get(key) for key in ("hidden_size", "intermediate_size", "vocab_size"))
    rows = attention_rows(config)
    if rows is None or not isinstance(intermediate, int) or not isinstance(vocabulary, int):
        return []
    query, key = rows
    expected = {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key, hidden),
        "self_attn.v_proj": (key, hidden),
        "self_attn.qkv_proj": (query + 2 * key, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.gate_up_proj": (2 * intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
    }
    found = []
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        wanted = (vocabulary, hidden) if name in (EMBEDDING, HEAD) else expected.get(".".join(module.split(".")[3:]))
        if wanted is not None and tensor.shape != wanted:
            found.append(f"{name} is {_by(tensor.shape)}, and config.json makes it {_by(wanted)}")
    return found + _missing(config, tensors)


def _missing(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Return in words which tensors are not there: layers, what only some layers have, the norm, the output layer."""
    found = []
    layers = int(config.get("num_hidden_layers") or 0)
    held: list[set[str]] = [set() for _ in range(layers)]
    for name in tensors:
        match = _LAYER.fullmatch(name)
        if match and int(match[1]) < layers and is_used(name):
            held[int(match[1])].add(match[2])
    every = set().union(*held, {"self_attn.o_proj.weight"})
    for whole, pieces in (("self_attn.qkv_proj", "qkv"), ("mlp.gate_up_proj", ("gate", "up"))):
        if f"{whole}.weight" not in every:
            every |= {f"{whole.partition('.')[0]}.{piece}_proj.weight" for piece in pieces}
    for layer, own in enumerate(held):
        if "mlp.down_proj.weight" not in own:
            name = f"model.layers.{layer}.mlp.down_proj.weight"
            found.append(f"there is no {name}, and config.json says num_hidden_layers {layers}")
        else:
            found += [f"there is no model.layers.{layer}.{each}" for each in sorted(every - own)]
    if any("norm" in each for each in every) and "model.norm.weight" not in tensors:
        found.append("there is no model.norm.weight")
    if config.get("tie_word_embeddings") is False and HEAD not in tensors:
        found.append(f"there is no {HEAD}, and config.json says tie_word_embeddings false")
    return found


def _by(shape: Sequence[Any]) -> str:
    return " x ".join(map(str, shape))


def attention_rows(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the output features of the query and of the key projection; ``None`` if ``config.json`` does not say."""
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    if not isinstance(heads, int) or not isinstance(hidden, int):
        return None
    each = config.get("head_dim") or hidden // heads
    return heads * each, (config.get("num_key_value_heads") or heads) * each


def parts(name: str, rows: int, config: Mapping[str, Any]) -> Sequence[tuple[str, int, int]]:
    """Return the modules that the tensor ``name`` of ``rows`` rows holds, each with its first row and its end.

    Phi-3 stores query, key and value as one tensor, and gate and up as one.
    """
    module = name.rsplit(".", 1)[0]
    if module.endswith(".qkv_proj"):
        attention = module.removesuffix("qkv_proj")
        query, key = attention_rows(config) or (rows, 0)
        return [
            (f"{attention}q_proj", 0, query),
            (f"{attention}k_proj", query, query + key),
            (f"{attention}v_proj", query + key, rows),
        ]
    if module.endswith(".gate_up_proj"):
        mlp = module.removesuffix("gate_up_proj")
        return [(f"{mlp}gate_proj", 0, rows // 2), (f"{mlp}up_proj", rows // 2, rows)]
    return [(module, 0, rows)]
