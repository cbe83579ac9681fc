"""Matrices that the runtime multiplies at once are stored alike: which ones, and how they may be stored.

Importable without numpy, so that a plan can say what fits from shapes alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from olivine.models.decoder import EMBEDDING, HEAD
from olivine.quant.scheme import Scheme

Role = Literal["linear", "head", "embedding", "tied"]

LINEAR = (
    *(Scheme(2, group, symmetric=False) for group in (16, 32, 64)),
    *(Scheme(4, group, symmetric) for group in (16, 32, 64, 128) for symmetric in (True, False)),
    *(Scheme(8, group, symmetric=True) for group in (32, 128)),
)
"""What a layer's matrices may be stored as. Two bits only with zero points, whose four levels are too few to waste;
eight only without, for there is nothing left to gain."""

EMBEDDINGS = tuple(scheme for scheme in LINEAR if scheme.bits > 2)
"""What embedding and output layer may be stored as: a row of the one, a column of the other, is a word by itself."""

_JOINED = (("self_attn", ("q_proj", "k_proj", "v_proj"), "qkv_proj"), ("mlp", ("gate_proj", "up_proj"), "gate_up_proj"))


@dataclass(frozen=True)
class FusedGroup:
    """Matrices that are stored alike.

    Attributes:
        name: the fused module (``model.layers.0.self_attn.qkv_proj``), whether the checkpoint fuses it or not.
        tensors: their tensors in the checkpoint.
        rows: output features, all tensors together.
        width: input features.
        role: what it is in the model; ``tied``: embedding and output layer in one.
    """

    name: str
    tensors: tuple[str, ...]
    rows: int
    width: int
    role: Role = "linear"

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.rows * self.width

    def stored_bytes(self, scheme: Scheme | None, scale_bytes: int) -> int:
        """Return what it takes in ONNX Runtime's layout; unquantised, it takes ``scale_bytes`` per weight."""
        if scheme is None:
            return self.weights * scale_bytes
        return scheme.stored_bytes(self.rows, self.width, scale_bytes)


def fused_groups(
    config: Mapping[str, Any], modules: Mapping[str, Sequence[int]], *, tied: bool | None = None
) -> list[FusedGroup]:
    """Return the groups of a plain decoder, embedding first, output layer last.

    Args:
        config: the checkpoint's ``config.json``.
        modules: shapes of its matrices by module name.
        tied: whether embedding and output layer share their weights in the result; default: as in the checkpoint.
    """
    found: dict[str, list[str]] = {}
    for module in modules:
        found.setdefault(_fused_name(module), []).append(module)
    embedding, head = EMBEDDING.removesuffix(".weight"), HEAD.removesuffix(".weight")
    shares = head not in modules or bool(config.get("tie_word_embeddings"))
    shared = shares if tied is None else tied
    groups: list[FusedGroup] = []
    for name, members in found.items():
        if name in (embedding, head):
            continue
        rows = sum(modules[each][0] for each in members)
        groups.append(FusedGroup(name, tuple(f"{each}.weight" for each in members), rows, modules[members[0]][1]))
    groups.sort(key=lambda group: _place(group.name))
    if embedding not in modules:
        return groups
    rows, width = modules[embedding]
    if shared:
        return [*groups, FusedGroup(head, (EMBEDDING,), rows, width, "tied")]
    source = HEAD if head in modules else EMBEDDING
    first = FusedGroup(embedding, (EMBEDDING,), rows, width, "embedding")
    return [first, *groups, FusedGroup(head, (source,), rows, width, "head")]


def options_of(
    group: FusedGroup,
    *,
    float_embedding: bool = True,
    quantised_embedding: bool = True,
    bits: Sequence[int] = (2, 4, 8),
) -> list[Scheme | None]:
    """Return the ways to store a group that the runtime has kernels for.

    Args:
        group: the group.
        float_embedding: whether the embedding may stay as it is, which is ``None`` in the result.
        quantised_embedding: whether the target can look up rows of quantised embeddings.
        bits: widths to consider.
    """
    schemes = LINEAR if group.role == "linear" else EMBEDDINGS
    fitting = [each for each in schemes if group.width % each.group_size == 0 and each.bits in bits]
    if group.role == "embedding":
        quantised = fitting if quantised_embedding else []
        return [*quantised, None] if float_embedding or not quantised else [*quantised]
    return list(fitting) or [Scheme(each, 16, symmetric=True) for each in (4, 8) if each in bits]


def _fused_name(module: str) -> str:
    """Return the fused module that ``module`` is a part of."""
    parent, _, last = module.rpartition(".")
    for where, parts, fused in _JOINED:
        if parent.endswith(where) and last in parts:
            return f"{parent}.{fused}"
    return module


def _place(name: str) -> tuple[int, int]:
    """Return the layer of a module and its place there."""
    order = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    parts = name.split(".")
    layer = int(parts[2]) if len(parts) > 2 and parts[2].isdigit() else -1
    return layer, order.index(parts[-1]) if parts[-1] in order else len(order)
