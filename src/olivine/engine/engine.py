"""Run a Plan: each Step that the Store does not hold, in order; then put the final model into the output folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.engine.away import bring
from olivine.engine.output import publish_final
from olivine.engine.record import keep_record, make_record
from olivine.engine.result import Result
from olivine.engine.steps import Steps
from olivine.errors import ConfigError, Location, OlivineError
from olivine.evaluate.goals import INPUT, Verdict, goals_of, judge, sentence, to_measure_again
from olivine.events import Event, EventSink
from olivine.planning.parts import part_of
from olivine.planning.plan import EVALUATE_INPUT, Plan, PlannedStep
from olivine.systems.registry import RunnerFactory
from olivine.systems.registry import make_runner as runner_of

if TYPE_CHECKING:
    from olivine.engine.tracking import Tracker
    from olivine.store import Artifact, Store


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
    if plan.unread and plan.whole is None:
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


class Run(Steps):
    """One run of a plan from its beginning to its papers."""

    def __init__(self, plan: Plan, store: Store, sink: EventSink, run_dir: Path, make_runner: RunnerFactory) -> None:
        super().__init__(plan, store, sink, run_dir, make_runner)
        self.started = time.monotonic()
        self.search: dict[str, Any] | None = None
        self.tracker: Tracker | None = None
        self.others: Sequence[tuple[Mapping[str, Any], Artifact | None]] = ()
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
            if self.plan.unread:
                from olivine.engine.beside import do_first

                try:
                    do_first(self)
                except OlivineError as error:
                    raise error.placed(self.plan.steps[0].where) from None
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
