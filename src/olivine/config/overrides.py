"""``--set path.to.key=value``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from olivine.config.parsing import DEEPEST, parse_value
from olivine.config.wording import nearest
from olivine.errors import ConfigError, Location


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Set values in ``raw`` and return the dotted paths that were set.

    The value is read as YAML (``16``, ``true``, ``[a, b]``, ``{max_steps: 10}``). An item of a list is named by its
    index or by its ``name``. Objects on the way that are not there are made; whether they may be is checked later.

    Raises:
        ConfigError: an override is not ``PATH=VALUE``, or leads through a value that is no object.
    """
    if not overrides:
        return []
    changed = []
    for override in overrides:
        path, equals, text = override.partition("=")
        where = Location("--set", path=override)
        if not equals or not path.strip():
            raise ConfigError(f"{override!r} is no override", where=where, remedy="write --set passes.lora.r=16")
        try:
            value = parse_value(text) if text.strip() else None
        except ValueError:
            value = text
        *parents, last = path.strip().split(".")
        if len(parents) >= DEEPEST:
            raise ConfigError(f"the path has {len(parents) + 1} parts", where=where, remedy="shorten the path")
        _check_pass(raw, parents, overrides, where)
        node: Any = raw
        for part in parents:
            node = _step_into(node, part, where)
        if isinstance(node, list):
            node[_index(node, last, where)] = value
        elif isinstance(node, dict):
            node[last] = value
        else:
            raise _dead_end(last, where)
        changed.append(path.strip())
    return changed


def _check_pass(raw: dict[str, Any], parents: Sequence[str], overrides: Sequence[str], where: Location) -> None:
    """Refuse to make a pass by setting one of its parameters: its name is a slip, unless its type is set too.

    Raises:
        ConfigError: there are passes, and none of that name.
    """
    known = raw.get("passes")
    if not isinstance(known, dict) or not known or parents[:1] != ["passes"] or len(parents) < 2 or parents[1] in known:
        return
    if any(
        each.partition("=")[0].strip() in (f"passes.{parents[1]}", f"passes.{parents[1]}.type") for each in overrides
    ):
        return
    near = nearest(parents[1], map(str, known))
    raise ConfigError(
        f"there is no pass {parents[1]!r}; there is {', '.join(map(str, known))}",
        where=where,
        remedy=f"did you mean {near}?" if near else f"to add one, set passes.{parents[1]}.type too",
    )


def _step_into(node: Any, part: str, where: Location) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, where)]
    if not isinstance(node, dict):
        raise _dead_end(part, where)
    if node.get(part) is None:
        node[part] = {}
    return node[part]


def _index(items: list[Any], part: str, where: Location) -> int:
    for index, item in enumerate(items):
        if isinstance(item, dict) and item.get("name") == part:
            return index
    if part.isdecimal() and len(part) < 10 and int(part) < len(items):
        return int(part)
    names = [str(item["name"]) for item in items if isinstance(item, dict) and "name" in item]
    raise ConfigError(
        f"there is no item {part!r} in this list of {len(items)}",
        where=where,
        remedy=f"name one of {', '.join(names)}" if names else "name it by its index, from 0",
    )


def _dead_end(part: str, where: Location) -> ConfigError:
    return ConfigError(
        f"{part!r} would be set inside a value that is no object", where=where, remedy="shorten the path"
    )
