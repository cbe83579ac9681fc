"""What a plan's Steps will take, beside what this machine has."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.errors import ConfigError, Location, Problem, UnavailableError
from olivine.passes.estimate import Estimate

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.hardware.machine import Machine
    from olivine.planning.plan import Plan, PlannedStep
    from olivine.store import Store

LOOKING_S = 0.2
"""Seconds that a plan may spend on looking through earlier results."""


def seconds_by_type(store: Store) -> dict[str, float]:
    """Return, by pass, the seconds that a unit of its work took in earlier runs: the median of those in the Store."""
    found: dict[str, list[float]] = {}
    until = time.monotonic() + LOOKING_S
    for artifact in store.artifacts():
        work = artifact.manifest.attributes.get("work")
        if isinstance(work, int | float) and work > 0 and artifact.manifest.seconds > 0:
            found.setdefault(str(artifact.manifest.step.get("type")), []).append(artifact.manifest.seconds / work)
        if time.monotonic() > until:
            break
    return {name: statistics.median(values) for name, values in found.items()}


def estimated_seconds(estimate: Estimate, pass_type: str, rates: dict[str, float]) -> float | None:
    """Return the seconds that a Step will take, if the pass has run before."""
    rate = rates.get(pass_type)
    return None if rate is None or not estimate.work else rate * estimate.work


def check_resources(plan: Plan, loaded: Loaded, *, force: bool) -> Plan:
    """Return the plan, having compared what it takes with what this machine has.

    Args:
        force: go on all the same; what is short becomes a note.

    Raises:
        ConfigError: ``engine.max_memory`` is no size.
        UnavailableError: memory or disk does not suffice, with numbers.
    """
    from olivine.hardware.machine import this_machine
    from olivine.hardware.memory import free_memory_bytes
    from olivine.store.disk import free_bytes

    problems = shortages(
        plan.steps,
        this_machine(),
        free_memory=free_memory_bytes(),
        free_disk=free_bytes(plan.cache_dir),
        limit=memory_limit(plan.workflow.engine.max_memory, loaded.locate("engine.max_memory")),
        limit_where=loaded.locate("engine.max_memory"),
        cache_where=loaded.locate("engine.cache_dir"),
        cache_dir=plan.cache_dir,
    )
    if problems and not force:
        raise UnavailableError(problems)
    return replace(plan, notes=(*plan.notes, *(str(problem) for problem in problems)))


_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE)


def memory_limit(given: int | str | None, where: Location | None = None) -> int | None:
    """Return a size such as ``12GB`` or ``8GiB`` in bytes.

    Raises:
        ConfigError: it is none.
    """
    if given is None:
        return None
    match = _SIZE.fullmatch(str(given))
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"{given!r} is no size", where=where, remedy="write it like 12GB, 8GiB or 500MB")
    step = 1024 if match[3] else 1000
    return int(float(match[1]) * step ** ("KMGT".find(match[2].upper()) + 1 if match[2] else 0))


def shortages(
    steps: Sequence[PlannedStep],
    machine: Machine,
    *,
    free_memory: int,
    free_disk: int | None,
    limit: int | None,
    limit_where: Location,
    cache_where: Location,
    cache_dir: Path,
) -> list[Problem]:
    """Return what the machine has not got for those Steps that are not in the cache, with numbers.

    Args:
        free_memory: bytes.
        free_disk: bytes where the cache lies, if known.
        limit: ``engine.max_memory`` in bytes, if given.
    """
    found = []
    here = [step for step in steps if not step.cached and not step.system]
    waiting = [(step, step.estimate) for step in here if step.estimate is not None]
    for step, estimate in waiting:
        phase = max(estimate.phases, key=lambda name: estimate.phases[name], default="running")
        remedy = (estimate.remedy or "use a machine with more memory") + "; --force tries it all the same"
        if limit is not None and estimate.memory > limit:
            found.append(
                Problem(
                    f"{step.name} needs about {gigabytes(estimate.memory)} of memory while {phase}, and "
                    f"engine.max_memory allows {gigabytes(limit)}",
                    limit_where,
                    remedy=f"allow more, or: {remedy}",
                )
            )
        elif estimate.memory > free_memory:
            found.append(
                Problem(
                    f"{step.name} needs about {gigabytes(estimate.memory)} of memory while {phase}, and this machine "
                    f"has {gigabytes(free_memory)} free",
                    step.where,
                    remedy=remedy,
                )
            )
        vram = sum(gpu.memory_bytes for gpu in machine.gpus)
        if machine.gpus and estimate.vram > vram:
            found.append(
                Problem(
                    f"{step.name} needs about {gigabytes(estimate.vram)} of GPU memory, and there are "
                    f"{gigabytes(vram)}",
                    step.where,
                    remedy=remedy,
                )
            )
    needed = sum(estimate.output for _, estimate in waiting) + max(
        (estimate.temporary for _, estimate in waiting), default=0
    )
    if free_disk is not None and needed > free_disk:
        found.append(
            Problem(
                f"the run needs about {gigabytes(needed)} of disk, and {gigabytes(free_disk)} are free at {cache_dir}",
                cache_where,
                remedy="make room (`olivine cache gc`), or set engine.cache_dir to another disk; --force tries it all "
                "the same",
            )
        )
    return found


def gigabytes(count: int) -> str:
    """Return bytes as people read them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
