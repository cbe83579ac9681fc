"""The record of a run: one JSON object with everything that the report, comparisons and trackers show.

It is kept in the run's folder (``record.json``), also when the run failed, and inside ``report.html``.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine import __version__
from olivine.engine.values import values_of
from olivine.hardware.machine import this_machine

if TYPE_CHECKING:
    from olivine.engine.result import StepResult
    from olivine.evaluate.goals import Verdict
    from olivine.planning.plan import Plan, PlannedStep
    from olivine.store import Artifact

RECORD = "record.json"
VERSION = 1
"""Raised when the object's shape changes so that older readers would err."""


def make_record(
    plan: Plan,
    results: Sequence[StepResult],
    artifacts: Mapping[str, Artifact],
    *,
    state: str,
    seconds: float,
    size: int = 0,
    reason: str = "",
    failed: str = "",
    goals: Sequence[Verdict] = (),
    search: Mapping[str, Any] | None = None,
    run: str = "",
) -> dict[str, Any]:
    """Return the record of a run that has ended.

    Args:
        results: the Steps that were done.
        artifacts: their results by digest.
        state: ``succeeded``, ``goals missed``, ``failed`` or ``interrupted``.
        seconds: wall time of the run.
        size: bytes of the final model.
        reason: why it failed, as the user was told.
        failed: name of the Step that failed.
        goals: the verdict on each goal.
        search: what the search found, if there was one.
        run: name of the run's folder.
    """
    from olivine.config.writing import dump
    from olivine.redaction import redacted

    done = {result.name: result for result in results}
    models = _models(plan, artifacts)
    record = {
        "record": VERSION,
        "olivine": __version__,
        "run": run,
        "state": state,
        "reason": reason,
        "failed": failed,
        "ended": round(time.time(), 3),
        "seconds": round(seconds, 3),
        "workflow_id": plan.workflow.workflow_id,
        "file": str(plan.file) if plan.file is not None else None,
        "model": plan.workflow.input_model.model_path,
        "output_dir": str(plan.output_dir),
        "format": str(plan.final_format),
        "size_bytes": size,
        "steps": [
            _step(planned, done.get(planned.name), artifacts.get(planned.digest), planned.name == failed)
            for planned in plan.steps
        ],
        "values": _described(models),
        "models": [
            {key: item for key, item in model.items() if key != "found"}
            | {"values": {value.key: value.value for value in model["found"]}}
            for model in models
        ],
        "goals": [verdict.as_json() for verdict in goals],
        "search": search,
        "notes": list(plan.notes),
        "environment": _environment(plan),
        "workflow": dump(plan.workflow),
    }
    found: dict[str, Any] = redacted(record)
    return found


def keep_record(record: Mapping[str, Any], run_dir: Path) -> None:
    """Write a record into the run's folder, if the run has one (a run that found everything in the cache has none)."""
    if run_dir.is_dir():
        text = json.dumps(record, ensure_ascii=False, indent=1)
        partial = run_dir / f".{RECORD}.part"
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(run_dir / RECORD)


def _step(planned: PlannedStep, result: StepResult | None, artifact: Artifact | None, failed: bool) -> dict[str, Any]:
    step = planned.step
    found: dict[str, Any] = {
        "name": planned.name,
        "kind": step.kind,
        "type": step.type,
        "digest": planned.digest,
        "state": "failed" if failed else "pending" if result is None else "cached" if result.cached else "done",
        "consumes": str(planned.consumes),
        "produces": str(planned.produces),
        "device": planned.host.device,
        "target": planned.target.execution_provider,
        "params": dict(step.params),
        "data": {
            name: {"rows": survey.rows, "files": [file.name for file in survey.files]}
            for name, survey in planned.surveys.items()
        },
        "notes": list(planned.notes),
        "seconds": None,
        "peak_memory_bytes": None,
        "metrics": {},
        "attributes": {},
        "history": [],
    }
    if result is not None:
        found |= {"seconds": result.seconds, "peak_memory_bytes": result.peak_memory, "metrics": result.metrics}
    if artifact is not None:
        found |= {
            "attributes": dict(artifact.manifest.attributes),
            "history": [dict(row) for row in artifact.manifest.history],
            "size_bytes": artifact.size,
        }
    return found


def _models(plan: Plan, artifacts: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Return every model that was measured, in order: name, role, values, and what its metrics reported in full."""
    ends = {"input": plan.evaluation("input"), "final": plan.evaluation("final")}
    roles = {step.name: role for role, step in ends.items() if step is not None}
    models = []
    for planned in plan.steps:
        artifact = artifacts.get(planned.digest)
        if planned.step.kind != "evaluate" or artifact is None:
            continue
        measured = artifact.manifest.metrics
        models.append(
            {
                "name": planned.name.removeprefix("evaluate "),
                "role": roles.get(planned.name, "between"),
                "format": str(planned.consumes),
                "found": list(values_of(planned, measured)),
                "measured": dict(measured),
            }
        )
    return models


def _described(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is known of each value, by its key."""
    return {
        value.key: {
            "metric": value.metric,
            "unit": value.unit,
            "higher_is_better": value.higher_is_better,
            "main": value.main,
            "data": value.data.name if value.data is not None else None,
        }
        for model in models
        for value in model["found"]
    }


def _environment(plan: Plan) -> dict[str, Any]:
    machine = this_machine()
    libraries: dict[str, str] = {}
    for planned in plan.steps:
        libraries |= planned.step.libraries
    return {
        "processor": machine.processor,
        "cores": machine.cores,
        "memory_bytes": machine.memory_bytes,
        "bfloat16": machine.cpu_has_bf16,
        "gpus": [gpu.name for gpu in machine.gpus],
        "system": f"{platform.system()} {platform.machine()}",
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "libraries": dict(sorted(libraries.items())),
    }
