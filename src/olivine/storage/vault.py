"""What a configuration takes from key vaults, read by the user's own identity at the moment it is used.

``${keyvault:VAULT/SECRET}`` stands for a text of the configuration, ``hf_token: {key_vault: ..., secret: ...}`` of a
system that is this machine for the token of the Hugging Face hub. What is kept of a configuration has the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from olivine.config.references import put_vault_values, vault_references
from olivine.config.schema import AzureMLClient, HubToken, Workflow
from olivine.errors import ConfigError, OlivineError, PlanError, UnavailableError
from olivine.redaction import HIDDEN

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.storage.workspace import Workspace


def with_vault_values(loaded: Loaded, *, online: bool = True) -> Loaded:
    """Return the configuration with every reference to a key vault replaced by what stands there.

    From then on the reference stands in place of the value in everything that is shown or written.

    Raises:
        PlanError: a vault has no such secret.
        UnavailableError: a vault cannot be reached, or does not give it out, or nobody may be asked.
    """
    values = loaded.workflow.model_dump(exclude_unset=True)
    references = list(vault_references(values))
    if not references:
        return loaded
    from olivine.config.placeholders import validated

    if not online:
        raise UnavailableError(
            [
                problem
                for path, reference in references
                for problem in UnavailableError(
                    f"{reference} stands in a key vault, and offline nobody is asked",
                    where=loaded.locate(".".join(map(str, path))),
                    remedy="leave out --offline",
                ).problems
            ]
        )
    asked = _reader(loaded.workflow.azureml_client)
    found: dict[str, str] = {}
    for path, reference in references:
        if reference.text in found:
            continue
        try:
            found[reference.text] = asked(reference.vault, reference.secret, reference.text)
        except (PlanError, UnavailableError) as error:
            raise error.placed(loaded.locate(".".join(map(str, path)))) from None
    return replace(loaded, workflow=validated(Workflow, put_vault_values(values, found)))


def hub_token_of(workflow: Workflow) -> Callable[[], str] | None:
    """Return what reads the hub's token from the key vault that a system on this machine names; ``None`` if none does.

    Nothing is asked before it is called, and then once.
    """
    for name, system in workflow.systems.items():
        if system.type == "LocalSystem" and isinstance(system.hf_token, HubToken):
            return cache(lambda name=name, given=system.hf_token: _hub_token(workflow, name, given))
    return None


def _hub_token(workflow: Workflow, name: str, given: HubToken) -> str:
    from olivine.errors import Location

    client = workflow.azureml_client
    vault = given.key_vault or (client.keyvault_name if client is not None else None)
    where = Location(path=f"systems.{name}.hf_token")
    if vault is None:
        raise ConfigError(
            "nothing says which key vault holds the hub's token",
            where=where,
            remedy="write hf_token: {key_vault: NAME, secret: hf-token}",
        )
    try:
        return _reader(client)(vault, given.secret, HIDDEN)
    except OlivineError as error:
        raise error.placed(where) from None


def _reader(client: AzureMLClient | None) -> Callable[[str, str, str], str]:
    """Return what reads a secret, by the identity that ``azureml_client.auth`` chooses, or that is found; the third
    argument is what stands in its place in everything that is shown or written."""
    made: list[Workspace] = []

    def read(vault: str, secret: str, shown: str) -> str:
        if not made:
            from olivine.storage.workspace import Workspace

            made.append(Workspace(client or AzureMLClient(), None))
        return made[0].secret(vault, secret, shown)

    return read
