"""Workflows that name a model or data by an address: planned and run on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from faulty_server import Fault, Server

import olivine
from olivine.api import prepare
from olivine.errors import PlanError, UnavailableError

SOURCES = Path(__file__).parents[2] / "src"
ROWS = "".join(json.dumps({"text": f"the cat number {number} sat on the mat"}) + "\n" for number in range(12)).encode()


@pytest.fixture
def model(pico_model: Path) -> Iterator[str]:
    """The pico model as an address."""
    memory = fsspec.filesystem("memory")
    for file in pico_model.iterdir():
        memory.pipe_file(f"/models/pico/{file.name}", file.read_bytes())
    yield "memory://models/pico"
    memory.store.clear()


def workflow(model: str | Path, data: Any, folder: Path) -> dict[str, Any]:
    return {
        "input_model": {"model_path": str(model)},
        "data_configs": [{"name": "train", "data_files": data, "max_seq_len": 32}],
        "passes": {
            "lora": {
                "type": "LoRA",
                "r": 2,
                "train_data_config": "train",
                "training_args": {"max_steps": 1, "per_device_train_batch_size": 1},
            }
        },
        "engine": {"cache_dir": str(folder / "cache"), "output_dir": str(folder / "out")},
    }


def command(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "olivine", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCES), **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_run_with_model_and_data_elsewhere_then_one_without_a_network(
    model: str, server: Server, tmp_path: Path
) -> None:
    server.faults = [Fault("reset", 100)]
    config = workflow(model, server.put("/rows.jsonl", ROWS), tmp_path)
    looked = olivine.plan(config)
    assert any("will be fetched first" in note for note in looked.notes)
    result = olivine.run(config)
    assert not result.steps[0].cached
    asked = len(server.requests)
    server.files.clear()
    fsspec.filesystem("memory").store.clear()
    again = olivine.run(config)
    assert again.steps[0].cached
    assert len(server.requests) == asked
    assert any("--refresh" in note for note in olivine.plan(config).notes)
    card = (tmp_path / "out" / "model_card.md").read_text()
    assert "pico" in card.splitlines()[0] + card
    assert "artifacts" not in (tmp_path / "out" / "workflow.yaml").read_text()
    assert server.url in (tmp_path / "out" / "workflow.yaml").read_text()


def test_what_was_fetched_is_the_same_as_what_was_here(
    model: str, server: Server, pico_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_bytes(ROWS)
    here = workflow(pico_model, str(tmp_path / "rows.jsonl"), tmp_path)
    there = workflow(model, [server.put("/other.jsonl", ROWS)], tmp_path)
    assert prepare(there)[0].steps[0].digest == prepare(here)[0].steps[0].digest


def test_the_command_line_with_a_signed_url(pico_model: Path, server: Server, tmp_path: Path) -> None:
    secret = "c2VjcmV0LXNpZ25hdHVyZS1vZi1henVyZQ"
    url = server.put("/rows.jsonl", ROWS) + f"?sv=2024&sp=r&sig={secret}"
    (tmp_path / "w.json").write_text(json.dumps(workflow(pico_model, "${env:TRAIN_URL}", tmp_path)))
    done = command(tmp_path, "plan", "w.json", TRAIN_URL=url)
    assert done.returncode == 0, done.stderr
    assert "12 rows" in done.stdout
    assert "rows.jsonl: fetched" in done.stdout
    assert secret in server.requests[-1][1]
    kept = "".join(path.read_text(errors="replace") for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert secret not in kept + done.stdout + done.stderr
    written = command(tmp_path, "plan", "w.json", TRAIN_URL=url.replace("sp=r", "sp=w"))
    assert "is used as it was fetched" in written.stdout


def test_what_is_wrong_has_its_place_in_the_configuration(pico_model: Path, server: Server, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"data_configs.0.data_files: there is no http://.*404"):
        olivine.plan(workflow(pico_model, server.url + "/absent.jsonl", tmp_path))
    with pytest.raises(UnavailableError, match=r"data_files: ftp:// cannot be fetched"):
        olivine.plan(workflow(pico_model, "ftp://host/rows.jsonl", tmp_path))
    with pytest.raises(PlanError, match=r"input_model.model_path: there is no memory://nowhere"):
        olivine.plan(workflow("memory://nowhere", server.put("/rows.jsonl", ROWS), tmp_path))


def test_rows_that_were_fetched_are_checked_as_any(pico_model: Path, server: Server, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"rows.jsonl:2.*"):
        olivine.plan(workflow(pico_model, server.put("/rows.jsonl", ROWS[:60] + b"{broken\n"), tmp_path))


def test_an_mlflow_folder_on_this_machine_is_the_checkpoint_in_it(
    pico_model: Path, server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "mlflow"
    shutil.copytree(pico_model, folder / "data" / "model")
    (folder / "MLmodel").write_text("flavors:\n  hftransformersv2: {model_data: data}\n")
    data = server.put("/rows.jsonl", ROWS)
    plan, _ = prepare(workflow(folder, data, tmp_path))
    assert plan.steps[0].digest == prepare(workflow(pico_model, data, tmp_path))[0].steps[0].digest
