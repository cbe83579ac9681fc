"""From the graph of a skeleton to the graph of the model: shapes and attributes set, data laid out, nothing loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from olivine.errors import ModelError
from olivine.models.checkpoint import TensorInfo
from olivine.models.decoder import EMBEDDING
from olivine.passes.convert.skeleton import MARK, Skeleton
from olivine.quant.scheme import Rounding, Scheme
from olivine.quant.streaming import Matrix, Region, Slice

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

ALIGNMENT = 4096
"""Bytes: a page, so that the runtime can map each tensor by itself."""

DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class Choice:
    """How one matrix is to be stored.

    Attributes:
        scheme: ``None`` leaves it in the graph's float type.
        method: how it is rounded; ``None`` if the checkpoint holds it rounded.
    """

    scheme: Scheme | None
    method: Rounding | None = "search"


Choose = Callable[[str, int, tuple[str, ...]], Choice]
"""Called with a node's name (``/model/layers.0/mlp/down_proj``, ``/lm_head``, ``/model/embed_tokens``), its input
features ``K``, and the tensors whose rows it has; says how they are stored."""


@dataclass(frozen=True)
class Attached:
    """A graph whose data is still to be written.

    Attributes:
        model: the graph, every large tensor external.
        matrices: what to stream into the data file.
        size: bytes of the data file.
        copied: what to copy from the skeleton's data file: (place there, bytes, place in the new file).
        as_foreseen: whether all that was foreseen is among ``matrices``.
    """

    model: ModelProto
    matrices: tuple[Matrix, ...]
    size: int
    copied: tuple[tuple[int, int, int], ...]
    as_foreseen: bool


class Layout:
    """Hands out aligned places in the data file.

    Args:
        foreseen: matrices that have theirs already.

    Attributes:
        size: bytes of the file so far.
        foreseen: those that nobody has asked for so far, by name.
    """

    def __init__(self, foreseen: Sequence[Matrix] = ()) -> None:
        self.foreseen = {matrix.name: matrix for matrix in foreseen}
        self.size = max((matrix.end for matrix in foreseen), default=0)

    def take(self, count: int) -> int:
        place = -(-self.size // ALIGNMENT) * ALIGNMENT if count >= ALIGNMENT else -(-self.size // 64) * 64
        self.size = place + count
        return place

    def place(self, matrix: Matrix) -> Matrix:
        """Return ``matrix``, which is rounded, with its place: that which was foreseen, if it was."""
        known = self.foreseen.get(matrix.name)
        if known is not None and replace(known, region=matrix.region) == matrix:
            return self.foreseen.pop(matrix.name)
        codes, scales, zeros = matrix.sizes
        region = Region(self.take(codes), self.take(scales), self.take(zeros) if zeros else None)
        return replace(matrix, region=region)


def attach(
    graph_file: Path,
    data_name: str,
    skeleton: Skeleton,
    tensors: Mapping[str, TensorInfo],
    choose: Choose,
    *,
    tied: bool,
    foreseen: Sequence[Matrix] = (),
) -> Attached:
    """Plan the real model on the graph that was built of its skeleton.

    Args:
        graph_file: the skeleton's ONNX model; its data file lies beside it and is read.
        data_name: name of the data file that the new graph refers to.
        skeleton: what its marks mean.
        tensors: those of the real checkpoint, as they would be if it were not quantised.
        choose: see :data:`Choose`.
        tied: whether embedding and output layer share their data, where both are quantised alike.
        foreseen: matrices that have their places already.

    Raises:
        ModelError: the runtime has no kernel for what was chosen.
        ValueError: the graph is not as the builder was seen to build it.
    """
    import onnx

    model = onnx.load(str(graph_file), load_external_data=False)
    graph = model.graph
    layout = Layout(foreseen)
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    before = list(_external(graph))
    data = np.memmap(graph_file.with_name(f"{graph_file.name}.data"), np.uint8, "r")
    matrices: list[Matrix] = []
    replaced: set[str] = set()
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            matrix, names = _attach_matmul(node, initializers, data, skeleton, tensors, choose, layout, data_name)
            matrices.append(matrix)
            replaced |= names
    gather = next((node for node in graph.node if node.op_type == "Gather" and EMBEDDING in node.input), None)
    if gather is not None:
        head = next((each for each in matrices if each.name == "/lm_head"), None) if tied else None
        matrices += _attach_embedding(gather, graph, initializers, tensors, choose, layout, data_name, head)
        replaced.add(EMBEDDING)
    copied = []
    for tensor in before:
        if tensor.name in replaced:
            continue
        offset, length = _place(tensor)
        place = layout.take(length)
        copied.append((offset, length, place))
        _refer(tensor, data_name, place, length)
    _forget_unused(graph)
    return Attached(model, tuple(matrices), layout.size, tuple(copied), not layout.foreseen)


def _attach_matmul(
    node: NodeProto,
    initializers: Mapping[str, TensorProto],
    data: Any,
    skeleton: Skeleton,
    tensors: Mapping[str, TensorInfo],
    choose: Choose,
    layout: Layout,
    data_name: str,
) -> tuple[Matrix, set[str]]:
    """Give ``node`` the real weights."""
    codes, scales, zeros = (initializers[name] for name in node.input[1:4])
    offset, length = _place(codes)
    slices = skeleton.slices(data[offset : offset + length].reshape(-1, MARK))
    width = tensors[slices[0].tensor].shape[1]
    name = node.name.removesuffix("/MatMulNBits")
    names = {codes.name, scales.name, zeros.name}
    choice = choose(name, width, tuple(dict.fromkeys(each.tensor for each in slices)))
    scheme = choice.scheme
    matrix = Matrix(name, slices, width, scheme, choice.method, _float_name(scales), Region(0))
    if scheme is None:
        return _attach_floats(node, codes, scales.data_type, matrix, layout, data_name), names
    if reason := scheme.why_no_kernel(width):
        raise ModelError(f"{name} cannot be built: {reason}", remedy="give it another group_size, or 4 bits")
    matrix = layout.place(matrix)
    region, (code_bytes, scale_bytes, zero_bytes) = matrix.region, matrix.sizes
    rows, groups, group = matrix.rows, scheme.groups(width), scheme.group(width)
    _resize(codes, [rows, groups, group * scheme.bits // 8], data_name, region.codes, code_bytes)
    _resize(scales, [rows * groups], data_name, region.scales, scale_bytes)
    _set_attributes(node, K=width, N=rows, bits=scheme.bits, block_size=group)
    if region.zeros is None:
        del node.input[3:]
    else:
        _resize(zeros, [zero_bytes], data_name, region.zeros, zero_bytes)
        del node.input[4:]
    return matrix, names


def _attach_floats(
    node: NodeProto, weight: TensorProto, data_type: int, matrix: Matrix, layout: Layout, data_name: str
) -> Matrix:
    """Have ``node`` multiply with weights as they are, rows as the checkpoint has them: ``A`` times ``B^T``."""
    place = layout.take(matrix.bytes)
    weight.data_type = data_type
    _resize(weight, [matrix.rows, matrix.width], data_name, place, matrix.bytes)
    node.op_type = "FusedMatMul"
    node.name = f"{matrix.name}/MatMul"
    del node.input[2:], node.attribute[:]
    _set_attributes(node, transB=1)
    return replace(matrix, region=Region(place))


def _attach_embedding(
    node: NodeProto,
    graph: GraphProto,
    initializers: Mapping[str, TensorProto],
    tensors: Mapping[str, TensorInfo],
    choose: Choose,
    layout: Layout,
    data_name: str,
    head: Matrix | None,
) -> list[Matrix]:
    """Give the embedding its rows; return what is to be streamed: nothing, if they are the output layer's."""
    from onnx import TensorProto

    table = initializers[EMBEDDING]
    rows, width = tensors[EMBEDDING].shape
    slices = (Slice(EMBEDDING, 0, rows),)
    choice = choose("/model/embed_tokens", width, (EMBEDDING,))
    scheme, float_name = choice.scheme, _float_name(table)
    float_type = table.data_type
    matrix = Matrix("/model/embed_tokens", slices, width, scheme, choice.method, float_name, Region(0))
    if scheme is None:
        place = layout.take(matrix.bytes)
        _resize(table, [rows, width], data_name, place, matrix.bytes)
        return [replace(matrix, region=Region(place))]
    group, groups = scheme.group(width), scheme.groups(width)
    if width % group:
        raise ValueError(f"rows of {width} do not divide into groups of {group}, which the embedding needs")
    shared = head if head is not None and (head.slices, head.scheme) == (slices, scheme) else None
    if shared is None:
        matrix = layout.place(matrix)
    region, (code_bytes, scale_bytes, zero_bytes) = (shared or matrix).region, matrix.sizes
    table.data_type = TensorProto.UINT8
    _resize(table, [rows, code_bytes // rows], data_name, region.codes, code_bytes)
    inputs = [EMBEDDING, node.input[1], "model.embed_tokens.scales"]
    scales = graph.initializer.add(name=inputs[2], data_type=float_type)
    _resize(scales, [rows, groups], data_name, region.scales, scale_bytes)
    if region.zeros is not None:
        inputs.append("model.embed_tokens.zeros")
        zeros = graph.initializer.add(name=inputs[3], data_type=TensorProto.UINT8)
        _resize(zeros, [rows, zero_bytes // rows], data_name, region.zeros, zero_bytes)
    node.op_type, node.domain = "GatherBlockQuantized", DOMAIN
    del node.input[:], node.attribute[:]
    node.input.extend(inputs)
    _set_attributes(node, bits=scheme.bits, block_size=group, gather_axis=0, quantize_axis=1)
    return [matrix] if shared is None else []


def _set_attributes(node: NodeProto, **values: int) -> None:
    from onnx import helper

    kept = [attribute for attribute in node.attribute if attribute.name not in values]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in values.items())])


def _resize(tensor: TensorProto, shape: list[int], data_name: str, place: int, length: int) -> None:
    del tensor.dims[:]
    tensor.dims.extend(shape)
    _refer(tensor, data_name, place, length)


def _refer(tensor: TensorProto, data_name: str, place: int, length: int) -> None:
    """Say that the data of ``tensor`` is at ``place`` of the data file."""
    from onnx import TensorProto

    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", data_name), ("offset", place), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _place(tensor: TensorProto) -> tuple[int, int]:
    """Return the offset and the length of external data."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return int(entries.get("offset", 0)), int(entries["length"])


def _external(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield every external tensor of ``graph`` and of the graphs in its nodes."""
    from onnx import TensorProto

    for tensor in graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.data_location == TensorProto.EXTERNAL:
                yield attribute.t
            for inner in (attribute.g, *attribute.graphs):
                yield from _external(inner)


def _float_name(tensor: TensorProto) -> Literal["float32", "float16"]:
    from onnx import TensorProto

    names: dict[int, Literal["float32", "float16"]] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
    found = names.get(tensor.data_type)
    if found is None:
        raise ValueError(f"{tensor.name} is neither float32 nor float16")
    return found


def _forget_unused(graph: GraphProto) -> None:
    """Drop initializers that no node takes any more, and the shapes that the skeleton's values had."""
    used = {name for node in graph.node for name in node.input}
    names = {tensor.name for tensor in graph.initializer}
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    values = [value for value in graph.value_info if value.name not in names]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(initializers)
    graph.value_info.extend(values)
