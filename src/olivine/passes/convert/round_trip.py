"""Every quantised matrix of a built model through the runtime: what it computes with is what was rounded.

A model whose rows lie at the wrong place, or whose zero points are split wrongly, loads, runs and gives numbers. So a
few rows of each matrix, where a slice of the checkpoint begins, are taken from the data file as the graph says, and the
runtime multiplies unit vectors with them. The products are the weights themselves, and have to equal, bit for bit, the
rows of the checkpoint rounded once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from olivine.errors import StepError
from olivine.quant.kernels import encode
from olivine.quant.packing import unpack
from olivine.quant.reading import TensorReader
from olivine.quant.scheme import Scheme
from olivine.quant.streaming import Matrix, Slice, stored_scales

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

    from olivine.quant.stored.reading import QuantizedCheckpointReader

ROWS = 8
"""Rows that are compared where a slice begins."""

SLICES = 4
"""Slices of a matrix that are looked at; query, key and value are three."""

COLUMNS = 64
"""Input features that are compared, spread over all of them."""

TORCH_SUMS = 0.02
"""Relative distance that is allowed to ``hqq``: torch may add the few rows in another order than a whole tile."""

Products = Callable[[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8] | None], NDArray[np.float32]]


def check_round_trip(
    graph_file: Path, matrices: Sequence[Matrix], reader: TensorReader, quantised: QuantizedCheckpointReader | None
) -> int:
    """Compare what the runtime computes with what was rounded; return the number of matrices that were compared.

    Args:
        graph_file: the built model, its data file beside it.
        matrices: what was streamed into it.
        reader: the checkpoint.
        quantised: the same checkpoint, if it is quantised.

    Raises:
        StepError: a matrix is not the one that was rounded.
    """
    import onnx

    graph = onnx.load(str(graph_file), load_external_data=False).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    by_name = {matrix.name: matrix for matrix in matrices}
    compared = 0
    for node in graph.node:
        if node.op_type not in ("MatMulNBits", "GatherBlockQuantized"):
            continue
        matrix = by_name.get(node.name.rpartition("/")[0])
        if matrix is None or matrix.scheme is None:
            continue  # an embedding that shares the data of the output layer, which is compared there
        values = {attribute.name: attribute.i for attribute in node.attribute}
        places = [tensors[name] for name in (node.input[1:4] if node.op_type == "MatMulNBits" else _table(node.input))]
        for part, first in _starts(matrix):
            expected = _rounded(matrix, part, reader, quantised)
            stored = [_rows(graph_file.parent, tensor, matrix.rows, first, part.rows) for tensor in places]
            products = _products(node.op_type, part.rows, matrix.width, values["bits"], values["block_size"])
            columns = _columns(matrix.width)
            found = products(stored[0], stored[1].astype(np.float32), stored[2] if len(stored) > 2 else None)
            _compare(matrix, part, found, expected[:, columns])
        compared += 1
    return compared


def _table(inputs: Sequence[str]) -> list[str]:
    """Return codes, scales and zero points among the inputs of GatherBlockQuantized; its second says which rows."""
    return [inputs[0], *inputs[2:4]]


def _starts(matrix: Matrix) -> list[tuple[Slice, int]]:
    """Return the first rows of some slices, and of the last rows those at the end; each with its row in the matrix."""
    found = []
    first = 0
    for each in matrix.slices:
        found.append((Slice(each.tensor, each.start, min(each.stop, each.start + ROWS)), first))
        first += each.rows
    last = matrix.slices[-1]
    end = Slice(last.tensor, max(last.start, last.stop - ROWS), last.stop)
    return [*found[:SLICES], (end, matrix.rows - end.rows)]


def _columns(width: int) -> NDArray[np.int64]:
    """Return the input features that are compared: some in every part, the first and the last among them."""
    return np.unique(np.linspace(0, width - 1, min(width, COLUMNS)).round().astype(np.int64))


def _rounded(
    matrix: Matrix, part: Slice, reader: TensorReader, quantised: QuantizedCheckpointReader | None
) -> NDArray[np.float32]:
    """Return ``part`` of ``matrix`` as it has to be: what the checkpoint holds, rounded if it was not."""
    scheme = matrix.scheme
    assert scheme is not None
    if matrix.method is None and quantised is not None:
        before = part.start % 32
        held = quantised.read_rounded(part.tensor.removesuffix(".weight"), part.start - before, part.stop)
        dequantised: NDArray[np.float32] = held.dequantise().numpy()[before:]
        return dequantised
    assert matrix.method is not None
    values = reader.read_rows(part.tensor, part.start, part.stop)
    scales, zeros = stored_scales(values, scheme, matrix.method, matrix.scale_type)
    packed, _, _ = encode(values, scheme, scales, zeros)
    return dequantise(packed, scales, zeros, scheme, matrix.width)


def dequantise(
    packed: NDArray[np.uint8], scales: NDArray[np.float32], zeros: NDArray[np.uint8], scheme: Scheme, width: int
) -> NDArray[np.float32]:
    """Return the weights ``(N, K)`` that packed codes, scales ``(N, groups)`` and zero points ``(N, groups)`` mean."""
    rows, groups = scales.shape
    codes = unpack(packed, scheme.bits, groups * scheme.group(width)).reshape(rows, groups, -1).astype(np.float32)
    weights = (codes - zeros.astype(np.float32)[..., None]) * scales[..., None]
    return weights.reshape(rows, -1)[:, :width]


def _rows(folder: Path, tensor: TensorProto, rows: int, first: int, count: int) -> NDArray[Any]:
    """Return ``count`` rows from ``first`` of a tensor that has ``rows`` of them, as the graph says where they are."""
    from onnx import helper

    place = {entry.key: entry.value for entry in tensor.external_data}
    row_bytes = int(place["length"]) // rows
    with open(folder / place["location"], "rb") as stream:
        stream.seek(int(place["offset"]) + first * row_bytes)
        raw = np.frombuffer(stream.read(count * row_bytes), np.uint8)
    values: NDArray[Any] = raw.view(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    return values.reshape(count, -1)


@lru_cache(maxsize=64)
def _products(op_type: str, rows: int, width: int, bits: int, group: int) -> Products:
    """Return what has the runtime compute ``rows`` rows of ``width`` weights, at the columns of :func:`_columns`."""
    groups = -(-width // group)
    columns = _columns(width)
    sessions: dict[bool, Any] = {}
    units = np.zeros((len(columns), width), np.float32)
    units[np.arange(len(columns)), columns] = 1

    def products(
        packed: NDArray[np.uint8], scales: NDArray[np.float32], zeros: NDArray[np.uint8] | None
    ) -> NDArray[np.float32]:
        given: dict[str, Any] = {"scales": scales}
        if op_type == "MatMulNBits":
            given |= {"A": units, "B": packed.reshape(rows, groups, -1), "scales": scales.reshape(-1)}
            order = ["A", "B", "scales"]
        else:
            given |= {"B": packed, "rows": np.arange(rows, dtype=np.int64)}
            order = ["B", "rows", "scales"]
        if zeros is not None:
            given["zeros"] = zeros.reshape(-1) if op_type == "MatMulNBits" else zeros
            order.append("zeros")
        with_zeros = zeros is not None
        if with_zeros not in sessions:
            sessions[with_zeros] = _session(_one_node(op_type, rows, width, bits, group, order, given))
        (result,) = sessions[with_zeros].run(None, given)
        found: NDArray[np.float32] = result.T if op_type == "MatMulNBits" else result[:, columns]
        return found

    return products


def _one_node(
    op_type: str, rows: int, width: int, bits: int, group: int, order: Sequence[str], given: Mapping[str, NDArray[Any]]
) -> ModelProto:
    """Return a model of the one node, its weights among its inputs."""
    from onnx import TensorProto, helper

    own = (
        {"K": width, "N": rows, "bits": bits, "block_size": group, "accuracy_level": 1}
        if op_type == "MatMulNBits"
        else {"bits": bits, "block_size": group, "gather_axis": 0, "quantize_axis": 1}
    )
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(given[name].dtype), given[name].shape)
        for name in order
    ]
    output = helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)
    node = helper.make_node(op_type, list(order), ["Y"], domain="com.microsoft", **own)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph([node], "one", inputs, [output]), opset_imports=opsets, ir_version=10)


def _session(model: ModelProto) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _compare(matrix: Matrix, part: Slice, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Raise if the runtime computes with other weights than those that were rounded."""
    distance = float(np.linalg.norm(found - expected))
    limit = TORCH_SUMS * float(np.linalg.norm(expected)) if matrix.method == "hqq" else 0.0
    if not distance <= limit:
        raise StepError(
            f"the runtime does not compute with the weights of {matrix.name} as they were rounded",
            why=f"rows {part.start} to {part.stop} of {part.tensor} come out {distance:.3g} apart",
            remedy="this is an error in Olivine, or a version of onnxruntime that it was not seen with: please report "
            "it; nothing was kept",
        )
