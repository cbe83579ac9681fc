"""Which runner goes with which type of system. A runner's module is imported only when a Step is to run there."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from olivine.config.schema import System, Workflow
from olivine.systems.base import Runner

RUNNERS = {
    "LocalSystem": "olivine.systems.local",
    "AzureML": "olivine.systems.azureml",
}
"""By type of system: the module whose function ``runner`` makes its runner of a :class:`Site`."""

HERE = ""
"""The name of this machine, whatever systems of the type LocalSystem are called."""


@dataclass(frozen=True)
class Site:
    """Where Steps are to run, and for which run.

    Attributes:
        name: the system's name in the configuration; :data:`HERE` for this machine.
        system: what the configuration says of it.
        workflow: the whole configuration.
        log: file for what workers and their libraries print.
        cache: folder of the Store.
    """

    name: str
    system: System
    workflow: Workflow
    log: Path
    cache: Path


RunnerFactory = Callable[[Site], Runner]


def site_of(name: str, workflow: Workflow, log: Path, cache: Path) -> Site:
    """Return the site of the system called ``name``; on this machine Steps share what its systems allow."""
    if name != HERE:
        return Site(name, workflow.systems[name], workflow, log, cache)
    tokens = [each.hf_token for each in workflow.systems.values() if each.type == "LocalSystem" and each.hf_token]
    token = next((each for each in tokens if each is not True), bool(tokens))
    return Site(HERE, System(hf_token=token), workflow, log, cache)


def make_runner(site: Site) -> Runner:
    """Return a runner for a site. Nothing is started before its first Step.

    Raises:
        KeyError: nothing runs Steps on this type of system (loading has refused it, so this is a caller's defect).
    """
    made: Runner = importlib.import_module(RUNNERS[site.system.type]).runner(site)
    return made
