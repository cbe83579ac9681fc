"""The plan of a search: the first candidate's, with the space beside it, and what is wrong with the search itself."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.config.schema import SearchStrategy
from olivine.errors import ConfigError, OlivineError, Problem
from olivine.planning.making import make_plan
from olivine.planning.plan import Plan, PlannedStep
from olivine.search.pareto import objectives_of
from olivine.search.space import Space, is_searched, space_of

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.storage.fetching import Fetcher
    from olivine.store import Store

LOOKED_AT = 50
"""Points that are looked at for one that can be planned."""
LOOKING_S = 0.4
"""Seconds for which further candidates are planned, to estimate what all of them take."""


@dataclass(frozen=True)
class Search:
    """What a plan has to know for a search.

    Attributes:
        loaded: the configuration with its choices.
        space: what they span.
        points: candidates at most; ``None`` if nothing bounds them.
        steps: Steps of the candidates that were planned and that the Store does not hold, each once.
        planned: candidates that were planned.
    """

    loaded: Loaded
    space: Space
    points: int | None = None
    steps: tuple[PlannedStep, ...] = ()
    planned: int = 1

    @property
    def share(self) -> float:
        """How many times what was planned all candidates are."""
        return max(1.0, (self.points or self.planned) / self.planned)


def plan_search(
    loaded: Loaded,
    store: Store,
    *,
    trust_remote_code: bool = False,
    scripts: Collection[Path] = (),
    fetcher: Fetcher | None = None,
    fetch_models: bool = True,
    read_weights: bool = True,
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
    planned, until = 0, time.monotonic() + LOOKING_S
    for point in points:
        if chosen is not None and (time.monotonic() > until or planned == most(space, strategy)):
            break
        try:
            plan = make_plan(
                replace(loaded, workflow=space.at(point)),
                store,
                trust_remote_code=trust_remote_code,
                scripts=scripts,
                fetcher=fetcher,
                fetch_models=fetch_models,
                read_weights=read_weights,
            )
        except OlivineError as error:
            first = first or error
            continue
        planned += 1
        waiting |= {step.digest: step for step in plan.steps if not step.cached}
        chosen = chosen or plan
    if chosen is None:
        assert first is not None
        raise first
    search = Search(loaded, space, most(space, strategy), tuple(waiting.values()), planned)
    return replace(chosen, search=search, notes=(*chosen.notes, note(space, strategy)))


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
