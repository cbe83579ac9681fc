"""The dimensions of one pass: lists, ranges, the pass's own choices, and parameters that depend on others.

A parameter that depends on others is written as Olive writes it: for each combination of the values of its ``parents``
a list of choices, and a ``default`` for all other combinations. ``ConditionalDefault`` has one value for each::

    group_size:
      olive_parameter_type: SearchParameter
      type: Conditional
      parents: [bits]
      support:
        4: {olive_parameter_type: SearchParameter, type: Categorical, support: [32, 64]}
      default: {olive_parameter_type: SearchParameter, type: Categorical, support: [OLIVE_IGNORED_PARAM_VALUE]}
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from olivine.config.schema import PassConfig, SearchStrategy
from olivine.errors import Location, Problem
from olivine.passes import registry
from olivine.passes.choices import is_range, without_choices
from olivine.passes.known import DEFAULT_VALUE, SEARCHABLE_VALUES, is_search_parameter
from olivine.search.dimension import Dimension

IGNORED = "OLIVE_IGNORED_PARAM_VALUE"
"""The choice that leaves a parameter to its default."""
INVALID = "OLIVE_INVALID_PARAM_VALUE"
"""The choice that makes a combination none."""
CONDITIONAL = frozenset({"conditional", "conditionaldefault"})

Needs = tuple[tuple[str, tuple[Any, ...]], ...]


def is_default(value: Any) -> bool:
    """Return whether a parameter is to be left to its default."""
    return isinstance(value, str) and value == DEFAULT_VALUE


def is_ignored(value: Any) -> bool:
    """Return whether a choice leaves its parameter to the default."""
    return isinstance(value, str) and value == IGNORED


def parameters_of(
    prefix: str, config: PassConfig, strategy: SearchStrategy, needs: Needs, problems: list[Problem]
) -> tuple[list[Dimension], list[Dimension]]:
    """Return the dimensions of a pass's parameters, parents first, and those that forbid a point where they count.

    Args:
        prefix: what their names begin with.
        needs: what has to be chosen for the pass to run.
        problems: receives what is wrong.
    """
    found: dict[str, list[Dimension]] = {}
    forbidden: list[Dimension] = []
    waiting: dict[str, Mapping[str, Any]] = {}
    for key, value in _searched(config, strategy).items():
        name = f"{prefix}.{key}"
        if is_search_parameter(value) and str(value.get("type")).lower() in CONDITIONAL:
            waiting[key] = value
            continue
        made = _dimension(name, config, key, value, needs, problems)
        found[key] = [made] if made is not None else []
    while waiting:
        ready = [key for key, value in waiting.items() if not set(_parents(value)) & set(waiting)]
        if not ready:
            names = ", ".join(waiting)
            problems.append(
                Problem(
                    f"{names} depend on each other",
                    Location(path=f"passes.{prefix}.{next(iter(waiting))}"),
                    remedy="let one of them have choices of its own",
                )
            )
            break
        for key in ready:
            made_of, never = _conditional(prefix, config, key, waiting.pop(key), found, needs, problems)
            found[key] = made_of
            forbidden += never
    return [each for group in found.values() for each in group], forbidden


def _searched(config: PassConfig, strategy: SearchStrategy) -> dict[str, Any]:
    """Return the parameters of a pass that have choices, and those that get the pass's own."""
    found = registry.find(config.type)
    if found is None:
        return {}
    searched = {
        key: value for key, value in without_choices(found.params_type, config.params)[1].items()
        if not is_default(value)
    }  # fmt: skip
    if strategy.include_pass_params and not config.disable_search:
        searched |= {key: SEARCHABLE_VALUES for key in found.searchable if key not in config.params}
    return searched


def _dimension(
    name: str, config: PassConfig, key: str, value: Any, needs: Needs, problems: list[Problem]
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
        listed = _listed(value)
        if listed is None:
            problems.append(
                Problem(
                    f"{key} is a search parameter of an unknown kind, {value.get('type')!r}",
                    where,
                    remedy="give a list of choices, or a Categorical, Boolean, Conditional or ConditionalDefault",
                )
            )
            return None
        value = listed
    if is_range(value):
        return _range(name, value, needs, where, problems)
    if not value:
        problems.append(Problem(f"{key} has no choices", where, remedy="give one at least"))
        return None
    return Dimension(name, _unique(value), needs=needs)


def _unique(values: Sequence[Any]) -> tuple[Any, ...]:
    unique: list[Any] = []
    for each in values:
        if each not in unique:
            unique.append(each)
    return tuple(unique)


def _range(
    name: str, value: Mapping[str, Any], needs: Needs, where: Location, problems: list[Problem]
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


def _listed(value: Any) -> list[Any] | None:
    """Return the choices of a search parameter that has a list of them, ``None`` if it has none."""
    if not is_search_parameter(value):
        return None
    kind = str(value.get("type")).lower()
    if kind == "boolean":
        return [True, False]
    support = value.get("support")
    return list(support) if kind == "categorical" and isinstance(support, list) else None


def _parents(value: Mapping[str, Any]) -> list[str]:
    parents = value.get("parents")
    return [str(each) for each in parents] if isinstance(parents, list | tuple) else []


def _conditional(
    prefix: str,
    config: PassConfig,
    key: str,
    value: Mapping[str, Any],
    found: Mapping[str, list[Dimension]],
    needs: Needs,
    problems: list[Problem],
) -> tuple[list[Dimension], list[Dimension]]:
    """Return one dimension for each set of choices that a parameter may have, and the one that forbids, if any.

    Args:
        found: the dimensions of the other parameters.
    """
    where = Location(path=f"passes.{prefix}.{key}")

    def wrong(what: str, remedy: str) -> tuple[list[Dimension], list[Dimension]]:
        problems.append(Problem(what, where, remedy=remedy))
        return [], []

    parents, support = _parents(value), value.get("support")
    pass_type = registry.find(config.type)
    assert pass_type is not None
    unknown = [each for each in parents if each not in pass_type.params_type.model_fields]
    if not parents or unknown:
        return wrong(
            f"{key} depends on {', '.join(unknown) or 'nothing'}",
            f"name parameters of {config.type} as its parents",
        )
    if not isinstance(support, Mapping):
        return wrong(f"{key} has no support", "give the choices for each value of its parents")
    if any(not each.choices for parent in parents for each in found.get(parent, ())):
        return wrong(f"{key} depends on a range without a step", "give the range a step, or a list")
    values = []
    for parent in parents:
        choices = [choice for each in found.get(parent, ()) for choice in each.choices]
        field = pass_type.params_type.model_fields[parent]
        given = config.params.get(parent, DEFAULT_VALUE)
        fixed = field.get_default(call_default_factory=True) if is_default(given) else given
        values.append(_unique(choices) if choices else (fixed,))
    asked = [place for place, parent in enumerate(parents) if found.get(parent)]
    cases: dict[int, list[tuple[Any, ...]]] = {}
    sets: list[tuple[Any, ...]] = []
    for combination in itertools.product(*values):
        leaf = _leaf(support, combination) or value.get("default")
        listed = _listed(leaf) if leaf is not None else [INVALID]
        if not listed:
            return wrong(
                f"{key} has no choices for {', '.join(map(str, combination))}",
                "give a Categorical with a support, or leave the combination to the default",
            )
        choices_here = _unique([each for each in listed if each != INVALID])
        if choices_here not in sets:
            sets.append(choices_here)
        cases.setdefault(sets.index(choices_here), []).append(tuple(combination[place] for place in asked))
    names = tuple(f"{prefix}.{parents[place]}" for place in asked)
    made = [
        Dimension(f"{prefix}.{key}", choices, needs=needs, parents=names, cases=tuple(cases[index]))
        for index, choices in enumerate(sets)
    ]
    return [each for each in made if each.choices], [each for each in made if not each.choices]


def _leaf(support: Mapping[str, Any], combination: Sequence[Any]) -> Any:
    """Return what a support has for a combination, ``None`` if it has nothing. Keys of JSON are texts."""
    node: Any = support
    for value in combination:
        if not isinstance(node, Mapping) or is_search_parameter(node):
            return None
        node = next((each for key, each in node.items() if _same(key, value)), None)
    return node


def _same(key: Any, value: Any) -> bool:
    if isinstance(value, bool) or value is None:
        return str(key).lower() == ("null" if value is None else str(value).lower())
    return key == value or str(key) == str(value)
