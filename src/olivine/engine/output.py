"""What stands in the output folder: the model's files flat, and beside them the papers that say what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine import __version__
from olivine.engine.card import model_card
from olivine.engine.result import Result
from olivine.evaluate.goals import sentence
from olivine.planning.plan import Plan
from olivine.redaction import redact

if TYPE_CHECKING:
    from olivine.engine.layouts import OldOutput
    from olivine.store import Artifact

STATUS = "status.json"
WORKFLOW = "workflow.yaml"
METRICS = "metrics.json"
CARD = "model_card.md"
MISSED = "GOALS_MISSED.txt"
"""In the output folder of a model that must not be taken for what was asked for."""
REPORT = "report.html"
OTHERS = "others"
"""In the output folder of a search with ``output_model_num``: the next best models, ``2``, ``3`` ..."""
CANDIDATE = "candidate.json"
"""Beside each of them: its trial."""


def publish_final(
    plan: Plan,
    result: Result,
    final: Artifact | None,
    artifacts: Mapping[str, Artifact],
    record: Mapping[str, Any],
    input_model: Path | None = None,
    *,
    others: Sequence[tuple[Mapping[str, Any], Artifact | None]] = (),
) -> bool:
    """Put the model and its papers into the output folder, in the plan's layout, whole or not at all.

    Args:
        record: of the run, for the report.
        input_model: folder of the input model, whose card says its licence.
        others: candidates of a search that are put out beside the model: the trial and its model.

    Returns:
        Whether anything changed: a folder that already holds this very result is left alone.

    Raises:
        StoreError: the folder cannot be written, or a file of the user's is in the way.
    """
    from olivine.store.publishing import publish

    identity = {
        "olivine": __version__,
        "state": result.state,
        "artifact": final.digest if final is not None else None,
        "format": result.format,
        "size_bytes": result.size,
        "metrics": result.metrics,
        "steps": [
            {
                "name": step.name,
                "type": step.type,
                "digest": step.digest,
                "seconds": round(step.seconds, 3),
                "peak_memory_bytes": step.peak_memory,
                "metrics": step.metrics,
            }
            for step in result.steps
        ],
    }
    if result.goals:
        identity["goals"] = [verdict.as_json() for verdict in result.goals]
    if result.search is not None:
        identity["search"] = result.search
    if result.untried:
        identity["untried"] = result.untried
    old: OldOutput | None = None
    if plan.layout is not None:
        from olivine.engine.layouts import old_output

        old = old_output(plan.layout, plan, result)
        identity["layout"] = plan.layout
    folder = f"{old.model}/" if old is not None and old.model else ""
    models = {folder: final} if final is not None else {}
    papers: dict[str, bytes] = {}
    for place, (trial, model) in enumerate(others, 2):
        if model is not None:
            models[f"{OTHERS}/{place}/"] = model
            papers[f"{OTHERS}/{place}/{CANDIDATE}"] = _json(trial)
    if _holds(plan.output_dir, identity, models):
        return False
    files: dict[str, Path | bytes] = dict(papers)
    for place_of, model in models.items():
        for entry in model.manifest.files:
            files[place_of + entry.path] = model.path / entry.path
    from olivine.config.writing import dump
    from olivine.report.page import report_page

    files[WORKFLOW] = dump(plan.workflow).encode()
    goals = {"goals": identity["goals"]} if result.goals else {}
    files[METRICS] = _json(result.metrics | goals)
    files[CARD] = model_card(plan, result, artifacts, input_model).encode()
    files[REPORT] = report_page(record).encode()
    files[STATUS] = _json(identity)
    if result.state != "succeeded":
        files[MISSED] = _missed(result).encode()
    if old is not None:
        files |= {name: content for name, content in old.papers.items() if name not in (STATUS, WORKFLOW, CARD, REPORT)}
    publish({name: _without_secrets(content) for name, content in files.items()}, plan.output_dir)
    return True


def _without_secrets(content: Path | bytes) -> Path | bytes:
    return redact(content.decode()).encode() if isinstance(content, bytes) else content


def _holds(output: Path, identity: Mapping[str, Any], models: Mapping[str, Artifact]) -> bool:
    """Return whether ``output`` holds this result already, every file of its size.

    Args:
        models: by the folder that they lie in, with a ``/`` at its end.
    """
    try:
        status = json.loads((output / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if status != json.loads(_json(identity)):
        return False
    if not all((output / paper).is_file() for paper in (WORKFLOW, METRICS, CARD, REPORT)):
        return False
    files = [(output / folder / entry.path, entry.size) for folder, model in models.items()
             for entry in model.manifest.files]  # fmt: skip
    return all(path.is_file() and path.stat().st_size == size for path, size in files)


def _missed(result: Result) -> str:
    lines = ["This model missed its goals:", ""]
    lines += [f"- {sentence(verdict)}" for verdict in result.goals if not verdict.met]
    met = [f"- {sentence(verdict)}" for verdict in result.goals if verdict.met]
    return "\n".join([*lines, *(["", "It met:", "", *met] if met else []), ""])


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
