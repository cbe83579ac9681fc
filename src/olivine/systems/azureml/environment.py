"""The environment of a job: an image with the user's packages, and with what Olivine and its Steps need besides.

The user's ``conda.yaml`` is kept as it is; only packages that it does not name are added to its pip section. Olivine
itself comes with the job, as a wheel, so that a change of its sources does not build another image.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from olivine.config.schema import System
from olivine.errors import Location, OlivineError, PlanError, Problem

IMAGES = {
    "cpu": "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04",
    "gpu": "mcr.microsoft.com/azureml/openmpi5.0-cuda12.4-ubuntu22.04",
}
"""Images of Azure Machine Learning to build on, where none is named."""
LEAST_PYTHON = "3.11"
_KEYS = frozenset(
    {"base_image", "dockerfile", "build_context_path", "conda_file_path", "name", "version", "description", "tags"}
)


def environment_of_job(system: System, device: str, requirements: Iterable[str], folder: Path) -> Any:
    """Return what ``environment`` is in a job's YAML, having written ``conda.yaml`` into ``folder`` where it needs one.

    Args:
        system: the AzureML system.
        device: ``cpu`` or ``gpu``, for the image where none is named.
        requirements: what Olivine and the Steps need, as ``pip`` takes it.
        folder: where the job's YAML will be.

    Raises:
        PlanError: a file that it names cannot be used.
    """
    named = system.aml_environment_config
    if named and named.get("name"):
        return _reference(named)
    docker = system.aml_docker_config or {}
    if docker.get("dockerfile") or docker.get("build_context_path"):
        build: dict[str, Any] = {"path": str(Path(docker.get("build_context_path") or ".").resolve())}
        if docker.get("dockerfile"):
            build["dockerfile_path"] = str(docker["dockerfile"])
        return {"build": build}
    environment: dict[str, Any] = {"image": docker.get("base_image") or IMAGES[device if device in IMAGES else "cpu"]}
    path = docker.get("conda_file_path")
    if path is None and docker.get("base_image"):
        return environment  # an image of the user's own has its Python; what it lacks is installed at the start
    conda = read_conda(Path(path)) if path is not None else _new_conda()
    text = yaml.safe_dump(with_requirements(conda, requirements), sort_keys=False)
    (folder / "conda.yaml").write_text(text, encoding="utf-8")
    return environment | {"conda_file": "./conda.yaml"}


def _reference(named: dict[str, Any]) -> str:
    name = str(named["name"])
    head = name if name.startswith("azureml:") else f"azureml:{name}"
    if named.get("version") is not None:
        return f"{head}/versions/{named['version']}" if "/" in name else f"{head}:{named['version']}"
    return (
        f"{head}/labels/{named.get('label') or 'latest'}" if "/" in name else f"{head}@{named.get('label') or 'latest'}"
    )


def read_conda(path: Path) -> dict[str, Any]:
    """Read a ``conda.yaml``.

    Raises:
        PlanError: it is not there, or is none.
    """
    where = Location(path="aml_docker_config.conda_file_path")
    try:
        found = yaml.safe_load(path.expanduser().read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise PlanError(f"{path} cannot be read", where=where, why=" ".join(str(error).split())) from None
    if not isinstance(found, dict) or not isinstance(found.get("dependencies"), list):
        raise PlanError(
            f"{path} does not describe a conda environment",
            where=where,
            remedy="it needs a list `dependencies`, e.g. [python=3.11, pip, {pip: [torch, transformers]}]",
        )
    return found


def with_requirements(conda: dict[str, Any], requirements: Iterable[str]) -> dict[str, Any]:
    """Return a conda environment with those requirements in its pip section that it does not name."""
    made = copy.deepcopy(conda)
    dependencies: list[Any] = made["dependencies"]
    there = {_name(each) for each in _packages(conda)}
    missing = [each for each in requirements if _name(each) not in there]
    if not missing:
        return made
    pip = next((each["pip"] for each in dependencies if isinstance(each, dict) and "pip" in each), None)
    if pip is None:
        if "pip" not in there:
            dependencies.append("pip")
        pip = []
        dependencies.append({"pip": pip})
    pip += missing
    return made


def problems_of(system: System, requirements: Iterable[str]) -> list[Problem]:
    """Return why the environment of a system cannot run Steps that need ``requirements``, from its files alone."""
    named, docker = system.aml_environment_config or {}, system.aml_docker_config or {}
    found = [
        Problem(f"aml_docker_config has no key {key!r}", Location(path="aml_docker_config"), remedy=", ".join(_KEYS))
        for key in sorted(set(docker) - _KEYS)
    ]
    if named.get("name") or docker.get("dockerfile") or not docker.get("conda_file_path"):
        return found
    where = Location(path="aml_docker_config.conda_file_path")
    try:
        conda = read_conda(Path(docker["conda_file_path"]))
    except OlivineError as error:
        return [*found, *error.problems]
    return found + [
        Problem(f"{docker['conda_file_path']} {text}", where, "Olivine was tested with that range", remedy)
        for text, remedy in _conflicts(conda, requirements)
    ]


def _conflicts(conda: dict[str, Any], requirements: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what is pinned outside the range that is needed."""
    from packaging.requirements import InvalidRequirement, Requirement

    needed = {_name(each): Requirement(each) for each in requirements}
    for each in _packages(conda):
        try:
            given = Requirement(_as_pip(each))
        except InvalidRequirement:
            continue  # a URL, or a way of pinning that only conda knows
        pins = [pin for pin in given.specifier if pin.operator == "==" and "*" not in pin.version]
        name = _name(each)
        if name == "python" and pins and not _at_least(pins[0].version, LEAST_PYTHON):
            yield f"asks for Python {pins[0].version}", f"write python={LEAST_PYTHON}"
        elif name in needed and pins and not needed[name].specifier.contains(pins[0].version, prereleases=True):
            yield f"asks for {each}", f"write {needed[name]}"


def _packages(conda: dict[str, Any]) -> Iterator[str]:
    for each in conda["dependencies"]:
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            yield from (str(item) for item in each.get("pip") or ())


def _as_pip(text: str) -> str:
    """Return conda's ``python=3.11`` (or ``conda-forge::python=3.11=build``) as pip would write it."""
    text = text.rpartition("::")[2].strip()
    if "=" in text and not any(mark in text for mark in ("==", ">=", "<=", "~=", "!=")):
        name, version, *_ = text.split("=")
        return f"{name}=={version}"
    return text


def _name(text: str) -> str:
    """Return a requirement's name in its canonical form."""
    from packaging.utils import canonicalize_name

    name = text.rpartition("::")[2]
    for mark in "<>=!~;[ @":
        name = name.partition(mark)[0]
    return canonicalize_name(name.strip())


def _at_least(version: str, least: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version).release[:2] >= Version(least).release[:2] or version == least.partition(".")[0]
    except InvalidVersion:
        return True


def _new_conda() -> dict[str, Any]:
    return {"name": "olivine", "channels": ["conda-forge"], "dependencies": [f"python={LEAST_PYTHON}", "pip"]}
