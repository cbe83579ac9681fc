"""What only jobs read stays in the cloud: the Store knows it, and its files come when something here needs them."""

from __future__ import annotations

import itertools
import json
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
def config(cloud: Cloud, pico_model: Path) -> dict[str, Any]:
    """Fine-tune, merge and quantise in jobs, of a model of a version of its own."""
    version = str(next(VERSIONS))
    cloud.add_model("olivine-models", "pico-away", version, pico_model, "custom_model", registry=True)
    model = f"azureml://registries/olivine-models/models/pico-away/versions/{version}"
    return workflow(cloud, model, cloud.put_data("one", "training", "phrases/train.jsonl", rows()))


def run(project: JobProject, config: dict[str, Any]) -> str:
    """Run the workflow, which succeeds, and return what it has said."""
    project.write(config)
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project.folder / "models" / "genai_config.json").is_file()
    return done.stdout


def away(project: JobProject) -> dict[str, str | None]:
    """Return by Step the address of its files, ``None`` if they are here, as `olivine cache ls` says."""
    listed = project.olivine("cache", "ls", "--cache-dir", "cache", "--json")
    found = {each["name"]: each for each in json.loads(listed.stdout)}
    for each in found.values():
        assert bool(list(Path(each["path"]).iterdir())) == (each["away"] is None), each
    return {name: each["away"] for name, each in found.items()}


def inputs_of_last_job(project: JobProject) -> list[str]:
    return [each["uri"] for each in project.jobs()[-1].body["properties"].get("inputs", {}).values()]


def test_intermediate_results_stay_and_come_when_a_step_here_needs_them(
    project: JobProject, config: dict[str, Any], pico_model: Path
) -> None:
    config["input_model"]["model_path"] = str(pico_model)
    run(project, config)
    left = away(project)
    assert left["builder"] is None
    assert left["lora"] is not None
    assert left["merge"] is not None
    verified = project.olivine("cache", "verify", "--cache-dir", "cache")
    assert "2 artifacts not looked at" in verified.stdout
    assert "3 done already" in run(project, config)
    # Another job takes what the first has left by its address.
    config["passes"]["builder"]["int4_block_size"] = 16
    run(project, config)
    assert [each for each in inputs_of_last_job(project) if "/steps/" in each and each.rstrip("/").endswith("files")]
    assert away(project)["merge"] is not None
    # A Step that runs here needs the merged checkpoint, and not the adapter.
    config["systems"]["here"] = {"type": "LocalSystem", "device": "cpu"}
    config["passes"]["builder"] |= {"int4_block_size": 64, "host": "here"}
    config["engine"]["target"] = "here"
    assert "fetching the result of merge" in run(project, config)
    assert (away(project)["lora"] is None, away(project)["merge"]) == (False, None)
    assert len(project.jobs()) == 2
    assert project.olivine("cache", "verify", "--cache-dir", "cache").returncode == 0


def test_what_is_gone_from_the_cloud_is_made_again(project: JobProject, config: dict[str, Any], cloud: Cloud) -> None:
    run(project, config)
    cloud.jobs.forget()
    assert "3 done already" in run(project, config)
    assert project.jobs() == []
    config["passes"]["builder"]["int4_block_size"] = 16
    said = " ".join(run(project, config).split())
    assert said.count("is no longer where its job left it") == 2
    assert [each.status for each in project.jobs()] == ["Completed"]
