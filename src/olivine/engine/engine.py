"""Run a Plan: each Step that the Store does not hold, in order; then put the final model into the output folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.engine.away import bring, may_stay, settle
from olivine.engine.output import publish_final
from olivine.engine.record import keep_record, make_record
from olivine.engine.result import Result, StepResult
from olivine.errors import ConfigError, Location, OlivineError, StepError
from olivine.evaluate.goals import INPUT, Verdict, goals_of, judge, sentence, to_measure_again
from olivine.events import Event, EventSink
from olivine.hardware.machine import this_machine
from olivine.planning.durations import EFFORT, MACHINE
from olivine.planning.parts import part_of
from olivine.planning.plan import EVALUATE_INPUT, Plan, PlannedStep, Source
from olivine.redaction import redacted
from olivine.systems.base import Report, Runner, StepAnswer, StepRequest
from olivine.systems.registry import RunnerFactory, site_of
from olivine.systems.registry import make_runner as runner_of
from olivine.systems.requests import reference, step_request

if TYPE_CHECKING:
    from olivine.engine.tracking import Tracker
    from olivine.store import Artifact, Staging, Store
    from olivine.store.shared import SharedStore


def run_plan(
    plan: Plan,
    store: Store,
    sink: EventSink,
    *,
    make_runner: RunnerFactory | None = None,
    search: dict[str, Any] | None = None,
    started: float | None = None,
    run_dir: Path | None = None,
    tracker: Tracker | None = None,
    others: Sequence[tuple[Mapping[str, Any], Artifact | None]] = (),
) -> Result:
    """Run ``plan`` and return the result.

    Every Step appears in the Store whole or not at all; a run that is killed goes on where it was when it is started
    again, training from its last checkpoint.

    Args:
        plan: what to do.
        store: where results are looked up and kept.
        sink: receives every event, in this thread.
        make_runner: what runs Steps at a site; the default is what the site's system says.
        search: what the search found that chose this plan, for the papers.
        started: when it began, by the monotonic clock, if that was before now.
        run_dir: where its log and its events go; default: a new folder.
        tracker: the run on the tracking server, if it was begun already.
        others: candidates of the search that are put out beside the pick, best first: the trial and its model.

    Raises:
        OlivineError: a Step failed, or its result could not be written. Nothing that existed is lost.
        KeyboardInterrupt: the user stopped it; workers have been ended.
    """
    if plan.unread:
        raise ValueError("a plan without the digests of the model's files cannot be run; prepare it with read_weights")
    run = Run(plan, store, sink, run_dir or new_run_dir(plan), make_runner or runner_of)
    run.search = search
    run.tracker = tracker
    run.others = others
    run.started = run.started if started is None else started
    return run.run()


def new_run_dir(plan: Plan) -> Path:
    """Return the folder for the log and the events of a run that begins now."""
    return plan.cache_dir / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


class Run:
    """One run of a plan: its events, its log, and the artifacts made so far."""

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
        self.started = time.monotonic()
        self.current = ""
        self.search: dict[str, Any] | None = None
        self.together = True
        self.tracker: Tracker | None = None
        self.others: Sequence[tuple[Mapping[str, Any], Artifact | None]] = ()
        self.record: dict[str, Any] = {}
        self.settled = False
        self.shared: SharedStore | None = None
        if (shared := plan.workflow.engine.shared_cache) is not None:
            from olivine.store.shared import shared_store

            self.shared = shared_store(shared.url, shared.writable)

    def run(self) -> Result:
        self.emit(
            "run-started",
            dialect=self.plan.dialect,
            file=str(self.plan.file) if self.plan.file else None,
            steps=[
                {
                    "name": step.name,
                    "type": step.step.type,
                    "cached": step.cached,
                    "consumes": step.consumes,
                    "produces": step.produces,
                }
                for step in self.plan.steps
            ],
            notes=list(self.plan.notes),
            log=str(self.log),
        )
        try:
            self.track()
            for planned in self.plan.steps:
                self.current = planned.name
                try:
                    self.do(planned)
                except OlivineError as error:
                    raise error.placed(planned.where) from None
            self.current = ""
            result = self.publish()
        except KeyboardInterrupt:
            self.emit("run-failed", self.current, reason="interrupted", log=str(self.log))
            self.tell_tracker(self.keep("interrupted", "interrupted"))
            raise
        except OlivineError as error:
            self.emit("run-failed", self.current, reason=str(error), exit_code=error.exit_code, log=str(self.log))
            self.tell_tracker(self.keep("failed", str(error)))
            raise
        finally:
            for runner in self.runners.values():
                runner.close()
        self.store.record_use([step.digest for step in self.plan.steps])
        self.tell_tracker(self.record)
        self.emit("run-done", **result.as_json())
        return result

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

    def ask(self, planned: PlannedStep, request: StepRequest, *, fresh: bool) -> StepAnswer:
        """Have a runner do it, passing on what it reports."""
        runner = self.runner(planned.system)

        def report(kind: str, data: dict[str, Any]) -> None:
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

    # The end --------------------------------------------------------------------------------------------------------

    def publish(self) -> Result:
        """Put the final model and its papers into the output folder."""
        metrics: dict[str, dict[str, Any]] = {}
        for which in ("input", "final"):
            evaluation = self.plan.evaluation(which)
            if evaluation is not None:
                metrics[which] = self.measured(evaluation)
        goals = self.judge()
        final = self.here(self.plan.final.step) if self.plan.final.step is not None else None
        others = [(trial, bring(self, each) if each is not None and each.away else each) for trial, each in self.others]
        size = sum(entry.size for entry in final.manifest.files) if final is not None else 0
        result = Result(
            output_dir=self.plan.output_dir,
            format=str(self.plan.final_format),
            size=size,
            steps=tuple(self.results),
            metrics=metrics,
            seconds=time.monotonic() - self.started,
            run_dir=self.run_dir,
            model_dir=self.plan.model_dir,
            goals=goals,
            search=self.search,
            untried=self.untried(final, metrics),
        )
        record = self.keep(result.state, size=size, goals=goals)
        try:
            changed = publish_final(self.plan, result, final, self.artifacts, record, self.input_model(), others=others)
        except OlivineError as error:
            raise error.placed(self.plan.output_where) from None
        self.emit("published", output_dir=str(self.plan.output_dir), changed=changed)
        if final is not None and result.state == "succeeded":
            self.register(final)
        return result

    def untried(self, final: Artifact | None, metrics: Mapping[str, Any]) -> str:
        """Return the execution provider that the final model has not run on, though it was built for it."""
        if final is None or "final" in metrics or final.manifest.attributes.get("tried") is not False:
            return ""
        provider = next(step.target.execution_provider for step in reversed(self.plan.passes))
        return "" if provider == "CPUExecutionProvider" else provider

    def register(self, final: Artifact) -> None:
        """Make the final model an asset of a workspace, if that is asked for."""
        for packaging in self.plan.workflow.engine.packaging_config or []:
            from olivine.systems.azureml.registering import register

            client = self.plan.workflow.azureml_client
            if client is None:
                raise ConfigError(
                    f"nothing says in which workspace {packaging.name} is to be registered",
                    where=Location(path="azureml_client"),
                    remedy="add azureml_client: {subscription_id: ..., resource_group: ..., workspace_name: ...}",
                )
            facts = {"format": str(self.plan.final_format), "workflow": self.plan.workflow.workflow_id}
            name, made = register(packaging, client, self.store.root, final.digest, final.path, facts)
            self.emit("note", text=f"registered {name}" if made else f"{name} is this model already")

    def measured(self, evaluation: PlannedStep) -> dict[str, Any]:
        """Return what an evaluation that was done has measured."""
        return dict(self.artifacts[evaluation.digest].manifest.metrics)

    def baselines(self, final: PlannedStep) -> dict[str, dict[str, Any]]:
        """Return what was measured on the models that goals may compare with: by pass, and ``input``."""
        names = {EVALUATE_INPUT: INPUT}
        return {
            names.get(step.name, step.name.removeprefix("evaluate ")): self.measured(step)
            for step in self.plan.steps
            if step.step.type == "evaluate" and step is not final and step.digest in self.artifacts
        }

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

    def judge(self) -> tuple[Verdict, ...]:
        """Return the verdict on each goal; what hangs on chance is measured once more."""
        name = self.plan.workflow.engine.evaluator
        wanted = goals_of(self.plan.workflow.evaluators[name]) if name is not None else []
        final = self.plan.evaluation("final") or self.plan.evaluation("input")
        if not wanted or final is None:
            return ()
        baselines = self.baselines(final)
        measured = self.measured(final)
        verdicts = judge(wanted, measured, baselines)
        indexes = to_measure_again(wanted, verdicts)
        if indexes:
            again = part_of(final, indexes, name=f"{final.name} again", attempt=2)
            self.emit("note", final.name, text="a goal is met or missed by no more than chance: measuring once more")
            self.do(again)
            verdicts = judge(wanted, measured, baselines, self.measured(again))
        for verdict in verdicts:
            self.emit("verdict", text=sentence(verdict), **verdict.as_json())
        return verdicts

    def keep(self, state: str, reason: str = "", *, size: int = 0, goals: Sequence[Verdict] = ()) -> dict[str, Any]:
        """Make the record of this run, put it into the run's folder, and return it."""
        record = make_record(
            self.plan,
            self.results,
            self.artifacts,
            state=state,
            seconds=time.monotonic() - self.started,
            size=size,
            goals=goals,
            reason=reason,
            failed=self.current,
            search=self.search,
            run=self.run_dir.name,
        )
        try:
            keep_record(record, self.run_dir)
        except OSError as error:
            # The run's own outcome matters more than its record.
            self.sink(Event("note", data={"text": f"the run's record could not be written: {error}"}))
        self.record = record
        return record

    def track(self) -> None:
        """Begin a run on the tracking server, if there is one."""
        tracking = self.plan.workflow.tracking
        if tracking is not None and self.tracker is None:
            from olivine.engine.tracking import Tracker

            self.tracker = Tracker(tracking, self.run_dir.name, Location(path="tracking.mlflow"))

    def tell_tracker(self, record: Mapping[str, Any]) -> None:
        """Send the record of this run, which has ended, to the tracking server."""
        if self.tracker is None:
            return
        from olivine.engine.tracking import papers_of

        output = self.plan.output_dir if record["state"] in ("succeeded", "goals missed") else None
        problem = self.tracker.end(record, papers_of(record, output))
        self.tracker = None
        if problem is not None:
            self.emit("note", text=problem)

    def input_model(self) -> Path | None:
        """Return the folder of the checkpoint that went in, if the run has needed it."""
        if not self.plan.steps:
            return None
        sources = self.plan.steps[0].sources
        source = sources.get("base", sources["model"])
        elsewhere = source.hub or source.address
        return None if elsewhere is not None and elsewhere not in self.fetched else self.folder(source)

    def emit(self, event: str, step: str = "", **data: Any) -> None:
        """Tell the sink, and keep it in the run's folder once there is one."""
        happened = Event(event, step, redacted(data))
        if self.run_dir.is_dir() and event != "progress":
            with open(self.run_dir / "events.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(happened.as_json(), ensure_ascii=False, default=str) + "\n")
        self.sink(happened)
