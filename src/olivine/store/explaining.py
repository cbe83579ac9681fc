"""Why the Store does not hold the result of a Step: what differs from the most similar one that it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from olivine.store.artifact import Artifact
from olivine.store.store import Store

NOT_SET = "(not set)"
"""Stands for a value that one of two Steps does not have."""
_NOT_COMPARED = ("name",)


@dataclass(frozen=True)
class Difference:
    """One part of a Step that is not as it was.

    Attributes:
        path: dotted, within the Step: ``params.r``, ``inputs.model``, ``libraries.peft``.
        before: the value in the artifact's Step, or :data:`NOT_SET`.
        now: the value in the Step that misses, or :data:`NOT_SET`.
    """

    path: str
    before: Any
    now: Any

    def as_json(self) -> dict[str, Any]:
        """Return the difference as a JSON object."""
        return {"path": self.path, "before": self.before, "now": self.now}

    def __str__(self) -> str:
        section, _, rest = self.path.partition(".")
        change = f"{_shown(self.before)} -> {_shown(self.now)}"
        if section == "params":
            return f"{rest}: {change}"
        if section == "inputs":
            return f"another {rest} goes in ({change})"
        if section == "data" and ".content" in self.path:
            return f"{rest.partition('.')[0]}: the content of the data has changed"
        if section == "data":
            return f"{rest.replace('.config.', ': ', 1)}: {change}"
        if section == "libraries":
            return f"{rest} {change}"
        if self.path == "version":
            return f"this version of Olivine computes it differently (version {change})"
        return f"{self.path}: {change}"


@dataclass(frozen=True)
class Miss:
    """Why a Step's result is not there.

    Attributes:
        nearest: the artifact of the same type with the fewest differences, the newest of these; ``None`` if none of
            that type has been made.
        differences: in what it differs, sorted by path.
    """

    nearest: Artifact | None
    differences: tuple[Difference, ...] = ()


def explain_miss(step: Mapping[str, Any], store: Store) -> Miss:
    """Compare a Step with those whose results the Store holds.

    Args:
        step: the Step as JSON, as in a manifest.
        store: where to look. Only manifests are read.

    Raises:
        StoreError: the Store may not be read.
    """
    best: Miss | None = None
    for artifact in sorted(store.artifacts(), key=lambda each: -each.manifest.created):
        other = artifact.manifest.step
        if (other.get("kind"), other.get("type")) != (step.get("kind"), step.get("type")):
            continue
        differences = compare(other, step)
        if best is None or len(differences) < len(best.differences):
            best = Miss(artifact, differences)
    return best if best is not None else Miss(None)


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return the differences of two Steps, sorted by path. The content of one set of data counts once."""
    old, new = _leaves(before), _leaves(now)
    return tuple(
        Difference(path, old.get(path, NOT_SET), new.get(path, NOT_SET))
        for path in sorted(old.keys() | new.keys())
        if old.get(path, NOT_SET) != new.get(path, NOT_SET)
    )


def _leaves(step: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    pending: list[tuple[str, Any]] = [(key, value) for key, value in step.items() if key not in _NOT_COMPARED]
    while pending:
        path, value = pending.pop()
        # Lists are compared whole: in `target_modules` or a list of digests no position means anything by itself.
        if isinstance(value, Mapping) and value:
            pending += [(f"{path}.{key}", item) for key, item in value.items()]
        else:
            found[path] = list(value) if isinstance(value, tuple) else value
    return found


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else str(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 80 else text[:77] + "..."
