"""The model that is being measured, loaded once for all metrics of one process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.evaluate.base import MetricContext
from olivine.passes.base import Accelerator, Format

if TYPE_CHECKING:
    from olivine.models.text import TextModel


@dataclass(frozen=True)
class Opened:
    """A loaded model.

    Attributes:
        model: the model.
        seconds: how long loading took, imports included if it was the first to need them.
    """

    model: TextModel
    seconds: float


def opened(context: MetricContext) -> Opened:
    """Return the model of ``context``, loaded on its target.

    Raises:
        OlivineError: see :func:`olivine.models.text.open_text_model`.
    """
    return _open(context.model, context.format, context.target, context.trust_remote_code)


@lru_cache(maxsize=1)
def _open(path: Path, format: Format, target: Accelerator, trust_remote_code: bool) -> Opened:
    from olivine.models.text import open_text_model

    started = time.perf_counter()
    model = open_text_model(path, target, format=format, trust_remote_code=trust_remote_code)
    return Opened(model, time.perf_counter() - started)
