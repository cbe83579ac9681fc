"""A run from the outside: the real command line, real workers, a third party's pass."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def wait_for(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_a_run_puts_the_model_and_its_papers_into_the_output_folder(project) -> None:
    project.write(first={"mark": "a"}, second={"mark": "b"})
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stderr
    assert (project.output / "mark.txt").read_text() == "b"
    assert (project.output / "model.safetensors").is_file()
    status = json.loads((project.output / "status.json").read_text())
    assert status["state"] == "succeeded"
    assert [step["name"] for step in status["steps"]] == ["first", "second"]
    assert "first" in (project.output / "model_card.md").read_text()
    assert "second" in (project.output / "workflow.yaml").read_text()
    assert "library noise" not in done.stdout + done.stderr


def test_the_published_workflow_makes_the_same_model_from_the_cache(project) -> None:
    project.write(first={"mark": "a"})
    assert project.olivine("run", "workflow.json").returncode == 0
    again = project.olivine("run", str(project.output / "workflow.yaml"))
    assert again.returncode == 0, again.stderr
    assert project.times_run() == 1


def test_an_unchanged_run_runs_nothing_and_says_the_same(project) -> None:
    project.write(first={"mark": "a"})
    first = project.olivine("run", "workflow.json")
    second = project.olivine("run", "workflow.json")
    assert second.returncode == 0, second.stderr
    assert project.times_run() == 1

    def summary(text: str) -> list[str]:
        return [line for line in text.partition("\n\n")[2].splitlines() if not line.startswith("time")]

    assert summary(first.stdout)
    assert summary(second.stdout) == summary(first.stdout)


def test_only_what_a_change_touches_runs_again(project) -> None:
    project.write(first={"mark": "a"}, second={"mark": "b"})
    assert project.olivine("run", "workflow.json").returncode == 0
    changed = project.olivine("run", "workflow.json", "--set", "passes.second.mark=c")
    assert changed.returncode == 0, changed.stderr
    assert project.times_run() == 3
    assert (project.output / "mark.txt").read_text() == "c"


def test_a_renamed_pass_is_still_found(project) -> None:
    project.write(first={"mark": "a"})
    assert project.olivine("run", "workflow.json").returncode == 0
    project.write(renamed={"mark": "a"})
    assert project.olivine("run", "workflow.json").returncode == 0
    assert project.times_run() == 1


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        ("raise", "the third weight is upside down"),
        ("exhaust", "ran out of memory"),
        ("die", "killed (signal 9)"),
        ("fill", "disk is full"),
        ("nothing", "made no files"),
    ],
)
def test_a_failed_step_exits_non_zero_says_why_and_leaves_the_output_alone(project, behave: str, said: str) -> None:
    project.write(first={"mark": "good"})
    assert project.olivine("run", "workflow.json").returncode == 0
    project.write(first={"mark": "good"}, second={"behave": behave})
    failed = project.olivine("run", "workflow.json")
    assert failed.returncode == 1
    assert said in " ".join(failed.stderr.split())
    assert "passes.second" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert (project.output / "mark.txt").read_text() == "good"
    assert project.olivine("cache", "verify").returncode == 0
    project.write(first={"mark": "good"}, second={"mark": "mended"})
    assert project.olivine("run", "workflow.json").returncode == 0
    assert (project.output / "mark.txt").read_text() == "mended"


def test_debug_shows_the_workers_traceback(project) -> None:
    project.write(first={"behave": "raise"})
    failed = project.olivine("run", "workflow.json", "--debug")
    assert failed.returncode == 1
    assert "Traceback" in failed.stderr
    assert "copy_plugin.py" in failed.stderr


def test_events_are_json_one_a_line(project) -> None:
    project.write(first={"mark": "a"})
    done = project.olivine("run", "workflow.json", "--json")
    assert done.returncode == 0
    assert len(events(done.stdout)) == len(done.stdout.splitlines())
    kinds = [event["event"] for event in events(done.stdout)]
    assert kinds[0] == "run-started"
    assert kinds[-1] == "run-done"
    assert {"step-started", "progress", "step-done", "published"} <= set(kinds)


def test_a_run_killed_at_any_moment_is_completed_by_the_next(project) -> None:
    project.write(first={"mark": "a"}, second={"mark": "b", "behave": "slow"})
    for delay in (0.2, 0.6, 1.2, 2.0, 3.0):
        running = project.start("run", "workflow.json", COPY_SECONDS="2")
        time.sleep(delay)
        running.kill()
        running.wait()
        for pipe in (running.stdout, running.stderr):
            pipe.close()
    done = project.olivine("run", "workflow.json", COPY_SECONDS="0")
    assert done.returncode == 0, done.stderr
    assert (project.output / "mark.txt").read_text() == "b"
    assert project.olivine("cache", "verify").returncode == 0


def test_the_worker_goes_when_its_engine_is_killed(project) -> None:
    project.write(first={"behave": "slow"})
    running = project.start("run", "workflow.json")
    wait_for(lambda: project.times_run() == 1)
    worker = int(project.journal.read_text().split()[0])
    running.kill()
    running.wait()
    wait_for(lambda: not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE, 5)
    for pipe in (running.stdout, running.stderr):
        pipe.close()


def test_ctrl_c_ends_the_worker_and_says_how_to_go_on(project) -> None:
    project.write(first={"behave": "slow"})
    running = project.start("run", "workflow.json")
    wait_for(lambda: project.times_run() == 1)
    worker = int(project.journal.read_text().split()[0])
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "again" in said
    assert "Traceback" not in said
    wait_for(lambda: not psutil.pid_exists(worker), 5)


def test_two_runs_on_one_cache_do_the_work_once(project) -> None:
    project.write("one.json", first={"behave": "slow"})
    project.write("two.json", first={"behave": "slow"})
    runs = [
        project.start("run", name, "--set", f"engine.output_dir={folder}", COPY_SECONDS="3")
        for name, folder in (("one.json", "models-one"), ("two.json", "models-two"))
    ]
    said = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert project.times_run() == 1
    assert any("waiting" in output for output, _ in said)
    for folder in ("models-one", "models-two"):
        assert (project.folder / folder / "model.safetensors").is_file()


def test_a_worker_does_not_see_the_hub_token_unless_allowed(project, plugin: Path) -> None:
    from olivine.systems.local import LocalRunner

    os.environ["HF_TOKEN"] = "hf_canary"
    try:
        for allowed in (False, True):
            runner = LocalRunner(project.folder / "log.txt", give_token=allowed)
            worker = psutil.Process(runner.start().pid)
            deadline = time.monotonic() + 30
            while not (environment := worker.environ()) and time.monotonic() < deadline:
                time.sleep(0.01)  # in the middle of exec a process shows none
            assert "PATH" in environment
            runner.close()
            assert ("HF_TOKEN" in environment) is allowed
    finally:
        del os.environ["HF_TOKEN"]


def test_a_step_that_takes_more_memory_than_it_may_is_stopped(project) -> None:
    project.write(first={"behave": "hoard"})
    stopped = project.olivine("run", "workflow.json", "--set", "engine.max_memory=600MB")
    said = " ".join(stopped.stderr.split())
    assert stopped.returncode == 1, stopped.stdout
    assert "first was stopped: it took 6" in said
    assert "engine.max_memory allows 600 MB" in said
    assert "in passes.first set mark: less (2 MB)" in said
    assert not project.output.exists()


@pytest.mark.parametrize(
    ("behave", "what"),
    [("die", "the worker of first was killed (signal 9), "), ("exhaust", "first ran out of memory")],
)
def test_running_out_of_memory_is_told_with_the_peak_and_what_takes_less(project, behave: str, what: str) -> None:
    project.write(first={"behave": behave})
    failed = project.olivine("run", "workflow.json")
    said = " ".join(failed.stderr.split())
    assert failed.returncode == 1
    assert what in said
    peak = re.search(r"[Ii]t held (\d+|\d\.\d) (MB|GB) at most", said)
    assert peak is not None, said
    assert float(peak[1]) * (1000 if peak[2] == "GB" else 1) > (400 if behave == "die" else 20)
    assert "In passes.first set mark: less (2 MB)" in said


def test_a_worker_that_hangs_is_stopped_and_the_log_says_where_it_stood(project) -> None:
    project.write(first={"behave": "hang"})
    stopped = project.olivine("run", "workflow.json", "--set", "engine.hang_timeout=1")
    assert stopped.returncode == 1
    said = " ".join(stopped.stderr.split())
    assert "passes.first: first was stopped: for 1 s its worker said nothing" in said
    assert "engine.hang_timeout" in said
    log = next(project.cache.glob("runs/*/log.txt")).read_text()
    assert "in run" in log
    assert "copy_plugin.py" in log
    project.write(first={"behave": "well"})
    assert project.olivine("run", "workflow.json").returncode == 0


def test_a_worker_that_is_only_slow_is_not_stopped(project) -> None:
    project.write(first={"behave": "busy"})
    done = project.olivine("run", "workflow.json", "--set", "engine.hang_timeout=1")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("where", ["passes.first.timeout", "engine.step_timeout"])
def test_a_worker_that_computes_for_ever_is_stopped_after_the_time_that_it_may_take(project, where: str) -> None:
    project.write(first={"behave": "busy"})
    stopped = project.olivine("run", "workflow.json", "--set", f"{where}=6", COPY_SECONDS="600")
    assert stopped.returncode == 1, stopped.stderr
    said = " ".join(stopped.stderr.split())
    assert "passes.first: first was stopped: it was not done after 6 s" in said
    assert "timeout of the pass, or with engine.step_timeout" in said
    log = next(project.cache.glob("runs/*/log.txt")).read_text()
    assert "copy_plugin.py" in log
    project.write(first={"behave": "well"})
    assert project.olivine("run", "workflow.json", "--set", f"{where}=100").returncode == 0


def test_the_time_that_a_step_may_take_is_no_part_of_what_it_makes(project) -> None:
    project.write(first={"timeout": 100})
    assert project.olivine("run", "workflow.json").returncode == 0
    project.write(first={})
    assert project.olivine("run", "workflow.json").returncode == 0
    assert project.times_run() == 1


def test_what_another_machine_has_made_is_taken_from_the_shared_cache(project) -> None:
    project.write(first={"mark": "a"}, second={"mark": "b"})
    team = project.folder / "team"
    share = ("--set", f'engine.shared_cache={{"url": "{team}", "writable": true}}')
    assert project.olivine("run", "workflow.json", *share).returncode == 0
    assert project.times_run() == 2
    elsewhere = ("--set", f"engine.shared_cache={team}", "--set", "engine.output_dir=other")
    done = project.olivine("run", "workflow.json", *elsewhere, "--set", "engine.cache_dir=other-cache")
    assert done.returncode == 0, done.stderr
    assert project.times_run() == 2
    assert (project.folder / "other" / "mark.txt").read_text() == "b"
    next(team.glob("artifacts/*/*/files/mark.txt")).write_text("x")
    again = project.olivine("run", "workflow.json", *elsewhere, "--set", "engine.cache_dir=third-cache")
    assert again.returncode == 0, again.stderr
    assert "is damaged" in " ".join(again.stdout.split())
    assert project.times_run() == 3


def test_a_shared_cache_that_cannot_be_reached_is_told_once_and_the_run_goes_on(project) -> None:
    project.write(first={"mark": "a"}, second={"mark": "b"})
    done = project.olivine("run", "workflow.json", "--set", "engine.shared_cache=http://127.0.0.1:9/cache")
    assert done.returncode == 0, done.stderr
    assert " ".join(done.stdout.split()).count("does not answer") == 1
    assert project.times_run() == 2
