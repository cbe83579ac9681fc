"""A large model cut down to its first layers, over the data file of the whole: what is run before it counts as made.

Running all of a model takes all of its weights into memory, and a minute or more. Its first layers, with its embedding
and output layer, run through the same kernels over the same file.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

SIZE = 1 << 27
"""Bytes of layers that are tried; a model of less than twice that is tried whole."""


def layers_to_try(size: int, layers: int) -> int | None:
    """Return how many of ``layers`` layers of a model of ``size`` bytes are tried; ``None`` for all."""
    return max(1, SIZE * layers // size) if size >= 2 * SIZE and layers > 1 else None


def make_trial(folder: Path, whole: Path, data: Path) -> None:
    """Turn ``folder``, the build of the skeleton's first layers, into a model over ``data``.

    Args:
        folder: what the model builder made; changed in place.
        whole: the ONNX file of the whole model.
        data: its data file; linked into ``folder``.
    """
    import onnx

    (graph_file,) = folder.glob("*.onnx")
    own = f"own-{graph_file.name}.data"
    (folder / f"{graph_file.name}.data").rename(folder / own)
    model = onnx.load(str(graph_file), load_external_data=False)
    complete = onnx.load(str(whole), load_external_data=False)
    tensors = {tensor.name: tensor for tensor in complete.graph.initializer}
    nodes = {node.name: node for node in complete.graph.node}
    for node in model.graph.node:
        real = nodes.get(node.name) or nodes.get(node.name.removesuffix("NBits"))  # as MatMulNBits, or excluded
        if real is None or real.op_type not in ("MatMulNBits", "FusedMatMul", "GatherBlockQuantized"):
            continue
        # Its first input is what the layer before gives, which is another one before the output layer.
        inputs = list(real.input) if real.op_type == "GatherBlockQuantized" else [node.input[0], *real.input[1:]]
        output = list(node.output)
        node.CopyFrom(real)
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(output)
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used and tensor.name not in tensors]
    for tensor in kept:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = own
    values = [value for value in model.graph.value_info if value.name not in tensors]
    del model.graph.initializer[:], model.graph.value_info[:]
    model.graph.initializer.extend([*kept, *(tensor for name, tensor in tensors.items() if name in used)])
    model.graph.value_info.extend(values)
    onnx.save(model, str(graph_file))
    try:
        os.link(data, folder / data.name)
    except OSError:  # another file system, or one without links
        shutil.copyfile(data, folder / data.name)
