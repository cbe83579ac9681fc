"""A whole search as one job: found again if it was submitted before, followed, and its trials brought home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from olivine.errors import StepError
from olivine.store.digests import digest_json
from olivine.systems.azureml.following import ENDED, in_words, state_of
from olivine.systems.azureml.job import Work
from olivine.systems.azureml.places import names_of
from olivine.systems.azureml.records import JobRecord, Records, now
from olivine.systems.azureml.references import Inputs, JobInput, data_reference, input_reference
from olivine.systems.azureml.search_in_job import BEFORE, SEARCH
from olivine.systems.base import Report, SearchRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from olivine.storage.addresses import WorkspaceName
    from olivine.systems.azureml.jobs import AzureMLRunner

ATTEMPTS = 50
"""Jobs of one search that may have failed before."""


def search(runner: AzureMLRunner, request: SearchRequest, hear: Report) -> list[dict[str, Any]]:
    """Return the trials of a search, from the job that has done it, does it, or is submitted for it now.

    Raises:
        StepError: the job failed, or left no answer.
        Interrupted: the user stopped waiting.
    """
    scope = runner.workspace.scope
    assert scope is not None
    known = answered(runner.records, request, scope)
    if known is not None:
        return list(known["trials"])
    before: JobRecord | None = None
    for attempt in range(1, ATTEMPTS):
        record = record_of(runner, request, attempt)
        state = state_of(runner.workspace, record.name)
        if state is None:
            runner.submit(record, work_of(request), inputs_of(runner.places.input, before))
        else:
            runner.records.write(record)
        if state is not None and state not in ENDED:
            runner.told(f"the job {record.name} was submitted before; coming back to it")
        if state not in ENDED:
            answer = see_through(runner, record, request, hear)
            runner.records.keep_search(record, answer)
            return list(answer["trials"])
        found = runner.read(record, SEARCH)
        if found is not None:
            runner.records.keep_search(record, found)
            if is_of_use(found):
                return list(found["trials"])
        if any(True for _ in runner.places.folder(f"{record.results}steps/").entries()):
            before = record
    raise StepError(f"{ATTEMPTS} jobs for this search have failed", remedy="see why in the workspace")


def answered(records: Records, request: SearchRequest, scope: WorkspaceName) -> dict[str, Any] | None:
    """Return the answer of a search as far as it is here, without asking anybody."""
    workspace = (scope.subscription_id, scope.resource_group, scope.name)
    for attempt in range(1, ATTEMPTS):
        name = search_job_name(request, workspace, attempt)
        answer = records.search(name)
        if answer is not None and is_of_use(answer):
            return answer
        if records.read(name) is None:
            break
    return None


def is_of_use(answer: dict[str, Any]) -> bool:
    """Return whether a search has come to anything: if every candidate has failed, the same command tries it again."""
    return any(each["state"] != "failed" for each in answer["trials"])


def record_of(runner: AzureMLRunner, request: SearchRequest, attempt: int) -> JobRecord:
    """Return what is written down of the job for a search."""
    workspace = names_of(runner.workspace)
    name = search_job_name(request, workspace, attempt)
    return JobRecord(
        name=name,
        workspace=workspace,
        steps=(),
        names=(),
        compute=str(runner.system.aml_compute),
        results=runner.results_of(name),
        created=now(),
    )


def search_job_name(request: SearchRequest, workspace: tuple[str, str, str], attempt: int = 1) -> str:
    """Return the name of the job that does a search; another attempt has another."""
    digest = digest_json([request.digest, list(workspace)])[:24]
    return f"olivine-search-{digest}" + (f"-{attempt}" if attempt > 1 else "")


def work_of(request: SearchRequest) -> Work:
    """Return a search as the work of a job."""

    def content(inputs: Inputs) -> dict[str, Any]:
        for place in request.models:
            input_reference(place, inputs, None)
        for config in request.data:
            data_reference(config, inputs)
        for place in request.files:
            inputs.refer(place, data=True)
        return {"version": 1, "search": request.as_json(), "references": inputs.known}

    return Work(
        content,
        [f"search {request.study}"],
        request.digest,
        request.requires,
        request.device,
        hub=request.hub,
        kind="A search of an Olivine workflow",
        size="a whole search",
    )


def inputs_of(place: Callable[[str, bool], JobInput], before: JobRecord | None) -> Inputs:
    """Return the inputs of a search's job; with what an earlier attempt has left, of which only what is read comes."""
    inputs = Inputs(place)
    if before is not None:
        inputs.found[BEFORE] = JobInput(before.results, mode="ro_mount")
    return inputs


def see_through(runner: AzureMLRunner, record: JobRecord, request: SearchRequest, hear: Report) -> dict[str, Any]:
    """Follow a search's job to its end and return its answer.

    Raises:
        StepError: it failed, or left none.
        Interrupted: the user stopped waiting.
    """

    def take(about: str, kind: str, data: dict[str, Any]) -> None:
        if about == request.study:
            hear(data.pop("event", kind), data)

    def state(found: str) -> None:
        if found not in ENDED:
            hear("note", {"text": f"job {record.name}: {in_words(found)}"})

    with runner.interruptible(record):
        ended = runner.follow(record, take, state)
        answer = runner.read(record, SEARCH)
        if answer is None:
            raise runner.without_result(record, "the search", ended)
        return answer
