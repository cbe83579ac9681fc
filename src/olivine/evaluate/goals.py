"""Goals: what values have to reach, and the verdict on each. Pure: from measurements to verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olivine.config.schema import Evaluator, Goal, MetricConfig, SubType
from olivine.evaluate import registry

INPUT = "input"
"""What a goal compares with if it names nothing: the input model."""


@dataclass(frozen=True)
class Wanted:
    """One goal of an evaluator.

    Attributes:
        metric: the metric's name in the results.
        type: the metric's type.
        index: the metric's place in the evaluator.
        value: the value's name in the metric.
        goal: what it has to reach.
        higher_is_better: direction; ``None`` if neither the metric nor the configuration says.
        path: place below the evaluator (``metrics.0.sub_types.1``).
    """

    metric: str
    type: str
    index: int
    value: str
    goal: Goal
    higher_is_better: bool | None
    path: str

    @property
    def against(self) -> str | None:
        """The model it compares with: ``input``, the name of a pass, or ``None`` for a threshold."""
        return None if self.goal.type == "threshold" else self.goal.against or INPUT

    @property
    def name(self) -> str:
        """The value as it is called in tables: ``accuracy``, ``speed.ttft_ms``."""
        return self.metric if self.value == self.metric else f"{self.metric}.{self.value}"


@dataclass(frozen=True)
class Verdict:
    """Whether one goal is met.

    Attributes:
        name: the value (``speed.ttft_ms``).
        goal: the goal in words (``at most 300``, ``no more than 0.01 below the input model's 0.93``).
        measured: the value, the mean if it was measured again; ``None`` if it was not measured.
        needed: the bound on it, worked out; ``None`` if what it compares with was not measured.
        baseline: the value of the model it compares with.
        met: whether it is met.
        missed_by: distance to the bound, 0 if met; ``None`` if it was not measured.
        near: whether the distance, either way, is within what chance does to the value.
        attempts: each measurement.
        predicted: whether ``measured`` was not measured, but worked out from shapes before the model was made.
    """

    name: str
    goal: str
    measured: float | None
    needed: float | None
    baseline: float | None
    met: bool
    missed_by: float | None
    near: bool
    attempts: tuple[float, ...] = ()
    predicted: bool = False

    @property
    def violation(self) -> float:
        """How far it is from being met, as a share of the bound; not positive if it is met. For samplers and ranks."""
        if self.measured is None or self.missed_by is None or self.needed is None:
            return 1e6
        return self.missed_by / max(abs(self.needed), 1e-9) if not self.met else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "name": self.name,
            "goal": self.goal,
            "measured": self.measured,
            "needed": self.needed,
            "baseline": self.baseline,
            "met": self.met,
            "missed_by": self.missed_by,
            "near": self.near,
            "attempts": list(self.attempts),
            "predicted": self.predicted,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Verdict:
        """Read what :meth:`as_json` gave."""
        return cls(**{**content, "attempts": tuple(content["attempts"])})


def ranked(evaluator: Evaluator) -> Iterator[tuple[str, MetricConfig, SubType, bool | None, str]]:
    """Yield the values that an evaluator names: the metric's name in the results, the metric, the value, its direction,
    and its place below the evaluator."""
    taken: set[str] = set()
    for index, metric in enumerate(evaluator.metrics):
        wanted = metric.name or metric.type
        name, number = wanted, 2
        while name in taken:
            name, number = f"{wanted}-{number}", number + 1
        taken.add(name)
        found = registry.find(metric.type)
        for place, value in enumerate(metric.sub_types or ()):
            better = value.higher_is_better
            if better is None and found is not None:
                better = found.higher_is_better.get(value.name.rpartition(".")[2])
            yield name, metric, value, better, f"metrics.{index}.sub_types.{place}"


def goals_of(evaluator: Evaluator) -> list[Wanted]:
    """Return the goals of an evaluator in their order."""
    found = []
    for name, metric, value, better, path in ranked(evaluator):
        if value.goal is not None:
            index = int(path.split(".")[1])
            found.append(Wanted(name, metric.type, index, value.name, value.goal, better, path))
    return found


def number_in(measured: Mapping[str, Any], metric: str, value: str) -> float | None:
    """Return one value of the results (``labels.joy.recall`` goes into tables), ``None`` if it is not there."""
    node: Any = measured.get(metric)
    for part in value.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return float(node) if isinstance(node, int | float) and not isinstance(node, bool) else None


def bound(wanted: Wanted, baseline: float | None) -> float:
    """Return what the value has to reach. Per cents are of the baseline's size."""
    goal = wanted.goal
    if goal.type == "threshold":
        return goal.value
    assert baseline is not None
    distance = abs(baseline) * goal.value / 100 if goal.type.startswith("percent") else goal.value
    towards = 1.0 if goal.type.endswith("improvement") else -1.0
    return baseline + towards * distance * (1.0 if wanted.higher_is_better else -1.0)


def judge(
    wanted: Sequence[Wanted],
    measured: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    again: Mapping[str, Any] | None = None,
) -> tuple[Verdict, ...]:
    """Return the verdict on each goal.

    Args:
        measured: the values of the model, by metric.
        baselines: those of the models that goals compare with, by :attr:`Wanted.against`.
        again: a second measurement of the model, of some metrics; then the mean counts.
    """
    return tuple(_verdict(each, measured, baselines, again or {}) for each in wanted)


def _verdict(
    wanted: Wanted, measured: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]], again: Mapping[str, Any]
) -> Verdict:
    against = wanted.against
    baseline = number_in(baselines.get(against, {}), wanted.metric, wanted.value) if against is not None else None
    first = number_in(measured, wanted.metric, wanted.value)
    second = number_in(again, wanted.metric, wanted.value)
    attempts = tuple(each for each in (first, second) if each is not None)
    if against is not None and baseline is None:
        # The plan refuses what can never be compared; this is a baseline that was measured and is no number.
        return Verdict(wanted.name, words(wanted, None), first, None, None, False, None, False, attempts)
    needed = bound(wanted, baseline)
    text = words(wanted, baseline)
    if first is None or any(math.isnan(each) for each in attempts):
        return Verdict(wanted.name, text, None, needed, baseline, False, None, False, attempts)
    value = sum(attempts) / len(attempts)
    missed = needed - value if wanted.higher_is_better else value - needed
    # 0.93 - 0.01 is a hair more than 0.92.
    met = missed <= 1e-9 * max(1.0, abs(needed))
    metric_type = registry.find(wanted.type)
    noise = metric_type.noise(wanted.value, measured[wanted.metric]) if metric_type is not None else 0.0
    near = noise > 0 and abs(missed) <= noise
    return Verdict(wanted.name, text, value, needed, baseline, met, 0.0 if met else missed, near, attempts)


def shown(value: float, digits: int = 6) -> str:
    """Return a value for people: whole numbers from 10,000 on in full, others to so many digits."""
    return f"{value:,.0f}" if abs(value) >= 10_000 and value == round(value) else f"{value:.{digits}g}"


def words(wanted: Wanted, baseline: float | None) -> str:
    """Return a goal in words."""
    goal = wanted.goal
    if goal.type == "threshold":
        return f"at {'least' if wanted.higher_is_better else 'most'} {shown(goal.value)}"
    amount = f"{goal.value:g}%" if goal.type.startswith("percent") else shown(goal.value)
    model = "the input model" if wanted.against == INPUT else str(wanted.against)
    what = f"{model}'s {shown(baseline, 4)}" if baseline is not None else model
    if goal.type.endswith("improvement"):
        return f"at least {amount} {'above' if wanted.higher_is_better else 'below'} {what}"
    return f"at most {amount} {'below' if wanted.higher_is_better else 'above'} {what}"


def sentence(verdict: Verdict) -> str:
    """Return a verdict in one line: ``missed by 0.02: accuracy 0.91, wanted at least 0.93``."""
    value = "not measured" if verdict.measured is None else shown(verdict.measured)
    if verdict.met:
        state = "met"
    elif verdict.missed_by is None:
        state = "missed"
    else:
        state = f"missed by {shown(verdict.missed_by, 4)}"
    if verdict.near:
        state += ", near"
    if len(verdict.attempts) > 1:  # it was near, and the second measurement may have taken it far
        state += " (measured again, the mean counts)"
    if verdict.predicted:
        value = f"would be about {value}"
    return f"{state}: {verdict.name} {value}, wanted {verdict.goal}"


def to_measure_again(wanted: Sequence[Wanted], verdicts: Sequence[Verdict]) -> list[int]:
    """Return the indexes of the metrics whose verdict hangs on chance, and that would measure otherwise next time."""
    found = set()
    for each, verdict in zip(wanted, verdicts, strict=True):
        metric_type = registry.find(each.type)
        if verdict.near and len(verdict.attempts) == 1 and metric_type is not None and metric_type.hardware_dependent:
            found.add(each.index)
    return sorted(found)
