"""What Olivine ships and stands on: licences of every package that its extras bring, and the SBOM of the wheel.

    python .ci/packages.py licences > docs/licences.md
    python .ci/packages.py sbom > sbom/olivine.cdx.json

Reads pyproject.toml and the metadata of what is installed; asks nobody.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LEFT_OUT = frozenset({"dev", "all", "gpu", "directml"})
"""Extras that users do not install, that hold nothing of their own, or that cannot be installed beside ``cpu``."""
CHART = ROOT / "src" / "olivine" / "report" / "assets" / "chart.umd.min.js"
COPYLEFT = re.compile(r"GPL|MPL|EUPL|CDDL|EPL", re.IGNORECASE)
LONGEST = 60


def direct(extra: str | None) -> list[Requirement]:
    """Return what an extra (``None``: the bare package) asks for, Olivine's own extras followed."""
    given = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    found = []
    for requirement in map(Requirement, given):
        if requirement.name == PROJECT["name"]:
            for each in requirement.extras:
                found += direct(each)
        else:
            found.append(requirement)
    return found


def closure(requirements: list[Requirement]) -> tuple[dict[str, Any], set[str]]:
    """Return the installed distributions that ``requirements`` bring, by name, and the names that are not installed."""
    found: dict[str, Any] = {}
    absent: set[str] = set()
    waiting = [(requirement, frozenset(requirement.extras)) for requirement in requirements]
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement, extras = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extras) in done:
            continue
        done.add((name, extras))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            absent.add(name)
            continue
        for text in found[name].requires or ():
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate({"extra": each}) for each in ("", *extras)):
                waiting.append((inner, frozenset(inner.extras)))
    return found, absent


def licence(found: Any) -> str:
    """Return the licence that a distribution states, in a few words."""
    metadata = found.metadata
    if metadata.get("License-Expression"):
        return str(metadata["License-Expression"])
    classified = [
        each.rpartition(" :: ")[2] for each in metadata.get_all("Classifier") or () if each.startswith("License ::")
    ]
    if classified:
        return ", ".join(classified)
    stated = (metadata.get("License") or "").strip().splitlines()
    return stated[0][:LONGEST] if stated else "not stated in its metadata"


def licences() -> str:
    """Return docs/licences.md."""
    brought: dict[str, set[str]] = {}
    installed: dict[str, Any] = {}
    missing: dict[str, set[str]] = {}
    for extra in (None, *sorted(set(PROJECT["optional-dependencies"]) - LEFT_OUT)):
        found, absent = closure(direct(extra))
        for name in found:
            brought.setdefault(name, set()).add(extra or "olivine")
        for name in absent:
            missing.setdefault(name, set()).add(extra or "olivine")
        installed |= found
    rows = []
    for name, each in sorted(installed.items()):
        # What the bare package brings, every extra has.
        extras = ["olivine"] if "olivine" in brought[name] else sorted(brought[name])
        rows.append(f"| {name} | {each.version} | {licence(each)} | {', '.join(extras)} |")
    marked = [row for row in rows if COPYLEFT.search(row.split("|")[3])]
    lines = [
        "# Licences",
        "",
        "Olivine is under the MIT licence, and so is what it ships of others: Chart.js, in the report's page. What its",
        "extras bring is under the licences below, as the packages themselves state. Written by",
        "`python .ci/packages.py licences > docs/licences.md` from what was installed on Linux; other systems, and",
        "torch for CUDA, bring other packages (NVIDIA's libraries are under NVIDIA's own licences).",
        "",
        f"{len(rows)} packages; {len(marked)} of them state a copyleft licence"
        + (": " + ", ".join(row.split("|")[1].strip() for row in marked) if marked else "")
        + ".",
        "",
        "| package | version | licence | brought by |",
        "|---|---|---|---|",
        *rows,
        "",
    ]
    if missing:
        lines += [
            "Not installed where this was written, and so not read: "
            + ", ".join(f"{name} ({', '.join(sorted(extras))})" for name, extras in sorted(missing.items()))
            + ".",
            "",
        ]
    return "\n".join(lines)


def sbom() -> str:
    """Return the bill of materials of the wheel, CycloneDX 1.6: what is in it, and what it asks for."""
    version = re.search(r'__version__ = "([^"]+)"', (ROOT / "src/olivine/__init__.py").read_text(encoding="utf-8"))
    assert version is not None
    chart = CHART.read_bytes()
    chart_version = re.search(rb"Chart\.js v([\d.]+)", chart)
    assert chart_version is not None
    shipped = {
        "type": "library",
        "bom-ref": "chart.js",
        "name": "chart.js",
        "version": chart_version[1].decode(),
        "purl": f"pkg:npm/chart.js@{chart_version[1].decode()}",
        "description": "olivine/report/assets/chart.umd.min.js, unchanged",
        "licenses": [{"license": {"id": "MIT"}}],
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(chart).hexdigest()}],
    }
    asked: dict[str, dict[str, Any]] = {}
    for extra in (None, *(each for each in PROJECT["optional-dependencies"] if each not in ("dev", "all"))):
        for requirement in direct(extra):
            name = canonicalize_name(requirement.name)
            entry = asked.setdefault(
                name,
                {
                    "type": "library",
                    "bom-ref": name,
                    "name": name,
                    "purl": f"pkg:pypi/{name}",
                    "scope": "required" if extra is None else "optional",
                    "properties": [],
                },
            )
            entry["properties"].append(
                {"name": f"olivine:range:{extra or 'olivine'}", "value": str(requirement.specifier) or "any"}
            )
    for entry in asked.values():
        unique = {each["name"]: each for each in entry["properties"]}
        entry["properties"] = [unique[name] for name in sorted(unique)]
    parts = [asked[name] for name in sorted(asked)]
    content = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "olivine",
                "name": "olivine",
                "version": version[1],
                "purl": f"pkg:pypi/olivine@{version[1]}",
                "licenses": [{"license": {"id": PROJECT["license"]}}],
                "components": [shipped],
            }
        },
        "components": parts,
        "dependencies": [
            {"ref": "olivine", "dependsOn": ["chart.js", *sorted(asked)]},
        ],
    }
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write({"licences": licences, "sbom": sbom}[sys.argv[1]]())
