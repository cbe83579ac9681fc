"""Runs Steps in jobs of Azure Machine Learning, and brings their results home.

Whatever happens to this process, a Step's job is paid once: the job's name comes of the Steps that it makes, it is
written down before the job is submitted, and whoever wants the same Steps later asks for a job of that name first.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.config.schema import AzureMLClient, HubToken, System
from olivine.errors import ConfigError, Location, OlivineError, StepError, UnavailableError
from olivine.planning.away import processes_of
from olivine.redaction import redact
from olivine.storage.workspace import Workspace
from olivine.systems.azureml import calling
from olivine.systems.azureml.following import ENDED, Following, Hear, in_words, state_of
from olivine.systems.azureml.in_job import ANSWER
from olivine.systems.azureml.job import Token, Work, job_name, work_of, write_job
from olivine.systems.azureml.places import Places, long_address, names_of
from olivine.systems.azureml.records import JobRecord, Records, now
from olivine.systems.azureml.references import Inputs
from olivine.systems.base import (
    Deliver,
    Failure,
    Interrupted,
    Report,
    Runner,
    SearchRequest,
    StepAnswer,
    StepRequest,
)

if TYPE_CHECKING:
    from olivine.systems.registry import Site

DATASTORE = "workspaceblobstore"
SUBMITTING_S = (2.0, 5.0, 15.0, 30.0)
"""Seconds to wait before each further attempt to submit."""
ATTEMPTS = 50
"""Jobs of one name that may have failed before."""


class AzureMLRunner(Runner):
    """Runs Steps in jobs; see the module."""

    elsewhere = True
    together = True

    def __init__(self, site: Site) -> None:
        self.site = site
        self.system: System = site.system
        self.records = Records(site.cache)
        self.told: Callable[[str], None] = lambda text: None
        self.following: Following | None = None
        self.seen: dict[str, str] = {}
        self.stay: Collection[str] = ()
        self._workspace: Workspace | None = None
        self._places: Places | None = None

    # What the engine calls ------------------------------------------------------------------------------------------

    def run(self, request: StepRequest, report: Report, *, fresh: bool = False) -> StepAnswer:
        """See :meth:`Runner.run`: a job of its own."""
        answers: list[StepAnswer] = []
        self.run_together([request], lambda each: report, lambda each, answer: answers.append(answer))
        return answers[0]

    def run_together(
        self,
        requests: Sequence[StepRequest],
        report: Callable[[StepRequest], Report],
        deliver: Deliver,
        stay: Collection[str] = (),
    ) -> None:
        """See :meth:`Runner.run_together`."""
        self.stay = stay
        remaining = list(requests)
        while remaining:
            first = report(remaining[0])
            self.told = lambda text, first=first: first("note", {"text": text})  # type: ignore[misc]
            record = self.job_for(remaining)
            mine = [each for each in remaining if each.digest in record.steps]
            self.see_through(record, mine, report, deliver)
            remaining = [each for each in remaining if each.digest not in record.steps]

    @property
    def searches(self) -> bool:
        """See :attr:`Runner.searches`: unless each Step is to have its job, or several processes share some."""
        return searches_whole(self.system)

    def search(self, request: SearchRequest, hear: Report) -> list[dict[str, Any]]:
        """See :meth:`Runner.search`: in one job."""
        from olivine.systems.azureml.searching import search

        self.told = lambda text: hear("note", {"text": text})
        return search(self, request, hear)

    def holds(self, away: str) -> bool:
        """See :meth:`Runner.holds`: the answer, which is put there last, is beside the files."""
        return self.places.folder(away.rstrip("/").removesuffix("/files") + "/").find(ANSWER) is not None

    def fetch(self, away: str, files: Sequence[Mapping[str, Any]], folder: Path, report: Report) -> None:
        """See :meth:`Runner.fetch`."""
        from olivine.storage.transfer import Patience, download

        found = self.places.folder(away)
        total, done = sum(each["size"] for each in files), 0

        def came(count: int) -> None:
            nonlocal done
            done += count
            report("progress", _idle("fetching the result") | {"done": done, "total": total, "unit": "B"})

        for each in files:
            download(
                found.file(each["path"]),
                within(folder, each["path"]),
                sha256=each["sha256"],
                patience=Patience(told=lambda text: report("note", {"text": text})),
                on_bytes=came,
            )

    def abort(self) -> None:
        """See :meth:`Runner.abort`: the job is cancelled."""
        if self.following is not None:
            self.following.stop = True

    def close(self) -> None:
        """See :meth:`Runner.close`. A job goes on; there is nothing to end here."""

    # The workspace --------------------------------------------------------------------------------------------------

    @property
    def workspace(self) -> Workspace:
        """The workspace of the jobs.

        Raises:
            ConfigError: none is named.
        """
        if self._workspace is None:
            self._workspace = Workspace.connect(
                client_of(self.site.name, self.system, self.site.workflow.azureml_client)
            )
            self._workspace.storm.told = lambda text: self.told(text)
        return self._workspace

    @property
    def places(self) -> Places:
        """Where inputs and results are."""
        if self._places is None:
            self._places = Places(
                self.workspace, self.system.datastores or DATASTORE, self.site.cache, lambda text: self.told(text)
            )
        return self._places

    # Finding or submitting the job ----------------------------------------------------------------------------------

    def job_for(self, remaining: Sequence[StepRequest]) -> JobRecord:
        """Return the job that makes the first of ``remaining``, and perhaps others: one that exists, or a new one."""
        wanted = remaining[0].digest
        workspace = names_of(self.workspace)
        known = self.records.of_step(wanted)
        if known is not None and known.workspace == workspace and self.is_usable(known, wanted):
            self.told(f"the job {known.name} makes this already; waiting for it")
            return known
        batch = self.batch(remaining)
        for attempt in range(1, ATTEMPTS):
            name = job_name(batch, workspace, attempt)
            if known is not None and name == known.name and state_of(self.workspace, name) is not None:
                continue  # it was looked at above
            record = self.record(name, batch)
            state = state_of(self.workspace, name)
            if state is None:
                self.submit(record, work_of(batch), Inputs(self.places.input))
                return record
            if self.is_usable(record, wanted, state):
                self.records.write(record)
                self.told(f"the job {name} was submitted before; coming back to it")
                return record
        raise StepError(f"{ATTEMPTS} jobs for {remaining[0].name} have failed", remedy="see why in the workspace")

    def is_usable(self, record: JobRecord, wanted: str, state: str | None = None) -> bool:
        """Return whether a job makes a Step, or has made it: it exists, and has not ended without that result."""
        state = state or state_of(self.workspace, record.name)
        if state is None:
            return False
        if state not in ENDED:
            return True
        answer = self.answer(record, wanted)
        return answer is not None and "answer" in answer

    def batch(self, remaining: Sequence[StepRequest]) -> list[StepRequest]:
        """Return those of ``remaining`` that go into one new job, from the first on: no other job makes them."""
        found: list[StepRequest] = []
        for each in batched(self.system, remaining):
            known = self.records.of_step(each.digest)
            if found and known is not None and self.is_usable(known, each.digest):
                break
            found.append(each)
        return found

    def record(self, name: str, batch: Sequence[StepRequest]) -> JobRecord:
        """Return what is written down of a job."""
        return JobRecord(
            name=name,
            workspace=names_of(self.workspace),
            steps=tuple(each.digest for each in batch),
            names=tuple(each.name for each in batch),
            compute=str(self.system.aml_compute),
            results=self.results_of(name),
            created=now(),
        )

    def results_of(self, name: str) -> str:
        """Return the address of the folder for a job's results."""
        return f"azureml://datastores/{self.system.datastores or DATASTORE}/paths/olivine/jobs/{name}/"

    def submit(self, record: JobRecord, work: Work, inputs: Inputs) -> None:
        """Write a job down and submit it. A job of its name that exists already is that job."""
        folder = self.records.folder(record.name)
        folder.mkdir(parents=True, exist_ok=True)
        compute = self.compute()
        identity = identity_of(self.system, compute)
        write_job(
            folder,
            name=record.name,
            system=self.system,
            experiment=self.system.experiment_name or self.site.workflow.workflow_id,
            work=work,
            inputs=inputs,
            results=record.results,
            identity=identity,
            token=self.token() if work.hub else None,
        )
        self.records.write(record)
        for wait in (*SUBMITTING_S, None):
            try:
                self.create(folder / "job.yaml", record.name)
                break
            except UnavailableError:
                # The answer may be what was lost, and not the request.
                with contextlib.suppress(UnavailableError):
                    if state_of(self.workspace, record.name) is not None:
                        break
                if wait is None:
                    raise
                time.sleep(wait)
        self.told(f"submitted the job {record.name} ({work.size}) to {record.compute}")

    def create(self, path: Path, name: str) -> None:
        """Create a job of its YAML."""
        from azure.ai.ml import load_job
        from azure.core.exceptions import ResourceExistsError

        # What the SDK prints (bars, words on experimental classes) would be in the way of the view.
        with self.workspace.calling(f"submitting the job {name}"), _quietly():
            job = load_job(path)
            with contextlib.suppress(ResourceExistsError):
                self.workspace.ml.jobs.create_or_update(job)

    def compute(self) -> Any:
        """Return the compute of the system.

        Raises:
            PlanError: there is none of that name.
        """
        with self.workspace.calling(f"looking for the compute {self.system.aml_compute}"):
            return self.workspace.ml.compute.get(str(self.system.aml_compute))

    def token(self) -> Token | None:
        """Return where a job that reads the hub finds the hub's token, if it may use it."""
        if not self.system.hf_token:
            return None
        given = self.system.hf_token if isinstance(self.system.hf_token, HubToken) else HubToken()
        name = given.key_vault or self.workspace.settings.keyvault_name
        return Token(calling.vault_of(self.workspace, name), given.secret)

    # Seeing it through ----------------------------------------------------------------------------------------------

    def see_through(
        self,
        record: JobRecord,
        requests: Sequence[StepRequest],
        report: Callable[[StepRequest], Report],
        deliver: Deliver,
    ) -> None:
        """Follow a job to its end and bring the results home.

        Raises:
            OlivineError: a Step failed, the job failed, or it left no result.
            Interrupted: the user stopped waiting.
        """
        by_digest = {each.digest: each for each in requests}
        current = requests[0]

        def hear(digest: str, kind: str, data: dict[str, Any]) -> None:
            nonlocal current
            request = by_digest.get(digest)
            if request is None:
                return
            current = request
            if kind in ("progress", "note"):
                report(request)(kind, data)
            elif kind == "started":
                report(request)("progress", _idle(f"running in {record.name}"))

        def state(found: str) -> None:
            if found not in ENDED:
                report(current)("progress", _idle(f"job {record.name}: {in_words(found)}"))

        with self.interruptible(record):
            ended = self.follow(record, hear, state)
            for request in requests:
                self.bring_home(record, request, ended, report(request), deliver)

    @contextlib.contextmanager
    def interruptible(self, record: JobRecord) -> Iterator[None]:
        """Let the user stop waiting for a job.

        Raises:
            Interrupted: that happened.
        """
        try:
            yield
        except KeyboardInterrupt:
            raise Interrupted(self.left(record), lambda: self.cancel(record.name)) from None
        finally:
            self.following = None

    def follow(self, record: JobRecord, hear: Hear, state: Callable[[str], None]) -> str:
        """Follow a job to its end, unless that was done; return the state it ended in.

        Raises:
            StepError: it was cancelled from here.
            UnavailableError: the service cannot be asked any longer.
        """
        if record.name not in self.seen:
            self.following = Following(self.workspace, record.name, hear=hear, write=self.write, state=state)
            ended = self.following.to_the_end()
            if ended == "Stopped":
                self.cancel(record.name)
                raise StepError(f"the job {record.name} was cancelled")
            self.seen[record.name] = ended
        return self.seen[record.name]

    def bring_home(self, record: JobRecord, request: StepRequest, ended: str, report: Report, deliver: Deliver) -> None:
        """Hand over what a job has left of a Step: its files fetched, unless nobody needs them here."""
        answer = self.answer(record, request.digest)
        if answer is None:
            raise self.without_result(record, request.name, ended)
        if "failure" in answer:
            failed = Failure(**answer["failure"]).unpack()
            # The whole of the job's log is in the run's; the reason says more than its end, which is a traceback.
            first, *others = failed.problems
            why = f"{first.why}; it ran" if first.why else "it ran"
            first = replace(first, why=f"{why} in the job {record.name} on {record.compute}")
            failed.problems = (first, *others)
            failed.args = ("\n".join(str(problem) for problem in failed.problems),)
            raise failed
        away, files = long_address(record.step_address(request.digest) + "/", self.workspace), answer["files"]
        for each in files:
            within(Path(request.output), each["path"])
        if request.digest in self.stay:
            deliver(request, StepAnswer(**answer["answer"] | {"away": away, "files": files}))
            return
        self.fetch(away, files, Path(request.output), report)
        deliver(request, StepAnswer(**answer["answer"]))

    def answer(self, record: JobRecord, digest: str) -> dict[str, Any] | None:
        """Return what a job says of a Step: its answer and files, or its failure; ``None`` if it says nothing."""
        found = self.read(record, f"steps/{digest}")
        return found if found is not None and ("answer" in found or "failure" in found) else None

    def read(self, record: JobRecord, below: str) -> dict[str, Any] | None:
        """Return the answer that a job has left in a folder of its results, ``None`` if there is none."""
        text = self.places.folder(f"{record.results}{below}/").read_from(ANSWER, 0)
        try:
            found = json.loads(text) if text else None
        except ValueError:
            return None  # still being written, or by something else
        return found if isinstance(found, dict) else None

    def without_result(self, record: JobRecord, what: str, ended: str) -> OlivineError:
        """Return what to say of a Step, or a search, whose job has ended and left nothing of it."""
        if ended == "Completed":
            return StepError(
                f"the job {record.name} ended well, but left no result of {what}",
                why=f"there is none at {record.results}",
                remedy="look whether the compute may write to that datastore; the same command runs it again",
            )
        try:
            error = calling.error_of_run(self.workspace, record.name)
        except OlivineError as unasked:
            error = f"the service does not say why ({unasked})"
        word = "was cancelled" if ended == "Canceled" else "failed"
        return StepError(
            f"the job {record.name} {word}",
            why="; ".join(part for part in (redact(error), self.last_lines()) if part),
            remedy="mend it, and run the same command again: Steps that were done are not done again",
        )

    def last_lines(self) -> str:
        """Return the end of the log of the job that was followed last."""
        log = self.following.log if self.following is not None else None
        lines = [redact(line) for line in (log.last if log is not None else ()) if line.strip()]
        return "its log ends with: " + " | ".join(lines[-8:]) if lines else ""

    # Leaving it -----------------------------------------------------------------------------------------------------

    def cancel(self, name: str) -> None:
        """Cancel a job."""
        with self.workspace.calling(f"cancelling the job {name}"):
            self.workspace.ml.jobs.begin_cancel(name)

    def left(self, record: JobRecord) -> str:
        """Return how to come back to a job, and how to end it."""
        subscription, group, name = record.workspace
        return (
            f"The job {record.name} goes on in the workspace {name}. Run the same command again to come back to it. "
            f"To end it: az ml job cancel --name {record.name} --workspace-name {name} --resource-group {group} "
            f"--subscription {subscription}"
        )

    def write(self, line: str) -> None:
        """Write a line of a job's log into the run's."""
        self.site.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.site.log, "a", encoding="utf-8") as file:
            file.write(redact(line) + "\n")


def searches_whole(system: System) -> bool:
    """Return whether a system does a whole search in one job."""
    return system.one_job_per == "workflow" and processes_of(system) == 1


def batched(system: System, remaining: Sequence[StepRequest]) -> list[StepRequest]:
    """Return those of ``remaining`` that a system takes in one job, from the first on.

    What several processes share has a job of its own: the others of them would wait through every other Step.
    """
    first = remaining[0]
    spread = processes_of(system) > 1
    if system.one_job_per == "step" or (spread and first.spreads):
        return [first]
    found = []
    for each in remaining:
        if spread and each.spreads:
            break
        found.append(each)
    return found


def client_of(name: str, system: System, given: AzureMLClient | None) -> AzureMLClient:
    """Return how the workspace of a system is reached.

    Raises:
        ConfigError: nothing says it.
    """
    found = system.azureml_client_config or given
    if found is None:
        raise ConfigError(
            f"nothing says which workspace the system {name!r} is in",
            where=Location(path="azureml_client"),
            remedy="add azureml_client: {subscription_id: ..., resource_group: ..., workspace_name: ...}",
        )
    return found


def identity_of(system: System, compute: Any) -> str | None:
    """Return who a job is: ``managed`` (the compute's identity), ``user``, or ``None`` for what the compute does.

    A job can be its user only where the service runs the compute itself; a Kubernetes cluster has its own identity.
    """
    if system.identity is not None:
        return None if system.identity == "none" else system.identity
    own = str(getattr(getattr(compute, "identity", None), "type", None) or "none")
    if own.lower() != "none":
        return "managed"
    return None if str(getattr(compute, "type", "")).lower() == "kubernetes" else "user"


def within(root: Path, name: str) -> Path:
    """Return the place for a file that a job names; it must lie below ``root``.

    Raises:
        StepError: it does not.
    """
    from olivine.store.disk import bad_name

    target = root / name
    if bad_name(name) or not target.resolve().is_relative_to(root.resolve()):
        raise StepError(f"a job has left a file with a name that leads elsewhere: {name!r}")
    return target


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep what the SDK prints and warns of off the terminal; its errors are raised."""
    logger, quiet = logging.getLogger("azure.ai.ml"), io.StringIO()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            yield
    finally:
        logger.setLevel(before)


def _idle(message: str) -> dict[str, Any]:
    return {"done": 0, "total": None, "unit": "", "message": message, "values": {}}
