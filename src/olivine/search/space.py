"""The space of a search: what there is to choose, and the workflow that a point of it stands for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from olivine.config.schema import PassConfig, SearchStrategy, Workflow
from olivine.errors import ConfigError, Location, Problem
from olivine.passes import registry
from olivine.passes.choices import is_range, without_choices
from olivine.passes.known import DEFAULT_VALUE, SEARCHABLE_VALUES, is_search_parameter

FLOWS = "pass_flows"
LEFT_OUT = "left out"
"""Value of an optional pass that does not run."""

Point = dict[str, Any]
"""A value for each dimension that counts at this point: ``{"lora.r": 8, "quantize": "Quantize"}``."""


@dataclass(frozen=True)
class Dimension:
    """One thing to choose.

    Attributes:
        name: ``lora.r``; the name of a pass for alternatives; ``quantize.1.bits`` for a parameter of one of several.
        choices: the values, in order; empty for a range.
        low: smallest value of a range.
        high: largest.
        log: whether the range is gone through in ratios.
        whole: whether the range has only whole numbers.
        needs: the value that another dimension must have for this one to count.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    whole: bool = False
    needs: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def counts(self, point: Mapping[str, Any]) -> bool:
        """Return whether it is to be chosen, given what has been."""
        return all(name in point and point[name] in values for name, values in self.needs)

    @property
    def is_ordered(self) -> bool:
        """Whether near choices are alike: numbers in rising order."""
        numbers = [each for each in self.choices if isinstance(each, int | float) and not isinstance(each, bool)]
        return len(numbers) == len(self.choices) and numbers == sorted(numbers)

    def as_json(self) -> dict[str, Any]:
        """Return it for people and for the report."""
        if self.choices:
            return {"name": self.name, "choices": list(self.choices)}
        return {"name": self.name, "low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Space:
    """All points of a search.

    Attributes:
        workflow: the configuration with the choices in it.
        dimensions: those that others depend on before them.
        fixed: dimensions that are settled (in a search pass by pass).
    """

    workflow: Workflow
    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def points(self) -> Iterator[Point]:
        """Yield every point, the last dimension varying fastest.

        Raises:
            ConfigError: a range has no step, so that its points cannot be counted.
        """
        for dimension in self.dimensions:
            if not dimension.choices and dimension.name not in self.fixed:
                raise ConfigError(
                    f"the range of {dimension.name} cannot be gone through in order",
                    where=Location(path=f"passes.{dimension.name}"),
                    remedy="give it a step, or choose the sampler random or tpe",
                )
        yield from self._points(0, {})

    def _points(self, index: int, point: Point) -> Iterator[Point]:
        if index == len(self.dimensions):
            yield point
            return
        dimension = self.dimensions[index]
        if not dimension.counts(point):
            yield from self._points(index + 1, point)
            return
        choices = (self.fixed[dimension.name],) if dimension.name in self.fixed else dimension.choices
        for choice in choices:
            yield from self._points(index + 1, {**point, dimension.name: choice})

    @property
    def size(self) -> int | None:
        """How many points there are; ``None`` if a range has no step."""
        if any(not each.choices and each.name not in self.fixed for each in self.dimensions):
            return None
        if not any(each.needs for each in self.dimensions):
            return math.prod(1 if each.name in self.fixed else len(each.choices) for each in self.dimensions)
        return sum(1 for _ in itertools.islice(self.points(), 1_000_000))

    def first(self) -> Point:
        """Return the point with the first choice everywhere, the low end of ranges."""
        point: Point = {}
        for each in self.dimensions:
            if each.counts(point):
                first = each.choices[0] if each.choices else int(each.low) if each.whole else each.low
                point[each.name] = self.fixed.get(each.name, first)
        return point

    def at(self, point: Mapping[str, Any]) -> Workflow:
        """Return the workflow that a point stands for: every parameter has one value, and nothing is searched."""
        names = list(self.workflow.passes)
        if self.workflow.pass_flows is not None:
            flows = self.workflow.pass_flows
            names = flows[point[FLOWS]] if FLOWS in point else flows[0]
        passes: dict[str, PassConfig | list[PassConfig]] = {}
        for name in names:
            found = self._pass_at(name, point)
            if found is not None:
                passes[name] = found
        engine = self.workflow.engine.model_copy(update={"search_strategy": None})
        return self.workflow.model_copy(update={"passes": passes, "pass_flows": None, "engine": engine})

    def _pass_at(self, name: str, point: Mapping[str, Any]) -> PassConfig | None:
        value = self.workflow.passes[name]
        alternatives = value if isinstance(value, list) else [value]
        index = 0
        if name in point:
            if point[name] == LEFT_OUT:
                return None
            index = labels(alternatives).index(point[name])
        chosen = alternatives[index]
        prefix = f"{name}.{index}." if len(alternatives) > 1 else f"{name}."
        own = {key.removeprefix(prefix): item for key, item in point.items() if key.startswith(prefix)}
        given = {key: item for key, item in chosen.params.items() if not _is_default(item)}
        return chosen.model_copy(update={"params": given | own, "optional": None, "disable_search": None})


def labels(alternatives: list[PassConfig]) -> list[str]:
    """Return what alternatives are called in a point: their types, numbered where one comes twice."""
    types = [each.type for each in alternatives]
    return [kind if types.count(kind) == 1 else f"{kind}-{index}" for index, kind in enumerate(types)]


def is_searched(workflow: Workflow) -> bool:
    """Return whether the configuration asks for a search."""
    return bool(workflow.engine.search_strategy)


def space_of(workflow: Workflow) -> Space:
    """Return the space of a configuration.

    Raises:
        ConfigError: a range or choice that no value can be taken from; all of them at once.
    """
    strategy = workflow.engine.search_strategy
    assert isinstance(strategy, SearchStrategy)
    dimensions: list[Dimension] = []
    problems: list[Problem] = []
    flows = workflow.pass_flows
    if flows is not None and len(flows) > 1:
        dimensions.append(Dimension(FLOWS, tuple(range(len(flows)))))
    for name, value in workflow.passes.items():
        alternatives = value if isinstance(value, list) else [value]
        needs: tuple[tuple[str, tuple[Any, ...]], ...] = ()
        if flows is not None and len(flows) > 1:
            needs = ((FLOWS, tuple(index for index, flow in enumerate(flows) if name in flow)),)
        optional = any(each.optional for each in alternatives)
        if len(alternatives) > 1 or optional:
            choices = (*labels(alternatives), *([LEFT_OUT] if optional else []))
            dimensions.append(Dimension(name, choices, needs=needs))
        for index, each in enumerate(alternatives):
            prefix = f"{name}.{index}" if len(alternatives) > 1 else name
            own = needs
            if len(alternatives) > 1 or optional:
                own = (*needs, (name, (labels(alternatives)[index],)))
            for key, choices_of in _searched(each, strategy).items():
                found = _dimension(f"{prefix}.{key}", each, key, choices_of, own, problems)
                if found is not None:
                    dimensions.append(found)
    if problems:
        raise ConfigError(problems)
    return Space(workflow, tuple(dimensions))


def _searched(config: PassConfig, strategy: SearchStrategy) -> dict[str, Any]:
    """Return the parameters of a pass that have choices, and those that get the pass's own."""
    found = registry.find(config.type)
    if found is None:
        return {}
    searched = {
        key: value for key, value in without_choices(found.params_type, config.params)[1].items()
        if not _is_default(value)
    }  # fmt: skip
    if strategy.include_pass_params and not config.disable_search:
        searched |= {key: SEARCHABLE_VALUES for key in found.searchable if key not in config.params}
    return searched


def _is_default(value: Any) -> bool:
    return isinstance(value, str) and value == DEFAULT_VALUE


def _dimension(
    name: str,
    config: PassConfig,
    key: str,
    value: Any,
    needs: tuple[tuple[str, tuple[Any, ...]], ...],
    problems: list[Problem],
) -> Dimension | None:
    """Return the dimension of one parameter; what is wrong with it goes to ``problems``."""
    where = Location(path=f"passes.{name}")
    pass_type = registry.find(config.type)
    assert pass_type is not None
    if value == SEARCHABLE_VALUES:
        choices = pass_type.searchable.get(key)
        if choices is None:
            there = ", ".join(pass_type.searchable) or "none"
            problems.append(
                Problem(
                    f"{config.type} has no choices of its own for {key}", where, f"it has some for {there}",
                    f"give a list, e.g. {key}: [...]",
                )
            )  # fmt: skip
            return None
        return Dimension(name, tuple(choices), needs=needs)
    if is_search_parameter(value):
        problems.append(
            Problem(
                f"{key} depends on other parameters, which is not available",
                where,
                remedy="give a list of choices, or one alternative of the pass for each case",
            )
        )
        return None
    if is_range(value):
        return _range(name, value, needs, where, problems)
    if not value:
        problems.append(Problem(f"{key} has no choices", where, remedy="give one at least"))
        return None
    unique: list[Any] = []
    for each in value:
        if each not in unique:
            unique.append(each)
    return Dimension(name, tuple(unique), needs=needs)


def _range(
    name: str,
    value: Mapping[str, Any],
    needs: tuple[tuple[str, tuple[Any, ...]], ...],
    where: Location,
    problems: list[Problem],
) -> Dimension | None:
    low, high, step, log = value["low"], value["high"], value.get("step"), bool(value.get("log", False))
    whole = all(isinstance(each, int) for each in (low, high, step if step is not None else 1))
    if high < low or (log and low <= 0) or (step is not None and step <= 0) or (log and step is not None):
        problems.append(
            Problem(
                f"{name} is no range: {dict(value)}",
                where,
                remedy="low is at most high, step is positive; a logarithmic range is positive and has no step",
            )
        )
        return None
    if whole and step is None and not log:
        step = 1
    if step is None:
        return Dimension(name, (), low, high, log, whole, needs)
    count = math.floor((high - low) / step + 1e-9) + 1
    choices = tuple(low + index * step for index in range(count))
    return Dimension(name, choices if whole else tuple(float(f"{each:.12g}") for each in choices), needs=needs)
