"""The token of the Hugging Face hub, read inside a job from a key vault, by the job's identity."""

from __future__ import annotations

import os
from typing import Any

from olivine.errors import UnavailableError
from olivine.redaction import redact, remember


def fetch(vault: str, secret: str, identity: str | None) -> str:
    """Return a secret; it is taken out of everything that is written from now on.

    Args:
        vault: address of the key vault.
        identity: ``user`` for a job that is its user; else it is what the compute has: a workload identity (Kubernetes)
            or a managed one.

    Raises:
        UnavailableError: the vault does not give it out.
    """
    from azure.core.exceptions import AzureError
    from azure.keyvault.secrets import SecretClient

    try:
        value = SecretClient(vault, _credential(identity)).get_secret(secret).value or ""
    except (AzureError, ValueError) as error:
        raise UnavailableError(
            f"the job may not read the secret {secret} of {vault}",
            why=redact(" ".join(str(error).split())[:300]),
            remedy="give its identity the right to get secrets there (role `Key Vault Secrets User`)",
        ) from None
    remember(value)
    return value


def _credential(identity: str | None) -> Any:
    from azure import identity as known

    if identity == "user":
        from azure.ai.ml.identity import AzureMLOnBehalfOfCredential

        return AzureMLOnBehalfOfCredential()
    if os.environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        options: dict[str, Any] = {}
        if os.environ.get("AZURE_AUTHORITY_HOST"):
            options = {"disable_instance_discovery": True}
        return known.WorkloadIdentityCredential(**options)
    # The compute says which of its identities is meant; without one it has a single identity.
    return known.ManagedIdentityCredential(client_id=os.environ.get("DEFAULT_IDENTITY_CLIENT_ID"))
