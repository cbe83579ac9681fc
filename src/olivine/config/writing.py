"""A workflow as a file: canonical, flat, without what is the default anyway."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.config.parsing import SCIENTIFIC, KeyPath, lines_of
from olivine.config.schema import SCHEMA_VERSION, Engine, Evaluator, MetricConfig, PassConfig, Workflow

if TYPE_CHECKING:
    from olivine.config.loading import Loaded
    from olivine.config.notes import Note

SCHEMA_URL = "https://olivine-ml.github.io/schema/workflow-1.json"
OWN_KEYS = frozenset(key for node in (PassConfig, MetricConfig, Evaluator) for key in node.model_fields)
"""Keys that a parameter beside them must not be called like."""
ENGINE = Engine().model_dump(mode="json")
WIDTH = 120
"""Comments are wrapped to this many columns."""


def dump(workflow: Workflow) -> str:
    """Return a workflow as YAML that loads to the same workflow."""
    return f"# yaml-language-server: $schema={SCHEMA_URL}\n{to_yaml(as_plain(workflow))}"


def as_plain(workflow: Workflow, *, defaults: bool = False) -> dict[str, Any]:
    """Return a workflow as plain values in the flat form of a file.

    Args:
        defaults: with what is the default anyway, the parameters of passes and metrics included.
    """
    # Warnings: a field of a template may stand where a number is meant.
    value = workflow.model_dump(mode="json", exclude_defaults=not defaults, warnings=False)
    plain: dict[str, Any] = {
        "version": SCHEMA_VERSION,
        **{key: item for key, item in value.items() if key != "version"},
    }
    if defaults:
        _complete(plain)
    return {key: _flat(item) for key, item in plain.items()}


def _complete(plain: dict[str, Any]) -> None:
    """Write out the defaults of the parameters of every pass and metric that is known here."""
    from olivine.evaluate import registry as metrics
    from olivine.passes import registry as passes

    def complete(node: Any, registry: Any) -> None:
        if isinstance(node, list):
            for each in node:
                complete(each, registry)
        elif isinstance(node, dict) and isinstance(node.get("params"), dict):
            found = registry.find(str(node.get("type")))
            if found is not None:
                defaults = {
                    name: field.get_default(call_default_factory=True)
                    for name, field in found.params_type.model_fields.items()
                    if not field.is_required()
                }
                dumped = found.params_type.model_construct(**defaults).model_dump(mode="json", include=set(defaults))
                node["params"] = {**node["params"], **{k: v for k, v in dumped.items() if k not in node["params"]}}

    for each in plain.get("passes", {}).values():
        complete(each, passes)
    for each in plain.get("evaluators", {}).values():
        complete(each.get("metrics"), metrics)


def _flat(value: Any) -> Any:
    """Put the parameters of passes and metrics beside their types again."""
    if isinstance(value, list):
        return [_flat(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "type" in value and isinstance(value.get("params"), dict):
        beside = {key: _flat(item) for key, item in value.items() if key != "params"}
        if OWN_KEYS.isdisjoint(value["params"]):
            return beside | value["params"]
        return beside | {"params": value["params"]}  # a parameter is called like a key of the pass itself
    return {key: _flat(item) for key, item in value.items()}


@cache
def _dumper() -> Any:
    """Return PyYAML's safe dumper, fitted to our loader: it quotes what our loader would take for a number."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        # In double quotes a text with line breaks stays on one line, so that a comment can stand behind it.
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if "\n" in value else None)

    Dumper.add_representer(str, text)
    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", SCIENTIFIC, list("-+0123456789"))
    return Dumper


def to_yaml(value: Any) -> str:
    """Return plain values as YAML, every value on one line."""
    import yaml

    return str(
        yaml.dump(
            value, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=float("inf"), default_flow_style=False
        )
    )


def upgraded(loaded: Loaded, folder: Path) -> str:
    """Return a configuration in the canonical form, with a comment wherever something changed its meaning.

    Args:
        folder: where the text will lie. Paths that were relative are made relative to it.
    """
    from olivine.config.origins import Kind, origin_of

    plain = _relative(as_plain(loaded.workflow), as_plain(loaded.as_written, defaults=True), folder)
    engine = {key: value for key, value in plain.get("engine", {}).items() if value != ENGINE[key]}
    plain = {key: engine if key == "engine" else value for key, value in plain.items() if key != "engine" or engine}
    homes = _homes(loaded, plain)
    above: dict[KeyPath, list[str]] = {}
    for note in loaded.notes:
        above.setdefault(_place_of(note, homes, plain), []).append(f"{note}")
    behind = {
        path: str(origin)
        for path, _ in leaves(plain)
        if path != ("version",) and (origin := origin_of(loaded, path)).kind is Kind.DIALECT
    }
    head = [f"yaml-language-server: $schema={SCHEMA_URL}"]
    if loaded.file is not None:
        head.append(f"From {loaded.file.name}, {_dialect(loaded)}.")
    return annotated(to_yaml(plain), head + above.pop((), []), above, behind)


def _dialect(loaded: Loaded) -> str:
    name = loaded.dialect if loaded.dialect.startswith("olivine") else f"Olive {loaded.dialect}"
    return f"read as {name} ({loaded.evidence})"


def annotated(
    text: str, head: Sequence[str], above: Mapping[KeyPath, Sequence[str]], behind: Mapping[KeyPath, str]
) -> str:
    """Return YAML with comments.

    Args:
        text: YAML with every value on one line.
        head: comments before everything.
        above: comments on lines of their own before the key at a path.
        behind: comments behind the value at a path.
    """
    lines = text.splitlines()
    numbers = lines_of(text)
    before: dict[int, list[str]] = {}
    for path, said in above.items():
        number = next((numbers[path[:n]] for n in range(len(path), 0, -1) if path[:n] in numbers), 1)
        before.setdefault(number, []).extend(said)
    after = {numbers[path]: said for path, said in behind.items() if path in numbers}
    column = min(max((len(lines[number - 1]) for number in after), default=0), 48)
    written: list[str] = []
    for each in head:
        written += _comment(each, "")
    for number, line in enumerate(lines, 1):
        indent = " " * (len(line) - len(line.lstrip(" ")))
        for each in before.get(number, []):
            written += _comment(each, indent)
        written.append(f"{line:<{column}}  # {after[number]}" if number in after else line)
    return "\n".join(written) + "\n"


def _comment(text: str, indent: str) -> list[str]:
    begin = f"{indent}# "
    return textwrap.wrap(
        " ".join(text.split()),
        WIDTH,
        initial_indent=begin,
        subsequent_indent=f"{begin}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield the path and value of everything that has a line of its own; a list of plain values counts as one."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, value


def _homes(loaded: Loaded, plain: Any) -> dict[KeyPath, KeyPath]:
    """Return for each path of the user's file the path in the canonical form that its value, or a part of it, has."""
    origins: Mapping[KeyPath, object] = loaded.places.origins
    known = [(origin, path) for path, origin in origins.items() if isinstance(origin, tuple) and _holds(plain, path)]
    homes: dict[KeyPath, KeyPath] = {}
    for origin, path in sorted(known, key=lambda pair: (len(pair[0]), len(pair[1]), str(pair[1]))):
        for length in range(1, len(origin) + 1):
            homes.setdefault(origin[:length], path)
    return homes


def _place_of(note: Note, homes: Mapping[KeyPath, KeyPath], plain: Any) -> KeyPath:
    """Return the path in the canonical form that a note about the user's file is best said at; ``()`` for the head."""
    told: KeyPath = tuple(int(part) if part.isdigit() else part for part in note.path.split("."))
    for length in range(len(told), 1, -1):
        prefix = told[:length]
        if prefix in homes:
            return homes[prefix]
        if _holds(plain, prefix):
            return prefix
    return ()


def _holds(plain: Any, path: KeyPath) -> bool:
    for part in path:
        if isinstance(plain, list):
            plain = dict(enumerate(plain))
        if not isinstance(plain, dict) or part not in plain:
            return False
        plain = plain[part]
    return True


def _relative(absolute: Any, as_written: Any, folder: Path) -> Any:
    """Return the workflow with every path that was written relative, relative to ``folder``.

    What was made absolute is what differs between the two.
    """
    if isinstance(absolute, dict) and isinstance(as_written, dict):
        return {
            key: _relative(value, as_written[key], folder) if key in as_written else value
            for key, value in absolute.items()
        }
    if isinstance(absolute, list) and isinstance(as_written, list) and len(absolute) == len(as_written):
        return [_relative(*pair, folder) for pair in zip(absolute, as_written, strict=True)]
    if isinstance(absolute, str) and isinstance(as_written, str) and absolute != as_written:
        if as_written.startswith("~") or os.path.isabs(as_written):
            return as_written
        if os.path.normpath(folder.absolute() / as_written) == absolute:
            return as_written
        return Path(os.path.relpath(absolute, folder.absolute())).as_posix()
    return absolute
