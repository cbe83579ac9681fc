"""Python and the packages: installed or not, in the tested range or not, one runtime or several.

The tested ranges are those of Olivine's own package metadata, so there is one list of them.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions, requires

from olivine.doctor.finding import Finding, State
from olivine.hardware.machine import PROVIDERS_OF_DISTRIBUTION
from olivine.planning.requirements import is_within

EXTRAS: dict[str, str] = {
    "torch": "reading and writing checkpoints",
    "finetune": "fine-tuning",
    "cpu": "ONNX Runtime on CPUs",
    "gpu": "ONNX Runtime on NVIDIA GPUs",
    "directml": "ONNX Runtime on DirectML (Windows)",
    "azure": "Azure Machine Learning",
    "ray": "Ray clusters",
    "classify": "scores of classifiers",
}
"""What each extra is for. Of the three runtimes one is installed."""

RUNTIMES = ("cpu", "gpu", "directml")
OLDEST, NEWEST_SEEN = (3, 11), (3, 12)

GENAI_DISTRIBUTIONS = ("onnxruntime-genai", "onnxruntime-genai-cuda", "onnxruntime-genai-directml")


def check_packages() -> list[Finding]:
    """Look at Python and at every package that an extra brings."""
    installed = installed_distributions()
    return [_python(), *_doubles(installed), *_extras(installed, requires("olivine") or [])]


def installed_distributions() -> dict[str, str]:
    """Return the version of every installed distribution by its normalised name."""
    from packaging.utils import canonicalize_name

    return {canonicalize_name(each.name): each.version for each in distributions() if each.name}


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] < OLDEST:  # installers refuse it; a copied source tree does not
        return Finding(
            "packages", "Python", State.PROBLEM, f"{version}: 3.11 or later is needed", "install a newer Python"
        )
    if sys.version_info[:2] > NEWEST_SEEN:
        newest = ".".join(map(str, NEWEST_SEEN))
        return Finding("packages", "Python", State.WARNING, f"{version}: newer than what was tested ({newest})")
    return Finding("packages", "Python", State.OK, version)


def _doubles(installed: Mapping[str, str]) -> Iterator[Finding]:
    """Find runtimes that are installed over one another: they share a folder, and the last one written wins."""
    for family, names in (
        ("ONNX Runtime", tuple(PROVIDERS_OF_DISTRIBUTION)),
        ("ONNX Runtime GenAI", GENAI_DISTRIBUTIONS),
    ):
        found = [name for name in names if name in installed]
        if len(found) > 1:
            wanted = found[-1]
            yield Finding(
                "packages",
                family,
                State.PROBLEM,
                f"{' and '.join(found)} are installed over one another: one folder, and the files of the last win",
                f"`pip uninstall -y {' '.join(found)}`, then `pip install {wanted}=={installed[wanted]}` (or the one "
                "that you need)",
            )


def _extras(installed: Mapping[str, str], requirements: list[str]) -> Iterator[Finding]:
    """Say of each extra whether it is whole, and of each of its packages that is here whether its version fits."""
    needed = {extra: _requirements_of(extra, requirements) for extra in EXTRAS}
    told: set[str] = set()
    for extra, ranges in needed.items():
        missing = [name for name in ranges if name not in installed]
        if extra in RUNTIMES and not any(name in installed for name in ranges if name.startswith("onnxruntime")):
            continue  # another runtime's business, or none's: the sections below say which there are
        if len(missing) == len(ranges):
            yield Finding("packages", f"[{extra}]", State.ABSENT, f"{EXTRAS[extra]}: not installed", _install(extra))
            continue
        if missing:
            yield Finding(
                "packages",
                f"[{extra}]",
                State.WARNING,
                f"{EXTRAS[extra]}: {', '.join(missing)} missing",
                _install(extra),
            )
        else:
            shown = ", ".join(f"{name} {installed[name]}" for name in ranges if name not in told)
            yield Finding("packages", f"[{extra}]", State.OK, f"{EXTRAS[extra]}: {shown or 'all there'}")
        for name, specifier in ranges.items():
            if name in told or name not in installed:
                continue
            told.add(name)
            if not is_within(installed[name], specifier):
                yield Finding(
                    "packages",
                    name,
                    State.WARNING,
                    f"{installed[name]} is installed; tested with {specifier}",
                    f"`pip install '{name}{specifier}'`",
                )
    if not any(name.startswith("onnxruntime") for name in installed):
        yield Finding(
            "packages",
            "ONNX Runtime",
            State.ABSENT,
            "no runtime is installed: models can be fine-tuned and quantised, not converted, run or measured",
            "`pip install 'olivine[cpu]'` (or [gpu], [directml])",
        )


def _requirements_of(extra: str, requirements: list[str]) -> dict[str, str]:
    """Return the ranges of an extra's packages by normalised name, in the order of the metadata."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    for text in requirements:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            found[canonicalize_name(requirement.name)] = str(requirement.specifier)
    return found


def _install(extra: str) -> str:
    return f"`pip install 'olivine[{extra}]'`"
