"""Which workspace, and who asks: from the configuration alone, nobody being asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from olivine.config.loading import load
from olivine.config.schema import AzureMLClient
from olivine.errors import ConfigError
from olivine.storage.addresses import WorkspaceName
from olivine.storage.credentials import authority, credential
from olivine.storage.workspace import Workspace, scope_of, vault_url

NAMES = {"subscription_id": "s-1", "resource_group": "rg", "workspace_name": "ws"}


def test_the_names_come_from_the_configuration_or_a_file_of_azure(tmp_path: Path) -> None:
    expected = WorkspaceName("s-1", "rg", "ws")
    assert scope_of(AzureMLClient(**NAMES)) == expected
    (tmp_path / "config.json").write_text(json.dumps(NAMES))
    assert scope_of(AzureMLClient(aml_config_path=str(tmp_path / "config.json"))) == expected
    assert scope_of(AzureMLClient(aml_config_path=str(tmp_path), workspace_name="other")).name == "other"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="workspace_name is missing"):
        scope_of(AzureMLClient(subscription_id="s", resource_group="r"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        scope_of(AzureMLClient(aml_config_path=str(tmp_path / "config.json")))


def test_the_file_is_meant_from_the_configurations_folder(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text(
        json.dumps({"input_model": {"model_path": "m"}, "azureml_client": {"aml_config_path": "config.json"}})
    )
    client = load(tmp_path / "w.json").workflow.azureml_client
    assert client is not None
    assert client.aml_config_path == str(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("auth", "kind"),
    [
        ("default", "DefaultAzureCredential"),
        ("cli", "AzureCliCredential"),
        ("managed_identity", "ManagedIdentityCredential"),
        ("workload_identity", "WorkloadIdentityCredential"),
        ("service_principal", "ClientSecretCredential"),
        ("interactive", "InteractiveBrowserCredential"),
    ],
)
def test_auth_chooses_the_credential(auth: str, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("azure.identity")
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.setenv(name, "11111111-2222-3333-4444-555555555555")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    assert type(credential(AzureMLClient(auth=auth))).__name__ == kind  # type: ignore[arg-type]


def test_no_browser_unless_it_is_asked_for() -> None:
    pytest.importorskip("azure.identity")
    made = credential(AzureMLClient())
    assert "InteractiveBrowserCredential" not in [type(each).__name__ for each in made.credentials]  # type: ignore[attr-defined]


@pytest.mark.parametrize("auth", ["service_principal", "workload_identity"])
def test_what_a_credential_needs_is_said_before_anything_is_asked(auth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("azure.identity")
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="AZURE_CLIENT_ID"):
        credential(AzureMLClient(auth=auth))  # type: ignore[arg-type]


def test_other_clouds_have_other_addresses() -> None:
    government = AzureMLClient(cloud="AzureUSGovernment")
    assert authority(government) == "https://login.microsoftonline.us/"
    assert vault_url("tones", government) == "https://tones.vault.usgovcloudapi.net"
    assert vault_url("tones", AzureMLClient()) == "https://tones.vault.azure.net"
    assert vault_url("https://own.example/", AzureMLClient()) == "https://own.example"


def test_another_workspace_is_reached_in_the_same_way() -> None:
    first = Workspace.connect(AzureMLClient(**NAMES))
    assert first.at(None) is first
    second = first.at(WorkspaceName("s-2", "rg", "other"))
    assert (second.workspace_name, second.settings) == ("other", first.settings)


REFUSED = """
from olivine.config.schema import AzureMLClient
from olivine.storage.workspace import Workspace
others = ("workload_identity", "managed_identity", "shared_token_cache", "visual_studio_code", "broker")
client = AzureMLClient(
    subscription_id="s", resource_group="r", workspace_name="w",
    default_auth_params={f"exclude_{each}_credential": True for each in others},
)
workspace = Workspace.connect(client)
try:
    with workspace.calling("looking"):
        workspace.credential.get_token("https://management.azure.com/.default")
except Exception as error:
    print(error)
"""


def test_who_is_not_signed_in_is_told_once_and_by_us(tmp_path: Path) -> None:
    pytest.importorskip("azure.identity")
    environment = {"PATH": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", REFUSED], env=environment, capture_output=True, text=True, timeout=120)
    assert "does not know who asks" in done.stdout
    assert done.stderr == ""
