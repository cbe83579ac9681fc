"""The plan of a search: the first candidate's, with the space beside it, and what is wrong with the search itself."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.config.schema import SearchStrategy
from olivine.errors import ConfigError, OlivineError, Problem
from olivine.planning.making import make_plan
from olivine.planning.plan import EVALUATE_FINAL, Plan, PlannedStep
from olivine.search.pareto import objectives_of
from olivine.search.space import FLOWS, Space, is_searched, space_of

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.planning.known import Known
    from olivine.storage.fetching import Fetcher
    from olivine.store import Store

LOOKED_AT = 50
"""Points that are looked at for one that can be planned."""
LOOKING_S = 0.4
"""Seconds of this process for which further candidates are planned, to estimate what all of them take."""
COUNTED = 10_000
"""Points of a space that are looked at to count how many Steps candidates share."""


@dataclass(frozen=True)
class Search:
    """What a plan has to know for a search.

    Attributes:
        loaded: the configuration with its choices.
        space: what they span.
        points: candidates at most; ``None`` if nothing bounds them.
        steps: Steps of the candidates that were planned and that the Store does not hold, each once.
        times: by the name of a Step, how many all candidates have for each of that name in ``steps``.
    """

    loaded: Loaded
    space: Space
    points: int | None = None
    steps: tuple[PlannedStep, ...] = ()
    times: Mapping[str, float] = field(default_factory=dict)


def plan_search(
    loaded: Loaded,
    store: Store,
    *,
    trust_remote_code: bool = False,
    scripts: Collection[Path] = (),
    fetcher: Fetcher | None = None,
    fetch_models: bool = True,
    read_weights: bool = True,
    online: bool = True,
    known: Known | None = None,
) -> Plan:
    """Return the plan of the first candidate that can be planned, with the search in it.

    The arguments are those of :func:`olivine.planning.making.make_plan`.

    Raises:
        ConfigError: the search has nothing to go by, or a choice that is none.
        PlanError: no candidate could run; the problems of the first.
        UnavailableError: the same, if all that is wrong is missing here.
    """
    from olivine.search.study import timed_metrics

    assert is_searched(loaded.workflow)
    strategy = loaded.workflow.engine.search_strategy
    assert isinstance(strategy, SearchStrategy)
    evaluator = loaded.workflow.engine.evaluator
    problems = []
    if evaluator is None:
        problems.append(
            Problem(
                "a search needs an evaluator, to tell which model is best",
                loaded.locate("engine.search_strategy"),
                remedy="define one under evaluators, and name it as engine.evaluator",
            )
        )
    elif not objectives_of(loaded.workflow.evaluators[evaluator]):
        problems.append(
            Problem(
                f"no value of the evaluator {evaluator} has a direction to search in",
                loaded.locate(f"evaluators.{evaluator}"),
                remedy="give a sub_type a priority and higher_is_better (lm_eval: {name: TASK.SCORE, priority: 1})",
            )
        )
    timed = timed_metrics(loaded)
    if strategy.workers > 1 and timed:
        problems.append(
            Problem(
                f"{', '.join(timed)} cannot be measured while other candidates run",
                loaded.locate("engine.search_strategy.workers"),
                remedy="set workers to 1, or leave the timings to the end",
            )
        )
    if problems:
        raise ConfigError(problems)
    try:
        space = space_of(loaded.workflow)
        points = [space.first()]
        if space.size is not None:
            points = list(islice(space.points(), LOOKED_AT))
        elif strategy.sampler == "sequential":
            next(space.points())
    except ConfigError as error:
        raise ConfigError(
            [
                replace(each, where=loaded.locate(each.where.path)) if each.where and each.where.path else each
                for each in error.problems
            ]
        ) from None
    first: OlivineError | None = None
    chosen: Plan | None = None
    waiting: dict[str, PlannedStep] = {}
    bound = most(space, strategy)
    planned, until = 0, time.process_time() + LOOKING_S
    for number in range(len(points)):
        if chosen is not None and (time.process_time() > until or planned == bound):
            break
        point = points[number]
        try:
            plan = make_plan(
                replace(loaded, workflow=space.at(point)),
                store,
                trust_remote_code=trust_remote_code,
                scripts=scripts,
                fetcher=fetcher,
                fetch_models=fetch_models,
                read_weights=read_weights,
                online=online,
                known=known,
            )
        except OlivineError as error:
            first = first or error
            continue
        planned += 1
        waiting |= {step.digest: step for step in plan.steps if not step.cached}
        if chosen is None:
            chosen = plan
            points[number + 1 :] = random.Random(0).sample(points[number + 1 :], len(points) - number - 1)
    if chosen is None:
        assert first is not None
        raise first
    steps = tuple(waiting.values())
    search = Search(loaded, space, bound, steps, _times(steps, space, bound or planned))
    return replace(chosen, search=search, notes=(*chosen.notes, note(space, strategy)))


def _times(steps: Sequence[PlannedStep], space: Space, candidates: int) -> dict[str, float]:
    """Return how many Steps of each name all candidates have, for each of that name in ``steps``."""
    different = different_prefixes(space, candidates)
    last = next(reversed(different), "")
    found = {}
    for name, planned in Counter(step.name for step in steps).items():
        after = last if name == EVALUATE_FINAL else name.removeprefix("evaluate ")
        found[name] = max(1.0, different.get(after, 1) / planned)
    return found


def different_prefixes(space: Space, candidates: int) -> dict[str, int]:
    """Return for each pass how many results of it so many candidates have: those with the same choices share one.

    Counted on candidates drawn at random.
    """
    names = list(space.workflow.passes)
    place = {FLOWS: 0} | {name: index for index, name in enumerate(names)}
    owner = {each.name: place[each.name.partition(".")[0]] for each in space.dimensions}
    if space.size is None:  # hardly two have the same value of a range
        first = min(owner[each.name] for each in space.dimensions if not each.choices)
        before = {
            index: math.prod(len(each.choices) for each in space.dimensions if owner[each.name] <= index)
            for index in range(first)
        }
        return {name: min(candidates, before.get(index, candidates)) for index, name in enumerate(names)}
    points = list(islice(space.points(), COUNTED))
    drawn = random.Random(0).sample(points, min(candidates, len(points)))
    return {
        name: len({tuple((key, repr(value)) for key, value in point.items() if owner[key] <= index) for point in drawn})
        for index, name in enumerate(names)
    }


def most(space: Space, strategy: SearchStrategy) -> int | None:
    """Return how many candidates a search tries at most, ``None`` if nothing bounds them."""
    return min((each for each in (strategy.max_samples, strategy.max_iter, space.size) if each), default=None)


def note(space: Space, strategy: SearchStrategy) -> str:
    """Return the search in a sentence."""
    over = ", ".join(
        f"{each.key} ({len(each.choices)})" if each.choices else f"{each.name} ({each.low:g} to {each.high:g})"
        for each in space.dimensions
    )
    size = f"{space.size} points" if space.size is not None else "a space without end"
    bound = most(space, strategy)
    budget = f", {bound} of them at most" if bound is not None and bound != space.size else ""
    return f"a {strategy.execution_order} {strategy.sampler} search over {size}{budget}: {over or 'nothing'}"
