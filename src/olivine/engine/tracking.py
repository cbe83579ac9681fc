"""Tracking on request: a run's parameters, measurements, curves and papers on an MLflow server, also if it fails.

The server is asked before anything runs, so that a wrong address is found now; what goes wrong with it at the end is
told and does not undo the run. Weights are not sent, and no secret: a run's record has none.

Seen with mlflow-skinny 3.17.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.config.schema import Tracking
from olivine.errors import Location, UnavailableError

if TYPE_CHECKING:
    from mlflow import MlflowClient

STATUSES = {"succeeded": "FINISHED", "goals missed": "FINISHED", "interrupted": "KILLED"}
"""MLflow's word for how a run ended; every other state is a failure."""
LONGEST_PARAM = 5000
BATCH = 500
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The defaults try for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class Tracker:
    """One run on an MLflow server.

    Raises:
        UnavailableError: the server cannot be reached, or refuses.
    """

    def __init__(self, tracking: Tracking, name: str, where: Location | None = None) -> None:
        for key, value in SETTINGS.items():
            os.environ.setdefault(key, value)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            self._client: MlflowClient = MlflowClient(tracking_uri=tracking.mlflow)
            found = self._client.get_experiment_by_name(tracking.experiment)
            experiment = (
                found.experiment_id if found is not None else self._client.create_experiment(tracking.experiment)
            )
            self._run: str = self._client.create_run(experiment, run_name=name).info.run_id
        except (MlflowException, OSError) as error:
            raise UnavailableError(
                f"the MLflow server at {tracking.mlflow} cannot be used",
                where=where,
                why=str(error).splitlines()[0][:300],
                remedy="start it (`mlflow server`), correct tracking.mlflow, or leave tracking out",
            ) from None

    def end(self, record: Mapping[str, Any], papers: Mapping[str, str]) -> str | None:
        """Send what a run's record says, and end the run there.

        Args:
            papers: texts by file name.

        Returns:
            Why it could not be sent, or ``None``.
        """
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value, step in metrics_of(record)]
        params = [Param(name, value) for name, value in params_of(record)]
        tags = [
            RunTag(f"olivine.{key}", str(record[key])[:LONGEST_PARAM])
            for key in ("state", "olivine", "reason", "failed")
        ]
        try:
            for start in range(0, max(len(metrics), 1), BATCH):
                self._client.log_batch(self._run, metrics=metrics[start : start + BATCH])
            for start in range(0, max(len(params), 1), 100):
                self._client.log_batch(self._run, params=params[start : start + 100])
            self._client.log_batch(self._run, tags=tags)
            for name, text in papers.items():
                self._client.log_text(self._run, text, name)
            self._client.set_terminated(self._run, STATUSES.get(record["state"], "FAILED"))
        except (MlflowException, OSError) as error:
            return f"the run could not be sent to MLflow: {str(error).splitlines()[0][:300]}"
        return None


def params_of(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the parameters of all passes as ``lora.r``, and the model."""
    yield "input_model", str(record["model"])
    for step in record["steps"]:
        if step["kind"] == "pass":
            yield _name(f"{step['name']}.type"), step["type"]
            for key, value in step["params"].items():
                if value is not None:
                    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                    yield _name(f"{step['name']}.{key}"), text[:LONGEST_PARAM]


def metrics_of(record: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Yield name, value and step: measurements (``final.accuracy``), what Steps took, and their curves."""
    for model in record["models"]:
        which = model["role"] if model["role"] != "between" else model["name"]
        for key, value in model["values"].items():
            yield _name(f"{which}.{key}"), float(value), 0
    for step in record["steps"]:
        for key in ("seconds", "peak_memory_bytes"):
            if step[key] is not None:
                yield _name(f"{step['name']}.{key}"), float(step[key]), 0
        for row in step["history"]:
            for key, value in row.items():
                if key != "step" and isinstance(value, int | float) and math.isfinite(value):
                    yield _name(f"{step['name']}.{key}"), float(value), int(row.get("step", 0))
    if record["size_bytes"]:
        yield "size_bytes", float(record["size_bytes"]), 0


def papers_of(record: Mapping[str, Any], output: Path | None) -> dict[str, str]:
    """Return the texts that go with a run: its record, report and configuration, and the card if it has an output."""
    from olivine.report.page import report_page

    papers = {
        "record.json": json.dumps(record, ensure_ascii=False, indent=1),
        "report.html": report_page(record),
        "workflow.yaml": str(record["workflow"]),
    }
    card = output / "model_card.md" if output is not None else None
    if card is not None and card.is_file():
        papers["model_card.md"] = card.read_text(encoding="utf-8")
    return papers


def _name(text: str) -> str:
    """Return a name in the characters and the length that MLflow takes."""
    return re.sub(r"[^\w\-./ ]", "_", text, flags=re.ASCII)[:250]
