"""The space of a search: what there is to choose, and the workflow that a point of it stands for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from olivine.config.schema import PassConfig, SearchStrategy, Workflow
from olivine.errors import ConfigError, Location, Problem
from olivine.passes.known import is_search_parameter
from olivine.search.dimension import Dimension
from olivine.search.parameters import is_default, is_ignored, parameters_of

FLOWS = "pass_flows"
LEFT_OUT = "left out"
"""Value of an optional pass that does not run."""

Point = dict[str, Any]
"""A value for each dimension that counts at this point: ``{"lora.r": 8, "quantize": "Quantize"}``."""


@dataclass(frozen=True)
class Space:
    """All points of a search.

    Attributes:
        workflow: the configuration with the choices in it.
        dimensions: those that others depend on before them.
        fixed: dimensions that are settled (in a search pass by pass).
        forbidden: dimensions without choices: a point at which one of them counts is none.
    """

    workflow: Workflow
    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    forbidden: tuple[Dimension, ...] = ()

    def allows(self, point: Mapping[str, Any]) -> bool:
        """Return whether values may stand together, as far as parameters depend on each other."""
        return not any(each.counts(point) for each in self.forbidden)

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
            if self.allows(point):
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
        if not any(each.needs or each.parents for each in self.dimensions) and not self.forbidden:
            return math.prod(1 if each.name in self.fixed else len(each.choices) for each in self.dimensions)
        return sum(1 for _ in itertools.islice(self.points(), 1_000_000))

    def first(self) -> Point:
        """Return the first point there is: the first choices that may stand together, the low end of ranges.

        Raises:
            ConfigError: no choices may stand together.
        """
        lows = {each.name: each.lowest for each in self.dimensions if not each.choices}
        found = next(replace(self, fixed={**lows, **self.fixed}).points(), None)
        if found is None:
            raise ConfigError(
                "the search has no points: parameters that depend on each other exclude every choice",
                where=Location(path="engine.search_strategy"),
                remedy="give the conditional parameters a support for one combination at least",
            )
        return found

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
        own = {
            key.removeprefix(prefix): item
            for key, item in point.items()
            if key.startswith(prefix) and not is_ignored(item)
        }
        given = {
            key: item for key, item in chosen.params.items() if not (is_default(item) or is_search_parameter(item))
        }
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
    forbidden: list[Dimension] = []
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
            found, never = parameters_of(prefix, each, strategy, own, problems)
            dimensions += found
            forbidden += never
    if problems:
        raise ConfigError(problems)
    return Space(workflow, tuple(dimensions), forbidden=tuple(forbidden))
