"""What a configuration takes from a key vault is read when it is used, and is found nowhere afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from canary import CANARY, Watch, where_in
from cloud_project import CloudProject
from job_project import rows, workflow
from standin.cloud import VAULT, Cloud


@pytest.fixture
def project(cloud: Cloud, tmp_path: Path) -> CloudProject:
    return CloudProject(tmp_path, cloud)


def here(cloud: Cloud, model: str, data: str) -> dict[str, Any]:
    """Return a workflow that trains on this machine."""
    config = workflow(cloud, model, data)
    config["systems"] = {"here": {"type": "LocalSystem", "device": "cpu"}}
    config["engine"] |= {"host": "here", "target": "here"}
    config["passes"] = {"lora": config["passes"]["lora"]}
    config["passes"]["lora"]["training_args"]["max_steps"] = 1
    return config


def test_a_signed_url_in_a_vault_is_followed_and_written_nowhere(
    project: CloudProject, cloud: Cloud, pico_model: Path
) -> None:
    account = cloud.workspaces["one"].account
    cloud.storage.put(account, "training", "vault/train.jsonl", rows())
    signature = cloud.storage.sas(account, "training", write=False)
    cloud.vault.secrets[VAULT]["train-url"] = (
        f"{cloud.storage.endpoint(account)}/training/vault/train.jsonl?{signature}"
    )
    reference = f"${{keyvault:{cloud.vault.address(VAULT)}/train-url}}"
    project.write(here(cloud, str(pico_model), reference))
    before = len(cloud.vault.read)
    shown = project.olivine("config", "show", "workflow.json")
    assert reference in shown.stdout, shown.stderr
    assert cloud.vault.read[before:] == [], "showing a configuration uses nothing of it"
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert cloud.vault.read[before:] == [("principal", "train-url")]
    assert reference in (project.folder / "models" / "workflow.yaml").read_text()
    secret = signature.partition("sig=")[2].partition("&")[0]
    assert len(secret) > 20
    assert secret not in done.stdout + done.stderr
    assert where_in(project.folder, secret) == []


@pytest.mark.parametrize(
    ("reference", "arguments", "expected"),
    [
        ("absent", (), ("data_configs", "absent", "not there")),
        ("not/here/", (), ("does not say which secret", "${keyvault:VAULT/SECRET}")),
        ("absent", ("--offline", "out"), ("offline nobody is asked",)),
    ],
    ids=["no such secret", "no secret named", "offline"],
)
def test_a_reference_that_cannot_be_followed_is_told_with_its_place(
    reference: str, arguments: tuple[str, ...], expected: tuple[str, ...], project: CloudProject, cloud: Cloud
) -> None:
    project.write(here(cloud, "org/model", f"${{keyvault:{cloud.vault.address(VAULT)}/{reference}}}"))
    done = project.olivine("plan", "workflow.json", *arguments)
    said = " ".join(done.stderr.split())
    assert done.returncode in (2, 3), done.stdout
    assert all(each in said for each in expected), said
    assert "Traceback" not in said


def test_the_hub_s_token_in_a_vault_opens_a_gated_model_and_no_worker_has_it(
    project: CloudProject, cloud: Cloud, pico_model: Path
) -> None:
    cloud.hub.folders["org/gated-here"] = pico_model
    cloud.hub.token = CANARY
    cloud.vault.secrets[VAULT]["hub"] = CANARY
    config = here(cloud, "org/gated-here", "")
    del config["data_configs"]
    config["passes"] = {"quantised": {"type": "Quantize", "bits": 4}}
    project.write(config)
    hub = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(project.folder / "hf"), "HF_TOKEN": ""}
    refused = project.olivine("run", "workflow.json", **hub)
    assert refused.returncode != 0
    assert "accepted its licence" in " ".join(refused.stderr.split())
    config["systems"]["here"]["hf_token"] = {"key_vault": cloud.vault.address(VAULT), "secret": "hub"}
    project.write(config)
    with Watch(cloud, CANARY) as watch:
        process = project.start("run", "workflow.json", **hub)
        watch.pids = [process.pid]
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    assert any("olivine worker" in each for each in watch.others), watch.others
    assert watch.holders == set(), "the model comes by the process that was started, not by a worker"
    assert ("principal", "hub") in cloud.vault.read
    assert CANARY not in out + err
    assert where_in(project.folder, CANARY) == []
