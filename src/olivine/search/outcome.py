"""What a study comes to: the pick and why, the front, and which models are put out. Pure: from trials to answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from olivine.evaluate.goals import sentence
from olivine.search.pareto import Objective, front, rank
from olivine.search.trial import Trial


def best_of(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Trial | None:
    """Return the best by priority of those that qualify; the nearest miss if none does; ``None`` if all failed.

    Of candidates that only ran up to some pass, which have no goals, it is the best that was measured.
    """
    ordered = ranking([each for each in trials if each.qualifies or (each.until and each.state == "complete")],
                      objectives)  # fmt: skip
    if ordered:
        return ordered[0]
    misses = [each for each in trials if each.state != "failed"]
    return min(misses, key=lambda each: (each.violation, _ranked(each, objectives), each.number), default=None)


def ranking(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Return those of which every objective was measured: the Pareto front, then the others, best by priority first."""
    measured = {each.number: each for each in trials if each.is_measured}
    ahead = front({number: each.numbers for number, each in measured.items()}, objectives)
    rest = [each for each in measured.values() if each.number not in set(ahead)]
    return [
        *(measured[number] for number in ahead),
        *sorted(rest, key=lambda each: (rank(each.numbers, objectives), each.number)),
    ]


def put_out(trials: Sequence[Trial], best: Trial, objectives: Sequence[Objective], most: int | None) -> list[Trial]:
    """Return the candidates whose models are put out: the pick, and as many that qualify as are asked for."""
    others = [each for each in trials if each.qualifies and each.model is not None and each.number != best.number]
    found, models = [best], {best.model}
    for each in ranking(others, objectives) if best.qualifies else []:
        if len(found) < (most or 1) and each.model not in models:
            models.add(each.model)
            found.append(each)
    return found


def outcome(
    trials: Sequence[Trial],
    best: Trial | None,
    objectives: Sequence[Objective],
    most: int | None,
    *,
    has_goals: bool,
) -> dict[str, Any]:
    """Return what is kept of a study.

    Args:
        best: the pick; ``None`` if every candidate failed.
        most: how many models are put out.
        has_goals: whether candidates had to reach anything.
    """
    qualifying = [each for each in trials if each.qualifies and each.is_measured]
    compared = qualifying or [
        each for each in trials if each.state == "complete" and each.is_measured and not each.until
    ]  # fmt: skip
    numbers = front({each.number: each.numbers for each in compared}, objectives)
    states = [each.state for each in trials]
    runs = {step["digest"] for each in trials for step in each.steps if not step["cached"]}
    return {
        "trials": [each.as_json() for each in trials],
        "complete": states.count("complete"),
        "stopped": states.count("stopped"),
        "failed": states.count("failed"),
        "qualifying": len(qualifying),
        "steps_run": len(runs),
        "pareto_front": numbers,
        "pick": best.number if best is not None else None,
        "pick_point": dict(best.point) if best is not None else {},
        "put_out": [each.number for each in put_out(trials, best, objectives, most)] if best is not None else [],
        "why": why(trials, best, qualifying, numbers, objectives, has_goals=has_goals),
    }


def why(
    trials: Sequence[Trial],
    best: Trial | None,
    qualifying: Sequence[Trial],
    numbers: Sequence[int],
    objectives: Sequence[Objective],
    *,
    has_goals: bool,
) -> str:
    """Return in a sentence why the pick was picked."""
    ran = [each for each in trials if not each.until]
    if best is None:
        return f"there is no pick: of {len(trials)} candidates none was made and measured"
    if not best.qualifies:
        missed = "; ".join(sentence(each) for each in best.verdicts if not each.met and each.measured is not None)
        return f"none of {len(ran)} candidates meets every goal; this is the nearest miss: {missed}"
    first = objectives[0] if objectives else None
    of = f"{len(qualifying)} that qualify" if has_goals else f"{len(qualifying)} that were measured"
    if first is None:
        return f"the first of {of}"
    word = "highest" if first.higher_is_better else "lowest"
    equal = [each for each in qualifying if each.values[0] == best.values[0]]
    tie = ""
    if len(equal) > 1 and len(objectives) > 1:
        tie = f"; of {len(equal)} that are equal in it, the best in {objectives[1].name}"
    front_of = f", {len(numbers)} of them on the Pareto front" if len(objectives) > 1 else ""
    return f"the {word} {first.name} of {of}{front_of}{tie}"


def _ranked(trial: Trial, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Return what sorts a trial among those that are as near to the goals."""
    return rank(trial.numbers, objectives) if trial.is_measured else ()
