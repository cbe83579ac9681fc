"""What there is in the cloud: workspaces with their stores, computes and assets, and registries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

PROVIDER = "Microsoft.MachineLearningServices"
Credential = Literal["key", "sas", "identity"]


@dataclass
class Datastore:
    """A blob container that a workspace knows, and how one gets into it."""

    container: str
    credential: Credential = "key"


@dataclass
class Compute:
    """Somewhere that jobs run.

    Attributes:
        kind: ``AmlCompute``, or ``Kubernetes`` for what Arc attaches.
        identity: what a job finds there: a managed identity, a workload identity, or none.
        instance_types: of Kubernetes.
        body: what was sent when it was created; empty for those that were there from the start.
    """

    kind: Literal["AmlCompute", "Kubernetes"]
    identity: Literal["managed", "workload"] | None = "managed"
    instance_types: tuple[str, ...] = ()
    body: dict[str, Any] = field(default_factory=dict)


Assets = dict[tuple[str, str], dict[str, dict[str, Any]]]
"""By type and name, the versions of an asset as the service answers them."""


@dataclass
class Workspace:
    """A workspace. ``account`` is its storage, ``vault`` its key vault."""

    subscription: str
    group: str
    name: str
    account: str
    vault: str
    datastores: dict[str, Datastore]
    computes: dict[str, Compute]
    assets: Assets = field(default_factory=dict)

    @property
    def arm(self) -> str:
        """Return its resource id."""
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.group}/providers/{PROVIDER}"
            f"/workspaces/{self.name}"
        )

    def uri(self, datastore: str, path: str) -> str:
        """Return the long address of a path in one of its datastores."""
        return (
            f"azureml://subscriptions/{self.subscription}/resourcegroups/{self.group}/workspaces/{self.name}"
            f"/datastores/{datastore}/paths/{path}"
        )


@dataclass
class Registry:
    """A registry: assets without a workspace, in a container of its own."""

    name: str
    account: str
    container: str
    assets: Assets = field(default_factory=dict)

    @property
    def arm(self) -> str:
        """Return its resource id."""
        return (
            "/subscriptions/99999999-9999-9999-9999-999999999999/resourceGroups/registries/providers/"
            f"{PROVIDER}/registries/{self.name}"
        )
