"""What a plan's Steps will take, beside what this machine and the target have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.config.sizes import gigabytes, memory_limit
from olivine.errors import Location, Problem, UnavailableError
from olivine.passes.estimate import Estimate
from olivine.planning.away import is_away
from olivine.planning.fit import misfit

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.hardware.machine import Machine
    from olivine.planning.plan import Plan, PlannedStep

__all__ = ["check_resources", "gigabytes", "memory_limit", "remedies", "shortages"]

FORCE = "; --force tries it all the same"
TOLD = 3
"""Remedies that are named at most."""


def check_resources(plan: Plan, loaded: Loaded, *, force: bool) -> Plan:
    """Return the plan, having compared what it takes with what this machine and the target have.

    Args:
        force: go on all the same; what is short becomes a note.

    Raises:
        UnavailableError: memory or disk does not suffice here, or the model will not fit its target; with numbers.
    """
    systems = plan.workflow.systems
    waiting = [step for step in plan.steps if not step.cached and not (step.system and is_away(systems[step.system]))]
    problems = _short_here(plan, waiting, loaded) if waiting else []
    if plan.fit is not None:
        problem = misfit(plan.fit, loaded.locate("engine.target"), _smaller(plan))
        problems += [problem] if problem is not None else []
    if problems and not force:
        raise UnavailableError(problems)
    return replace(plan, notes=(*plan.notes, *(str(problem) for problem in problems)))


def _short_here(plan: Plan, steps: Sequence[PlannedStep], loaded: Loaded) -> list[Problem]:
    """Return what this machine has not got for ``steps``."""
    from olivine.hardware.machine import this_machine
    from olivine.hardware.memory import free_memory_bytes
    from olivine.store.disk import free_bytes

    return shortages(
        steps,
        this_machine(),
        free_memory=free_memory_bytes(),
        free_disk=free_bytes(plan.cache_dir),
        limit=memory_limit(plan.workflow.engine.max_memory, loaded.locate("engine.max_memory")),
        limit_where=loaded.locate("engine.max_memory"),
        cache_where=loaded.locate("engine.cache_dir"),
        cache_dir=plan.cache_dir,
    )


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
        needs = f"{step.name} needs about {gigabytes(estimate.needed)} of memory while {estimate.busiest}"
        if limit is not None and estimate.needed > limit:
            found.append(
                Problem(
                    f"{needs}, and engine.max_memory allows {gigabytes(limit)}",
                    limit_where,
                    remedy=f"{remedies(step.name, step.step.kind, estimate, limit, limited=True)}{FORCE}",
                )
            )
        elif estimate.needed > free_memory:
            found.append(
                Problem(
                    f"{needs}, and this machine has {gigabytes(free_memory)} free",
                    step.where,
                    remedy=f"{remedies(step.name, step.step.kind, estimate, free_memory)}{FORCE}",
                )
            )
        vram = sum(gpu.memory_bytes for gpu in machine.gpus)
        if machine.gpus and estimate.gpu_memory > vram:
            busiest = max(estimate.vram, key=lambda name: estimate.vram[name])
            found.append(
                Problem(
                    f"{step.name} needs about {gigabytes(estimate.gpu_memory)} of GPU memory while {busiest}, and "
                    f"there are {gigabytes(vram)}",
                    step.where,
                    remedy=f"{remedies(step.name, step.step.kind, estimate, vram, on_gpu=True)}{FORCE}",
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
                remedy=f"make room for {gigabytes(needed - free_disk)} (`olivine cache gc`), or set engine.cache_dir "
                f"to another disk{FORCE}",
            )
        )
    return found


def remedies(
    name: str, kind: str, estimate: Estimate, available: int, *, on_gpu: bool = False, limited: bool = False
) -> str:
    """Return what to change so that a Step takes less, each with the amount that it takes then.

    Those that suffice are named; if none does, the one that helps most, and that it is not enough.

    Args:
        name: the Step's.
        kind: ``pass`` or ``evaluate``.
        estimate: what it takes, and what would take less.
        available: bytes that there are.
        on_gpu: whether they are a GPU's.
        limited: whether it is ``engine.max_memory`` that allows no more.
    """

    def takes(each: Estimate) -> int:
        return each.gpu_memory if on_gpu else each.needed

    machine = f"use a machine with {gigabytes(takes(estimate))} of {'GPU ' if on_gpu else ''}memory free"
    if limited:
        machine = f"set engine.max_memory to {gigabytes(1.02 * takes(estimate))}"
    helping = [(text, takes(each)) for text, each in estimate.lighter if takes(each) < takes(estimate)]
    place = f"in passes.{name} " if kind == "pass" else ""
    enough: list[tuple[str, int]] = []
    for text, amount in helping:
        # What one change does need not be done by it and others.
        if amount <= available and not any(other in text for other, _ in enough):
            enough.append((text, amount))
    if enough:
        told = ", or ".join(f"{text} ({gigabytes(amount)})" for text, amount in enough[:TOLD])
        return f"{place}set {told}; or {machine}"
    if helping:
        text, amount = min(helping, key=lambda each: each[1])
        return f"{machine}; the least it can do with is {gigabytes(amount)}, with {text}"
    return f"{estimate.remedy}, or {machine}" if estimate.remedy else machine


def _smaller(plan: Plan) -> str:
    """Return what would make the final model smaller."""
    assert plan.fit is not None
    builder = next((step for step in reversed(plan.passes) if step.step.type == "ModelBuilder"), None)
    if builder is None or plan.fit.usable is None:
        return ""
    precision = builder.step.params.get("precision")
    bits = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8.5, "int4": 4.5}.get(str(precision))
    room = plan.fit.usable - plan.fit.cache - plan.fit.working
    if bits is None or room <= 0:
        return ""
    for other, width in (("int8", 8.5), ("int4", 4.5)):
        smaller = int(plan.fit.weights * width / bits)
        if width < bits and smaller <= room:
            return f"in passes.{builder.name} set precision: {other} (weights about {gigabytes(smaller)})"
    if bits > 2.5 and plan.fit.weights * 3 / bits <= room:
        return f"in passes.{builder.name} set precision: auto with max_size: {room // 10**6}MB"
    return ""
