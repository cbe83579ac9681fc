"""The model that is being measured, loaded once for all metrics of one process."""

from __future__ import annotations

import json
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
        UnavailableError: another provider than the CPU was asked for, and not a single node of the graph runs on it.
        OlivineError: see :func:`olivine.models.text.open_text_model`.
    """
    return _open(context.model, context.format, context.target, context.trust_remote_code)


@lru_cache(maxsize=1)
def _open(path: Path, format: Format, target: Accelerator, trust_remote_code: bool) -> Opened:
    from olivine.models.text import open_text_model

    if format in (Format.GENAI, Format.ONNX):
        refuse_fallback(path, target.execution_provider)
    started = time.perf_counter()
    model = open_text_model(path, target, format=format, trust_remote_code=trust_remote_code)
    return Opened(model, time.perf_counter() - started)


def refuse_fallback(path: Path, provider: str) -> None:
    """Run the decoder of a GenAI folder or the graph of an ONNX one once, to see that it runs where it is asked to.

    ONNX Runtime gives the CPU whatever a provider cannot do, all nodes if need be, and GenAI does not say so.

    Raises:
        UnavailableError: not a single node ran on ``provider``.
    """
    from olivine.models.sessions import CPU, known_dimensions, made_up_inputs, onnx_file, open_session, placement

    if provider == CPU:
        return
    settings = path / "genai_config.json"
    config = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    file = onnx_file(path, config.get("model", {}).get("decoder", {}).get("filename"))
    placement(file, provider, made_up_inputs(open_session(file, provider), known_dimensions(path)))
