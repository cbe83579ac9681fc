"""Tracking on a real MLflow server: its own application, its database and its artifact store."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from canaries import CANARIES, assert_no_canary

pytest.importorskip("mlflow")
pytest.importorskip("flask")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of our own."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `mlflow server` starts this same application beside others that need many more packages.
    settings = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    address = f"http://127.0.0.1:{port}"
    with open(folder / "log.txt", "wb") as log:
        command = [sys.executable, "-m", "flask", "--app", "mlflow.server:app", "run", "--port", str(port)]
        running = subprocess.Popen(command, env=os.environ | settings, cwd=folder, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert running.poll() is None, (folder / "log.txt").read_text()
                assert time.monotonic() < end, (folder / "log.txt").read_text()
                time.sleep(0.3)
        yield address
    finally:
        running.terminate()
        running.wait(30)


def write(project: Any, address: str, **passes: dict[str, Any]) -> None:
    path = project.write(**passes)
    workflow = json.loads(path.read_text()) | {"tracking": {"mlflow": address, "experiment": project.folder.name}}
    path.write_text(json.dumps(workflow))


def tracked(project: Any, address: str) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name(project.folder.name)
    return client, client.search_runs([experiment.experiment_id])[0]


def test_a_run_is_tracked_with_parameters_metrics_and_papers(
    project, server: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write(project, server, first={"mark": "a ${env:PLAIN_NAME}"}, second={"mark": "b"})
    done = project.olivine("run", "workflow.json", "--json", **CANARIES)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        json.loads(line)
    client, run = tracked(project, server)
    assert run.info.status == "FINISHED"
    assert run.data.params["second.mark"] == "b"
    assert run.data.metrics["first.seconds"] > 0
    assert run.data.tags["olivine.state"] == "succeeded"
    papers = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert papers == {"record.json", "report.html", "workflow.yaml", "model_card.md"}
    record = Path(client.download_artifacts(run.info.run_id, "record.json", str(tmp_path)))
    assert json.loads(record.read_text())["state"] == "succeeded"
    assert run.data.params["first.mark"] == "a ${env:PLAIN_NAME}"
    servers = [each for each in tmp_path_factory.getbasetemp().iterdir() if each.name.startswith("mlflow")]
    assert assert_no_canary(servers, [done.stdout, done.stderr]) > 4


def test_a_run_that_fails_is_tracked_with_its_reason(project, server: str) -> None:
    write(project, server, first={"mark": "a"}, second={"behave": "raise"})
    assert project.olivine("run", "workflow.json").returncode == 1
    client, run = tracked(project, server)
    assert run.info.status == "FAILED"
    assert run.data.tags["olivine.failed"] == "second"
    assert "the third weight is upside down" in run.data.tags["olivine.reason"]
    assert run.data.metrics["first.seconds"] > 0
    assert "report.html" in {each.path for each in client.list_artifacts(run.info.run_id)}


def test_a_search_in_which_everything_fails_is_tracked_with_the_reasons(project, server: str) -> None:
    write(project, server, first={"mark": "a", "behave": ["raise", "nothing"]})
    path = project.folder / "workflow.json"
    searched = {
        "evaluators": {"e": {"metrics": [{"type": "size"}]}},
        "engine": {"evaluator": "e", "search_strategy": {"sampler": "sequential"}},
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | searched))
    assert project.olivine("run", "workflow.json").returncode == 1
    client, run = tracked(project, server)
    assert run.info.status == "FAILED"
    assert "every candidate failed, 2 of 2" in run.data.tags["olivine.reason"]
    assert "the third weight is upside down" in run.data.tags["olivine.reason"]
    assert "report.html" in {each.path for each in client.list_artifacts(run.info.run_id)}


def test_a_server_that_is_not_there_is_known_before_anything_runs(project) -> None:
    write(project, "http://127.0.0.1:9", first={"mark": "a"})
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 3
    assert "http://127.0.0.1:9" in done.stderr
    assert project.times_run() == 0


@pytest.mark.parametrize("address", ["http://me:password1234@host:5000", "sqlite:///runs.db"])
def test_credentials_and_what_is_no_server_are_refused(project, address: str) -> None:
    write(project, address, first={"mark": "a"})
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 2
    assert "tracking" in done.stderr
