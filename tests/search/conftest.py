"""A third party's package with a pass and a metric whose outcome is known, so that a search can be checked by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plugged_project import PluggedProject, plug_in

PLUGIN = '''
import os, signal, time
from pathlib import Path

from olivine.evaluate.base import Metric
from olivine.passes.base import Format, Params, Pass, PassResult


class ShapeParams(Params):
    a: int = 0
    b: float = 0
    kind: str = "plain"
    journal: str = ""
    behave: str = "well"


class Shape(Pass[ShapeParams]):
    """Writes its parameters into a copy of the model."""

    type = "Shape"
    summary = "write parameters"
    accepts = frozenset({Format.HF})
    produces = Format.HF
    params_type = ShapeParams
    searchable = {"a": (1, 2, 3)}

    def run(self, params, context):
        with open(params.journal, "a") as file:
            file.write(f"{params.a} {params.b} {params.kind}\\n")
        if params.behave == "raise":
            raise ValueError("the third weight is upside down")
        if params.behave == "exhaust":
            raise MemoryError
        if params.behave == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if params.behave == "hang":
            time.sleep(600)
        if params.behave == "slow":
            time.sleep(float(os.environ.get("SHAPE_SECONDS", "0")))
        source = context.inputs["model"]
        for name in ("config.json", "model.safetensors"):
            (context.output / name).write_bytes((source / name).read_bytes())
        before = (source / "shape.txt").read_text() if (source / "shape.txt").exists() else ""
        (context.output / "shape.txt").write_text(f"{before}{params.a} {params.b} {params.kind}\\n")
        (context.output / "merges.txt").write_bytes(b"x" * (10_000 * params.a))
        return PassResult(metrics={"loss": float("nan") if params.behave == "nan" else 0.5})


class Wrap(Shape):
    """Writes its parameters into an adapter, which cannot be measured."""

    type = "Wrap"
    produces = Format.PEFT

    def run(self, params, context):
        with open(params.journal, "a") as file:
            file.write(f"wrap {params.a}\\n")
        (context.output / "adapter_config.json").write_text("{}")
        (context.output / "shape.txt").write_text(f"{params.a} {params.b} {params.kind}\\n")
        return PassResult()


class Unwrap(Pass[ShapeParams]):
    """Puts an adapter into its base."""

    type = "Unwrap"
    summary = "take the parameters out"
    accepts = frozenset({Format.PEFT})
    produces = Format.HF
    params_type = ShapeParams

    def run(self, params, context):
        with open(params.journal, "a") as file:
            file.write("unwrap\\n")
        for name in ("config.json", "model.safetensors"):
            (context.output / name).write_bytes((context.inputs["base"] / name).read_bytes())
        (context.output / "shape.txt").write_text((context.inputs["model"] / "shape.txt").read_text())
        return PassResult()


class ScoreParams(Params):
    journal: str = ""


class Score(Metric[ScoreParams]):
    """The higher a and the nearer b to 5, the better."""

    type = "score"
    summary = "a known function of the parameters"
    measures = frozenset({Format.HF})
    params_type = ScoreParams
    units = {"score": ""}
    higher_is_better = {"score": True}

    def measure(self, params, context):
        if params.journal:
            with open(params.journal, "a") as file:
                file.write("measured\\n")
        text = context.model / "shape.txt"
        found = 0.0
        for line in text.read_text().splitlines() if text.exists() else ():
            a, b, kind = line.split()
            found += int(a) - (float(b) - 5) ** 2 / 100 + (0.5 if kind == "fancy" else 0)
        return {"score": found}
'''


ENTRY_POINTS = """\
[olivine.passes]
Shape = shape_plugin:Shape
Wrap = shape_plugin:Wrap
Unwrap = shape_plugin:Unwrap
[olivine.metrics]
score = shape_plugin:Score
"""


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the package and its metadata; put it on PYTHONPATH."""
    return plug_in(tmp_path_factory.mktemp("plugin"), "shape_plugin", PLUGIN, ENTRY_POINTS)


class Project(PluggedProject):
    """A user's folder with a search."""

    @property
    def measured(self) -> Path:
        return self.folder / "measured.txt"

    def write(
        self,
        passes: dict[str, Any],
        strategy: dict[str, Any] | None = None,
        score: dict[str, Any] | None = None,
        size: dict[str, Any] | None = None,
        **sections: Any,
    ) -> None:
        for each in passes.values():
            for one in each if isinstance(each, list) else [each]:
                one["journal"] = str(self.journal)
        metrics = [
            {
                "type": "score",
                "journal": str(self.measured),
                "sub_types": [{"name": "score", "priority": 1} | (score or {})],
            },
            {"type": "size", "sub_types": [{"name": "size_bytes", "priority": 2} | (size or {})]},
        ]
        config = {
            "version": 1,
            "input_model": {"model_path": str(self.model)},
            "passes": passes,
            "evaluators": {"e": {"metrics": metrics}},
            "engine": {
                "evaluator": "e",
                "evaluate_input_model": False,
                "search_strategy": strategy or {"sampler": "sequential"},
                "cache_dir": "cache",
            },
        }
        (self.folder / "workflow.json").write_text(json.dumps(config | sections))

    def run(self, code: int = 0) -> dict[str, Any]:
        """Run the search and return what it found."""
        done = self.olivine("run", "workflow.json")
        assert done.returncode == code, done.stdout + done.stderr
        found: dict[str, Any] = json.loads((self.output / "status.json").read_text())["search"]
        return found


@pytest.fixture
def project(tmp_path: Path, pico_model: Path, plugin: Path) -> Project:
    return Project(tmp_path, pico_model, plugin)
