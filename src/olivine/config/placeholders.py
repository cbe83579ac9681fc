"""Fields of a template that nobody has filled in: ``<place_holder>``, ``{USER_SCRIPT}``, ``${NAME}``.

A template is understood, though it cannot run: a field that is not filled in is not blamed for its type, stays what it
is in everything that is made of the configuration, and is told as something that is not available.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from olivine.config.parsing import KeyPath

ModelT = TypeVar("ModelT", bound=BaseModel)

_FIELD = re.compile(
    r"""<{1,2}[A-Za-z][^<>]*>{1,2}                    # <model path>, <<str: model_path>>
    | \{{1,2}\s*[A-Za-z_][\w.]*\s*\}{1,2}            # {MODEL}, {{ model }}
    | \$\{[A-Za-z_]\w*\} | \$\([A-Za-z_]\w*\) | \$[A-Z][A-Z0-9_]+
    | %[A-Za-z_]\w*% | __[A-Z][A-Z0-9_]*[A-Z0-9]__
    """,
    re.VERBOSE,
)
_TEMPLATES = re.compile(r"(_template|_format)$")
"""Keys whose values are templates by their nature."""

NOT_A_FIELD = frozenset({"extra_forbidden", "model_type", "model_attributes_type", "dict_type", "list_type"})
"""Mistakes that a template does not excuse: a key that is not there, text where a whole section stands."""


def is_placeholder(value: Any) -> bool:
    """Return whether a value is a field that nobody has filled in, and nothing else."""
    return isinstance(value, str) and len(value) < 200 and _FIELD.fullmatch(value.strip()) is not None


def find_placeholders(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Yield every field that nobody has filled in, with its path; templates of prompts are none."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from find_placeholders(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from find_placeholders(item, (*path, index))
    elif is_placeholder(value) and not any(isinstance(part, str) and _TEMPLATES.search(part) for part in path):
        yield path, value


def blamed(error: ValidationError) -> tuple[list[KeyPath], bool]:
    """Return the paths of the fields not filled in that a validation blames, and whether it blames nothing else."""
    errors = error.errors(include_url=False)
    found = [
        tuple(each["loc"]) for each in errors if is_placeholder(each.get("input")) and each["type"] not in NOT_A_FIELD
    ]
    return found, len(found) == len(errors)


def validated(model: type[ModelT], value: Any) -> ModelT:
    """Validate as ``model_validate`` does, but leave fields that are not filled in as they are.

    Raises:
        ValidationError: something else is wrong too.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        paths, alone = blamed(error)
        if not alone:
            raise
        kept = {path: found for path in paths if (found := _at(value, path)) is not None}
        made = model.model_validate(_without(value, set(kept)))
        for path, placeholder in kept.items():
            made = _put_back(made, path, placeholder)
        return made


def _at(value: Any, path: KeyPath) -> Any:
    for part in path:
        if isinstance(value, list):
            value = dict(enumerate(value))
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _without(value: Any, paths: set[KeyPath], path: KeyPath = ()) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, paths, (*path, key)) for key, item in value.items() if (*path, key) not in paths}
    if isinstance(value, list):
        return [_without(item, paths, (*path, index)) for index, item in enumerate(value)]
    return value


def _put_back(node: Any, path: KeyPath, value: Any) -> Any:
    """Return a frozen model, or a container in it, with one value set, unchecked."""
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(node, BaseModel):
        return node.model_copy(update={str(first): _put_back(getattr(node, str(first)), rest, value)})
    if isinstance(node, list) and isinstance(first, int) and first < len(node):
        return [_put_back(item, rest, value) if index == first else item for index, item in enumerate(node)]
    return {**node, first: _put_back(node.get(first), rest, value)} if isinstance(node, dict) else value
