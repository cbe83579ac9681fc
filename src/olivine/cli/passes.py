"""List the passes and what is missing here for each; or show one: what it does, takes and gives, every parameter."""

from __future__ import annotations

import argparse
import inspect
import json
import textwrap
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine passes`."""
    parser.add_argument("action", nargs="?", default="list", metavar="list|show|NAME", help="default: list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="with show: the pass")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the list, or one pass."""
    from olivine.config.wording import nearest
    from olivine.errors import ConfigError
    from olivine.passes import registry

    if (name := named(arguments)) is not None:
        found = registry.find(name)
        if found is None:
            near = nearest(name, registry.names())
            raise ConfigError(
                f"there is no pass {name!r}" if name else "which pass?",
                remedy=(f"did you mean {near}? " if near else "") + "`olivine passes` lists them",
            )
        print(json.dumps(_as_json(found), indent=2) if arguments.json else "\n".join(_sheet(found)))
        return 0
    types = [found for name in registry.names() if (found := registry.find(name)) is not None]
    if arguments.json:
        print(json.dumps([_as_json(found) for found in types], indent=2))
        return 0
    width = max(len(found.type) for found in types)
    for found in types:
        takes = "/".join(sorted(found.accepts))
        print(f"{found.type:<{width}}  {takes} -> {found.produces}: {found.summary}")
        for what, remedy in _missing(found):
            print(f"{'':<{width}}  cannot run here: {what}; {remedy}")
    return 0


def named(arguments: argparse.Namespace) -> str | None:
    """Return what is to be shown (``show LoRA``, or ``LoRA`` alone; empty if that was forgotten), ``None`` for a list.

    Raises:
        ConfigError: there is more than one name.
    """
    from olivine.errors import ConfigError

    if arguments.action in ("list", "show"):
        return arguments.name or ("" if arguments.action == "show" else None)
    if arguments.name:
        raise ConfigError(
            f"{arguments.action!r} is neither list nor show",
            remedy=f"`show {arguments.name}`, or `{arguments.name}` alone",
        )
    return str(arguments.action)


def _missing(found: Any) -> list[tuple[str, str]]:
    """Return what a pass needs and this environment lacks, each with the remedy."""
    from olivine.errors import Location
    from olivine.planning.requirements import check_requirements

    return [(problem.what, problem.remedy) for problem in check_requirements(found.requires, "it", Location())]


def _as_json(found: Any) -> dict[str, Any]:
    from olivine.config.docstrings import documented_schema

    return {
        "type": found.type,
        "summary": found.summary,
        "reference": found.reference_url,
        "accepts": sorted(found.accepts),
        "produces": str(found.produces),
        "requires": [requirement.distribution for requirement in found.requires],
        "runs_here": not (missing := _missing(found)),
        "missing": [{"what": what, "remedy": remedy} for what, remedy in missing],
        "parameters": documented_schema(found.params_type),
    }


def _sheet(found: Any) -> list[str]:
    """Return a pass as a page of text, made from its docstring and its parameters."""
    from olivine.config.docstrings import field_docs

    lines = [found.type, "=" * len(found.type), "", inspect.getdoc(found) or found.summary, ""]
    lines += [f"takes {'/'.join(sorted(found.accepts))}, gives {found.produces}"]
    if found.reference_url:
        lines.append(f"after {found.reference_url}")
    missing = _missing(found)
    lines += [f"cannot run here: {what}; {remedy}" for what, remedy in missing]
    if not missing:
        lines.append("what it needs is installed here")
    lines += ["", "parameters:"]
    docs = field_docs(found.params_type)
    for name, field in found.params_type.model_fields.items():
        default = "required" if field.is_required() else f"default {field.get_default(call_default_factory=True)!r}"
        lines.append(f"  {name} ({default})")
        if name in docs:
            lines += textwrap.wrap(
                " ".join(docs[name].split()), 110, initial_indent="      ", subsequent_indent="      "
            )
    return lines
