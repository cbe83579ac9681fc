"""The few calls that the SDK has no public way for: a run's error, and where a key vault is.

One client with the SDK's own pipeline: the same credential, the same retries, the same cloud.
"""

from __future__ import annotations

from typing import Any

from olivine.storage.storms import retries
from olivine.storage.workspace import Workspace, vault_url

_VAULTS = "2023-07-01"
_WORKSPACES = "2024-10-01"


def get(workspace: Workspace, url: str) -> Any:
    """Return the JSON that an address of Azure's control plane answers with.

    Raises:
        UnavailableError: it cannot be reached, or says no.
        PlanError: there is nothing.
    """
    from azure.core import PipelineClient
    from azure.core.pipeline import policies
    from azure.core.rest import HttpRequest

    scope = f"{resource_manager(workspace)}/.default"
    with workspace.calling("asking Azure Machine Learning"):
        steps = [
            policies.HeadersPolicy(),
            policies.RetryPolicy(**retries()),
            policies.CustomHookPolicy(raw_response_hook=workspace.storm.hear),
            policies.BearerTokenCredentialPolicy(workspace.credential, scope),
        ]
        client: Any = PipelineClient("", policies=steps)
        with client:
            answer = client.send_request(HttpRequest("GET", url))
            answer.raise_for_status()
            return answer.json()


def resource_manager(workspace: Workspace) -> str:
    """Return the address of the resource manager of the cloud."""
    given = workspace.settings.cloud_metadata or {}
    known = {
        "AzureUSGovernment": "https://management.usgovcloudapi.net",
        "AzureChinaCloud": "https://management.chinacloudapi.cn",
    }
    found = given.get("resource_manager") or known.get(workspace.settings.cloud or "", "https://management.azure.com")
    return str(found).rstrip("/")


def workspace_id(workspace: Workspace) -> str:
    """Return the id of a workspace in the resource manager."""
    scope = workspace.scope
    assert scope is not None
    return (
        f"/subscriptions/{scope.subscription_id}/resourceGroups/{scope.resource_group}/providers/"
        f"Microsoft.MachineLearningServices/workspaces/{scope.name}"
    )


def vault_of(workspace: Workspace, name: str | None) -> str:
    """Return the address of a key vault: the workspace's own if ``name`` is ``None`` or is its name.

    Raises:
        UnavailableError: the workspace cannot be asked.
    """
    if name is not None and name.startswith("https://"):
        return vault_url(name, workspace.settings)
    root = resource_manager(workspace)
    found = get(workspace, f"{root}{workspace_id(workspace)}?api-version={_WORKSPACES}")
    own = str(found.get("properties", {}).get("keyVault") or "")
    if own and name in (None, own.rpartition("/")[2]):
        vault = get(workspace, f"{root}{own}?api-version={_VAULTS}")
        address = vault.get("properties", {}).get("vaultUri")
        if address:
            return str(address).rstrip("/")
    return vault_url(name or own.rpartition("/")[2], workspace.settings)


def error_of_run(workspace: Workspace, name: str) -> str:
    """Return what the service says of why a job failed; an empty text if it says nothing."""
    root = resource_manager(workspace)
    found = get(workspace, f"{root}{workspace_id(workspace)}?api-version={_WORKSPACES}")
    services = get(workspace, found["properties"]["discoveryUrl"])
    run = get(workspace, f"{services['history']}/history/v1.0{workspace_id(workspace)}/runs/{name}/details")
    error = (run.get("error") or {}).get("error") or {}
    code, message = error.get("code") or "", " ".join(str(error.get("message") or "").split())
    return f"{code}: {message}" if code and message else code or message
