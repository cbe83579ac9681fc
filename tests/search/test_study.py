"""Searches from the outside: the real command line, real workers, a pass and a metric with a known outcome."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any


def point(found: dict[str, Any], number: int) -> dict[str, Any]:
    trial: dict[str, Any] = found["trials"][number]
    return dict(trial["point"])


def test_a_grid_finds_the_best_shares_prefixes_and_gives_the_front(project) -> None:
    project.write(
        {
            "first": {"type": "Shape", "a": [1, 2]},
            "second": [{"type": "Shape", "a": 1, "kind": "fancy"}, {"type": "Shape", "a": 2}],
        }
    )
    found = project.run()
    assert found["points"] == len(found["trials"]) == found["complete"] == 4
    # score is a + a' - 0.5 (+ 0.5 if fancy); the size grows with the second a only.
    assert point(found, found["pick"]) == {"first.a": 2, "second": "Shape-1"}
    assert {json.dumps(point(found, each)) for each in found["pareto_front"]} == {
        json.dumps({"first.a": 2, "second": "Shape-1"}), json.dumps({"first.a": 2, "second": "Shape-0"}),
    }  # fmt: skip
    assert "highest score of 4 that were measured" in found["why"]
    assert len(project.lines(project.journal)) == 2 + 4, "each first pass runs once"
    assert (project.output / "shape.txt").read_text().splitlines() == ["2 0.0 plain", "2 0.0 plain"]
    workflow = (project.output / "workflow.yaml").read_text()
    assert "search_strategy" not in workflow

    shown = project.olivine("study", "show", "--cache-dir", "cache")
    assert shown.returncode == 0, shown.stderr
    assert "4 candidates measured" in shown.stdout
    best = json.loads(project.olivine("study", "best", "--json", "--cache-dir", "cache").stdout)
    assert best["number"] == found["pick"]
    trials = project.olivine("study", "trials", "--json", "--cache-dir", "cache").stdout.splitlines()
    assert [json.loads(each)["number"] for each in trials] == [0, 1, 2, 3]


def test_what_can_no_longer_qualify_is_stopped_before_it_costs(project) -> None:
    size = {"goal": {"type": "threshold", "value": 1}}
    project.write({"first": {"type": "Shape", "a": [1, 2]}}, size=size)
    found = project.run(code=4)
    assert (found["stopped"], found["qualifying"]) == (2, 0)
    assert found["why"].startswith("none of 2 candidates meets every goal; this is the nearest miss: missed by ")
    assert point(found, found["pick"]) == {"first.a": 1}
    assert len(project.lines(project.measured)) == 1, "only the nearest miss is measured in full, to be shown"
    assert "nearest miss" in (project.output / "status.json").read_text()


def test_faults_are_recorded_with_their_reason_and_the_study_goes_on(project) -> None:
    behave = ["raise", "exhaust", "die", "hang", "nan", "well"]
    project.write(
        {"first": {"type": "Shape", "a": 1, "behave": behave}}, {"sampler": "sequential", "candidate_timeout": 12}
    )
    found = project.run()
    assert (found["failed"], found["complete"]) == (5, 1)
    reasons = {each["point"]["first.behave"]: each["reason"] for each in found["trials"]}
    assert "upside down" in reasons["raise"]
    assert "out of memory" in reasons["exhaust"]
    assert "signal 9" in reasons["die"]
    assert "longer than a candidate may" in reasons["hang"]
    assert "nan for loss" in reasons["nan"]
    assert point(found, found["pick"])["first.behave"] == "well"


def test_if_all_fail_the_run_fails_and_says_why(project) -> None:
    project.write({"first": {"type": "Shape", "a": [1, 2], "behave": "raise"}})
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 1
    assert "every candidate failed, 2 of 2" in " ".join(done.stderr.split())
    assert "upside down" in done.stderr
    assert not project.output.exists()


def test_a_search_pass_by_pass_settles_one_after_the_other(project) -> None:
    project.write(
        {"first": {"type": "Shape", "a": [1, 3]}, "second": {"type": "Shape", "a": [1, 2], "optional": True}},
        {"execution_order": "pass-by-pass", "sampler": "sequential"},
    )
    found = project.run()
    assert len(found["trials"]) == 2 + 3
    assert point(found, found["pick"]) == {"first.a": 3, "second": "Shape", "second.a": 2}
    assert {"first.a": 3, "second": "left out"} in [each["point"] for each in found["trials"]]


def test_it_goes_on_after_a_kill_to_the_same_answer(project) -> None:
    space = {"type": "Shape", "behave": "slow", "a": [1, 2, 3], "b": {"low": 0, "high": 4, "step": 1}}
    project.write({"first": space}, {"sampler": "tpe", "max_samples": 5, "seed": 1})
    expected = project.run()
    ran = len(project.lines(project.journal))
    for folder in ("cache", "models"):
        subprocess.run(["rm", "-rf", str(project.folder / folder)], check=True)
    project.journal.unlink()

    environment = project.environment | {"SHAPE_SECONDS": "0.3"}
    running = subprocess.Popen(
        project.command("run", "workflow.json"), cwd=project.folder, env=environment, stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while len(project.lines(project.journal)) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    found = project.run()
    assert [each["point"] for each in found["trials"]] == [each["point"] for each in expected["trials"]]
    assert [each["values"] for each in found["trials"]] == [each["values"] for each in expected["trials"]]
    assert found["pick"] == expected["pick"]
    assert len(project.lines(project.journal)) <= ran + 1, "only what the kill interrupted ran twice"


def test_workers_make_candidates_side_by_side_with_the_same_outcome(project) -> None:
    space = {"type": "Shape", "a": [1, 2, 3], "b": [4, 5]}
    project.write({"first": dict(space)}, {"sampler": "sequential", "workers": 2})
    found = project.run()
    assert [each["number"] for each in found["trials"]] == list(range(6))
    assert point(found, found["pick"]) == {"first.a": 3, "first.b": 5}
    assert found["failed"] == 0


def test_every_form_that_olive_has_for_a_search(project) -> None:
    project.write({"first": {"type": "Shape", "a": "SEARCHABLE_VALUES"}})
    config = json.loads((project.folder / "workflow.json").read_text())
    for strategy in (
        {"execution_order": "joint", "search_algorithm": "exhaustive"},
        {"execution_order": "joint", "sampler": "sequential", "sampler_config": {}},
        True,
    ):
        config["engine"]["search_strategy"] = strategy
        config.pop("version", None)
        (project.folder / "workflow.json").write_text(json.dumps(config))
        planned = project.olivine("plan", "workflow.json")
        assert planned.returncode == 0, planned.stderr
        assert "sequential search over 3 points: first.a (3)" in " ".join(planned.stdout.split())


def test_choices_without_a_search_are_refused(project) -> None:
    project.write({"first": {"type": "Shape", "a": [1, 2]}})
    done = project.olivine("run", "workflow.json", "--set", "engine.search_strategy=false")
    assert done.returncode == 3
    assert "no search is asked for" in " ".join(done.stderr.split())
