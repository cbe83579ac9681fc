"""Text to plain values, JSON or YAML, and the line of every key.

Values come from the fast parsers. Lines are looked up only when something has to be said about them, by a second and
slower reading. No YAML tag constructs anything. Comments and trailing commas in JSON are read over, as people write
them. What no person writes (megabytes, thousands of levels, anchors of anchors) is refused before it costs memory.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.errors import ConfigError, Location

if TYPE_CHECKING:
    from types import ModuleType

LARGEST_FILE = 2 * 2**20
"""A configuration is text that people write; more bytes than this are something else."""
MOST_VALUES = 50_000
"""More values than this, anchors expanded, are refused."""
DEEPEST = 100

KeyPath = tuple[str | int, ...]

_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
"""Byte order marks, and the encoding that each tells."""


class _Duplicate(ValueError):
    """A key stands twice in one object."""

    def __init__(self, key: str, line: int | None = None) -> None:
        super().__init__(key)
        self.key = key
        self.line = line


@cache
def _yaml() -> tuple[ModuleType, Any]:
    """Return PyYAML and our loader: its safe loader, with duplicate keys refused and every key a text.

    Tags construct nothing but plain values, a date is text, and ``1e-4`` is a number (as in YAML 1.2).
    """
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class StrictLoader(base):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: dict[str, Any] = {}
            merged: dict[str, Any] = {}
            for key_node, value_node in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(
                        None, None, "a key must be a plain value", key_node.start_mark
                    )
                value = self.construct_object(value_node, deep=True)
                if key_node.tag == "tag:yaml.org,2002:merge":
                    for each in reversed(value if isinstance(value, list) else [value]):
                        if not isinstance(each, dict):
                            raise yaml.constructor.ConstructorError(
                                None, None, "`<<` must name an object", key_node.start_mark
                            )
                        merged |= each
                    continue
                key = key_node.value
                if key in seen:
                    raise _Duplicate(key, key_node.start_mark.line + 1)
                seen[key] = value
            return {key: value for key, value in merged.items() if key not in seen} | seen if merged else seen

    def number(loader: Any, node: Any) -> float:
        value = float(loader.construct_yaml_float(node))
        if not math.isfinite(value):
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} is no number that a configuration can hold", node.start_mark
            )
        return value

    plain = ("null", "bool", "int", "float", "str", "seq", "map")
    StrictLoader.yaml_constructors = {
        tag: made
        for tag, made in base.yaml_constructors.items()
        if tag is None or tag.removeprefix("tag:yaml.org,2002:") in plain
    }
    StrictLoader.yaml_constructors["tag:yaml.org,2002:map"] = lambda loader, node: loader.construct_mapping(node)
    StrictLoader.yaml_constructors["tag:yaml.org,2002:seq"] = lambda loader, node: loader.construct_sequence(node, True)
    StrictLoader.yaml_constructors["tag:yaml.org,2002:float"] = number
    StrictLoader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if not pair[0].endswith("timestamp")]
        for first, pairs in base.yaml_implicit_resolvers.items()
    }
    StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", SCIENTIFIC, list("-+0123456789"))
    return yaml, StrictLoader


SCIENTIFIC = re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+][0-9]+$")
"""Numbers that YAML 1.1 takes for text."""


def read(file: Path) -> tuple[Any, str]:
    """Return the values in a configuration file, and its text.

    Raises:
        ConfigError: it is missing, not text, too large, or not valid JSON or YAML; with line and column.
    """
    name = str(file)
    try:
        with file.open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ConfigError(
                f"the configuration is larger than {LARGEST_FILE // 2**20} MiB",
                where=Location(name),
                remedy="give the configuration, not the data or the model",
            )
    except FileNotFoundError:
        near = sorted(each.name for each in file.parent.glob("[!.]*") if each.suffix in (".json", ".yaml", ".yml"))[:6]
        raise ConfigError(
            f"there is no configuration {file}",
            remedy=f"in that folder there is {', '.join(near)}" if near else "check the path",
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{file} is a folder", remedy="name the configuration file in it") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    text = _decoded(content, name)
    value = parse(text, name)
    _check_extent(value, name)
    return value, text


def _decoded(content: bytes, name: str) -> str:
    """Return the text of a file: UTF-8, or what its byte order mark tells."""
    encoding = next((encoding for mark, encoding in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1 if encoding.startswith("utf-8") else None
        raise ConfigError(
            f"byte {error.start} is not {encoding.removesuffix('-sig').upper()}",
            where=Location(name, line),
            remedy="save the file as UTF-8",
        ) from None
    if "\0" in text:
        raise ConfigError(
            "the file holds zero bytes",
            where=Location(name, text.count("\n", 0, text.index("\0")) + 1),
            why="it is no text, or text in an encoding that it does not tell",
            remedy="save the file as UTF-8",
        )
    return text


def parse(text: str, name: str) -> Any:
    """Return the values in ``text``.

    A text that begins with a brace is read as JSON; if it is not JSON and the file is called ``.yaml``, as YAML.

    Raises:
        ConfigError: it is neither, or no configuration that a person wrote.
    """
    if is_json(text):
        try:
            return _parse_json(text, name)
        except ConfigError:
            if not name.lower().endswith((".yaml", ".yml")):
                raise
    return _parse_yaml(text, name)


def parse_value(text: str) -> Any:
    """Return a value written as in a configuration's YAML (``16``, ``true``, ``[a, b]``, ``{max_steps: 10}``).

    Raises:
        ValueError: it is no YAML.
    """
    yaml, loader = _yaml()
    try:
        _check_events(text, "--set")
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _parse_yaml(text: str, name: str) -> Any:
    yaml, loader = _yaml()
    try:
        _check_events(text, name)
        return yaml.load(text, Loader=loader)
    except _Duplicate as error:
        raise _duplicate(error.key, Location(name, error.line)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else None
        _refuse_template(text, name)
        said = getattr(error, "problem", None) or str(error).split("\n")[0]
        if mark is not None and any(
            each[mark.column :].startswith("\t") for each in text.splitlines()[mark.line :][:1]
        ):
            said = "a tab, where YAML takes only spaces"
        raise ConfigError(
            f"invalid YAML: {said}{_shown(text, line, mark.column + 1 if mark is not None else None)}",
            where=Location(name, line),
            remedy="mend the file there",
        ) from None
    except RecursionError:
        raise _too_deep(name) from None
    except ValueError as error:
        raise ConfigError(f"invalid YAML: {error}", where=Location(name), remedy="mend the value") from None


def _check_events(text: str, name: str) -> None:
    """Refuse a YAML text that is nested or expands beyond reason, before anything is built of it.

    Counts the values below each anchor, so that an alias counts for all it stands for.
    """
    yaml, loader = _yaml()
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    count = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                if any(anchor == event.anchor for anchor, _ in open_nodes):
                    raise ConfigError(
                        f"the anchor {event.anchor!r} holds itself",
                        where=Location(name, event.start_mark.line + 1),
                        remedy="remove the alias",
                    )
                continue  # the loader names an alias without anchor
            count += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            count += 1
            open_nodes.append((event.anchor, count))
            if len(open_nodes) > DEEPEST:
                raise _too_deep(name)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = count - before + 1
        if count > 2 * MOST_VALUES:
            raise _too_large(name)


def _too_large(name: str) -> ConfigError:
    return ConfigError(
        "the configuration is too large",
        where=Location(name),
        why=f"more than {MOST_VALUES} values are no configuration that a person wrote",
    )


def _too_deep(name: str) -> ConfigError:
    return ConfigError(
        "the configuration is nested too deeply",
        where=Location(name),
        why=f"more than {DEEPEST} levels are no configuration that a person wrote",
    )


def is_json(text: str) -> bool:
    """Return whether a text is to be read as JSON: it begins with a brace, comments aside."""
    return _BEGINS_LIKE_JSON.match(text) is not None


# Atomic groups and possessive repeats keep these linear in a text that is made to be slow.
_COMMENT = r"//[^\n]*+|/\*(?>.*?\*/|.*+)|\#[^\n]*+"
_BEGINS_LIKE_JSON = re.compile(rf"(?>\s++|{_COMMENT})*+\{{", re.DOTALL)
_LOOSE = re.compile(
    rf"""(?P<string>"(?>[^"\\\n]|\\.)*+")
    | (?P<comment>{_COMMENT})
    | (?P<comma>,)(?=(?>\s++|{_COMMENT})*+[}}\]])
    """,
    re.VERBOSE | re.DOTALL,
)


def _strict_json(text: str) -> str:
    """Return JSON without comments and trailing commas; blanks take their places, so that positions stay."""

    def blank(match: re.Match[str]) -> str:
        if match.lastgroup == "string":
            return match.group()
        return re.sub(r"[^\n]", " ", match.group())

    return _LOOSE.sub(blank, text)


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

    def decoded(source: str) -> Any:
        return json.loads(source, object_pairs_hook=pairs, parse_constant=_no_constant, parse_float=_finite)

    try:
        try:
            return decoded(text)
        except json.JSONDecodeError:
            return decoded(_strict_json(text))
    except _Duplicate as error:
        raise _duplicate(error.key, Location(name, _second_line(text, error.key))) from None
    except json.JSONDecodeError as error:
        _refuse_template(text, name)
        hint = "mend the file there"
        if text[error.pos : error.pos + 1] == "'":
            hint = "JSON wants double quotes"
        before = error.doc[: error.pos].rstrip()
        if before.endswith(",") and text[error.pos : error.pos + 1] in ("}", "]"):
            error = json.JSONDecodeError("two commas", text, len(before) - 1)
            hint = "remove one"
        raise ConfigError(
            f"invalid JSON: {error.msg[0].lower()}{error.msg[1:]}{_shown(text, error.lineno, error.colno)}",
            where=Location(name, error.lineno),
            remedy=hint,
        ) from None
    except RecursionError:
        raise _too_deep(name) from None
    except ValueError as error:
        raise ConfigError(f"invalid JSON: {error}", where=Location(name), remedy="mend the value") from None


_BARE_FIELD = re.compile(
    r"[:\[,]\s*(\{\{?\s*[A-Za-z_][\w.-]*\s*\}?\}|<[A-Za-z_][\w -]*>|\$\{?[A-Za-z_]\w*\}?)\s*[,}\]\n]"
)


def _refuse_template(text: str, name: str) -> None:
    """Name the fields of a template that nobody has filled in, if that is why a text is neither JSON nor YAML."""
    found = {match.group(1): text.count("\n", 0, match.start(1)) + 1 for match in _BARE_FIELD.finditer(text[: 10**6])}
    if found:
        fields = list(found)
        listed = ", ".join(fields[:6]) + (f" and {len(fields) - 6} more" if len(fields) > 6 else "")
        raise ConfigError(
            f"this is a template: {listed} {'are' if len(fields) > 1 else 'is'} not filled in",
            where=Location(name, found[fields[0]]),
            remedy="put values in their places, then read it again",
        )


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no number that a configuration can hold")
    return value


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
    try:
        for path, line in _json_keys(_strict_json(text)):
            if path[-1] == key and path in seen:
                return line
            seen.add(path)
    except (ValueError, IndexError):  # what follows is not JSON either
        pass
    return None


def _shown(text: str, line: int | None, column: int | None) -> str:
    """Return the line in question, shortened, for a message."""
    lines = text.splitlines()
    if line is None or column is None or not 0 < line <= len(lines):
        return ""
    shown = lines[line - 1]
    if len(shown) > 80:
        shown = shown[max(0, column - 41) : column + 39]
    return f", at column {column} of `{shown.strip()}`"


def _check_extent(value: Any, name: str) -> None:
    """Refuse what is too much, or is nested beyond reason."""
    left = 2 * MOST_VALUES  # keys count here too
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        node, depth = stack.pop()
        left -= 1
        if left < 0:
            raise _too_large(name)
        if depth > DEEPEST:
            raise _too_deep(name)
        if isinstance(node, str) and not node.isascii() and _SURROGATE.search(node):
            raise ConfigError(
                f"the text {node[:40]!a} holds half a character",
                where=Location(name),
                why="it cannot be written anywhere",
                remedy=r"write both halves of the \uXXXX pair, or the character itself",
            )
        if isinstance(node, dict):
            stack += [(item, depth + 1) for pair in node.items() for item in pair]
        elif isinstance(node, list):
            stack += [(item, depth + 1) for item in node]


_SURROGATE = re.compile("[\ud800-\udfff]")


def lines_of(text: str) -> dict[KeyPath, int]:
    """Return the line of every key and list item in a text that has been parsed before."""
    if is_json(text):
        try:
            return dict(_json_keys(_strict_json(text)))
        except (ValueError, IndexError):  # braces, but YAML
            pass
    return dict(_yaml_keys(text))


def _yaml_keys(text: str) -> Iterator[tuple[KeyPath, int]]:
    yaml, loader = _yaml()
    root = yaml.compose(text, Loader=loader)
    stack: list[tuple[Any, KeyPath]] = [(root, ())] if root is not None else []
    left = 2 * MOST_VALUES
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
    expects_key = expects_item = False
    line, last = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", last, match.start())
        last = match.start()
        token = match.group()
        if expects_item and token != "]":
            yield tuple(path), line
        expects_item = False
        if token in "{[":
            kinds.append(token)
            path.append("" if token == "{" else 0)
            expects_key, expects_item = token == "{", token == "["
        elif token in "}]":
            kinds.pop()
            path.pop()
            expects_key = False
        elif token == "," and kinds:
            expects_key, expects_item = kinds[-1] == "{", kinds[-1] == "["
            if expects_item:
                path[-1] = int(path[-1]) + 1
        elif token != ":" and expects_key:
            path[-1] = json.loads(token)
            expects_key = False
            yield tuple(path), line
