"""Parameters that have choices in place of a value, for a search to go through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from olivine.passes.known import DEFAULT_VALUE, SEARCHABLE_VALUES, KnownPass, is_search_parameter


def without_choices(params_type: type[BaseModel], params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split parameters into those with a value and those with choices.

    A list is one of choices if the parameter does not take it as a value, but takes each of its items.
    """
    searched = {key for key, value in params.items() if _is_space(value)}
    lists = [
        key for key, value in params.items() if isinstance(value, list) and value and key in params_type.model_fields
    ]
    if lists:
        wrong = _blamed(params_type, params)
        searched |= {
            key
            for key in lists
            if key in wrong and all(key not in _blamed(params_type, {**params, key: item}) for item in params[key])
        }
    return (
        {key: value for key, value in params.items() if key not in searched},
        {key: params[key] for key in params if key in searched},
    )


def searched_parameters(
    params_type: type[BaseModel] | None, olive: KnownPass | None, params: Mapping[str, Any]
) -> list[str]:
    """Return the names of the parameters with choices, of a pass that Olivine runs or only knows."""
    if params_type is not None:
        return list(without_choices(params_type, params)[1])
    if olive is None:
        return []
    kinds = olive.parameters
    return [
        key
        for key, value in params.items()
        if _is_space(value) or (isinstance(value, list) and key in kinds and not kinds[key] & {"list", "any"})
    ]


def is_range(value: Any) -> bool:
    """Return whether a value is a range to search: ``{low: 4, high: 64}``, with ``step`` or ``log`` if wanted."""
    return (
        isinstance(value, dict)
        and {"low", "high"} <= set(value) <= {"low", "high", "step", "log"}
        and all(isinstance(value.get(key, 0), int | float) for key in ("low", "high", "step"))
    )


def _is_space(value: Any) -> bool:
    if isinstance(value, str):
        return value in (SEARCHABLE_VALUES, DEFAULT_VALUE)
    return is_search_parameter(value) or is_range(value)


def _blamed(params_type: type[BaseModel], params: Mapping[str, Any]) -> set[str]:
    """Return the parameters that validation finds something wrong with."""
    try:
        params_type.model_validate(params)
    except ValidationError as error:
        return {str(each["loc"][0]) for each in error.errors(include_url=False) if each["loc"]}
    return set()
