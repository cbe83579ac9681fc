"""The last step of a build: the result is loaded and generates one token, or it does not count as made."""

from __future__ import annotations

from pathlib import Path

from olivine.errors import OlivineError, StepError
from olivine.passes.base import RunContext

LARGE = 1 << 30
"""Bytes of a model from which it may be tried with its weights mapped: the kernels would copy them all."""


def try_result(context: RunContext, precision: str, folder: Path) -> None:
    """Load the model in ``folder`` on the target and generate one token.

    Raises:
        StepError: it does not load, does not run, or its logits are not numbers.
    """
    import numpy as np

    from olivine.models.genai import GenaiModel

    context.progress(1, 1, message="trying the result")
    try:
        mapped = context.target.device == "cpu" and takes_less_mapped(folder)
        model = GenaiModel(folder, context.target, mapped=mapped)
        logits, _ = model.step([model.bos_id if model.bos_id is not None else 0])
    except OlivineError as error:
        raise StepError(
            f"the model was built and does not run: {error.problems[0].what}",
            why=error.problems[0].why,
            remedy="choose another precision or algorithm; nothing was kept",
        ) from error
    except Exception as error:  # whatever the runtime raises
        said = " ".join(str(error).split())[:400]
        raise StepError(
            f"the model was built and does not run: {said}",
            remedy="choose another precision or algorithm; nothing was kept",
        ) from error
    if not np.isfinite(logits).all():
        raise StepError(
            "the model was built and its outputs are not numbers",
            why=f"precision {precision} may be too narrow for its weights",
            remedy="use bf16 or fp32, or int4 with use_cuda_bf16; nothing was kept",
        )


def takes_less_mapped(folder: Path) -> bool:
    """Return whether a large model takes less memory mapped, though quantised matrices are then widened to be used."""
    weights = _weights(folder)
    return weights >= LARGE and weights >= _widened(folder)


def _widened(folder: Path) -> int:
    """Return the bytes of the largest quantised matrix in float32: kernels make one of each that was not copied."""
    import onnx

    largest = 0
    for file in folder.glob("*.onnx"):
        for node in onnx.load(str(file), load_external_data=False).graph.node:
            if node.op_type == "MatMulNBits":
                shape = {each.name: each.i for each in node.attribute if each.name in ("K", "N")}
                largest = max(largest, 4 * shape["K"] * shape["N"])
    return largest


def _weights(folder: Path) -> int:
    """Return the bytes of weights that the graphs in ``folder`` use: a trial uses few of those in its data file."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    total = 0
    for file in folder.glob("*.onnx"):
        total += file.stat().st_size
        for tensor in onnx.load(str(file), load_external_data=False).graph.initializer:
            if uses_external_data(tensor):
                total += ExternalDataInfo(tensor).length or 0
    return total
