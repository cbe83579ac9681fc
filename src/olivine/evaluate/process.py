"""Measure a model in a fresh process, so that nothing that ran before shares its memory or warms its caches."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from olivine.config.schema import DataConfig
from olivine.passes.base import Accelerator, Format

Report = Callable[[str, dict[str, Any]], None]


def measure_in_fresh_process(
    model: Path,
    format: Format,
    metrics: Sequence[Mapping[str, Any]],
    data: Mapping[str, DataConfig],
    target: Accelerator,
    *,
    log_path: Path | None = None,
    report: Report | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Measure ``model`` and return the values of each metric by its name, and ``peak_memory_bytes`` and ``seconds``.

    Args:
        metrics: as for :func:`olivine.evaluate.measuring.measure_all`.
        data: the data configs by ``"{index}.{parameter}"``, paths absolute.
        log_path: file for what the libraries print; kept only on failure if it is not given.
        report: receives progress and notes.

    Raises:
        OlivineError: the measuring failed; the problems say why.
    """
    from olivine.systems.base import StepRequest
    from olivine.systems.local import LocalRunner

    scratch = Path(tempfile.mkdtemp(prefix="olivine-evaluate-"))
    log = log_path or scratch / "log.txt"
    place = {"device": target.device, "execution_provider": target.execution_provider}
    request = StepRequest(
        name=f"measuring {model}",
        kind="evaluate",
        type="evaluate",
        params={"metrics": [dict(each) for each in metrics]},
        inputs={"model": str(model.absolute())},
        input_format=str(format),
        data={key: config.model_dump(mode="json") for key, config in data.items()},
        output=str(scratch),
        checkpoint=str(scratch),
        log=str(log),
        host=place,
        target=place,
        trust_remote_code=trust_remote_code,
    )
    with LocalRunner(log) as runner:
        answer = runner.run(request, report or (lambda kind, data: None), fresh=True)
    shutil.rmtree(scratch, ignore_errors=True)
    return {**answer.metrics, "peak_memory_bytes": answer.peak_memory, "seconds": answer.seconds}
