"""Which matrices the graph of a plain decoder will have, and where they go, before there is a graph.

Building the graph takes some seconds, most of them for importing the model builder; the weights can be rounded
meanwhile. Only such matrices are foreseen as no builder was seen to join with others: the output projection of
attention and the feed-forward ones, three quarters of most models. Whether the graph really has them is compared when
it is there, in :func:`.attaching.attach`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from olivine.models.checkpoint import TensorInfo
from olivine.models.decoder import parts
from olivine.passes.convert.attaching import Choose, Layout
from olivine.quant.streaming import Matrix, Region, Slice

_ALONE = re.compile(r"model\.(layers\.\d+)\.(?:self_(attn)\.(o_proj)|(mlp)\.((?:gate|up|down)_proj))")


def foresee(
    tensors: Mapping[str, TensorInfo],
    config: Mapping[str, Any],
    choose: Choose,
    scale_type: Literal["float32", "float16"],
) -> tuple[Matrix, ...]:
    """Return the matrices that the graph will have for sure, those that are rounded, each with its place.

    Args:
        tensors: of the checkpoint, a plain decoder.
        config: its configuration.
        choose: says how each is stored.
        scale_type: of the graph.
    """
    layout = Layout()
    found = []
    for tensor, info in tensors.items():
        if len(info.shape) != 2 or not tensor.endswith(".weight"):
            continue
        rows, width = info.shape
        for module, start, stop in parts(tensor, rows, config):
            name = node_name(module)
            if name is None:
                continue
            choice = choose(name, width, (tensor,))
            scheme = choice.scheme
            if scheme is None or choice.method is None or scheme.why_no_kernel(width):
                continue
            slices = (Slice(tensor, start, stop),)
            found.append(layout.place(Matrix(name, slices, width, scheme, choice.method, scale_type, Region(0))))
    return tuple(found)


def node_name(module: str) -> str | None:
    """Return what the model builder calls the product with ``module``, if it is one that it does not join."""
    match = _ALONE.fullmatch(module)
    return f"/model/{match[1]}/{match[2] or match[4]}/{match[3] or match[5]}" if match else None
