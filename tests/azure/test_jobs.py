"""Steps as jobs, through the real SDK: submitted once, followed, brought home, and left as the service leaves them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from canaries import CANARIES, assert_no_canary
from job_project import JobProject, measuring, rows, workflow
from standin.cloud import Cloud
from standin.identity_service import CLIENT_SECRET

VERSIONS = itertools.count(1)


@pytest.fixture
def project(cloud: Cloud, tmp_path: Path) -> JobProject:
    cloud.jobs.forget()
    return JobProject(tmp_path, cloud)


@pytest.fixture
def model(cloud: Cloud, pico_model: Path) -> str:
    """The address of a pico model in the registry, of a version of its own: jobs are named for what they read."""
    version = str(next(VERSIONS))
    cloud.add_model("olivine-models", "pico", version, pico_model, "custom_model", registry=True)
    return f"azureml://registries/olivine-models/models/pico/versions/{version}"


def test_a_workflow_runs_as_one_job_and_its_results_come_home(project: JobProject, model: str, cloud: Cloud) -> None:
    data = cloud.put_data("one", "training", "phrases/train.jsonl", rows())
    project.write(workflow(cloud, model, data))
    # What the job is told, uploaded, logs and brings home holds no secret of this machine.
    secrets = {name: value for name, value in CANARIES.items() if name != "AZURE_CLIENT_SECRET"}
    done = project.olivine("run", "workflow.json", **secrets)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = project.jobs()
    assert [each.status for each in jobs] == ["Completed"]
    texts = [done.stdout, done.stderr, *(json.dumps(each.body) for each in jobs)]
    assert assert_no_canary([project.folder, cloud.folder / "jobs"], texts, more=[CLIENT_SECRET]) > 20
    status = json.loads((project.folder / "models" / "status.json").read_text())
    assert status["state"] == "succeeded"
    assert (project.folder / "models" / "genai_config.json").is_file()
    body = jobs[0].body["properties"]
    assert {each["jobInputType"] for each in body["inputs"].values()} == {"custom_model", "uri_file"}
    again = project.olivine("run", "workflow.json")
    assert again.returncode == 0, again.stderr
    assert len(project.jobs()) == 1
    said: dict[str, Any] = {"in the cache": again.stdout.count("in the cache")}
    assert said == {"in the cache": 3}


def test_a_client_that_was_killed_comes_back_to_its_job_and_nothing_is_paid_twice(
    project: JobProject, model: str, cloud: Cloud
) -> None:
    project.write(measuring(cloud, model))
    # The service has taken the job, and the client dies before it is told so.
    cloud.faults.arm("call", "arm PUT .*/jobs/olivine-", action=lambda: project.kill(), late=True)
    first = project.start("run", "workflow.json")
    project.running = first
    first.communicate(timeout=300)
    assert first.returncode == -9
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(each.status, each.starts) for each in project.jobs()] == [("Completed", 1)]


def test_a_step_that_fails_says_so_and_what_was_done_before_it_is_kept(
    project: JobProject, model: str, cloud: Cloud
) -> None:
    config = workflow(cloud, model, cloud.put_data("one", "training", "phrases/train.jsonl", rows()))
    config["evaluators"] = {"size": {"metrics": [{"type": "size"}]}}
    config["engine"]["evaluator"] = "size"
    config["passes"]["lora"]["target_modules"] = ["no_such_projection"]
    project.write(config)
    done = project.olivine("run", "workflow.json")
    said = " ".join(done.stderr.split())
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no_such_projection" in said
    assert "Traceback" not in said
    assert "t ran in the job olivine-" in said
    assert [each.status for each in project.jobs()] == ["Failed"]
    again = project.olivine("run", "workflow.json")
    assert "evaluate input model: in the cache" in again.stdout, again.stdout + again.stderr
    assert len(project.jobs()) == 2


def test_a_job_without_a_result_is_said_to_be_one_and_another_attempt_has_another_name(
    project: JobProject, model: str, cloud: Cloud
) -> None:
    project.write(measuring(cloud, model))
    cloud.jobs.drop_outputs.add("results")
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "left no result" in " ".join(done.stderr.split())
    cloud.jobs.drop_outputs.clear()
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    names = [each.name for each in project.jobs()]
    assert names == [names[0], f"{names[0]}-2"]


def test_offline_the_jobs_are_written_and_nobody_is_asked(project: JobProject, model: str, cloud: Cloud) -> None:
    from azure.ai.ml import load_job

    data = cloud.put_data("one", "training", "phrases/train.jsonl", rows())
    project.write(workflow(cloud, model, data, identity="user", tags={"team": "a"}))
    before = len(cloud.seen())
    done = project.olivine("plan", "workflow.json", "--offline", "out")
    assert done.returncode == 0, done.stderr
    assert len(cloud.seen()) == before
    written = list((project.folder / "out").rglob("job.yaml"))
    assert len(written) == 1
    job = load_job(written[0])
    assert job.compute == "cpu-cluster"
    assert job.identity.type == "user_identity"
    assert [each.path for each in job.inputs.values() if each.type == "custom_model"] == [model]
    assert job.tags["team"] == "a"
    assert {each.name for each in (written[0].parent / "code").iterdir()} >= {"start.py", "request.json"}


def test_a_secret_is_not_written_into_a_job(project: JobProject, model: str, cloud: Cloud) -> None:
    config = workflow(cloud, model, cloud.put_data("one", "training", "phrases/train.jsonl", rows()))
    config["data_configs"][0]["text_template"] = "${env:PLAIN_NAME} {phrase}"
    project.write(config)
    done = project.olivine("plan", "workflow.json", "--offline", "out", **CANARIES)
    assert done.returncode == 2, done.stdout
    assert "a secret would be written into the job" in " ".join(done.stderr.split())
    assert "${env:PLAIN_NAME} {phrase}" in " ".join(done.stderr.split())
    (project.folder / "workflow.json").unlink()
    assert assert_no_canary([project.folder], [done.stdout, done.stderr]) > 0


def test_a_plan_looks_at_what_it_names_and_says_what_is_not_there(
    project: JobProject, model: str, cloud: Cloud
) -> None:
    data = cloud.put_data("one", "training", "phrases/train.jsonl", rows())
    for key, value, expected in (
        ("aml_compute", "no-such-compute", "no-such-compute"),
        ("aml_environment_config", {"name": "nowhere", "version": "1"}, "nowhere"),
        ("aml_docker_config", {"base_image": "x", "conda_file_path": "old.yaml"}, "Python 3.8"),
    ):
        (project.folder / "old.yaml").write_text(json.dumps({"dependencies": ["python=3.8.13", "pip"]}))
        project.write(workflow(cloud, model, data, **{key: value}))
        done = project.olivine("plan", "workflow.json")
        said = " ".join(done.stderr.split())
        assert done.returncode in (2, 3), done.stdout + done.stderr
        assert expected in said
        assert "systems" in said
        assert project.jobs() == []
    project.write(workflow(cloud, model, data.replace("train.jsonl", "missing.jsonl")))
    done = project.olivine("plan", "workflow.json")
    assert done.returncode in (2, 3)
    assert "missing.jsonl" in done.stderr


def test_one_job_for_each_step_passes_results_on_by_reference(project: JobProject, model: str, cloud: Cloud) -> None:
    data = cloud.put_data("one", "training", "phrases/train.jsonl", rows())
    config = workflow(cloud, model, data, one_job_per="step")
    del config["passes"]["builder"]
    project.write(config)
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = project.jobs()
    assert [each.status for each in jobs] == ["Completed"] * 2
    inputs = [each["uri"] for job in jobs for each in job.body["properties"]["inputs"].values()]
    assert not [each for each in inputs if "olivine/files" in each], "a result of a job was uploaded again"
    assert [each for each in inputs if "/steps/" in each]


def test_on_a_cluster_of_kubernetes_a_job_is_nobody_but_the_cluster(
    project: JobProject, model: str, cloud: Cloud
) -> None:
    data = cloud.put_data("two", "training", "phrases/train.jsonl", rows())
    config = workflow(cloud, model, data, aml_compute="arc", resources={"instance_type": "large"})
    del config["passes"]["merge"], config["passes"]["builder"]
    project.write(config)
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    body = project.jobs()[0].body["properties"]
    assert body.get("identity") is None
    assert body["resources"]["instanceType"] == "large"
    config["systems"]["aml"]["resources"] = {"instance_type": "huge"}
    config["passes"]["lora"]["r"] = 2
    project.write(config)
    assert project.olivine("plan", "workflow.json").returncode != 0


def test_several_processes_train_one_adapter(project: JobProject, model: str, cloud: Cloud) -> None:
    data = cloud.put_data("one", "training", "phrases/train.jsonl", rows())
    config = workflow(cloud, model, data, instance_count=2)
    del config["passes"]["builder"]
    project.write(config)
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    distributions = [each.body["properties"].get("distribution") for each in project.jobs()]
    assert [bool(each) for each in distributions] == [True, False]
    counts = [each.body["properties"]["resources"]["instanceCount"] for each in project.jobs()]
    assert counts == [2, 1]


def test_a_job_is_registered_as_a_model_without_an_upload(project: JobProject, model: str, cloud: Cloud) -> None:
    config = workflow(cloud, model, "")
    del config["data_configs"]
    config["passes"] = {"quantised": {"type": "Quantize", "bits": 4}}
    config["engine"]["packaging_config"] = [
        {"type": "AzureMLModels", "name": "tone", "description": "tells the tone"},
        {"type": "AzureMLData", "name": "tone-files"},
    ]
    project.write(config)
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "registered tone:1" in done.stdout
    assets = cloud.workspaces["one"].assets
    assert "/steps/" in assets["models", "tone"]["1"]["properties"]["modelUri"]
    assert "/steps/" in assets["data", "tone-files"]["1"]["properties"]["dataUri"]
    again = project.olivine("run", "workflow.json")
    assert "tone:1 is this model already" in again.stdout, again.stdout + again.stderr


def test_computes_are_made_listed_and_removed(project: JobProject, cloud: Cloud) -> None:
    project.write({"input_model": {"model_path": "org/x"}, "azureml_client": cloud.client("one")})
    where = ("--config", "workflow.json")
    made = project.olivine("azure", "compute", "create", "small", "--vm-size", "Standard_DS3_v2", *where)
    assert made.returncode == 0, made.stderr
    listed = project.olivine("azure", "compute", "list", "--json", *where)
    names = [each["name"] for each in json.loads(listed.stdout)]
    assert {"small", "cpu-cluster", "arc"} <= set(names)
    unsure = project.olivine("azure", "compute", "delete", "small", *where)
    assert (unsure.returncode, "--yes" in unsure.stderr) == (2, True)
    assert project.olivine("azure", "compute", "delete", "small", "--yes", *where).returncode == 0
    listed = project.olivine("azure", "compute", "list", *where)
    assert "small" not in listed.stdout


def test_ctrl_c_leaves_the_job_and_says_how_to_come_back_and_how_to_end_it(
    project: JobProject, model: str, cloud: Cloud
) -> None:
    import signal
    import time

    project.write(measuring(cloud, model))
    process = project.start("run", "workflow.json")
    until = time.monotonic() + 300
    while time.monotonic() < until and not any(each.status == "Running" for each in project.jobs()):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    said = " ".join(err.split())
    assert process.returncode == 130, said
    assert "Run the same command again" in said
    assert f"az ml job cancel --name {project.jobs()[0].name}" in said
    assert project.jobs()[0].ended.wait(300)
    assert project.jobs()[0].status == "Completed"
