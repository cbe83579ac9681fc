"""The last step of a build: the result is loaded and generates one token, or it does not count as made."""

from __future__ import annotations

from pathlib import Path

from olivine.errors import OlivineError, StepError
from olivine.passes.base import RunContext

LARGE = 1 << 30
"""Bytes of a model from which it is tried with its weights mapped: the kernels would copy them all."""


def try_result(context: RunContext, precision: str, folder: Path) -> None:
    """Load the model in ``folder`` on the target and generate one token.

    Raises:
        StepError: it does not load, does not run, or its logits are not numbers.
    """
    import numpy as np

    from olivine.models.genai import GenaiModel

    context.progress(1, 1, message="trying the result")
    size = sum(file.stat().st_size for file in folder.iterdir())
    try:
        mapped = context.target.device == "cpu" and size >= LARGE
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
