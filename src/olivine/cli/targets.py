"""List the machines that a model may ship to, and what this one lacks of each; or show one.

A target goes into a configuration as engine.target, by its name or described in place:

  engine: {target: cuda-24gb}
  engine: {target: {device: gpu, execution_provider: DmlExecutionProvider, memory: 6GB, context_length: 8192}}

`olivine plan` then says whether the model fits it, also where this machine is another one.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from olivine.cli.passes import named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine targets`."""
    parser.add_argument("action", nargs="?", default="list", metavar="list|show|NAME", help="default: list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="with show: the target, with any memory: cuda-10gb")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the list, or one target."""
    from olivine.config.profiles import kind_of, profile_names
    from olivine.config.wording import nearest
    from olivine.errors import ConfigError

    if (name := named(arguments)) is not None:
        if kind_of(name) is None:
            near = nearest(name, profile_names())
            raise ConfigError(
                f"there is no target {name!r}" if name else "which target?",
                remedy=(f"did you mean {near}? " if near else "") + "`olivine targets` lists them",
            )
        found = described(name)
        print(json.dumps(found, indent=2) if arguments.json else "\n".join(_sheet(found)))
        return 0
    targets = [described(name) for name in profile_names()]
    if arguments.json:
        print(json.dumps(targets, indent=2))
        return 0
    width = max(len(each["name"]) for each in targets)
    provider = max(len(each["execution_provider"]) for each in targets)
    for each in targets:
        memory = f"{each['memory_gib']:>3} GiB" if each["memory_gib"] else "       "
        here = "this machine is one" if each["here"] else "; ".join(missing["what"] for missing in each["missing"])
        print(f"{each['name']:<{width}}  {each['execution_provider']:<{provider}}  {memory}  {here}")
    print("\nany memory may be asked for (cuda-10gb); `olivine targets show NAME` tells more")
    return 0


def described(name: str) -> dict[str, Any]:
    """Return a target for machines."""
    from olivine.config.profiles import kind_of
    from olivine.hardware.availability import missing_for
    from olivine.hardware.machine import execution_providers, this_machine
    from olivine.models.genai import PROVIDERS
    from olivine.passes.convert.builder_checks import VALID
    from olivine.passes.convert.mixed_facts import widths

    found = kind_of(name)
    assert found is not None
    kind, gib = found
    missing = missing_for(kind, gib, this_machine(), execution_providers())
    short = PROVIDERS.get(kind.execution_provider, "")
    precisions = list(VALID.get(short, ()))
    return {
        "name": name.lower(),
        "summary": kind.summary,
        "device": kind.device,
        "execution_provider": kind.execution_provider,
        "memory_gib": gib,
        "here": not missing,
        "missing": [{"what": each.what, "remedy": each.remedy} for each in missing],
        "precisions": precisions,
        "weight_bits": list(widths(short)),
        "quantised_embedding": short == "cpu",
        "extra": kind.extra,
    }


def _sheet(found: dict[str, Any]) -> list[str]:
    """Return a target as a page of text."""
    memory = f", {found['memory_gib']} GiB" if found["memory_gib"] else ""
    lines = [
        found["name"],
        "=" * len(found["name"]),
        "",
        f"{found['summary']}: {found['device']} with {found['execution_provider']}{memory}",
        "",
        f"ModelBuilder builds for it  {', '.join(found['precisions'])}",
        f"widths of quantised weights {', '.join(map(str, found['weight_bits']))} bits",
        f"quantised embedding         {'yes' if found['quantised_embedding'] else 'no: it stays in 16 bits'}",
        "",
    ]
    if found["here"]:
        lines.append("this machine is one: models for it are tried and measured here")
    else:
        lines.append("this machine is none; models for it are built here, and neither tried nor measured:")
        for each in found["missing"]:
            lines.append(f"  - {each['what']}" + (f": {each['remedy']}" if each["remedy"] else ""))
    lines += ["", f"in a configuration: engine: {{target: {found['name']}}}; or `olivine optimize MODEL --target "
              f"{found['name']}`"]  # fmt: skip
    return lines
