"""Run a Plan: each Step that the Store does not hold, in order; then put the final model into the output folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.engine.output import publish_final
from olivine.engine.record import keep_record, make_record
from olivine.engine.result import Result, StepResult
from olivine.errors import Location, OlivineError, StepError
from olivine.evaluate.goals import INPUT, Verdict, goals_of, judge, sentence, to_measure_again
from olivine.events import Event, EventSink
from olivine.planning.parts import part_of
from olivine.planning.plan import EVALUATE_INPUT, Plan, PlannedStep, Source
from olivine.planning.resources import memory_limit
from olivine.redaction import redacted
from olivine.store.digests import digest_json
from olivine.systems.base import Runner, StepAnswer, StepRequest

if TYPE_CHECKING:
    from olivine.engine.tracking import Tracker
    from olivine.store import Artifact, Store

RunnerFactory = Callable[[Path, bool], Runner]
"""Makes a runner, given the file for its log and whether workers may see the hub token."""


def run_plan(
    plan: Plan,
    store: Store,
    sink: EventSink,
    *,
    make_runner: RunnerFactory | None = None,
    search: dict[str, Any] | None = None,
    started: float | None = None,
) -> Result:
    """Run ``plan`` and return the result.

    Every Step appears in the Store whole or not at all; a run that is killed goes on where it was when it is started
    again, training from its last checkpoint.

    Args:
        plan: what to do.
        store: where results are looked up and kept.
        sink: receives every event, in this thread.
        make_runner: how workers are started; the default runs them on this machine.
        search: what the search found that chose this plan, for the papers.
        started: when it began, by the monotonic clock, if that was before now.

    Raises:
        OlivineError: a Step failed, or its result could not be written. Nothing that existed is lost.
        KeyboardInterrupt: the user stopped it; workers have been ended.
    """
    run = Run(plan, store, sink, new_run_dir(plan), make_runner or local_runner)
    run.search = search
    run.started = run.started if started is None else started
    return run.run()


def new_run_dir(plan: Plan) -> Path:
    """Return the folder for the log and the events of a run that begins now."""
    return plan.cache_dir / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


def local_runner(log: Path, give_token: bool) -> Runner:
    """Return a runner whose workers run on this machine."""
    from olivine.systems.local import LocalRunner

    return LocalRunner(log, give_token=give_token)


class Run:
    """One run of a plan: its events, its log, and the artifacts made so far."""

    def __init__(self, plan: Plan, store: Store, sink: EventSink, run_dir: Path, make_runner: RunnerFactory) -> None:
        self.plan = plan
        self.store = store
        self.sink = sink
        self.run_dir = run_dir
        self.log = run_dir / "log.txt"
        self.make_runner = make_runner
        self.runner: Runner | None = None
        self.results: list[StepResult] = []
        self.artifacts: dict[str, Artifact] = {}
        self.fetched: dict[str, Path] = {}
        self.started = time.monotonic()
        self.current = ""
        self.search: dict[str, Any] | None = None
        self.tracker: Tracker | None = None
        self.record: dict[str, Any] = {}

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
            if self.runner is not None:
                self.runner.close()
        self.store.record_use([step.digest for step in self.plan.steps])
        self.tell_tracker(self.record)
        self.emit("run-done", **result.as_json())
        return result

    # One Step -------------------------------------------------------------------------------------------------------

    def do(self, planned: PlannedStep) -> None:
        """Take a Step's result from the Store, or make it."""
        artifact = self.store.find(planned.digest)
        for warning in self.store.warnings:
            self.emit("note", planned.name, text=warning)
        self.store.warnings.clear()
        if artifact is None:
            with self.store.lock(planned.digest, lambda pid: self.emit("step-waiting", planned.name, pid=pid)):
                artifact = self.store.find(planned.digest)
                if artifact is None:
                    artifact = self.make(planned)
                    self.done(planned, artifact, cached=False)
                    return
        self.done(planned, artifact, cached=True)

    def make(self, planned: PlannedStep) -> Artifact:
        """Run a Step and put its result into the Store."""
        self.emit("step-started", planned.name, type=planned.step.type, device=planned.host.device)
        for note in planned.notes:
            self.emit("note", planned.name, text=note)
        is_pass = planned.step.kind == "pass"
        checkpoint = self.store.checkpoint_dir(planned.digest)
        with self.store.stage(planned.digest) as staging:
            request = StepRequest(
                name=planned.name,
                kind=planned.step.kind,
                type=planned.step.type,
                params=dict(planned.step.params),
                inputs={name: str(self.folder(source)) for name, source in planned.sources.items()},
                input_format=planned.consumes,
                data={key: config.model_dump(mode="json") for key, config in planned.data.items()},
                output=str(staging.path),
                checkpoint=str(checkpoint),
                log=str(self.log),
                host={"device": planned.host.device, "execution_provider": planned.host.execution_provider},
                target={"device": planned.target.device, "execution_provider": planned.target.execution_provider},
                trust_remote_code=self.plan.trust_remote_code,
                log_level=10 * (self.plan.workflow.engine.log_severity_level + 1),
                shared=str(self.store.shared_dir),
                identities=dict(planned.step.inputs)
                | {key: digest_json(value) for key, value in planned.step.data.items()},
                max_memory=memory_limit(self.plan.workflow.engine.max_memory),
            )
            answer = self.ask(planned, request, fresh=not is_pass)
            if is_pass and not any(staging.path.iterdir()):
                raise StepError(
                    f"{planned.name} ended well but made no files", where=planned.where, why="the pass is at fault"
                )
            if not is_pass:
                text = json.dumps(answer.metrics, indent=2, ensure_ascii=False)
                (staging.path / "metrics.json").write_text(text + "\n", encoding="utf-8")
            return staging.commit(
                format=str(planned.produces),
                step=planned.step.model_dump(mode="json") | {"name": planned.name},
                inputs=dict(planned.step.inputs),
                metrics=answer.metrics,
                attributes=answer.attributes | ({"work": planned.estimate.work} if planned.estimate else {}),
                history=answer.history,
                seconds=answer.seconds,
                peak_memory=answer.peak_memory,
            )

    def ask(self, planned: PlannedStep, request: StepRequest, *, fresh: bool) -> StepAnswer:
        """Have a runner do it, passing on what it reports."""
        if self.runner is None:
            token = any(system.hf_token for system in self.plan.workflow.systems.values())
            self.runner = self.make_runner(self.log, token)

        def report(kind: str, data: dict[str, Any]) -> None:
            self.emit(kind, planned.name, **data)

        try:
            return self.runner.run(request, report, fresh=fresh)
        except StepError as error:
            self.emit("step-failed", planned.name, reason=str(error), log=str(self.log))
            raise

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
            found = self.artifacts[source.step].path
        else:
            assert source.hub is not None
            if source.hub not in self.fetched:
                from olivine.models.hub import fetch

                self.emit("note", text=f"downloading {source.hub}")
                try:
                    self.fetched[source.hub] = fetch(source.hub, source.revision)
                except OlivineError as error:
                    raise error.placed(source.where) from None
            found = self.fetched[source.hub]
        return found / source.subfolder if source.subfolder else found

    # The end --------------------------------------------------------------------------------------------------------

    def publish(self) -> Result:
        """Put the final model and its papers into the output folder."""
        metrics: dict[str, dict[str, Any]] = {}
        for which in ("input", "final"):
            evaluation = self.plan.evaluation(which)
            if evaluation is not None:
                metrics[which] = self.measured(evaluation)
        goals = self.judge()
        final = self.artifacts[self.plan.final.step] if self.plan.final.step is not None else None
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
        )
        record = self.keep(result.state, size=size, goals=goals)
        try:
            changed = publish_final(self.plan, result, final, self.artifacts, record, self.input_model())
        except OlivineError as error:
            raise error.placed(self.plan.output_where) from None
        self.emit("published", output_dir=str(self.plan.output_dir), changed=changed)
        return result

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
        if tracking is not None:
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
        return None if source.hub is not None and source.hub not in self.fetched else self.folder(source)

    def emit(self, event: str, step: str = "", **data: Any) -> None:
        """Tell the sink, and keep it in the run's folder once there is one."""
        happened = Event(event, step, redacted(data))
        if self.run_dir.is_dir() and event != "progress":
            with open(self.run_dir / "events.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(happened.as_json(), ensure_ascii=False, default=str) + "\n")
        self.sink(happened)
