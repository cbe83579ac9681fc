"""Getting the Steps of a plan done: found in a Store, or made on their system and put there."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.engine.away import bring, may_stay, settle
from olivine.engine.result import StepResult
from olivine.errors import OlivineError, StepError
from olivine.events import Event, EventSink
from olivine.hardware.machine import this_machine
from olivine.planning.durations import EFFORT, MACHINE
from olivine.planning.plan import Plan, PlannedStep, Source
from olivine.redaction import redacted
from olivine.systems.base import Report, Runner, StepAnswer, StepRequest
from olivine.systems.registry import RunnerFactory, site_of
from olivine.systems.requests import reference, step_request

if TYPE_CHECKING:
    from olivine.store import Artifact, Staging, Store
    from olivine.store.shared import SharedStore


class Steps:
    """The Steps of one run: what was done of them so far, and how the others are.

    Attributes:
        results: how each went, in order.
        artifacts: what came of them, by digest.
        current: the name of the Step that is being done, for what is said if it fails.
        together: whether a system that can may get several Steps at once.
        settled: whether it was asked if results that stayed in the cloud are still there.
    """

    def __init__(self, plan: Plan, store: Store, sink: EventSink, run_dir: Path, make_runner: RunnerFactory) -> None:
        self.plan = plan
        self.store = store
        self.sink = sink
        self.run_dir = run_dir
        self.log = run_dir / "log.txt"
        self.make_runner = make_runner
        self.runners: dict[str, Runner] = {}
        self.results: list[StepResult] = []
        self.artifacts: dict[str, Artifact] = {}
        self.fetched: dict[str, Path] = {}
        self.current = ""
        self.together = True
        self.settled = False
        self.shared: SharedStore | None = None
        if (shared := plan.workflow.engine.shared_cache) is not None:
            from olivine.store.shared import shared_store

            self.shared = shared_store(shared.url, shared.writable)

    # One Step -------------------------------------------------------------------------------------------------------

    def do(self, planned: PlannedStep) -> None:
        """Take a Step's result from the Store, or make it."""
        if planned.digest in self.artifacts and planned.name in {each.name for each in self.results}:
            return  # it was done together with an earlier one
        artifact = self.store.find(planned.digest)
        if artifact is not None and artifact.away and not self.settled:
            self.settled = True
            settle(self)
            artifact = self.store.find(planned.digest)
        for warning in self.store.warnings:
            self.emit("note", planned.name, text=warning)
        self.store.warnings.clear()
        if artifact is None:
            if self.runner(planned.system).together:
                self.do_together(planned)
                if planned.digest in self.artifacts:
                    return
                artifact = self.store.find(planned.digest)
                assert artifact is not None  # another process has made it
                self.done(planned, artifact, cached=True)
                return
            with self.store.lock(planned.digest, self.told_of_waiting(planned.name)):
                artifact = self.store.find(planned.digest) or self.fetch_shared(planned)
                if artifact is None:
                    artifact = self.make(planned)
                    self.done(planned, artifact, cached=False)
                    return
        self.done(planned, artifact, cached=True)

    def fetch_shared(self, planned: PlannedStep) -> Artifact | None:
        """Take a Step's result from the shared Store, if there is one and it has it."""
        if self.shared is None:
            return None
        artifact = self.shared.fetch(planned.digest, self.store)
        self.tell_shared(planned)
        if artifact is not None:
            self.emit("note", planned.name, text="its result was found in the shared cache")
        return artifact

    def put_shared(self, planned: PlannedStep, artifact: Artifact) -> None:
        """Put a Step's result into the shared Store, if that may be written."""
        if self.shared is not None:
            self.shared.put(artifact)
            self.tell_shared(planned)

    def tell_shared(self, planned: PlannedStep) -> None:
        """Pass on what went wrong with the shared Store."""
        assert self.shared is not None
        for warning in self.shared.warnings:
            self.emit("note", planned.name, text=warning)
        self.shared.warnings.clear()

    def make(self, planned: PlannedStep) -> Artifact:
        """Run a Step and put its result into the Store."""
        self.begin(planned)
        with self.store.stage(planned.digest) as staging:
            request = self.request(planned, staging)
            answer = self.ask(planned, request, fresh=planned.step.kind != "pass")
            return self.commit(planned, staging, answer)

    def begin(self, planned: PlannedStep) -> None:
        """Tell that a Step begins."""
        self.emit("step-started", planned.name, type=planned.step.type, device=planned.place)
        for note in planned.notes:
            self.emit("note", planned.name, text=note)

    def request(self, planned: PlannedStep, staging: Staging) -> StepRequest:
        """Return what a worker is asked, for a Step whose result goes into ``staging``."""
        elsewhere = self.runner(planned.system).elsewhere
        inputs = {
            name: str(reference(each) if elsewhere else self.folder(each)) for name, each in planned.sources.items()
        }
        return step_request(
            planned,
            self.plan,
            inputs,
            output=str(staging.path),
            checkpoint=str(self.store.checkpoint_dir(planned.digest)),
            shared=str(self.store.shared_dir),
            log=str(self.log),
        )

    def commit(self, planned: PlannedStep, staging: Staging, answer: StepAnswer) -> Artifact:
        """Put what a worker left in ``staging`` into the Store."""
        from olivine.store.artifact import FileEntry

        is_pass = planned.step.kind == "pass"
        if is_pass and not answer.away and not any(staging.path.iterdir()):
            raise StepError(
                f"{planned.name} ended well but made no files", where=planned.where, why="the pass is at fault"
            )
        if not is_pass:
            text = json.dumps(answer.metrics, indent=2, ensure_ascii=False)
            (staging.path / "metrics.json").write_text(text + "\n", encoding="utf-8")
        artifact = staging.commit(
            format=str(planned.produces),
            step=planned.step.model_dump(mode="json") | {"name": planned.name},
            inputs=dict(planned.step.inputs),
            metrics=answer.metrics,
            attributes=answer.attributes | self.amounts(planned),
            history=answer.history,
            seconds=answer.seconds,
            peak_memory=answer.peak_memory,
            away=answer.away,
            files=[FileEntry(each["path"], each["size"], each["sha256"], 0) for each in answer.files],
        )
        self.put_shared(planned, artifact)
        return artifact

    def assemble(self, planned: PlannedStep, metrics: dict[str, Any], parts: list[PlannedStep]) -> None:
        """Put the result of an evaluation into the Store that was made in parts."""
        made = [self.artifacts[part.digest].manifest for part in parts]
        with self.store.lock(planned.digest), self.store.stage(planned.digest) as staging:
            text = json.dumps(metrics, indent=2, ensure_ascii=False)
            (staging.path / "metrics.json").write_text(text + "\n", encoding="utf-8")
            artifact = staging.commit(
                format=str(planned.produces),
                step=planned.step.model_dump(mode="json") | {"name": planned.name},
                inputs=dict(planned.step.inputs),
                metrics=metrics,
                attributes={},
                history=[],
                seconds=sum(each.seconds for each in made),
                peak_memory=max(each.peak_memory_bytes for each in made),
            )
        self.artifacts[planned.digest] = artifact

    # Several Steps at once ------------------------------------------------------------------------------------------

    def do_together(self, first: PlannedStep) -> None:
        """Hand ``first`` and those that follow it on the same system to their runner, and put the results away."""
        with ExitStack() as held:
            waiting = self.following(first)
            for digest in sorted(each.digest for each in waiting):
                name = next(each.name for each in waiting if each.digest == digest)
                held.enter_context(self.store.lock(digest, self.told_of_waiting(name)))
            # Meanwhile another process may have made some.
            waiting = [each for each in waiting if (self.store.find(each.digest) or self.fetch_shared(each)) is None]
            if not waiting:
                return
            stagings = {each.digest: held.enter_context(self.store.stage(each.digest)) for each in waiting}
            planned = {each.digest: each for each in waiting}
            begun: set[str] = set()

            def report(request: StepRequest) -> Report:
                def told(kind: str, data: dict[str, Any]) -> None:
                    if request.digest not in begun:
                        begun.add(request.digest)
                        self.begin(planned[request.digest])
                    self.current = request.name
                    self.emit(kind, request.name, **data)

                return told

            def deliver(request: StepRequest, answer: StepAnswer) -> None:
                step = planned[request.digest]
                if request.digest not in begun:
                    begun.add(request.digest)
                    self.begin(step)
                self.done(step, self.commit(step, stagings[request.digest], answer), cached=False)

            requests = [self.request(each, stagings[each.digest]) for each in waiting]
            stay = {each.digest for each in waiting if may_stay(self, each)}
            try:
                self.runner(first.system).run_together(requests, report, deliver, stay)
            except StepError as error:
                failed = next((each for each in waiting if each.name == self.current), first)
                error.placed(failed.where)
                self.emit("step-failed", failed.name, reason=str(error), log=str(self.log))
                raise

    def following(self, first: PlannedStep) -> list[PlannedStep]:
        """Return ``first`` and the Steps after it that the same system can do with it, without those that are done."""
        steps = [*self.plan.steps]
        if first not in steps or not self.together:
            return [first]
        found = []
        for each in steps[steps.index(first) :]:
            if each.system != first.system:
                break
            if each is first or self.store.find(each.digest) is None:
                found.append(each)
        return found

    def told_of_waiting(self, name: str) -> Callable[[int | None], None]:
        """Return what tells that another process makes a Step now."""
        return lambda pid: self.emit("step-waiting", name, pid=pid)

    @staticmethod
    def amounts(planned: PlannedStep) -> dict[str, Any]:
        """Return what tells later plans how long such a Step takes on this machine, if it ran here."""
        if planned.system or planned.estimate is None or not planned.estimate.effort:
            return {}
        return {EFFORT: planned.estimate.effort.as_json(), MACHINE: this_machine().fingerprint}

    def ask(
        self, planned: PlannedStep, request: StepRequest, *, fresh: bool, heard: Callable[[], None] = lambda: None
    ) -> StepAnswer:
        """Have a runner do it, passing on what it reports; ``heard`` is called before, and may raise to end it."""
        runner = self.runner(planned.system)

        def report(kind: str, data: dict[str, Any]) -> None:
            heard()
            self.emit(kind, planned.name, **data)

        try:
            return runner.run(request, report, fresh=fresh)
        except StepError as error:
            self.emit("step-failed", planned.name, reason=str(error), log=str(self.log))
            raise

    def runner(self, system: str) -> Runner:
        """Return what runs Steps on a system."""
        if system not in self.runners:
            site = site_of(system, self.plan.workflow, self.log, self.store.root)
            self.runners[system] = self.make_runner(site)
        return self.runners[system]

    def done(self, planned: PlannedStep, artifact: Artifact, *, cached: bool) -> None:
        """Record a Step's result."""
        manifest = artifact.manifest
        self.artifacts[planned.digest] = artifact
        result = StepResult(
            name=planned.name,
            type=planned.step.type,
            digest=planned.digest,
            cached=cached,
            seconds=manifest.seconds,
            peak_memory=manifest.peak_memory_bytes,
            metrics=dict(manifest.metrics),
        )
        self.results.append(result)
        self.emit(
            "step-cached" if cached else "step-done",
            planned.name,
            type=result.type,
            digest=result.digest,
            seconds=round(result.seconds, 3),
            peak_memory=result.peak_memory,
            metrics=result.metrics,
        )

    def folder(self, source: Source) -> Path:
        """Return the folder of an input, fetching a hub model once."""
        if source.path is not None:
            found = source.path
        elif source.step is not None:
            found = self.here(source.step).path
        elif source.address is not None:
            if source.address not in self.fetched:
                from olivine.storage.fetching import Fetcher
                from olivine.storage.selection import model_files

                fetcher = Fetcher(self.store, self.plan.workflow.azureml_client)
                fetcher.tell = lambda text: self.emit("note", text=text)
                self.fetched[source.address] = fetcher.fetch(source.address, model_files).path
            found = self.fetched[source.address]
        else:
            assert source.hub is not None
            if source.hub not in self.fetched:
                from olivine.models.hub import fetch

                self.emit("note", text=f"downloading {source.hub}")
                try:
                    self.fetched[source.hub] = fetch(source.hub, source.revision, code=self.plan.trust_remote_code)
                except OlivineError as error:
                    raise error.placed(source.where) from None
            found = self.fetched[source.hub]
        return found / source.subfolder if source.subfolder else found

    def here(self, digest: str) -> Artifact:
        """Return a result of this run with its files in the Store."""
        artifact = self.artifacts[digest]
        if artifact.away:
            artifact = self.artifacts[digest] = bring(self, artifact)
        return artifact

    def emit(self, event: str, step: str = "", **data: Any) -> None:
        """Tell the sink, and keep it in the run's folder once there is one."""
        happened = Event(event, step, redacted(data))
        if self.run_dir.is_dir() and event != "progress":
            with open(self.run_dir / "events.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(happened.as_json(), ensure_ascii=False, default=str) + "\n")
        self.sink(happened)
