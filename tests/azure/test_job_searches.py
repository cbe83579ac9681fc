"""Whole searches as one job, and Olive's ``workflow_host``, through the real SDK and the real command line."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from job_project import JobProject, rows, workflow
from standin.cloud import Cloud

VERSIONS = itertools.count(1)


@pytest.fixture
def project(cloud: Cloud, tmp_path: Path) -> JobProject:
    cloud.jobs.forget()
    return JobProject(tmp_path, cloud)


@pytest.fixture
def model(cloud: Cloud, pico_model: Path) -> str:
    """The address of a pico model in the registry, of a version of its own: jobs are named for what they read."""
    version = str(next(VERSIONS))
    cloud.add_model("olivine-models", "searched", version, pico_model, "custom_model", registry=True)
    return f"azureml://registries/olivine-models/models/searched/versions/{version}"


def searching(cloud: Cloud, model: str, **passes: Any) -> dict[str, Any]:
    """Quantise in several ways, and take the smallest."""
    config = workflow(cloud, model, "")
    del config["data_configs"]
    config["passes"] = {"quantize": {"type": "Quantize", "group_size": [32, 64]} | passes}
    config["evaluators"] = {"small": {"metrics": [{"type": "size"}]}}
    config["engine"] |= {"evaluator": "small", "search_strategy": {"sampler": "sequential"}}
    return config


def result(project: JobProject) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.folder / "models" / "status.json").read_text())["search"]
    return found


def ended_after_a_step(project: JobProject, cloud: Cloud) -> dict[str, Any]:
    """Kill the job as soon as it has left a Step; return what it has left, by digest."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        for job in project.jobs():
            left = list(cloud.jobs.folder.glob(f"*/{job.name}-*/outputs/results/steps/*/answer.json"))
            if left and job.processes is not None:
                for pid in job.processes.pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
                return {each.parent.name: json.loads(each.read_text()) for each in left}
        time.sleep(0.02)
    raise AssertionError("the job has left nothing")


def test_a_whole_search_is_one_job_and_its_study_trials_pick_and_model_come_home(
    project: JobProject, model: str, cloud: Cloud
) -> None:
    config = searching(cloud, model)
    project.write(config)
    planned = project.olivine("plan", "workflow.json")
    assert "the whole search, in one job: on the compute cpu-cluster" in " ".join(planned.stdout.split())
    # The client dies while the job runs; the same command comes back to it.
    cloud.faults.arm("call", "blob GET .*/user_logs/std_log", action=lambda: project.kill())
    project.running = project.start("run", "workflow.json")
    project.running.communicate(timeout=600)
    assert project.running.returncode == -9
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = project.jobs()
    assert [each.status for each in jobs] == ["Completed"]
    assert "submitted before; coming back to it" in done.stdout
    found = result(project)
    assert (found["complete"], found["failed"], found["pick_point"]) == (2, 0, {"quantize.group_size": 64})
    assert (project.folder / "models" / "model.safetensors").is_file()
    assert "candidate" in (project.folder / "models" / "report.html").read_text()
    shown = project.olivine("study", "show", "--cache-dir", "cache")
    assert shown.returncode == 0, shown.stderr
    assert "2 candidates measured" in shown.stdout
    trials = project.olivine("study", "trials", "--json", "--cache-dir", "cache").stdout.splitlines()
    assert [json.loads(each)["state"] for each in trials] == ["complete", "complete"]

    cloud.faults.outage(3600)
    again = project.olivine("run", "workflow.json")
    cloud.faults.clear()
    assert again.returncode == 0, again.stdout + again.stderr
    assert result(project)["trials"] == found["trials"]

    # A candidate that was not the pick comes from the same job when a workflow asks for it.
    config["passes"]["quantize"]["group_size"] = 32
    config["engine"]["search_strategy"] = False
    project.write(config)
    other = project.olivine("run", "workflow.json")
    assert other.returncode == 0, other.stdout + other.stderr
    assert len(project.jobs()) == 1


def test_a_search_samples_and_trains_in_its_job(project: JobProject, model: str, cloud: Cloud) -> None:
    data = cloud.put_data("one", "training", "phrases/train.jsonl", rows())
    config = workflow(cloud, model, data)
    config["passes"]["lora"]["r"] = [2, 4]
    del config["passes"]["builder"]
    config["passes"]["lora"]["target_modules"] = ["qkv_proj"]
    config["evaluators"] = {"all": {"metrics": [{"type": "size"}]}}
    config["engine"] |= {"evaluator": "all", "search_strategy": {"sampler": "tpe", "max_samples": 2, "seed": 3}}
    project.write(config)
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [each.status for each in project.jobs()] == ["Completed"]
    assert (project.folder / "models" / "model.safetensors").is_file()
    assert result(project)["complete"] == 2


def test_a_search_whose_job_was_taken_away_goes_on_in_another_with_what_was_done(
    project: JobProject, model: str, cloud: Cloud
) -> None:
    project.write(searching(cloud, model))
    client = project.start("run", "workflow.json")
    answers = ended_after_a_step(project, cloud)
    _, err = client.communicate(timeout=600)
    assert client.returncode == 1, err
    assert "failed" in err
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = project.jobs()
    assert (first.status, second.status, second.name) == ("Failed", "Completed", f"{first.name}-2")
    assert "before" in second.body["properties"]["inputs"]
    seconds = {step["digest"]: step["seconds"] for trial in result(project)["trials"] for step in trial["steps"]}
    for digest, answer in answers.items():
        # What it took to digest and keep the result comes on top of what the worker said.
        assert 0 <= seconds[digest] - answer["answer"]["seconds"] + 1e-3 < 0.2, "it was made once more"


def test_offline_a_search_is_written_as_one_job_and_nobody_is_asked(
    project: JobProject, model: str, cloud: Cloud
) -> None:
    from azure.ai.ml import load_job

    project.write(searching(cloud, model))
    before = len(cloud.seen())
    done = project.olivine("plan", "workflow.json", "--offline", "out")
    assert done.returncode == 0, done.stderr
    assert len(cloud.seen()) == before
    (written,) = (project.folder / "out").rglob("job.yaml")
    assert [each.path for each in load_job(written).inputs.values()] == [model]
    request = json.loads((written.parent / "code" / "request.json").read_text())
    assert request["search"]["workflow"]["passes"]["quantize"]["params"]["group_size"] == [32, 64]


def test_olives_workflow_host_sends_everything_as_one_job_whatever_host_and_target_say(
    project: JobProject, model: str, cloud: Cloud
) -> None:
    docker = {"base_image": "mcr.microsoft.com/azureml/base:latest", "conda_file_path": "conda.yaml"}
    name, _, version = model.removeprefix("azureml://registries/olivine-models/models/").partition("/versions/")
    project.write(
        {
            "azureml_client": cloud.client("one"),
            "input_model": {
                "type": "HfModel",
                "model_path": {
                    "type": "azureml_registry_model", "name": name, "version": version,
                    "registry_name": "olivine-models",
                },
            },
            "systems": {
                "local_system": {
                    "type": "LocalSystem",
                    "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
                },
                "aml_system": {
                    "type": "AzureML", "accelerators": [{"device": "cpu"}], "aml_compute": "cpu-cluster",
                    "aml_docker_config": docker,
                },
            },
            "passes": {"quantize": {"type": "Quantize"}},
            "workflow_id": "sent",
            "workflow_host": "aml_system",
            "host": "local_system",
            "target": "local_system",
            "search_strategy": False,
            "cache_dir": "cache",
            "output_dir": "models",
        }
    )  # fmt: skip
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dialect" in done.stdout
    assert [each.status for each in project.jobs()] == ["Completed"]
    assert project.jobs()[0].body["properties"]["experimentName"] == "sent"
    assert (project.folder / "models" / "model.safetensors").is_file()
