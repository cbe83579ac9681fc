"""One candidate of a search: its Steps, then its tests, the cheapest first, until it can no longer qualify.

The tests, in order: the size worked out from shapes, before anything is made; the size of the files; metrics that have
a goal on a few samples; timings; everything else.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from olivine.engine.engine import Run
from olivine.errors import OlivineError, StepError
from olivine.evaluate import registry
from olivine.evaluate.goals import Verdict, Wanted, judge, sentence
from olivine.passes.base import Format
from olivine.planning.parts import by_cost, files_alone, part_of, with_few
from olivine.planning.plan import Plan, PlannedStep
from olivine.search.trial import State

SLACK = 0.15
"""A size that is worked out from shapes may be off by such a share: it was within a tenth where it was compared."""
SURE = 3.0
"""A goal that is missed on a few samples by so many standard errors is missed on all of them."""


@dataclass(frozen=True)
class End:
    """How a candidate ended; the attributes are those of :class:`~olivine.search.trial.Trial`."""

    state: State
    reason: str
    verdicts: tuple[Verdict, ...]
    metrics: Mapping[str, Any]


def carry_out(plan: Plan, run: Run, goals: Sequence[Wanted], expired: threading.Event) -> End:
    """Run a candidate's Steps and tests.

    Args:
        goals: what it has to reach; none in a search pass by pass, but for the last pass.
        expired: set when its time is up.
    """
    final = plan.evaluation("final") or plan.evaluation("input")
    assert final is not None
    metrics: dict[str, Any] = {}
    verdicts = judge(goals, {}, {})
    try:
        foreseen = False
        for planned in plan.steps:
            if expired.is_set():
                raise StepError("its time was up")
            if planned.step.kind == "pass" and not foreseen:
                foreseen = True
                verdicts = _foresee(plan, run, goals, final)
                if hopeless := [each for each in verdicts if each.predicted]:
                    return End("stopped", _reasons(hopeless), verdicts, {})
            if planned is not final:
                run.do(planned)
                refuse_nan(planned.name, run.results[-1].metrics)
        for measured, is_few in _measured(final, run, goals):
            refuse_nan(final.name, measured)
            verdicts = judge(goals, metrics | measured, run.baselines(final))
            if is_few:
                hopeless = [each for each, goal in zip(verdicts, goals, strict=True) if _surely(each, goal, measured)]
                if hopeless:
                    return End("stopped", f"on a few samples: {_reasons(hopeless)}", verdicts, metrics | measured)
                continue
            metrics |= measured
            hopeless = [each for each in verdicts if each.measured is not None and not each.met and not each.near]
            if hopeless and len(metrics) < len(final.step.params["metrics"]):
                return End("stopped", _reasons(hopeless), verdicts, metrics)
        verdicts = run.judge() if goals else ()
    except OlivineError as error:
        reason = "it took longer than a candidate may" if expired.is_set() else str(error)
        return End("failed", reason, verdicts, metrics)
    return End("complete", "", verdicts, metrics)


def predicted_size(plan: Plan) -> int | None:
    """Return the bytes of the model that a plan makes, worked out from shapes; ``None`` if a pass cannot tell."""
    made = [step for step in plan.passes if step.produces is not Format.PEFT]
    if not made or not all(step.estimate is not None and step.estimate.from_shapes for step in made):
        return None
    last = made[-1].estimate
    return last.output if last is not None else None


def _foresee(plan: Plan, run: Run, goals: Sequence[Wanted], final: PlannedStep) -> tuple[Verdict, ...]:
    """Return the verdicts as far as the size, which is known before it is made, decides any of them: those are marked
    as predicted. What the Store holds does not matter, so that a search takes the same course with any."""
    unknown = judge(goals, {}, {})
    size = predicted_size(plan)
    if size is None:
        return unknown
    names = [each["name"] for each in final.step.params["metrics"] if each["type"] == "size"]
    found = judge(goals, {name: {"size_bytes": size} for name in names}, run.baselines(final))
    return tuple(
        replace(verdict, predicted=True)
        if verdict.measured is not None and not verdict.met and (verdict.missed_by or 0.0) > SLACK * size
        else nothing
        for verdict, nothing in zip(found, unknown, strict=True)
    )


def _measured(final: PlannedStep, run: Run, goals: Sequence[Wanted]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield what is measured, the cheapest first, and whether it was measured on a few samples only. The other parts
    together are then the whole evaluation's result."""
    names = [each["name"] for each in final.step.params["metrics"]]
    few = with_few(final, {goal.index for goal in goals})
    groups = by_cost(final, last=few)
    if (len(groups) == 1 and not few) or len(set(names)) < len(names) or run.store.find(final.digest) is not None:
        run.do(final)
        yield run.measured(final), False
        return
    found: dict[str, Any] = {}
    parts = []
    kinds = {each["index"]: each["name"] for each in final.step.params["metrics"]}
    for group in groups:
        if few and not files_alone(final, group):
            for index, params in few.items():
                part = part_of(
                    final, [index], name=f"measure {kinds[index]} on a few samples", params={index: params}
                )  # fmt: skip
                run.do(part)
                yield run.measured(part), True
            few = {}
        part = part_of(final, group, name=f"measure {', '.join(kinds[index] for index in sorted(group))}")
        run.do(part)
        parts.append(part)
        found |= run.measured(part)
        yield run.measured(part), False
    run.assemble(final, {name: found[name] for name in names}, parts)


def _surely(verdict: Verdict, goal: Wanted, measured: Mapping[str, Any]) -> bool:
    """Return whether a goal that is missed on a few samples is missed on all of them."""
    values = measured.get(goal.metric)
    metric_type = registry.find(goal.type)
    if verdict.measured is None or verdict.met or values is None or metric_type is None or verdict.missed_by is None:
        return False
    noise = metric_type.noise(goal.value, values)
    return noise > 0 and verdict.missed_by > SURE * noise


def _reasons(verdicts: Sequence[Verdict]) -> str:
    return "; ".join(sentence(each) for each in verdicts)


def refuse_nan(step: str, metrics: Mapping[str, Any], path: str = "") -> None:
    """Raise a StepError if a Step reported what is no number: nothing can be said of such a candidate."""
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            refuse_nan(step, value, f"{path}{key}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise StepError(f"{step} gave {value} for {path}{key}", why="the model's numbers are broken")
