"""Who asks Azure: one credential of azure-identity, chosen by ``azureml_client.auth``."""

from __future__ import annotations

import logging
import os
from typing import Any

from olivine.config.schema import AzureMLClient
from olivine.errors import ConfigError, UnavailableError

CLOUDS = {
    "AzureCloud": "https://login.microsoftonline.com/",
    "AzureUSGovernment": "https://login.microsoftonline.us/",
    "AzureChinaCloud": "https://login.chinacloudapi.cn/",
}
"""Where one signs in, by the name of the cloud."""
_SERVICE_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
_WORKLOAD_IDENTITY = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE")


def credential(client: AzureMLClient) -> Any:
    """Return the credential that ``client.auth`` names. Nothing is asked yet, and no browser is opened by default.

    Raises:
        ConfigError: what that kind of credential needs is not there.
        UnavailableError: azure-identity is not installed.
    """
    try:
        import azure.identity as identity
    except ModuleNotFoundError:
        raise UnavailableError(
            "Azure needs azure-identity, which is not installed", remedy="`pip install 'olivine[azure]'`"
        ) from None
    keep_quiet()
    options = _authority(client)
    named: dict[str, Any] = {"tenant_id": client.tenant_id} if client.tenant_id else {}
    if client.auth == "cli":
        return identity.AzureCliCredential(**named)
    if client.auth == "managed_identity":
        return identity.ManagedIdentityCredential(**({"client_id": client.client_id} if client.client_id else {}))
    if client.client_id:
        named["client_id"] = client.client_id
    if client.auth == "interactive":
        return identity.InteractiveBrowserCredential(**named, **options)
    if client.auth == "workload_identity":
        _need("workload_identity", _WORKLOAD_IDENTITY, client)
        return identity.WorkloadIdentityCredential(**named, **options)
    if client.auth == "service_principal":
        _need("service_principal", _SERVICE_PRINCIPAL, client)
        return identity.ClientSecretCredential(
            client.tenant_id or os.environ["AZURE_TENANT_ID"],
            client.client_id or os.environ["AZURE_CLIENT_ID"],
            os.environ["AZURE_CLIENT_SECRET"],
            **options,
        )
    chain: dict[str, Any] = {"exclude_interactive_browser_credential": True}
    if client.client_id:
        chain["managed_identity_client_id"] = client.client_id
    return identity.DefaultAzureCredential(**chain, **options, **(client.default_auth_params or {}))


def keep_quiet() -> None:
    """Keep what the libraries of Azure log off the terminal: what it comes to is said by the error.

    Python prints warnings of a logger that nobody has given a handler. Whoever has set up logging still gets them.
    """
    for name in ("azure", "msal"):
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())


def authority(client: AzureMLClient) -> str:
    """Return the address where one signs in."""
    if client.cloud_metadata and "active_directory" in client.cloud_metadata:
        return client.cloud_metadata["active_directory"]
    return CLOUDS.get(client.cloud or "AzureCloud", CLOUDS["AzureCloud"])


def _authority(client: AzureMLClient) -> dict[str, Any]:
    if client.cloud_metadata:
        # The public cloud is not asked whether it knows an authority of another one.
        return {"authority": authority(client), "disable_instance_discovery": True}
    return {"authority": authority(client)} if client.cloud else {}


def _need(auth: str, names: tuple[str, ...], client: AzureMLClient) -> None:
    given = {"AZURE_TENANT_ID": client.tenant_id, "AZURE_CLIENT_ID": client.client_id}
    missing = [name for name in names if not os.environ.get(name) and not given.get(name)]
    if missing:
        raise ConfigError(
            f"azureml_client's auth: {auth} needs the environment variable{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing)}",
            remedy="set them, or choose another auth",
        )
