"""What a plan says of Steps that run in jobs: whether what they name is there, and what would go where.

Every call only reads. Nothing is uploaded, and no job is written anywhere but into a folder that ``--offline`` names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.config.schema import HubToken, System
from olivine.errors import Location, OlivineError, PlanError, Problem, UnavailableError
from olivine.planning.away import only_system
from olivine.storage.workspace import scope_of
from olivine.systems.azureml import environment
from olivine.systems.azureml.jobs import DATASTORE, client_of, identity_of, searches_whole
from olivine.systems.azureml.wheel import base_requirements

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.planning.plan import Plan, PlannedStep


def examine(plan: Plan, loaded: Loaded, *, online: bool) -> Plan:
    """Return the plan with what is known of its jobs as notes, having looked at what they name.

    Args:
        online: whether the workspace may be asked.

    Raises:
        PlanError: something that a job names is not there, or does not fit.
        UnavailableError: the workspace cannot be asked.
    """
    problems: list[Problem] = []
    unavailable: list[Problem] = []
    notes: list[str] = []
    for name, steps in _by_system(plan).items():
        system = plan.workflow.systems[name]
        where = f"systems.{name}"
        problems += [_placed(each, where, loaded) for each in _problems_here(system, steps)]
        if not online or problems or _is_answered(plan, name, system):
            continue
        try:
            notes += _look(plan, name, system, steps)
        except UnavailableError as error:
            unavailable += [_placed(each, where, loaded) for each in error.problems]
        except OlivineError as error:
            problems += [_placed(each, where, loaded) for each in error.problems]
    if plan.workflow.engine.packaging_config and plan.workflow.azureml_client is None:
        problems.append(
            Problem(
                "nothing says in which workspace the model is to be registered",
                loaded.locate("engine.packaging_config"),
                remedy="add azureml_client: {subscription_id: ..., resource_group: ..., workspace_name: ...}",
            )
        )
    if problems:
        raise PlanError(problems + unavailable)
    if unavailable:
        raise UnavailableError(unavailable)
    return replace(plan, notes=(*plan.notes, *notes))


def _is_answered(plan: Plan, name: str, system: System) -> bool:
    """Return whether the answer of the job for a whole search is here already."""
    if plan.search is None or plan.unread or not searches_whole(system):
        return False
    if only_system(plan.search.loaded.workflow) != name:
        return False
    from olivine.search.elsewhere import search_request
    from olivine.store import Store
    from olivine.systems.azureml.records import Records
    from olivine.systems.azureml.searching import answered

    client = client_of(name, system, plan.workflow.azureml_client)
    request = search_request(plan, Store(plan.cache_dir))
    return answered(Records(plan.cache_dir), request, scope_of(client)) is not None


def _by_system(plan: Plan) -> dict[str, list[PlannedStep]]:
    """Return the Steps that would run in jobs now, by their system."""
    found: dict[str, list[PlannedStep]] = {}
    for step in plan.steps:
        if step.system and not step.cached and plan.workflow.systems[step.system].type == "AzureML":
            found.setdefault(step.system, []).append(step)
    return found


def _problems_here(system: System, steps: Sequence[PlannedStep]) -> Iterator[Problem]:
    """Yield what is wrong with a system as far as its own files tell."""
    if not system.aml_compute:
        yield Problem("aml_compute is missing", Location(path="aml_compute"), remedy="name the compute to run on")
    needed = [*base_requirements(), *sorted({each for step in steps for each in step.requires})]
    yield from environment.problems_of(system, needed)


def _look(plan: Plan, name: str, system: System, steps: Sequence[PlannedStep]) -> Iterator[str]:
    """Ask the workspace for what the jobs of a system name, and yield sentences for the plan."""
    from olivine.storage.workspace import Workspace
    from olivine.systems.azureml import calling

    workspace = Workspace.connect(client_of(name, system, plan.workflow.azureml_client))
    with workspace.calling(f"looking for the compute {system.aml_compute}"):
        compute = workspace.ml.compute.get(str(system.aml_compute))
    identity = identity_of(system, compute)
    kind = str(compute.type)
    if identity == "user" and kind.lower() == "kubernetes":
        raise PlanError(
            f"the compute {system.aml_compute} is a Kubernetes cluster, where a job cannot be its user",
            where=Location(path="identity"),
            remedy="set identity: managed, and give the cluster's identity the rights, or remove it",
        )
    _check_instance_type(system, compute, kind)
    environment_name = _check_environment(system, workspace)
    datastore = system.datastores or DATASTORE
    workspace.datastore(datastore)
    size = getattr(compute, "size", None) or (system.resources or {}).get("instance_type")
    who = {"managed": "the compute's identity", "user": "you"}.get(identity or "", "what the cluster gives it")
    whole = plan.search is not None and searches_whole(system) and only_system(plan.search.loaded.workflow) == name
    names = "the whole search, in one job" if whole else ", ".join(step.name for step in steps)
    machine = f"{kind}, {size}" if size else kind
    yield f"{names}: on the compute {system.aml_compute} ({machine}) of the {workspace}, as {who}"
    if environment_name:
        yield f"environment: {environment_name}"
    reads, uploads = _reads(steps, workspace, datastore, plan.cache_dir)
    for text in reads:
        yield f"a job reads {text}"
    for text in uploads:
        yield f"uploads {text} to the datastore {datastore}"
    yield f"results go to azureml://datastores/{datastore}/paths/olivine/jobs/ and come from there"
    if system.hf_token and any(step.reads_hub for step in steps):
        given = system.hf_token if isinstance(system.hf_token, HubToken) else HubToken()
        vault = calling.vault_of(workspace, given.key_vault or workspace.settings.keyvault_name)
        yield f"a job reads the secret {given.secret} of {vault}; its value does not come here"


def _check_instance_type(system: System, compute: Any, kind: str) -> None:
    asked = (system.resources or {}).get("instance_type")
    given = getattr(compute, "properties", None)
    given = given if isinstance(given, dict) else {}
    given = given.get("properties") or given
    known = given.get("instance_types") or given.get("instanceTypes")
    if kind.lower() == "kubernetes" and asked and isinstance(known, dict) and asked not in known:
        raise PlanError(
            f"the cluster {system.aml_compute} has no instance type {asked!r}",
            where=Location(path="resources"),
            remedy=f"it has {', '.join(sorted(known))}",
        )


def _check_environment(system: System, workspace: Any) -> str:
    """Look for an environment that is to exist already; return how it is called."""
    named = system.aml_environment_config
    if not named or not named.get("name"):
        return ""
    name = str(named["name"])
    if "/" in name:
        return name  # of a registry: its address says where
    which = {"version": str(named["version"])} if named.get("version") is not None else {}
    which = which or {"label": str(named.get("label") or "latest")}
    with workspace.calling(f"looking for the environment {name}"):
        found = workspace.ml.environments.get(name, **which)
    return f"{found.name}:{found.version}"


def _reads(steps: Sequence[PlannedStep], workspace: Any, datastore: str, cache: Path) -> tuple[list[str], list[str]]:
    """Return what jobs read in the cloud, having looked that it is there, and what is uploaded for them."""
    from olivine.systems.azureml.places import Places, size_of

    places = Places(workspace, datastore, cache)
    reads: list[str] = []
    uploads: list[str] = []
    for step in steps:
        for source in step.sources.values():
            if source.address is not None:
                found = places.look(source.address, data=False)
                reads.append(f"the model {source.address} ({found})")
            elif source.path is not None:
                uploads.append(f"{source.path} ({size_of(source.path)})")
            elif source.hub is not None:
                reads.append(f"{source.hub} from the Hugging Face hub")
        for config in step.data.values():
            files = [config.data_files] if isinstance(config.data_files, str) else config.data_files or []
            for each in files:
                if "://" in each:
                    reads.append(f"rows from {each} ({places.look(each, data=True)})")
                else:
                    uploads.append(f"{each} ({size_of(Path(each))})")
    return list(dict.fromkeys(reads)), list(dict.fromkeys(uploads))


def _placed(problem: Problem, path: str, loaded: Loaded) -> Problem:
    """Put a key's place in the configuration in front."""
    if problem.where is not None and problem.where.file is not None:
        return problem
    key = problem.where.path if problem.where is not None else None
    if key is not None and key.startswith("azureml_client"):
        return replace(problem, where=loaded.locate(key))
    return replace(problem, where=loaded.locate(f"{path}.{key}" if key else path))
