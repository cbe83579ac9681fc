"""A third party's package with one pass, installed the way users install one: by its metadata on the path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = '''
"""A pass that copies the model, and misbehaves on request."""

import os, shutil, signal, threading, time
from dataclasses import replace
from pathlib import Path
from typing import Literal

from olivine.passes.base import Format, Params, Pass, PassResult
from olivine.passes.estimate import Estimate


class CopyParams(Params):
    mark: str = ""
    """Text to leave in the copy."""
    behave: Literal["well", "raise", "exhaust", "die", "fill", "nothing", "slow", "hoard", "hang", "busy"] = "well"
    """How to end."""
    journal: str = ""
    """File that gets a line each time the pass runs."""


class Copy(Pass[CopyParams]):
    """Copies the model."""

    type = "Copy"
    summary = "copy the model"
    accepts = frozenset({Format.HF})
    produces = Format.HF
    params_type = CopyParams

    @classmethod
    def estimate(cls, params, context, data):
        found = super().estimate(params, context, data)
        return replace(found, lighter=(("mark: less", Estimate({"copying": 2_000_000})),))

    def run(self, params, context):
        if params.journal:
            with open(params.journal, "a") as file:
                file.write(f"{os.getpid()}\\n")
        print("library noise on standard output")
        context.progress(0, 2, unit="files", loss=1.5)
        if params.behave == "raise":
            raise ValueError("the third weight is upside down")
        if params.behave == "exhaust":
            raise MemoryError
        if params.behave == "die":
            held = bytearray(b"1") * 400_000_000
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
        if params.behave == "fill":
            raise OSError(28, "No space left on device")
        if params.behave == "hoard":
            held = []
            for _ in range(100):
                held.append(bytearray(os.urandom(1)) * 20_000_000)
                time.sleep(0.05)
        if params.behave == "hang":
            threading.Event().wait()
        if params.behave == "busy":
            end = time.monotonic() + 4
            while time.monotonic() < end:
                pass
        if params.behave == "nothing":
            return PassResult()
        for file in context.inputs["model"].iterdir():
            shutil.copy2(file, context.output / file.name)
        (context.output / "mark.txt").write_text(params.mark)
        if params.behave == "slow":
            time.sleep(float(os.environ.get("COPY_SECONDS", "30")))
        context.progress(2, 2, unit="files", loss=0.5)
        return PassResult(metrics={"copied": 1.0})
'''


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the package and its metadata; put it on PYTHONPATH."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "copy_plugin.py").write_text(PLUGIN)
    info = folder / "copy_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: copy-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[olivine.passes]\nCopy = copy_plugin:Copy\n")
    return folder


class Project:
    """A user's folder with a workflow, and the command line run in it."""

    def __init__(self, folder: Path, model: Path, plugin: Path) -> None:
        self.folder = folder
        self.model = model
        self.environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(plugin), *sys.path])}
        self.output = folder / "models"
        self.cache = folder / ".olivine-cache"
        self.journal = folder / "journal.txt"

    def write(self, name: str = "workflow.json", **passes: dict[str, object]) -> Path:
        """Write a workflow of Copy passes."""
        path = self.folder / name
        steps = {key: {"type": "Copy", "journal": str(self.journal), **value} for key, value in passes.items()}
        path.write_text(json.dumps({"version": 1, "input_model": {"model_path": str(self.model)}, "passes": steps}))
        return path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "olivine", *arguments]

    def olivine(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start the command line and leave it running."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def times_run(self) -> int:
        """How often a Copy pass has run."""
        return len(self.journal.read_text().splitlines()) if self.journal.exists() else 0


@pytest.fixture
def project(tmp_path: Path, pico_model: Path, plugin: Path) -> Project:
    return Project(tmp_path, pico_model, plugin)
