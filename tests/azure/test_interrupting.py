"""Ctrl-C while a job is followed: on a terminal the user is asked whether it goes on, elsewhere it does."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from job_project import JobProject, measuring
from standin.cloud import Cloud
from terminal import Terminal


@pytest.fixture
def project(cloud: Cloud, pico_model: Path, tmp_path: Path) -> JobProject:
    cloud.jobs.forget()
    cloud.add_model("olivine-models", "interrupted", "1", pico_model, "custom_model", registry=True)
    made = JobProject(tmp_path, cloud)
    made.write(measuring(cloud, "azureml://registries/olivine-models/models/interrupted/versions/1"))
    return made


def following(project: JobProject, terminal: Terminal) -> Any:
    """Wait until a job is followed that runs; return it."""
    until = time.monotonic() + 300
    while time.monotonic() < until and not any(each.status == "Running" for each in project.jobs()):
        time.sleep(0.05)
    (job,) = project.jobs()
    terminal.wait_for(f"running in {job.name}")
    return job


def open_terminal(project: JobProject) -> Terminal:
    command = [sys.executable, "-m", "olivine", "run", "workflow.json"]
    return Terminal(command, project.folder, project.cloud.process_environment())


def test_on_a_terminal_ctrl_c_asks_whether_the_job_goes_on_and_does_what_is_answered(project: JobProject) -> None:
    project.cloud.jobs.gate.clear()
    # Enter: it goes on.
    with open_terminal(project) as terminal:
        job = following(project, terminal)
        terminal.press(Terminal.CTRL_C)
        terminal.wait_for("End it now? [y/N] ")
        assert "Run the same command again to come back to it." in " ".join(terminal.shown.split())
        terminal.press("\n")
        assert terminal.end() == 130
        assert "It goes on." in terminal.shown
    assert (job.status, job.cancelled.is_set()) == ("Running", False)

    # The same command comes back to it; Ctrl-C twice is no wish to end it, either.
    with open_terminal(project) as terminal:
        assert following(project, terminal) is job
        terminal.press(Terminal.CTRL_C)
        terminal.wait_for("End it now? [y/N] ")
        terminal.press(Terminal.CTRL_C)
        assert terminal.end() == 130
        assert "It goes on." in terminal.shown
        assert "Traceback" not in terminal.shown
    assert (job.status, job.cancelled.is_set()) == ("Running", False)

    # Nor is an impatient one, before anything was asked.
    with open_terminal(project) as terminal:
        assert following(project, terminal) is job
        terminal.press(Terminal.CTRL_C * 3)
        terminal.wait_for("End it now? [y/N] ")
        terminal.press("\n")
        assert terminal.end() == 130
        assert "Traceback" not in terminal.shown
        assert "goes on" in terminal.shown
    assert (job.status, job.cancelled.is_set()) == ("Running", False)

    # y: it is ended.
    with open_terminal(project) as terminal:
        assert following(project, terminal) is job
        terminal.press(Terminal.CTRL_C)
        terminal.wait_for("End it now? [y/N] ")
        terminal.press("y\n")
        assert terminal.end() == 130
        assert "It is being ended." in terminal.shown
    assert job.ended.wait(60)
    assert job.status == "Canceled"
    assert project.cloud.jobs.submissions == [job.name]

    project.cloud.jobs.gate.set()
    # What was cancelled is submitted again when it is wanted again.
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.cloud.jobs.submissions == [job.name, f"{job.name}-2"]


def test_if_the_service_does_not_take_the_wish_to_end_it_that_is_said(project: JobProject) -> None:
    project.cloud.jobs.gate.clear()
    with open_terminal(project) as terminal:
        job = following(project, terminal)
        terminal.press(Terminal.CTRL_C)
        terminal.wait_for("End it now? [y/N] ")
        project.cloud.faults.arm("status", "arm POST .*/cancel", times=100, status=403)
        terminal.press("y\n")
        assert terminal.end() == 130
        said = " ".join(terminal.shown.split())
        assert f"cancelling the job {job.name}" in said
        assert "It goes on, as far as is known." in said
        assert "Traceback" not in said
    assert not job.cancelled.is_set()
