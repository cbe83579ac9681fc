"""A third party's package with one pass, installed the way users install one: by its metadata on the path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plugged_project import PluggedProject, plug_in

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
            end = time.monotonic() + float(os.environ.get("COPY_SECONDS", "4"))
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
    return plug_in(folder, "copy_plugin", PLUGIN, "[olivine.passes]\nCopy = copy_plugin:Copy\n")


class Project(PluggedProject):
    """A user's folder with a workflow."""

    @property
    def cache(self) -> Path:
        return self.folder / ".olivine-cache"

    def write(self, name: str = "workflow.json", **passes: dict[str, object]) -> Path:
        """Write a workflow of Copy passes."""
        path = self.folder / name
        steps = {key: {"type": "Copy", "journal": str(self.journal), **value} for key, value in passes.items()}
        path.write_text(json.dumps({"version": 1, "input_model": {"model_path": str(self.model)}, "passes": steps}))
        return path


@pytest.fixture
def project(tmp_path: Path, pico_model: Path, plugin: Path) -> Project:
    return Project(tmp_path, pico_model, plugin)
