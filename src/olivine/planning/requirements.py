"""Check that the packages a Step needs are installed in the tested range, from metadata alone."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from olivine.errors import Location, Problem
from olivine.hardware.packages import installed_version
from olivine.passes.base import Requirement


def versions_of(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed; ``a|b`` names alternatives."""
    found = {}
    for names in distributions:
        for name in names.split("|"):
            installed = installed_version(name)
            if installed is not None:
                found[name] = installed
    return found


def specifiers(requirements: Iterable[Requirement], device: str) -> tuple[str, ...]:
    """Return requirements as ``pip`` takes them; of alternatives the one for ``device``."""
    found = []
    for requirement in requirements:
        names = requirement.distribution.split("|")
        for_gpu = [name for name in names if name.endswith(("-gpu", "-cuda"))]
        found.append(f"{for_gpu[0] if device == 'gpu' and for_gpu else names[0]}{requirement.versions}")
    return tuple(dict.fromkeys(found))


def _bringing(requirement: Requirement) -> str:
    """Return what to have ``pip`` install for a requirement."""
    if requirement.extra:
        return f"olivine[{requirement.extra}]"
    return f"{requirement.distribution.split('|')[0]}{requirement.versions}"


def check_requirements(requirements: Iterable[Requirement], subject: str, where: Location) -> list[Problem]:
    """Return one problem per requirement that is missing or outside its tested range.

    Args:
        subject: what needs them, as the beginning of a sentence ("the pass LoRA").
    """
    problems = []
    for requirement in requirements:
        found = versions_of([requirement.distribution])
        if not found:
            problems.append(
                Problem(
                    f"{subject} needs {requirement.distribution.replace('|', ' or ')}, which is not installed",
                    where,
                    remedy=f"`pip install '{_bringing(requirement)}'`",
                )
            )
            continue
        name, installed = next(iter(found.items()))
        if requirement.versions and not is_within(installed, requirement.versions):
            problems.append(
                Problem(
                    f"{subject} was tested with {name} {requirement.versions}, and {installed} is installed",
                    where,
                    "other versions are known or likely to fail after the training rather than before it",
                    f"`pip install '{name}{requirement.versions}'`",
                )
            )
    return problems


@cache
def is_within(installed: str, specifier: str) -> bool:
    """Return whether a version is in a range."""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(installed, prereleases=True)
