"""Text to plain values, JSON or YAML, and the line of every key.

Values come from the fast parsers. Lines are looked up only when something has to be said about them, by a second and
slower reading. No YAML tag constructs anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from olivine.errors import ConfigError, Location

LARGEST_FILE = 16 * 2**20
"""A configuration is text that people write; more bytes than this are something else."""
MOST_VALUES = 200_000
"""More values than this, anchors expanded, are refused."""
DEEPEST = 100

KeyPath = tuple[str | int, ...]
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Duplicate(ValueError):
    """A key stands twice in one object."""

    def __init__(self, key: str, line: int | None = None) -> None:
        super().__init__(key)
        self.key = key
        self.line = line


class _StrictLoader(_Loader):  # type: ignore[misc]
    """PyYAML's safe loader, with duplicate keys refused and keys that are no text made text."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        self.flatten_mapping(node)
        seen: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain value", key_node.start_mark)
            if key in seen:
                raise _Duplicate(str(key), key_node.start_mark.line + 1)
            seen[key] = self.construct_object(value_node, deep=deep)
        return seen


_StrictLoader.add_constructor("tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True))


def read(file: Path) -> tuple[Any, str]:
    """Return the values in a configuration file, and its text.

    Raises:
        ConfigError: it is missing, not text, too large, or not valid JSON or YAML; with line and column.
    """
    name = str(file)
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise ConfigError(
                f"the configuration is {file.stat().st_size // 2**20} MiB large",
                where=Location(name),
                remedy="give the configuration, not the data or the model",
            )
        content = file.read_bytes()
    except FileNotFoundError:
        near = sorted(each.name for each in file.parent.glob("*") if each.suffix in (".json", ".yaml", ".yml"))[:6]
        raise ConfigError(
            f"there is no configuration {file}",
            remedy=f"in that folder there is {', '.join(near)}" if near else "check the path",
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{file} is a folder", remedy="name the configuration file in it") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"byte {error.start} is not UTF-8", where=Location(name, line), remedy="save the file as UTF-8"
        ) from None
    value = parse(text, name)
    _check_extent(value, name)
    return value, text


def parse(text: str, name: str) -> Any:
    """Return the values in ``text``; a text that begins like JSON is read as JSON."""
    if is_json(text):
        return _parse_json(text, name)
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except _Duplicate as error:
        raise _duplicate(error.key, Location(name, error.line)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else None
        said = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise ConfigError(
            f"invalid YAML: {said}{_shown(text, line, mark.column + 1 if mark is not None else None)}",
            where=Location(name, line),
            remedy="mend the file there",
        ) from None
    except RecursionError:
        raise ConfigError("the configuration is nested too deeply", where=Location(name)) from None
    except ValueError as error:
        raise ConfigError(f"invalid YAML: {error}", where=Location(name), remedy="mend the value") from None


def is_json(text: str) -> bool:
    """Return whether a text is to be read as JSON: it begins with a brace."""
    return text.lstrip()[:1] == "{"


def _parse_json(text: str, name: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            seen: set[str] = set()
            for key, _ in items:
                if key in seen:
                    raise _Duplicate(key)
                seen.add(key)
        return found

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=_no_constant)
    except _Duplicate as error:
        raise _duplicate(error.key, Location(name, _second_line(text, error.key))) from None
    except json.JSONDecodeError as error:
        hint = "mend the file there"
        before = text[: error.pos].rstrip()
        if before.endswith(",") and text[error.pos : error.pos + 1] in "}]":
            hint = "remove the comma before the closing bracket"
        elif text[error.pos : error.pos + 1] == "'":
            hint = "JSON wants double quotes"
        raise ConfigError(
            f"invalid JSON: {error.msg[0].lower()}{error.msg[1:]}{_shown(text, error.lineno, error.colno)}",
            where=Location(name, error.lineno),
            remedy=hint,
        ) from None
    except RecursionError:
        raise ConfigError("the configuration is nested too deeply", where=Location(name)) from None
    except ValueError as error:
        raise ConfigError(f"invalid JSON: {error}", where=Location(name)) from None


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number that a configuration can hold")


def _duplicate(key: str, where: Location) -> ConfigError:
    return ConfigError(
        f"the key {key!r} stands twice in one object",
        where=where,
        why="one of the two would be dropped in silence",
        remedy="remove or rename one",
    )


def _second_line(text: str, key: str) -> int | None:
    """Return the line of the second standing of a key (of the first object that has it twice)."""
    seen: set[KeyPath] = set()
    for path, line in _json_keys(text):
        if path[-1] == key and path in seen:
            return line
        seen.add(path)
    return None


def _shown(text: str, line: int | None, column: int | None) -> str:
    """Return the line in question, shortened, for a message."""
    lines = text.splitlines()
    if line is None or column is None or not 0 < line <= len(lines):
        return ""
    shown = lines[line - 1].strip()
    return f", at column {column} of `{shown[:80]}`"


def _check_extent(value: Any, name: str) -> None:
    """Refuse what expands beyond reason (anchors of anchors) or is nested beyond reason."""
    left = MOST_VALUES
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        node, depth = stack.pop()
        left -= 1
        if left < 0 or depth > DEEPEST:
            raise ConfigError(
                "the configuration is too large" if left < 0 else "the configuration is nested too deeply",
                where=Location(name),
                why=f"more than {MOST_VALUES} values or {DEEPEST} levels are no configuration that a person wrote",
            )
        if isinstance(node, dict):
            stack += [(item, depth + 1) for item in node.values()]
        elif isinstance(node, list):
            stack += [(item, depth + 1) for item in node]


def lines_of(text: str) -> dict[KeyPath, int]:
    """Return the line of every key and list item in a text that has been parsed before."""
    return dict(_json_keys(text)) if is_json(text) else dict(_yaml_keys(text))


def _yaml_keys(text: str) -> Iterator[tuple[KeyPath, int]]:
    root = yaml.compose(text, Loader=_Loader)
    stack: list[tuple[Any, KeyPath]] = [(root, ())] if root is not None else []
    left = MOST_VALUES
    while stack and left:
        node, path = stack.pop()
        left -= 1
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield (*path, key.value), key.start_mark.line + 1
                stack.append((value, (*path, key.value)))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                yield (*path, index), item.start_mark.line + 1
                stack.append((item, (*path, index)))


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


def _json_keys(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Walk the tokens of valid JSON, keeping the path of open objects and lists."""
    path: list[str | int] = []
    kinds: list[str] = []
    expects_key = False
    line, last = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", last, match.start())
        last = match.start()
        token = match.group()
        if token in "{[":
            kinds.append(token)
            path.append("" if token == "{" else 0)
            expects_key = token == "{"
            if token == "[" and not text[match.end() :].lstrip().startswith("]"):
                yield tuple(path), line
        elif token in "}]":
            kinds.pop()
            path.pop()
            expects_key = False
        elif token == "," and kinds:
            expects_key = kinds[-1] == "{"
            if kinds[-1] == "[":
                path[-1] = int(path[-1]) + 1
                following = match.end() + len(text[match.end() :]) - len(text[match.end() :].lstrip())
                yield tuple(path), line + text.count("\n", match.start(), following)
        elif token != ":" and expects_key:
            path[-1] = json.loads(token)
            expects_key = False
            yield tuple(path), line
