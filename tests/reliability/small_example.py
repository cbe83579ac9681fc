"""The example of examples/phrase-tone, small: a pico model and four training steps, so that a run takes seconds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from olivine.store import Store

EXAMPLE = Path(__file__).parents[2] / "examples" / "phrase-tone"
SMALLER = {
    "data_configs.0.max_seq_len": 64,
    "data_configs.1.max_seq_len": 128,
    "passes.lora.r": 4,
    "passes.lora.training_args.max_steps": 4,
    "passes.lora.training_args.logging_steps": 1,
    "passes.lora.training_args.eval_steps": 2,
    "passes.lora.training_args.save_steps": 1,
    "evaluators.tone.metrics.2.new_tokens": 2,
    "engine.evaluate_input_model": "false",
    "engine.output_dir": "models",
}
"""What is set on the example's workflow. Every training step is followed by a checkpoint."""
TRAIN_ROWS, EVAL_ROWS = 60, 4
PAPERS = frozenset(
    {
        "status.json",
        "metrics.json",
        "report.html",
        "model_card.md",
        "workflow.yaml",
        "GOALS_MISSED.txt",
    }
)
"""What tells of a run, with its times, and so differs from run to run."""
LONGEST_S = 1800.0


class Example:
    """A folder with the small example, and the command line run in it.

    Args:
        folder: where; made.
        base: a pico Phi-3 checkpoint.
    """

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.output = folder / "models"
        (folder / "data").mkdir(parents=True)
        for name, rows in (("train.jsonl", TRAIN_ROWS), ("eval.jsonl", EVAL_ROWS)):
            lines = (EXAMPLE / "data" / name).read_text(encoding="utf-8").splitlines(keepends=True)
            (folder / "data" / name).write_text("".join(lines[:rows]), encoding="utf-8")
        shutil.copy(EXAMPLE / "workflow.yaml", folder)
        (folder / "base-model").symlink_to(base, target_is_directory=True)

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs the example."""
        sets = [each for key, value in SMALLER.items() for each in ("--set", f"{key}={value}")]
        return [sys.executable, "-m", "olivine", "run", "workflow.yaml", *sets, *arguments]

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        inside: Sequence[str] = (),
        **how: Any,
    ) -> subprocess.Popen[str]:
        """Start a run, ``inside`` of another command, and leave it running; what it says goes to ``said.txt``."""
        with open(self.folder / "said.txt", "w") as said:
            return subprocess.Popen(
                [*inside, *self.command(*arguments)],
                cwd=self.folder,
                env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                **how,
            )

    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None, inside: Sequence[str] = (), **how: Any
    ) -> int:
        """Run to the end and return the exit status."""
        process = self.start(*arguments, environment=environment, inside=inside, **how)
        try:
            return process.wait(timeout=LONGEST_S)
        finally:
            kill_tree(process)

    @property
    def said(self) -> str:
        """What the last run said, on one line."""
        return " ".join((self.folder / "said.txt").read_text(errors="replace").split())

    def results(self) -> dict[str, str]:
        """Return what the run made, digests by name: each pass's, and each file of the output but papers."""
        found = {
            f"pass {artifact.manifest.step['name']}": artifact.manifest.content_digest
            for artifact in Store(self.cache).artifacts()
            if artifact.manifest.step["kind"] == "pass"
        }
        for file in sorted(self.output.rglob("*")):
            name = str(file.relative_to(self.output))
            if file.is_file() and name not in PAPERS:
                found[f"file {name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
        return found

    def faults(self) -> list[str]:
        """Return what is wrong in the cache and the output, after a run that may have been cut off."""
        found = Store(self.cache).verify()
        if (self.output / "status.json").exists() and not (self.output / "model.onnx").exists():
            found.append("the output has status.json and no model")
        return found

    def leftovers(self) -> list[str]:
        """Return half-made folders that a finished run must not leave."""
        places = (self.folder, self.output, self.cache / "staging", self.cache / "checkpoints")
        return [
            str(path.relative_to(self.folder))
            for place in places
            if place.is_dir()
            for path in place.iterdir()
            if place.parent == self.cache
            or path.name in (".olivine-staging", ".olivine-lock")
            or ".models." in path.name
        ]

    def checkpoints(self) -> int:
        """Return how many whole training checkpoints there are."""
        return len(list(self.cache.glob("checkpoints/*/**/complete.json")))

    def current_step(self) -> str:
        """Return what the last run, with ``--json``, was doing when it last said something."""
        current = "before the first Step"
        for line in (self.folder / "said.txt").read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event["event"] == "step-started":
                    current = event["step"]
                elif event["event"] in ("step-done", "step-cached"):
                    current = f"after {event['step']}"
                elif event["event"] == "run-done":
                    current = "after everything"
        return current


def kill_tree(process: subprocess.Popen[str]) -> None:
    """Kill a process and everything that it started."""
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(process.pid)
        for each in [*parent.children(recursive=True), parent]:
            with contextlib.suppress(psutil.Error):
                each.kill()
    process.wait()


def kill(process: subprocess.Popen[str], whom: str) -> bool:
    """Send signal 9 to the ``engine``, its ``worker``, or ``both``; return whether there was somebody to kill."""
    try:
        engine = psutil.Process(process.pid)
        workers = engine.children(recursive=True)
        victims = {"engine": [engine], "worker": workers, "both": [engine, *workers]}[whom]
        if process.poll() is not None or not victims:
            return False
        for each in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                os.kill(each.pid, signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    process.wait(timeout=LONGEST_S)
    for each in workers:  # an orphan ends by itself: its standard input has ended
        with contextlib.suppress(psutil.NoSuchProcess):
            each.wait(timeout=600)
    return True


@dataclass(frozen=True)
class Undisturbed:
    """A run in peace: its example, what it made, the seconds it took, and whether it ran where there is no route."""

    example: Example
    results: dict[str, str]
    seconds: float
    without_network: bool


def no_network() -> list[str]:
    """Return what runs a command in a network namespace with no route, or nothing if that is not permitted here."""
    command = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        return []
    return command


@cache
def undisturbed(base: Path) -> Undisturbed:
    """Run the example once in peace, beside ``base``; every driver compares with the same run. It has no network.

    Raises:
        RuntimeError: even that fails.
    """
    example = Example(base.parent / "undisturbed", base)
    started = time.monotonic()
    apart = no_network()
    if example.run(inside=apart) != 0:
        raise RuntimeError(f"the undisturbed run failed: {example.said}")
    return Undisturbed(example, example.results(), time.monotonic() - started, bool(apart))


def chance(seed: int) -> random.Random:
    """Return a source of random moments."""
    return random.Random(seed)
