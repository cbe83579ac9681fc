"""Which point to try next. Optuna does the choosing; here are its questions and answers (seen with 4.5 to 5.0)."""

from __future__ import annotations

import itertools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olivine.config.schema import SearchStrategy
from olivine.errors import UnavailableError
from olivine.search.pareto import Objective
from olivine.search.space import Point, Space
from olivine.store import digest_json

if TYPE_CHECKING:
    import optuna

REPEATS = 64
"""How often a sampler may propose what has been tried, or is no point, before a point is drawn for it."""
EXCLUDED = 1e6
"""How far choices that may not stand together are from any constraint."""


class Asker(ABC):
    """Proposes points and learns what became of them. The same seed and the same answers give the same questions."""

    @abstractmethod
    def ask(self) -> Point | None:
        """Return the next point that has not been tried, ``None`` if there is none."""

    @abstractmethod
    def tell(self, point: Point, values: Sequence[float | None], violations: Mapping[str, float]) -> None:
        """Learn what a point gave.

        Args:
            values: by objective; ``None`` what was not measured, as the candidate failed or was stopped.
            violations: by constraint; positive ones are not met.
        """


def asker(space: Space, strategy: SearchStrategy, objectives: Sequence[Objective]) -> Asker:
    """Return what a strategy asks for.

    Raises:
        UnavailableError: Optuna is not installed.
        ConfigError: points are to be taken in order, and cannot be.
    """
    if strategy.sampler == "sequential":
        return InOrder(space)
    if strategy.sampler == "gp":
        from olivine.search.gaussian import Gaussian

        return Gaussian(space, strategy, objectives)
    return Sampled(space, strategy, objectives)


class InOrder(Asker):
    """Every point in order."""

    def __init__(self, space: Space) -> None:
        self._points: Iterator[Point] = space.points()

    def ask(self) -> Point | None:
        """See :meth:`Asker.ask`."""
        return next(self._points, None)

    def tell(self, point: Point, values: Sequence[float | None], violations: Mapping[str, float]) -> None:
        """There is nothing to learn."""


class Sampled(Asker):
    """A sampler of Optuna."""

    def __init__(self, space: Space, strategy: SearchStrategy, objectives: Sequence[Objective]) -> None:
        try:
            import optuna
        except ImportError:
            raise UnavailableError(
                f"the sampler {strategy.sampler} needs optuna", remedy="`pip install 'olivine[search]'`"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._strategy = strategy
        self._optuna = optuna
        self._study = optuna.create_study(
            sampler=_sampler(strategy, space),
            directions=["maximize" if each.higher_is_better else "minimize" for each in objectives],
        )
        self._asked: dict[str, optuna.Trial] = {}
        self._told: dict[str, tuple[list[float], dict[str, float]]] = {}
        self._worst: list[float | None] = [None] * len(objectives)
        self._objectives = objectives
        self._random = random.Random(strategy.seed)

    def ask(self) -> Point | None:
        """See :meth:`Asker.ask`."""
        for _ in range(REPEATS):
            trial = self._study.ask()
            point = self._suggest(trial)
            key = digest_json(point)
            if not self._space.allows(point):
                self._answer(trial, [worst or 0.0 for worst in self._worst], {"excluded": EXCLUDED})
            elif key in self._told and not self._strategy.with_replacement:
                # The sampler is given the answer that is known, so that it looks elsewhere.
                self._answer(trial, *self._told[key])
            elif key in self._asked:
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            else:
                self._asked[key] = trial
                return point
        return self._drawn()

    def _drawn(self) -> Point | None:
        """Return a point that was not tried, drawn without the sampler."""
        if self._space.size is None:
            return None
        rest = [
            point
            for point in itertools.islice(self._space.points(), 100_000)
            if (key := digest_json(point)) not in self._told and key not in self._asked
        ]
        if not rest:
            return None
        point = self._random.choice(rest)
        self._study.enqueue_trial(self._encoded(point))
        trial = self._study.ask()
        self._suggest(trial)
        self._asked[digest_json(point)] = trial
        return point

    def tell(self, point: Point, values: Sequence[float | None], violations: Mapping[str, float]) -> None:
        """See :meth:`Asker.tell`."""
        key = digest_json(point)
        for place, (value, objective) in enumerate(zip(values, self._objectives, strict=True)):
            worst = self._worst[place]
            if value is not None and (worst is None or (value < worst) == objective.higher_is_better):
                self._worst[place] = value
        # What violates a constraint is ranked by how much; its values only have to be numbers.
        filled = [
            value if value is not None else self._worst[place] or 0.0 for place, value in enumerate(values)
        ]  # fmt: skip
        self._told[key] = (filled, dict(violations))
        self._answer(self._asked.pop(key), filled, violations)

    def _answer(self, trial: optuna.Trial, values: Sequence[float], violations: Mapping[str, float]) -> None:
        for name, amount in violations.items():
            trial.set_constraint(name, amount)
        self._study.tell(trial, list(values))

    def _suggest(self, trial: optuna.Trial) -> Point:
        point: Point = {}
        for each in self._space.dimensions:
            if not each.counts(point):
                continue
            if each.name in self._space.fixed:
                point[each.name] = self._space.fixed[each.name]
            elif not each.choices:
                point[each.name] = (
                    trial.suggest_int(each.key, int(each.low), int(each.high), log=each.log)
                    if each.whole
                    else trial.suggest_float(each.key, each.low, each.high, log=each.log)
                )
            elif len(each.choices) == 1:
                point[each.name] = each.choices[0]
            elif each.is_ordered:
                point[each.name] = each.choices[trial.suggest_int(each.key, 0, len(each.choices) - 1)]
            else:
                index = trial.suggest_categorical(each.key, list(range(len(each.choices))))
                point[each.name] = each.choices[int(index)]
        return point

    def _encoded(self, point: Point) -> dict[str, Any]:
        """Return a point in the sampler's terms."""
        return {
            each.key: each.choices.index(point[each.name]) if each.choices else point[each.name]
            for each in self._space.dimensions
            if each.counts(point) and len(each.choices) != 1 and each.name not in self._space.fixed
        }


def _good(count: int) -> int:
    """Return how many of ``count`` points TPE takes for good ones (Bergstra et al., 2011): a quarter, at most 25.

    Optuna takes a tenth, which is a single point in searches as short as those of models are.
    """
    return min(math.ceil(count / 4), 25)


def _sampler(strategy: SearchStrategy, space: Space) -> optuna.samplers.BaseSampler:
    import warnings

    import optuna

    budget = min(each for each in (strategy.max_samples, strategy.max_iter, space.size, 40) if each is not None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # multivariate and group are called experimental
        if strategy.sampler == "random":
            return optuna.samplers.RandomSampler(seed=strategy.seed)
        if strategy.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=strategy.seed, population_size=max(4, budget // 4))
        conditional = any(each.needs or each.parents for each in space.dimensions)
        return optuna.samplers.TPESampler(
            seed=strategy.seed,
            multivariate=strategy.multivariate,
            group=strategy.group and strategy.multivariate and conditional,
            n_startup_trials=max(4, min(10, budget // 4)),
            gamma=_good,
            warn_independent_sampling=False,
        )
