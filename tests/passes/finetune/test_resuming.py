"""Training that was killed goes on where it was and ends with the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_training import train_small
from training_that_dies import TRAINING

from olivine.config.schema import DataConfig
from olivine.passes.conformance import content_digests
from olivine.passes.finetune import training_checkpoints

HERE = Path(__file__).parent


def killed_training(model: Path, rows: DataConfig, folder: Path, step: int, when: str) -> None:
    """Train in a process that is killed at ``step``, and take away what it had written as output."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
    command = [sys.executable, HERE / "training_that_dies.py", model, str(rows.data_files), folder, str(step), when]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    (folder / "output").rename(folder / "left-behind")


@pytest.fixture(scope="module")
def undisturbed(pico_model: Path, rows: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train_small("LoRA", pico_model, rows, folder, training_args=TRAINING, lora_dropout=0.1)
    return folder / "output"


@pytest.mark.parametrize(("step", "when", "resumed_from"), [(25, "training", 24), (30, "saving", 28)])
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    step: int, when: str, resumed_from: int, pico_model: Path, rows: DataConfig, undisturbed: Path, tmp_path: Path
) -> None:
    killed_training(pico_model, rows, tmp_path, step, when)
    reported: list[float] = []

    def progress(done: float, total: float | None, message: str = "", **_: object) -> None:
        if message == "training":
            reported.append(done)

    result = train_small(
        "LoRA", pico_model, rows, tmp_path, training_args=TRAINING, lora_dropout=0.1, progress=progress
    )
    assert reported[0] == resumed_from + 0.5
    assert content_digests(tmp_path / "output") == content_digests(undisturbed)
    assert result.metrics["steps"] == TRAINING["max_steps"]
    assert [row["step"] for row in result.history] == [float(step + 1) for step in range(40)]


def test_a_checkpoint_without_its_mark_is_removed(tmp_path: Path) -> None:
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainable.safetensors").write_bytes(b"x")
    whole = training_checkpoints.Saved(tmp_path / "checkpoint-2", 2, 100, 1.5)
    training_checkpoints.mark_complete(whole)
    assert training_checkpoints.newest(tmp_path) == whole
    assert not (tmp_path / "checkpoint-4").exists()


def test_a_mark_that_is_cut_short_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / training_checkpoints.MARK).write_text('{"step": 2')
    assert training_checkpoints.newest(tmp_path) is None
