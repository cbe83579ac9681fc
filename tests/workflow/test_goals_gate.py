"""Goals gate a run: exit status 4, the verdicts everywhere, and a model that says itself what it missed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from workflow_project import Project


def workflow(*sub_types: dict[str, Any], metric: str = "size", **engine: Any) -> dict[str, Any]:
    params = {"new_tokens": 4, "repeats": 2} if metric == "speed" else {}
    return {
        "version": 1,
        "input_model": {"model_path": "base"},
        "passes": {"builder": {"type": "ModelBuilder", "precision": "int4"}},
        "evaluators": {"e": {"metrics": [{"type": metric, **params, "sub_types": list(sub_types)}]}},
        "engine": {"evaluator": "e", "cache_dir": "cache", "output_dir": "models", **engine},
    }


def test_a_missed_threshold_gates_and_a_met_one_does_not(project: Project) -> None:
    goal = {"name": "size_bytes", "goal": {"type": "threshold", "value": 1000}}
    project.write(workflow(goal, evaluate_input_model=False))
    missed = project.olivine("run", "workflow.json")
    assert missed.returncode == 4, missed.stderr
    models = project.folder / "models"
    assert "1 of 1 goals missed" in missed.stdout
    assert "wanted at most 1000" in missed.stdout
    status = json.loads((models / "status.json").read_text())
    assert status["state"] == "goals missed"
    assert status["goals"][0]["missed_by"] == pytest.approx(status["metrics"]["final"]["size"]["size_bytes"] - 1000)
    assert json.loads((models / "metrics.json").read_text())["goals"] == status["goals"]
    assert "This model missed its goals" in (models / "model_card.md").read_text()
    assert "wanted at most 1000" in (models / "GOALS_MISSED.txt").read_text()
    assert (models / "genai_config.json").is_file()

    path = "evaluators.e.metrics.0.sub_types.0.goal.value=100000000"
    met = project.olivine("run", "workflow.json", "--set", path)
    assert met.returncode == 0, met.stderr
    assert "every goal is met" in met.stdout
    assert "in the cache" in met.stdout
    assert not (models / "GOALS_MISSED.txt").exists()
    assert json.loads((models / "status.json").read_text())["state"] == "succeeded"


def test_against_the_input_model_and_a_pass_which_are_measured_for_it(project: Project) -> None:
    project.write(
        workflow(
            {"name": "size_bytes", "goal": {"type": "percent-min-improvement", "value": 10}},
            {"name": "files", "goal": {"type": "max-degradation", "value": 0, "against": "builder"}},
            evaluate_input_model=False,
        )
    )
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads((project.folder / "models" / "status.json").read_text())
    assert [step["name"] for step in status["steps"]] == [
        "evaluate input model", "builder", "evaluate builder", "evaluate final model",
    ]  # fmt: skip
    assert status["goals"][0]["baseline"] == status["metrics"]["input"]["size"]["size_bytes"]


def test_a_timing_that_is_near_is_measured_again(project: Project) -> None:
    goal = {"name": "decode_tokens_per_s", "goal": {"type": "threshold", "value": 1}}
    project.write(workflow(goal, metric="speed", evaluate_input_model=False))
    assert project.olivine("run", "workflow.json").returncode == 0
    speed = json.loads((project.folder / "models" / "metrics.json").read_text())["final"]["speed"]
    path = f"evaluators.e.metrics.0.sub_types.0.goal.value={speed['decode_tokens_per_s']}"
    again = project.olivine("run", "workflow.json", "--set", path)
    assert again.returncode in (0, 4), again.stderr
    assert "(measured again, the mean counts): speed.decode_tokens_per_s" in again.stdout
    (verdict,) = json.loads((project.folder / "models" / "metrics.json").read_text())["goals"]
    assert len(verdict["attempts"]) == 2
    assert verdict["met"] is (again.returncode == 0)


@pytest.mark.parametrize(
    ("sub_type", "said"),
    [
        ({"name": "bytes", "goal": {"type": "threshold", "value": 1}}, "size has no value 'bytes'"),
        ({"name": "files", "goal": {"type": "max-degradation", "value": 1, "against": "lora"}}, "no pass is called"),
    ],
)
def test_goals_that_can_never_be_judged_are_refused(project: Project, sub_type: dict[str, Any], said: str) -> None:
    assert said in project.refused(workflow(sub_type))
