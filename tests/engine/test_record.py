"""The record that every run leaves in its folder, whatever came of it."""

from __future__ import annotations

import json


def record_of(project) -> dict:
    runs = sorted((project.cache / "runs").iterdir())
    return json.loads((runs[-1] / "record.json").read_text())


def test_a_run_that_failed_leaves_a_record_and_a_report_that_say_why(project) -> None:
    project.write(first={"mark": "a"}, second={"behave": "raise"}, third={})
    assert project.olivine("run", "workflow.json").returncode == 1
    record = record_of(project)
    assert record["state"] == "failed"
    assert record["failed"] == "second"
    assert "the third weight is upside down" in record["reason"]
    assert [step["state"] for step in record["steps"]] == ["done", "failed", "pending"]
    made = project.olivine("report", record["run"])
    assert made.returncode == 0, made.stderr
    page = (project.cache / "runs" / record["run"] / "report.html").read_text()
    assert "the third weight is upside down" in page
    assert not project.output.exists()


def test_a_run_whose_result_cannot_be_put_in_place_is_recorded_as_failed(project) -> None:
    project.write(first={"mark": "a"})
    project.output.mkdir()
    (project.output / "mark.txt").write_text("mine")
    assert project.olivine("run", "workflow.json").returncode == 1
    record = record_of(project)
    assert record["state"] == "failed"
    assert "mark.txt" in record["reason"]
    assert [step["state"] for step in record["steps"]] == ["done"]


def test_an_output_without_its_report_gets_it_with_the_next_run(project) -> None:
    project.write(first={"mark": "a"})
    assert project.olivine("run", "workflow.json").returncode == 0
    (project.output / "report.html").unlink()
    assert project.olivine("run", "workflow.json").returncode == 0
    assert (project.output / "report.html").is_file()
    assert project.times_run() == 1
