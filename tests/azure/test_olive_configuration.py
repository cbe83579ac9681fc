"""The configuration of the cloud's users, through the real command line and the real SDK, to a model that answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from canary import CANARY, Watch, where_in
from cloud_project import CloudProject
from olive_configuration import CONDA, REGISTERED, configuration, mlflow_folder, rows
from standin.cloud import VAULT, Cloud

PROMPT = "<|user|>\nwhat does the cat do on the mat?<|end|>\n<|assistant|>\n"


@pytest.fixture(scope="module")
def registered(running_cloud: Cloud, pico_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    """The cloud with the model in the registry, in the layout of registries."""
    folder = mlflow_folder(pico_model, tmp_path_factory.mktemp("mlflow") / "mlflow_model_folder", "hftransformersv2")
    running_cloud.add_model("olivine-models", REGISTERED, "11", folder, registry=True)
    return running_cloud


@pytest.fixture
def project(registered: Cloud, cloud: Cloud, tmp_path: Path) -> CloudProject:
    made = CloudProject(tmp_path, cloud)
    (tmp_path / "conda.yaml").write_text(yaml.safe_dump(CONDA))
    cloud.vault.secrets[VAULT]["hf-token"] = CANARY
    return made


def run_and_ask(project: CloudProject) -> str:
    """Run the project's workflow, ask the model that it has made, and return what the run has said."""
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads((project.folder / "models" / "status.json").read_text())
    assert status["state"] == "succeeded"
    answer = project.olivine("generate", "models", "--prompt", PROMPT)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()
    return done.stdout


@pytest.mark.parametrize(
    ("host", "data_workspace", "credential", "provider"),
    [
        ("aml", "one", "key", "CUDAExecutionProvider"),
        ("azure_arc", "two", "identity", "CUDAExecutionProvider"),
        ("aml", "two", "sas", "CPUExecutionProvider"),
    ],
    ids=[
        "compute of the workspace, keys, for CUDA",
        "Arc, data in a second workspace, identities, for CUDA",
        "compute of the workspace, data in a second workspace, SAS, for a processor",
    ],
)
def test_it_runs_as_a_job_and_what_it_made_answers(
    project: CloudProject, cloud: Cloud, host: Any, data_workspace: str, credential: str, provider: str
) -> None:
    cloud.credential(credential)
    cloud.put_data(data_workspace, "training", "train_data.json", rows())
    project.write(configuration(cloud, host=host, data_workspace=data_workspace, provider=provider))
    before = len(cloud.jobs.submissions)
    said = " ".join(run_and_ask(project).split())
    # The stand-in's machines have no GPU: nothing is kept quiet, and nothing is claimed that was not seen.
    assert "the compute shows no GPU" in said
    untried = "" if provider == "CPUExecutionProvider" else provider
    assert json.loads((project.folder / "models" / "status.json").read_text()).get("untried", "") == untried
    assert ("tried no: the machine that made it has no CUDAExecutionProvider" in said) == bool(untried)
    assert ("has not run there yet" in (project.folder / "models" / "model_card.md").read_text()) == bool(untried)
    (name,) = cloud.jobs.submissions[before:]
    job = cloud.jobs.find(cloud.workspaces["one"], name)
    assert job.status == "Completed"
    compute = {"aml": "cpu-cluster", "azure_arc": "arc"}[host]
    assert job.body["properties"]["computeId"].endswith(f"/computes/{compute}")
    inputs = {each["uri"] for each in job.sent["inputs"].values()}
    assert any(uri.startswith("azureml://registries/olivine-models/models/") for uri in inputs), inputs
    assert any(uri.endswith("train_data.json") for uri in inputs), inputs
    again = project.olivine("run", "workflow.json")
    assert again.returncode == 0, again.stderr
    assert cloud.jobs.submissions[before:] == [name]
    cloud.jobs.forget()


def test_the_token_of_the_hub_is_seen_by_the_process_that_needs_it_and_by_nobody_else(
    project: CloudProject, cloud: Cloud, pico_model: Path
) -> None:
    cloud.credential("sas")
    cloud.hub.folders["org/gated"] = pico_model
    cloud.hub.token = CANARY
    cloud.put_data("one", "training", "train_data.json", rows())
    config = configuration(cloud)
    config["input_model"]["config"].pop("model_path")
    config["input_model"]["config"].pop("model_file_format")
    config["input_model"]["config"]["hf_config"]["model_name"] = "org/gated"
    config["passes"] = {"builder": config["passes"]["builder"]}
    project.write(config)
    # The plan reads the model's configuration on the hub too, so this machine's user has the token as well.
    hub = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": CANARY, "HF_HOME": str(project.folder / "hf")}
    with Watch(cloud, CANARY) as watch:
        done = project.olivine("run", "workflow.json", **hub)
    assert done.returncode == 0, done.stdout + done.stderr
    assert watch.holders
    # The process that fetches the model and the worker of that Step; not the job's own process, nor what started it.
    allowed = ("olivine.systems.azureml.in_job --fetch", "olivine worker")
    assert all(any(each in command for each in allowed) for command in watch.holders), watch.holders
    assert any("start.py" in command or "in_job /" in command for command in watch.others), watch.others
    assert ("managed", "hf-token") in cloud.vault.read
    assert CANARY not in done.stdout + done.stderr
    assert where_in(project.folder, CANARY) == []
    assert where_in(cloud.jobs.folder, CANARY) == []
    assert cloud.where_found(CANARY) == []
    cloud.jobs.forget()
