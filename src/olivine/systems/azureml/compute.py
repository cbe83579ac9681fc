"""Computes of a workspace: made, removed, listed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from olivine.errors import PlanError
from olivine.storage.workspace import Workspace


@dataclass(frozen=True)
class Compute:
    """A compute as the workspace shows it.

    Attributes:
        type: ``amlcompute``, ``kubernetes``, ``computeinstance`` ...
        size: of its machines.
        nodes: the least and the most of them.
        state: of being made (``Succeeded``).
        identity: kind of its identity, if it has one.
    """

    name: str
    type: str
    size: str | None
    nodes: tuple[int, int] | None
    state: str
    identity: str | None

    @classmethod
    def of(cls, found: Any) -> Compute:
        """Return what the SDK's object says."""
        least, most = getattr(found, "min_instances", None), getattr(found, "max_instances", None)
        identity = getattr(found, "identity", None)
        return cls(
            name=str(found.name),
            type=str(found.type),
            size=getattr(found, "size", None),
            nodes=(int(least or 0), int(most)) if most is not None else None,
            state=str(found.provisioning_state or ""),
            identity=str(identity.type) if identity is not None else None,
        )

    def __str__(self) -> str:
        parts = [self.type, *([self.size] if self.size else [])]
        if self.nodes is not None:
            parts.append(f"{self.nodes[0]} to {self.nodes[1]} machines")
        return f"{self.name} ({', '.join(parts)}): {self.state or 'unknown'}"

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return asdict(self)


def all_of(workspace: Workspace) -> list[Compute]:
    """Return every compute of a workspace.

    Raises:
        UnavailableError: the workspace cannot be asked.
    """
    with workspace.calling("listing the computes"):
        return sorted((Compute.of(each) for each in workspace.ml.compute.list()), key=lambda each: each.name)


def create(
    workspace: Workspace,
    name: str,
    size: str,
    *,
    nodes: tuple[int, int] = (0, 2),
    idle_s: int = 120,
    location: str | None = None,
    low_priority: bool = False,
    identity: bool = False,
) -> Compute:
    """Make a cluster of machines, or change one of that name, and wait until it is there.

    Raises:
        PlanError: the service does not take it.
        UnavailableError: the workspace cannot be asked.
    """
    least, most = nodes
    if not 0 <= least <= most or most < 1:
        raise PlanError(f"a compute with {least} to {most} machines cannot be", remedy="give 0 <= min <= max, max >= 1")
    with workspace.calling(f"making the compute {name}"):
        from azure.ai.ml.entities import AmlCompute, IdentityConfiguration

        asked = AmlCompute(
            name=name,
            size=size,
            location=location,
            min_instances=least,
            max_instances=most,
            idle_time_before_scale_down=idle_s,
            tier="low_priority" if low_priority else "dedicated",
            identity=IdentityConfiguration(type="system_assigned") if identity else None,
        )
        return Compute.of(workspace.ml.compute.begin_create_or_update(asked).result())


def delete(workspace: Workspace, name: str) -> None:
    """Remove a compute, and wait until it is gone.

    Raises:
        PlanError: there is none of that name.
        UnavailableError: the workspace cannot be asked.
    """
    with workspace.calling(f"deleting the compute {name}"):
        workspace.ml.compute.begin_delete(name).wait()


def table(found: Sequence[Compute]) -> Iterator[str]:
    """Yield a line for each."""
    yield from (str(each) for each in found)
    if not found:
        yield "there is no compute"
