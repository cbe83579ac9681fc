"""What a workflow asks for that is understood but cannot be had here: found before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from olivine.config.placeholders import find_placeholders
from olivine.config.schema import Workflow
from olivine.errors import Problem, UnavailableError

if TYPE_CHECKING:
    from olivine.config.loading import Loaded


@dataclass(frozen=True)
class Finding:
    """One thing that is understood and not available.

    Attributes:
        path: the key in the canonical form (``passes.conversion``).
        kind: ``pass``, ``system``, ``metric``, ``evaluator``, ``model``, ``data``, ``engine`` or ``placeholder``.
        name: what is not available (``OnnxConversion``).
        what: the fact, in one sentence without a final full stop.
        why: the reason.
        remedy: what to do instead.
    """

    path: str
    kind: str
    name: str
    what: str
    why: str
    remedy: str


def unavailable(workflow: Workflow) -> list[Finding]:
    """Return everything in a workflow that Olivine understands but cannot run; empty means it can be planned."""
    return [
        *_passes(workflow),
        *_systems(workflow),
        *_placeholders(workflow),
    ]


def refuse_unavailable(loaded: Loaded) -> None:
    """Stop if a configuration asks for something that cannot be had here.

    Raises:
        UnavailableError: with everything that :func:`unavailable` finds, each with its place in the file.
    """
    found = [
        Problem(each.what, loaded.locate(each.path), each.why, each.remedy) for each in unavailable(loaded.workflow)
    ]
    if found:
        raise UnavailableError(found)


def _passes(workflow: Workflow) -> Iterator[Finding]:
    from olivine.passes import registry

    for name, config in workflow.passes.items():
        if registry.find(config.type) is None:
            yield Finding(f"passes.{name}", "pass", config.type, f"the pass {config.type} is not available", "", "")


def _systems(workflow: Workflow) -> Iterator[Finding]:
    """Systems matter only if something refers to them."""
    engine = workflow.engine
    asked = {engine.host, engine.target} | {config.host for config in workflow.passes.values()}
    for name, system in workflow.systems.items():
        if name in asked and system.type != "LocalSystem":
            yield Finding(
                f"systems.{name}",
                "system",
                system.type,
                f"systems of the type {system.type} are not available yet",
                "Olivine runs on this machine only",
                "use a LocalSystem, or remove the reference to it",
            )


def _placeholders(workflow: Workflow) -> Iterator[Finding]:
    for path, value in find_placeholders(workflow.model_dump(mode="json", exclude_defaults=True)):
        dotted = ".".join(str(part) for part in path if part != "params")
        yield Finding(
            dotted,
            "placeholder",
            value,
            f"{value!r} is not filled in",
            "the file is a template",
            f"put a value there, or give --set {dotted}=VALUE",
        )
