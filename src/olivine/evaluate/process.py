"""Measure a model in a fresh process, so that nothing that ran before shares its memory or warms its caches."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.config.schema import DataConfig
from olivine.passes.base import Accelerator, Format

if TYPE_CHECKING:
    from olivine.systems.base import Runner, StepRequest

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
    reference: tuple[Path, Format] | None = None,
) -> dict[str, Any]:
    """Measure ``model`` and return the values of each metric by its name, and ``peak_memory_bytes`` and ``seconds``.

    Args:
        metrics: as for :func:`olivine.evaluate.measuring.measure_all`.
        data: the data configs by ``"{index}.{parameter}"``, paths absolute.
        log_path: file for what the libraries print; kept only on failure if it is not given.
        report: receives progress and notes.
        reference: the unquantised model and its format, for metrics that compare with it.

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
    told = report or (lambda kind, data: None)
    with LocalRunner(log) as runner:
        if reference is not None:
            request = _with_recordings(runner, request, reference, scratch, told)
        answer = runner.run(request, told, fresh=True)
    shutil.rmtree(scratch, ignore_errors=True)
    return {**answer.metrics, "peak_memory_bytes": answer.peak_memory, "seconds": answer.seconds}


def _with_recordings(
    runner: Runner, request: StepRequest, reference: tuple[Path, Format], scratch: Path, report: Report
) -> StepRequest:
    """Record the reference model for every metric that compares with it, and return the request with the recordings."""
    from dataclasses import replace

    from olivine.evaluate import registry
    from olivine.evaluate.base import RECORDING

    inputs = dict(request.inputs)
    for each in request.params["metrics"]:
        metric_type = registry.find(each["type"])
        if metric_type is None or not metric_type.compares:
            continue
        folder = scratch / f"{RECORDING}{each['index']}"
        folder.mkdir()
        own = str(each["index"])
        wanted = replace(
            request,
            name=f"recording {reference[0]}",
            type="record",
            params={"metrics": [each | {"index": 0}]},
            inputs={"model": str(reference[0].absolute())},
            input_format=str(reference[1]),
            data={
                f"0.{key.partition('.')[2]}": value
                for key, value in request.data.items()
                if key.partition(".")[0] == own
            },
            output=str(folder),
        )
        runner.run(wanted, report, fresh=True)
        inputs[f"{RECORDING}{own}"] = str(folder)
    return replace(request, inputs=inputs)
