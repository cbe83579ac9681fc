"""A metric that is a function of the user's: its file runs only if it is named for this run."""

from __future__ import annotations

import json
from typing import Any

from workflow_project import Project

SCRIPT = """
from pathlib import Path

Path(__file__).with_name("ran.txt").write_text("ran")


def count(model, device, execution_providers, factor=1):
    assert device == "cpu"
    assert execution_providers == ["CPUExecutionProvider"]
    return {"files": factor * len(list(Path(model).iterdir())), "named": Path(model.model_path).is_dir() + 0.0}


def words(model):
    return {"text": "many"}
"""


def workflow(function: str = "count", **goal: Any) -> dict[str, Any]:
    value = {"name": "files", "higher_is_better": False, "goal": {"type": "threshold", "value": 1, **goal}}
    user = {"user_script": "metric.py", "evaluate_func": function}
    if function == "count":
        user["evaluate_func_kwargs"] = {"factor": 10}
    return {
        "version": 1,
        "input_model": {"model_path": "base"},
        "evaluators": {
            "e": {"metrics": [{"type": "custom", "name": "own", "user_config": user, "sub_types": [value]}]}
        },
        "engine": {"evaluator": "e", "cache_dir": "cache", "output_dir": "models"},
    }


def test_it_runs_only_if_allowed_and_its_values_have_goals(project: Project) -> None:
    (project.folder / "metric.py").write_text(SCRIPT)
    said = project.refused(workflow(), code=3)
    assert "Code from a configuration runs only if you allow it" in said
    assert "--allow-script metric.py" in said
    assert not (project.folder / "ran.txt").exists()

    done = project.olivine("run", "workflow.json", "--allow-script", "metric.py")
    assert done.returncode == 4, done.stderr
    assert (project.folder / "ran.txt").exists()
    count = len(list((project.folder / "base").iterdir()))
    metrics = json.loads((project.folder / "models" / "metrics.json").read_text())
    assert metrics["input"]["own"] == {"files": 10 * count, "named": 1.0}

    (project.folder / "ran.txt").unlink()
    again = project.olivine("run", "workflow.json", "--allow-script", "metric.py")
    assert again.returncode == 4
    assert not (project.folder / "ran.txt").exists(), "unchanged, it is in the cache"
    (project.folder / "metric.py").write_text(SCRIPT.replace("factor * len", "7 * factor * len"))
    assert project.olivine("run", "workflow.json", "--allow-script", "metric.py").returncode == 4
    metrics = json.loads((project.folder / "models" / "metrics.json").read_text())
    assert metrics["input"]["own"]["files"] == 70 * count


def test_what_is_no_number_is_an_error_that_says_so(project: Project) -> None:
    (project.folder / "metric.py").write_text(SCRIPT)
    project.write(workflow("words"))
    done = project.olivine("run", "workflow.json", "--allow-script", "metric.py")
    assert done.returncode == 1
    assert "words of" in done.stderr
    assert "what is no number: text" in " ".join(done.stderr.split())
