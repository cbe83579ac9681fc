"""Configurations themselves: check them, upgrade old ones, show what they mean, print their JSON Schema."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.cli.run import add_reading_arguments

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.errors import Problem


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `olivine config`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check",
        help="say whether configurations are understood and can run here",
        description="Say whether configurations are understood and can run here. Exit status: 0 they can run, "
        "3 understood but something in them is not available here, 2 something is wrong. Nothing is executed.",
    )
    check.add_argument("files", nargs="+", metavar="FILE", help="workflow file, JSON or YAML, in any dialect")
    check.add_argument("--plan", action="store_true", help="also look at the model, the data and this machine")
    check.add_argument("--json", action="store_true", help="print one JSON object a line, one line a file")
    check.add_argument("--quiet", "-q", action="store_true", help="leave out notes and files that can run")
    add_reading_arguments(check)
    upgrade = actions.add_parser(
        "upgrade", help="write a configuration in the canonical form, commented where its meaning changed"
    )
    upgrade.add_argument("file", metavar="FILE", help="workflow file in any dialect")
    upgrade.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file; default: print it")
    upgrade.add_argument("--force", action="store_true", help="replace the output if it is there")
    add_reading_arguments(upgrade)
    show = actions.add_parser("show", help="print the effective workflow and where each value comes from")
    show.add_argument("file", metavar="FILE", help="workflow file in any dialect")
    show.add_argument("--all", action="store_true", help="with defaults that are empty")
    show.add_argument("--json", action="store_true", help="print JSON for machines")
    add_reading_arguments(show)
    schema = actions.add_parser("schema", help="print the JSON Schema of a configuration, for editors")
    schema.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it to a file instead")


def run(arguments: argparse.Namespace) -> int:
    """Do one of the actions."""
    actions = {"check": _check, "upgrade": _upgrade, "show": _show, "schema": _schema}
    return actions[arguments.action](arguments)


def _check(arguments: argparse.Namespace) -> int:
    """Check every file; the exit status is that of the worst."""
    worst = 0
    for file in arguments.files:
        report = report_on(file, arguments.overrides, arguments.dialect, plan=arguments.plan)
        worst = max(worst, report["exit"], key=_SEVERITY.index)
        if arguments.json:
            print(json.dumps(report, ensure_ascii=False, default=str))
        elif not (arguments.quiet and report["exit"] == 0):
            print("\n".join(_lines(report, quiet=arguments.quiet)))
    return worst


_SEVERITY = (0, 3, 2)
_STATUS = {0: "runnable", 3: "unavailable", 2: "error"}


def report_on(file: str, overrides: list[str], dialect: str | None, *, plan: bool = False) -> dict[str, Any]:
    """Return what there is to say about one configuration.

    Args:
        file: the configuration.
        overrides: ``PATH=VALUE``.
        dialect: take it for this dialect instead of detecting it.
        plan: look at the model, the data and this machine too.

    Returns:
        ``file``, ``status`` (``runnable``, ``unavailable``, ``error``), ``exit`` (0, 3, 2), ``dialect``,
        ``evidence``, ``notes``, ``unavailable``, ``errors``, and with ``plan`` what the plan has to say.
    """
    from olivine.config import load
    from olivine.config.availability import unavailable
    from olivine.errors import EXIT_INVALID, EXIT_OK, EXIT_UNAVAILABLE, ConfigError, UnavailableError

    report: dict[str, Any] = {
        "file": file, "status": "", "exit": EXIT_OK, "dialect": None, "evidence": None,
        "notes": [], "unavailable": [], "errors": [],
    }  # fmt: skip
    try:
        loaded = load(Path(file), overrides=overrides, dialect=dialect)
    except ConfigError as error:
        report |= {
            "exit": EXIT_INVALID,
            "dialect": error.dialect,
            "evidence": error.evidence,
            "errors": [_problem(each) for each in error.problems],
        }
    except UnavailableError as error:
        report |= {
            "exit": EXIT_UNAVAILABLE,
            "unavailable": [{**_problem(each), "kind": "file", "name": Path(file).name} for each in error.problems],
        }
    else:
        found = unavailable(loaded.workflow)
        report |= {
            "dialect": loaded.dialect,
            "evidence": loaded.evidence,
            "notes": [{"path": note.path, "line": note.line, "text": note.text} for note in loaded.notes],
            "unavailable": [
                {
                    "path": each.path,
                    "line": loaded.locate(each.path).line,
                    "kind": each.kind,
                    "name": each.name,
                    "what": each.what,
                    "why": each.why,
                    "remedy": each.remedy,
                }
                for each in found
            ],
            "exit": EXIT_UNAVAILABLE if found else EXIT_OK,
        }
        if plan and not found:
            _add_plan(report, loaded)
    report["status"] = _STATUS[report["exit"]]
    return report


def _add_plan(report: dict[str, Any], loaded: Loaded) -> None:
    """Add what only the plan can find: missing files and columns, passes that do not chain, missing packages."""
    from olivine.errors import EXIT_INVALID, EXIT_UNAVAILABLE, OlivineError, UnavailableError
    from olivine.planning.making import make_plan
    from olivine.store import Store

    report["plan"] = {"steps": [], "notes": [], "problems": []}
    try:
        plan = make_plan(loaded, Store(Path(loaded.workflow.engine.cache_dir)), fetch_models=False)
    except OlivineError as error:
        report["plan"]["problems"] = [_problem(each) for each in error.problems]
        report["exit"] = EXIT_UNAVAILABLE if isinstance(error, UnavailableError) else EXIT_INVALID
    else:
        known = {str(note) for note in loaded.notes}
        report["plan"]["notes"] = [note for note in plan.notes if note not in known]
        report["plan"]["steps"] = [
            {"name": step.name, "type": step.step.type, "digest": step.digest, "cached": step.cached}
            for step in plan.steps
        ]


def _problem(problem: Problem) -> dict[str, Any]:
    where = problem.where
    return {
        "path": where.path if where else None,
        "line": where.line if where else None,
        "what": problem.what,
        "why": problem.why,
        "remedy": problem.remedy,
        "text": str(problem),
    }


def _lines(report: dict[str, Any], *, quiet: bool) -> list[str]:
    """Return a report for people."""
    verdict = {
        "runnable": "can run",
        "unavailable": "understood, but cannot run here",
        "error": "cannot be accepted",
    }[report["status"]]
    dialect = report["dialect"]
    told = "" if dialect is None else f" ({_dialect(dialect)}: {report['evidence']})"
    lines = [f"{report['file']}: {verdict}{told}"]
    lines += [f"  error: {each['text']}" for each in report["errors"]]
    for each in report["unavailable"]:
        place = each["path"] + (f" (line {each['line']})" if each["line"] is not None else "")
        said = ". ".join(
            part[0].upper() + part[1:] if n else part
            for n, part in enumerate(part for part in (each["what"], each["why"], each["remedy"]) if part)
        )
        lines.append(f"  not available: {place}: {said}")
    lines += [f"  plan: {each['text']}" for each in report.get("plan", {}).get("problems", ())]
    if not quiet:
        for note in report["notes"]:
            place = note["path"] + (f" (line {note['line']})" if note["line"] is not None else "")
            lines.append(f"  note: {place}: {note['text']}")
        lines += [f"  note: {note}" for note in report.get("plan", {}).get("notes", ())]
    return lines


def _dialect(name: str) -> str:
    return name if name.startswith("olivine") else f"Olive {name}"


def _upgrade(arguments: argparse.Namespace) -> int:
    """Write the canonical form."""
    from olivine.config import load
    from olivine.config.writing import upgraded
    from olivine.errors import EXIT_OK, ConfigError

    loaded = load(Path(arguments.file), overrides=arguments.overrides, dialect=arguments.dialect)
    output: Path | None = arguments.output
    folder = output.parent if output is not None else Path(arguments.file).parent
    text = upgraded(loaded, folder)
    if output is None:
        sys.stdout.write(text)
    else:
        if output.exists() and not arguments.force:
            raise ConfigError(
                f"{output} is there already", why="nothing is overwritten", remedy="give another -o, or --force"
            )
        from olivine.store.disk import disk_errors, replace_file

        with disk_errors(output, setting="-o"):
            replace_file(output, text.encode())
        print(f"{output}: written, {len(loaded.notes)} notes", file=sys.stderr)
    return EXIT_OK


def _show(arguments: argparse.Namespace) -> int:
    """Print the effective workflow, each value with its origin."""
    from olivine.config import load
    from olivine.config.origins import Kind, origin_of
    from olivine.config.writing import annotated, as_plain, leaves, to_yaml

    loaded = load(Path(arguments.file), overrides=arguments.overrides, dialect=arguments.dialect)
    plain = as_plain(loaded.workflow, defaults=True)
    found = {path: origin_of(loaded, path) for path, _ in leaves(plain)}
    if not arguments.all:
        empty = {path for path, value in leaves(plain) if value in (None, [], {}) and found[path].kind is Kind.DEFAULT}
        plain = _without(plain, empty)
        # An object of nothing but empty defaults is a value of its own now.
        found = {path: found.get(path) or origin_of(loaded, path) for path, _ in leaves(plain)}
    if arguments.json:
        values = [
            {
                "path": ".".join(str(part) for part in path),
                "value": value,
                "origin": found[path].kind,
                "line": location.line if (location := found[path].location) else None,
                "written": location.path if location else None,
            }
            for path, value in leaves(plain)
            if path != ("version",)
        ]
        described = {"file": arguments.file, "dialect": loaded.dialect, "evidence": loaded.evidence, "values": values}
        print(json.dumps(described, indent=2, ensure_ascii=False))
        return 0
    head = [f"{arguments.file}, read as {_dialect(loaded.dialect)} ({loaded.evidence})"]
    behind = {path: str(found[path]) for path, _ in leaves(plain) if path != ("version",)}
    sys.stdout.write(annotated(to_yaml(plain), head, {}, behind))
    return 0


def _without(value: Any, paths: set[tuple[str | int, ...]], path: tuple[str | int, ...] = ()) -> Any:
    """Return plain values without what stands at some paths."""
    if isinstance(value, dict):
        return {key: _without(item, paths, (*path, key)) for key, item in value.items() if (*path, key) not in paths}
    if isinstance(value, list):
        return [_without(item, paths, (*path, index)) for index, item in enumerate(value)]
    return value


def _schema(arguments: argparse.Namespace) -> int:
    """Print or write the schema."""
    from olivine.config.json_schema import json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    if arguments.output is None:
        print(text)
    else:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    return 0
