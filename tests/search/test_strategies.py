"""What a strategy says: which candidates there are, when it ends, what is put out; and what a failed study leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest


def points(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [each["point"] for each in found["trials"]]


def test_flows_are_chains_of_their_own(project) -> None:
    shape = {"type": "Shape", "a": 1}
    passes = {"one": dict(shape), "two": {**shape, "a": [2, 3]}, "three": {**shape, "kind": "fancy"}}
    project.write(passes, pass_flows=[["one", "three"], ["three", "two"]])
    found = project.run()
    assert points(found) == [{"pass_flows": 0}, {"pass_flows": 1, "two.a": 2}, {"pass_flows": 1, "two.a": 3}]
    assert found["pick"] == 2
    assert (project.output / "shape.txt").read_text().splitlines() == ["1 0.0 fancy", "3 0.0 plain"]


def test_flows_are_settled_first_in_a_search_pass_by_pass(project) -> None:
    shape = {"type": "Shape", "a": 1}
    passes = {"one": {**shape, "a": [1, 2]}, "two": {**shape, "a": [2, 3]}, "three": dict(shape)}
    strategy = {"execution_order": "pass-by-pass", "sampler": "sequential"}
    project.write(passes, strategy, pass_flows=[["one", "three"], ["three", "two"]])
    found = project.run()
    assert [each["until"] for each in found["trials"]] == ["", "", "", ""]
    assert points(found)[found["pick"]] == {"pass_flows": 1, "two.a": 3}


def test_pass_by_pass_makes_only_what_it_measures(project) -> None:
    passes = {name: {"type": "Shape", "a": [1, 2, 3]} for name in ("one", "two", "three")}
    project.write(passes, {"execution_order": "pass-by-pass", "sampler": "sequential"},
                  size={"goal": {"type": "threshold", "value": 10_000_000}})  # fmt: skip
    found = project.run()
    assert [each["until"] for each in found["trials"]] == ["one"] * 3 + ["two"] * 3 + [""] * 3
    assert [len(each["steps"]) for each in found["trials"][:3]] == [2 + 1] * 3, "its pass, and two groups of metrics"
    assert points(found)[0] == {"one.a": 1}
    assert points(found)[found["pick"]] == {"one.a": 3, "two.a": 3, "three.a": 3}
    assert project.times_run() == 9
    assert found["qualifying"] == 3, "goals are for what all passes make"


def test_pass_by_pass_makes_the_whole_at_the_end_if_nothing_is_chosen_there(project) -> None:
    passes = {"one": {"type": "Shape", "a": [1, 2]}, "two": {"type": "Shape", "a": 3}}
    project.write(passes, {"execution_order": "pass-by-pass", "sampler": "sequential"})
    found = project.run()
    assert [each["until"] for each in found["trials"]] == ["one", "one", ""]
    assert found["pick"] == 2
    assert (project.output / "shape.txt").read_text().splitlines() == ["2 0.0 plain", "3 0.0 plain"]
    assert project.times_run() == 3


def test_what_cannot_be_measured_goes_on_to_the_next_pass(project) -> None:
    passes = {
        "tune": {"type": "Wrap", "a": [1, 2]},
        "merge": {"type": "Unwrap"},
        "last": {"type": "Shape", "a": [1, 3]},
    }
    project.write(passes, {"execution_order": "pass-by-pass", "sampler": "sequential"})
    found = project.run()
    assert [each["until"] for each in found["trials"]] == ["merge", "merge", "", ""]
    assert points(found)[found["pick"]] == {"tune.a": 2, "last.a": 3}
    assert [each.split()[0] for each in project.lines(project.journal)] == ["wrap", "unwrap"] * 2 + ["1", "3"]


def test_a_tracking_server_that_is_not_there_is_known_before_anything_runs(project) -> None:
    pytest.importorskip("mlflow")
    project.write({"first": {"type": "Shape", "a": [1, 2]}}, tracking={"mlflow": "http://127.0.0.1:9"})
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 3, done.stdout
    assert project.times_run() == 0


def test_it_ends_with_the_first_model_that_meets_every_goal(project) -> None:
    strategy = {"sampler": "sequential", "stop_when_goals_met": True}
    project.write({"first": {"type": "Shape", "a": [1, 2, 3, 4]}}, strategy,
                  score={"goal": {"type": "threshold", "value": 1.5}})  # fmt: skip
    found = project.run()
    assert [each["qualifies"] for each in found["trials"]] == [False, True]
    assert found["pick"] == 1


def test_it_ends_when_its_time_is_up(project) -> None:
    space = {"type": "Shape", "behave": "slow", "a": list(range(40))}
    project.write({"first": space}, {"sampler": "sequential", "max_time": 4})
    done = project.olivine("run", "workflow.json", SHAPE_SECONDS="1.5")
    assert done.returncode == 0, done.stderr
    found = json.loads((project.output / "status.json").read_text())["search"]
    assert 1 <= len(found["trials"]) < 10
    assert found["pick"] == len(found["trials"]) - 1, "the larger a, the better"


def test_the_next_best_models_are_put_out_beside_the_pick(project) -> None:
    project.write({"first": {"type": "Shape", "a": [1, 4, 3, 2]}}, {"sampler": "sequential", "output_model_num": 3})
    found = project.run()
    assert found["put_out"] == [1, 2, 3]
    for folder, a in ((project.output, 4), (project.output / "others/2", 3), (project.output / "others/3", 2)):
        assert (folder / "shape.txt").read_text() == f"{a} 0.0 plain\n"
        assert (folder / "model.safetensors").is_file()
    trial = json.loads((project.output / "others/2/candidate.json").read_text())
    assert trial["point"] == {"first.a": 3}
    (project.output / "others/3/shape.txt").unlink()
    project.run()
    assert (project.output / "others/3/shape.txt").is_file(), "what is missing is put there again"
    done = project.olivine("run", "workflow.json", "--set", "engine.search_strategy.output_model_num=1")
    assert done.returncode == 0, done.stderr
    assert not (project.output / "others").exists()


def test_a_study_in_which_everything_failed_leaves_its_record_and_can_be_tried_again(project) -> None:
    project.write({"first": {"type": "Shape", "a": [1, 2], "behave": "raise"}})
    assert project.olivine("run", "workflow.json").returncode == 1
    [run] = (project.folder / "cache" / "runs").iterdir()
    record = json.loads((run / "record.json").read_text())
    assert record["state"] == "failed"
    assert "every candidate failed, 2 of 2" in record["reason"]
    assert [each["state"] for each in record["search"]["trials"]] == ["failed", "failed"]
    made = project.olivine("report", run.name, "--cache", "cache")
    assert made.returncode == 0, made.stderr
    assert "upside down" in (run / "report.html").read_text()
    shown = project.olivine("study", "show", "--cache-dir", "cache")
    assert shown.returncode == 0, shown.stderr
    assert "2 failed" in shown.stdout
    none = project.olivine("study", "best", "--cache-dir", "cache")
    assert none.returncode == 2
    assert "has no pick" in none.stderr
    assert project.olivine("run", "workflow.json").returncode == 1
    assert project.times_run() == 4, "what failed is tried again"


def test_a_study_is_one_run_in_the_cache(project) -> None:
    project.write({"first": {"type": "Shape", "a": [1, 2]}})
    project.run()
    [run] = (project.folder / "cache" / "runs").iterdir()
    record = json.loads((run / "record.json").read_text())
    assert record["state"] == "succeeded"
    assert len(record["search"]["trials"]) == 2
