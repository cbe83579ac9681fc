"""The jobs of a plan as files, without a call to anybody: what ``az ml job create -f job.yaml`` takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.config.schema import HubToken, System
from olivine.errors import ConfigError, Location
from olivine.planning.away import only_system
from olivine.storage.addresses import WorkspaceName
from olivine.storage.workspace import scope_of, vault_url
from olivine.systems.azureml import searching
from olivine.systems.azureml.job import Token, job_name, work_of, write_job
from olivine.systems.azureml.jobs import DATASTORE, batched, client_of, searches_whole
from olivine.systems.azureml.places import Places
from olivine.systems.azureml.references import Inputs, JobInput
from olivine.systems.requests import reference, step_request

if TYPE_CHECKING:
    from olivine.planning.plan import Plan, PlannedStep
    from olivine.systems.base import StepRequest


def write_jobs(plan: Plan, folder: Path) -> list[Path]:
    """Write the jobs that a run of ``plan`` would submit, each into a folder of its own; return their YAML files.

    A job that needs what another one makes names the place where that will be, so they have to run in this order.

    Raises:
        OlivineError: something of a system is missing.
    """
    if plan.search is not None:
        name = only_system(plan.search.loaded.workflow)
        if name is not None and searches_whole(plan.workflow.systems[name]):
            return [_write_search(plan, name, folder)]
    made: dict[str, str] = {}
    written = []
    for name, steps in _consecutive(plan):
        system = plan.workflow.systems[name]
        client = client_of(name, system, plan.workflow.azureml_client)
        scope = scope_of(client)
        datastore = system.datastores or DATASTORE
        places = Places(None, datastore, plan.cache_dir)
        requests = [_request(step, plan) for step in steps]
        while requests:
            batch = batched(system, requests)
            requests = requests[len(batch) :]
            job = job_name(batch, _names(scope))
            results = f"azureml://datastores/{datastore}/paths/olivine/jobs/{job}/"

            def place(each: str, data: bool, places: Places = places, made: dict[str, str] = made) -> JobInput:
                found = made.get(each.removeprefix("step:")) if each.startswith("step:") else None
                return JobInput(found) if found is not None else places.input(each, data)

            home = folder / job
            home.mkdir(parents=True, exist_ok=True)
            work = work_of(batch)
            write_job(
                home,
                name=job,
                system=system,
                experiment=system.experiment_name or plan.workflow.workflow_id,
                work=work,
                inputs=Inputs(place),
                results=results,
                identity=None if system.identity == "none" else system.identity,
                token=_token(name, system, client.keyvault_name, plan) if work.hub else None,
            )
            made |= {each.digest: f"{results}steps/{each.digest}/files/" for each in batch}
            written.append(home / "job.yaml")
    return written


def _write_search(plan: Plan, name: str, folder: Path) -> Path:
    """Write the job that does a whole search."""
    from olivine.search.elsewhere import search_request
    from olivine.store import Store

    system = plan.workflow.systems[name]
    client = client_of(name, system, plan.workflow.azureml_client)
    request = search_request(plan, Store(plan.cache_dir), online=False)
    work = searching.work_of(request)
    datastore = system.datastores or DATASTORE
    job = searching.search_job_name(request, _names(scope_of(client)))
    home = folder / job
    home.mkdir(parents=True, exist_ok=True)
    write_job(
        home,
        name=job,
        system=system,
        experiment=system.experiment_name or plan.workflow.workflow_id,
        work=work,
        inputs=Inputs(Places(None, datastore, plan.cache_dir).input),
        results=f"azureml://datastores/{datastore}/paths/olivine/jobs/{job}/",
        identity=None if system.identity == "none" else system.identity,
        token=_token(name, system, client.keyvault_name, plan) if work.hub else None,
    )
    return home / "job.yaml"


def _consecutive(plan: Plan) -> Iterator[tuple[str, list[PlannedStep]]]:
    """Yield the systems in the order in which they run Steps that are not in the Store, each with those Steps."""
    current, steps = "", list["PlannedStep"]()
    for step in plan.steps:
        if step.system != current:
            if current and steps:
                yield current, steps
            current, steps = step.system, []
        if not step.cached and step.system:
            steps.append(step)
    if current and steps:
        yield current, steps


def _request(step: PlannedStep, plan: Plan) -> StepRequest:
    inputs = {name: reference(source) for name, source in step.sources.items()}
    return step_request(step, plan, inputs, output="", checkpoint="", shared="", log="")


def _token(name: str, system: System, vault: str | None, plan: Plan) -> Token | None:
    if not system.hf_token:
        return None
    given = system.hf_token if isinstance(system.hf_token, HubToken) else HubToken()
    vault = given.key_vault or vault
    if vault is None:
        raise ConfigError(
            "nothing says which key vault holds the hub's token, and offline the workspace is not asked",
            where=Location(path=f"systems.{name}.hf_token"),
            remedy="write hf_token: {key_vault: NAME, secret: hf-token}, or set azureml_client.keyvault_name",
        )
    return Token(vault_url(vault, client_of(name, system, plan.workflow.azureml_client)), given.secret)


def _names(scope: WorkspaceName) -> tuple[str, str, str]:
    return scope.subscription_id, scope.resource_group, scope.name
