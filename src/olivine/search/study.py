"""A study: candidates are asked for, made and measured, the cheapest test first, until the budget is spent.

Everything that a candidate shares with another is in the Store: a fine-tune is done once, whatever is quantised of it.
The journal has what failed or was stopped, so that a study that was killed goes on to the same answer: the sampler is
asked again with the same seed, and gets the same answers, now from the journal and the Store.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from olivine.config.schema import SearchStrategy, Workflow
from olivine.config.sizes import memory_limit
from olivine.engine.engine import Run, new_run_dir, run_plan
from olivine.engine.result import Result
from olivine.errors import EXIT_INTERRUPTED, OlivineError, Problem, StepError
from olivine.evaluate import registry
from olivine.evaluate.goals import Wanted, goals_of, number_in
from olivine.events import Event, EventSink
from olivine.planning.away import only_system
from olivine.planning.making import make_plan
from olivine.planning.plan import Plan
from olivine.search.asking import Asker, asker
from olivine.search.candidate import carry_out
from olivine.search.outcome import best_of, outcome, put_out
from olivine.search.pareto import Objective, objectives_of
from olivine.search.prefix import chosen, cut, following, owner_of
from olivine.search.room import Room
from olivine.search.space import FLOWS, Point, Space
from olivine.search.trial import Journal, Trial
from olivine.store import Store, digest_json
from olivine.systems.registry import RunnerFactory
from olivine.systems.registry import make_runner as runner_of

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.planning.known import Known
    from olivine.systems.base import Runner

LEAST_TIMEOUT_S = 600.0
"""A candidate may always take so long, unless the configuration says otherwise."""
PATIENCE = 10.0
"""A candidate may take so many times longer than the longest so far."""

FORESEEN = 20
"""So many candidates for each in the budget may be ruled out before anything is made: then a search that finds no
others ends."""


def run_study(plan: Plan, store: Store, sink: EventSink, *, make_runner: RunnerFactory | None = None) -> Result:
    """Search, and put the model that was chosen into the output folder.

    Args:
        plan: of the first candidate, with the search in it.
        store: where results are looked up and kept, and the study's journal.
        sink: receives every event.
        make_runner: what runs Steps at a site; the default is what the site's system says.

    Raises:
        OlivineError: every candidate failed, or the result could not be written.
        KeyboardInterrupt: the user stopped it; the same command goes on where it was.
    """
    return _Study(plan, store, sink, make_runner or runner_of).run()


def search_only(plan: Plan, store: Store, sink: EventSink, *, make_runner: RunnerFactory, facts: Known) -> list[Trial]:
    """Search for somebody else: make and measure candidates, the pick in full, and put nothing out.

    Args:
        facts: what is known of the model and the data; see :func:`olivine.planning.making.make_plan`. The other
            arguments are those of :func:`run_study`.
    """
    study = _Study(plan, store, sink, make_runner, facts)
    study.begin()
    study.try_candidates()
    best = best_of([each for each in study.trials if not each.until], study.objectives)
    if best is not None:
        # One that was stopped, because it misses a goal, is measured in full only if it is the best all the same.
        study.complete(best)
    return study.trials


class _Study:
    """One search: its space, its trials so far, and the workers that it uses."""

    def __init__(
        self, plan: Plan, store: Store, sink: EventSink, make_runner: RunnerFactory, facts: Known | None = None
    ) -> None:
        assert plan.search is not None
        self.plan = plan
        self.facts = facts
        self.loaded: Loaded = plan.search.loaded
        self.space: Space = plan.search.space
        strategy = self.loaded.workflow.engine.search_strategy
        assert isinstance(strategy, SearchStrategy)
        self.strategy = strategy
        self.store = store
        self.sink = sink
        self.make_runner = make_runner
        self.run_dir = new_run_dir(plan)
        evaluator = self.loaded.workflow.evaluators[str(self.loaded.workflow.engine.evaluator)]
        self.goals = goals_of(evaluator)
        self.objectives: list[Objective] = objectives_of(evaluator)
        self.trials: list[Trial] = []
        self.plans: dict[str, Plan] = {}
        self.started = time.monotonic()
        self.longest = 0.0
        self.room = Room(memory_limit(self.loaded.workflow.engine.max_memory))
        self.emitting = threading.Lock()
        self.id = study_id(self.loaded)
        self.journal = Journal(store.root / "studies" / self.id)
        self.known: dict[str, Trial] = {}
        self.idle: list[dict[str, Runner]] = []
        # For the run's record, its events, and the tracking server; publishing has a run of its own.
        self.run_of_study = Run(plan, store, sink, self.run_dir, make_runner)
        self.run_of_study.started = self.started

    def run(self) -> Result:
        """Search and publish."""
        self.begin()
        try:
            self.run_of_study.track()
            runner = self.elsewhere()
            if runner is None:
                self.try_candidates()
            else:
                self.have_searched(runner)
            return self.finish()
        except KeyboardInterrupt:
            self.failed("interrupted", "interrupted", EXIT_INTERRUPTED)
            raise

    def begin(self) -> None:
        """Write down what is searched, and tell of it."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.known = {each.key: each for each in self.journal.begin(self.description())}
        self.emit("study-started", **self.description(), dialect=self.plan.dialect, file=_text(self.plan.file),
                  resumed=len(self.known), log=str(self.run_dir / "log.txt"))  # fmt: skip

    def try_candidates(self) -> None:
        """Search on this machine."""
        try:
            if self.strategy.execution_order == "joint":
                self.search(self.space)
            else:
                self.pass_by_pass()
        finally:
            for runners in self.idle:
                for each in runners.values():
                    each.close()

    # On another machine ---------------------------------------------------------------------------------------------

    def elsewhere(self) -> Runner | None:
        """Return the runner that takes the whole search, if one system runs everything and its runner does that."""
        name = only_system(self.loaded.workflow)
        runner = self.run_of_study.runner(name) if name is not None else None
        return runner if runner is not None and runner.searches else None

    def have_searched(self, runner: Runner) -> None:
        """Have the whole search done on another machine, and put its trials into the journal.

        Raises:
            OlivineError: it did not come to its end.
        """
        from olivine.search.elsewhere import search_request

        told: set[int] = set()

        def hear(kind: str, data: dict[str, Any]) -> None:
            if kind == "trial-done":
                told.add(data["number"])
            with self.emitting:
                self.sink(Event(kind, data.pop("step", ""), data))

        try:
            request = search_request(self.plan, self.store)
            found = [Trial.from_json(each) for each in runner.search(request, hear)]
        except OlivineError as error:
            self.failed("failed", str(error), error.exit_code)
            raise
        for trial in found:
            with self.emitting:
                self.journal.add(trial)
            self.trials.append(trial)
            if trial.number not in told:
                self.emit("trial-done", number=trial.number, known=True, trial=trial.as_json())
        # Where it was searched is where the candidates that are put out are fetched from.
        self.make_runner = lambda site: self.run_of_study.runner(site.name)

    def plan_of(self, trial: Trial) -> Plan:
        """Return the plan of a candidate that ran through all passes.

        Raises:
            StepError: it is another one than was searched.
        """
        if trial.key not in self.plans:
            plan = self.planned(self.space.at(trial.point))
            if self.key(plan, self.goals, "") != trial.key:
                raise StepError(
                    f"candidate {trial.number} is not what was searched",
                    why="its Steps have other digests here: the model, the data or Olivine has changed meanwhile",
                    remedy="run the same command again: then it is searched anew",
                )
            self.plans[trial.key] = plan
        return self.plans[trial.key]

    def complete(self, trial: Trial) -> None:
        """Make and measure of a candidate what is not done yet."""
        plan = self.plan_of(trial)
        run = Run(plan, Store(self.store.root), self.sink, self.run_dir, self.make_runner)
        try:
            for step in plan.steps:
                run.do(step)
            run.judge()
        finally:
            for each in run.runners.values():
                each.close()

    @staticmethod
    def key(plan: Plan, goals: Sequence[Wanted], until: str) -> str:
        """Return what a candidate is known by."""
        return digest_json([[step.digest for step in plan.steps], [each.goal.model_dump() for each in goals], until])

    def description(self) -> dict[str, Any]:
        """Return what is searched."""
        return {
            "study": self.id,
            "workflow_id": self.loaded.workflow.workflow_id,
            "input_model": self.loaded.workflow.input_model.model_path,
            "output_dir": str(self.plan.output_dir),
            "objectives": [each.as_json() for each in self.objectives],
            "goals": [{"name": each.name, **each.goal.model_dump(mode="json")} for each in self.goals],
            "dimensions": [each.as_json() for each in self.space.dimensions],
            "points": self.space.size,
            "strategy": self.strategy.model_dump(mode="json"),
        }

    # Which candidates -----------------------------------------------------------------------------------------------

    def budget(self) -> int | None:
        """Return how many candidates may be tried."""
        return min((each for each in (self.strategy.max_samples, self.strategy.max_iter) if each), default=None)

    def search(self, space: Space, until: str = "") -> list[Trial]:
        """Try points of ``space`` until the budget, the time or the points are spent; return the trials.

        Args:
            until: the last pass that runs; all of them if it is empty.
        """
        asking = asker(space, self.strategy, self.objectives)
        budget = self.budget()
        found: list[Trial] = []
        workers = self.strategy.workers
        with ThreadPoolExecutor(workers) as pool:
            while (left := left_of(budget, found)) and not self.is_over(found):
                wanted = min(workers, left)
                points = [point for point in (asking.ask() for _ in range(wanted)) if point is not None]
                if not points:
                    break
                first = len(self.trials)
                if len(points) == 1:
                    batch = [self.trial(first, points[0], until)]
                else:
                    numbers = range(first, first + len(points))
                    batch = list(pool.map(lambda number, point: self.trial(number, point, until), numbers, points))
                for point, trial in zip(points, batch, strict=True):
                    self.trials.append(trial)
                    found.append(trial)
                    self.tell(asking, point, trial)
        return found

    def is_over(self, found: list[Trial]) -> bool:
        """Return whether the search may end before its budget."""
        if self.strategy.max_time is not None and time.monotonic() - self.started > self.strategy.max_time:
            return True
        joint = self.strategy.execution_order == "joint"
        return (
            joint and self.strategy.stop_when_goals_met and bool(self.goals) and any(each.qualifies for each in found)
        )

    def tell(self, asking: Asker, point: Point, trial: Trial) -> None:
        """Tell the sampler what became of a point; what failed is as far from the goals as can be."""
        violations = {"failed": 1e6 if trial.state == "failed" else 0.0}
        for goal, verdict in zip(self.goals, trial.verdicts, strict=False):
            violations[goal.path] = verdict.violation if verdict.measured is not None else 0.0
        values = trial.values or [None] * len(self.objectives)
        if trial.state == "stopped" and max(violations.values()) <= 0:
            violations["stopped"] = 1.0
        asking.tell(point, values, violations)

    def pass_by_pass(self) -> None:
        """Settle the choices of one pass after the other, by the model that the passes up to it make.

        If that model cannot be measured (an adapter), the passes behind it run too, at their first choices. Goals are
        for the model that all passes make, so only those candidates are judged by them, and one of them is the pick.
        """
        fixed: dict[str, Any] = {}
        until = ""
        for name in [FLOWS, *self.loaded.workflow.passes]:
            if not any(owner_of(each) == name and each.counts(fixed) for each in self.space.dimensions):
                continue
            first = replace(self.space, fixed=fixed).first()
            others = [each for each in self.space.dimensions if owner_of(each) != name and each.name not in fixed]
            later = {each.name: each.lowest for each in reversed(others)} | {
                key: value for key, value in first.items() if key not in fixed and owner_of(key) != name
            }
            space = replace(self.space, fixed={**fixed, **later})
            until = self.measurable(first, name)
            best = best_of(self.search(space, until), self.objectives)
            if best is None:
                return
            fixed |= {key: value for key, value in best.point.items() if owner_of(key) == name}
        if until or not self.trials:
            self.trials.append(self.trial(len(self.trials), replace(self.space, fixed=fixed).first()))

    def measurable(self, point: Point, name: str) -> str:
        """Return the first pass from ``name`` on whose model every objective can be measured on; empty if it is the
        last, or if none is."""
        workflow = self.space.at(point)
        names = list(workflow.passes)
        for last in names[names.index(name) if name in names else len(names) : -1]:
            try:
                plan = self.planned(cut(workflow, self.space, last))
            except OlivineError:
                continue
            final = plan.evaluation("final")
            measured = {each["name"] for each in final.step.params["metrics"]} if final is not None else set()
            if {each.metric for each in self.objectives} <= measured:
                return last
        return ""

    def planned(self, workflow: Workflow) -> Plan:
        """Return the plan of a candidate."""
        return make_plan(
            replace(self.loaded, workflow=workflow), Store(self.store.root),
            trust_remote_code=self.plan.trust_remote_code, scripts=self.plan.scripts, known=self.facts,
        )  # fmt: skip

    # One candidate --------------------------------------------------------------------------------------------------

    def trial(self, number: int, point: Point, until: str = "") -> Trial:
        """Make and measure a candidate, or take it from the journal.

        Args:
            until: the last pass that runs, in a search pass by pass.
        """
        started = time.monotonic()
        goals: list[Wanted] = [] if until else self.goals
        try:
            plan, point, until = self.candidate_plan(point, until)
        except OlivineError as error:
            failed = Trial(number, digest_json([point, until]), point, "failed", str(error), until=until)
            return self.repeated(failed) if failed.key in self.known else self.ended(failed)
        key = self.key(plan, goals, until)
        self.plans[key] = plan
        if key in self.known:
            return self.repeated(replace(self.known[key], number=number, point=point))
        with self.candidate(number, plan) as (run, expired):
            self.emit("trial-started", number=number, point=dict(point))
            end = carry_out(plan, run, goals, expired)
        model = run.artifacts.get(plan.final.step or "")
        self.longest = max(self.longest, time.monotonic() - started)
        self.room.learn(max((step.peak_memory for step in run.results), default=0))
        values = [number_in(end.metrics, each.metric, each.value) for each in self.objectives]
        trial = Trial(
            number=number,
            key=key,
            point=dict(point),
            state=end.state,
            reason=end.reason,
            values=values,
            verdicts=end.verdicts,
            metrics=end.metrics,
            until=until,
            model=model.digest if model is not None else None,
            size_bytes=model.size if model is not None else 0,
            seconds=round(time.monotonic() - started, 3),
            steps=[
                {"name": each.name, "type": each.type, "digest": each.digest, "cached": each.cached,
                 "seconds": round(each.seconds, 3), "peak_memory_bytes": each.peak_memory, "metrics": each.metrics}
                for each in run.results
            ],
        )  # fmt: skip
        return self.ended(trial)

    def candidate_plan(self, point: Point, until: str) -> tuple[Plan, Point, str]:
        """Return a candidate's plan, what was chosen in it, and the last pass that runs (empty: all).

        A candidate whose model cannot be measured so early goes on to the next pass.

        Raises:
            OlivineError: it cannot be planned, however far it goes.
        """
        workflow = self.space.at(point)
        while until and following(workflow, self.space, until):
            try:
                return self.planned(cut(workflow, self.space, until)), chosen(point, self.space, until), until
            except OlivineError:
                until = following(workflow, self.space, until)
        return self.planned(workflow), point, ""

    def repeated(self, trial: Trial) -> Trial:
        """Tell of a trial that the journal has."""
        self.emit("trial-done", number=trial.number, known=True, trial=trial.as_json())
        return trial

    def ended(self, trial: Trial) -> Trial:
        """Write a trial into the journal and tell of it."""
        with self.emitting:
            self.journal.add(trial)
        self.emit("trial-done", number=trial.number, known=False, trial=trial.as_json())
        return trial

    @contextmanager
    def candidate(self, number: int, plan: Plan) -> Iterator[tuple[Run, threading.Event]]:
        """Give a run of a candidate, whose worker is killed when its time is up."""

        def told(event: Event) -> None:
            with self.emitting:
                self.sink(replace(event, data={**event.data, "candidate": number}))

        run = Run(plan, Store(self.store.root), told, self.run_dir, self.make_runner)
        run.together = False  # a candidate may be stopped after each Step
        expired = threading.Event()
        limit = self.strategy.candidate_timeout or max(LEAST_TIMEOUT_S, PATIENCE * self.longest)

        def give_up() -> None:
            expired.set()
            for each in list(run.runners.values()):
                each.abort()

        estimates = [step.estimate.needed for step in plan.steps if step.estimate is not None and not step.cached]
        promised = self.room.enter(
            max(estimates, default=0), lambda needed: self.emit("trial-waiting", number=number, memory_bytes=needed)
        )
        run.runners = self.idle.pop() if self.idle else {}
        timer = threading.Timer(limit, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield run, expired
        finally:
            timer.cancel()
            self.room.leave(promised)
            if expired.is_set():
                for each in run.runners.values():
                    each.close()
            else:
                self.idle.append(run.runners)

    # The end --------------------------------------------------------------------------------------------------------

    def finish(self) -> Result:
        """Choose, write the outcome, and publish the model that was chosen."""
        best = best_of([each for each in self.trials if not each.until], self.objectives)
        result = self.result(best)
        self.journal.finish(result)
        if best is None:
            reasons = list(dict.fromkeys(each.reason for each in self.trials if each.state == "failed"))
            failed = sum(each.state == "failed" for each in self.trials)
            error = StepError(
                [
                    Problem(
                        f"every candidate failed, {failed} of {len(self.trials)}"
                        if failed == len(self.trials)
                        else f"no candidate went through all passes, {failed} of {len(self.trials)} failed",
                        self.loaded.locate("engine.search_strategy"),
                        remedy=f"`olivine study trials {self.id[:8]} --cache-dir {self.store.root}` has all of them",
                    ),
                    *(Problem(each) for each in reasons[:5]),
                ]
            )
            self.failed("failed", str(error), error.exit_code)
            raise error
        self.emit("study-done", **{key: value for key, value in result.items() if key != "trials"})
        published = replace(self.plan_of(best), notes=(), layout=self.plan.layout)
        tracker, self.run_of_study.tracker = self.run_of_study.tracker, None
        others = put_out(self.trials, best, self.objectives, self.strategy.output_model_num)[1:]
        for each in others:
            if self.store.find(str(each.model)) is None:
                self.complete(each)
        return run_plan(
            published,
            self.store,
            self.last_sink,
            make_runner=self.make_runner,
            search=result,
            started=self.started,
            run_dir=self.run_dir,
            tracker=tracker,
            others=[(each.as_json(), self.store.find(str(each.model))) for each in others],
        )

    def result(self, best: Trial | None) -> dict[str, Any]:
        """Return what `status.json` and the journal keep of the study."""
        return self.description() | outcome(
            self.trials, best, self.objectives, self.strategy.output_model_num, has_goals=bool(self.goals)
        )

    def failed(self, state: str, reason: str, exit_code: int) -> None:
        """Tell of a study that gives no model, and leave its record."""
        run = self.run_of_study
        run.search = self.result(None)
        run.emit("run-failed", reason=reason, exit_code=exit_code, log=str(run.log))
        run.tell_tracker(run.keep(state, reason))

    def last_sink(self, event: Event) -> None:
        """Pass on what publishing says; its Steps were told of before."""
        if event.event in ("published", "run-done", "run-failed", "verdict"):
            self.sink(event)

    def emit(self, event: str, **data: Any) -> None:
        """Tell the sink."""
        with self.emitting:
            self.sink(Event(event, "", data))


def left_of(budget: int | None, found: Sequence[Trial]) -> int:
    """Return how many candidates may still be tried. Those of which nothing was made take nothing of the budget."""
    if budget is None:
        return sys.maxsize
    foreseen = sum(each.is_foreseen for each in found)
    return max(0, budget - (len(found) - foreseen)) if foreseen < FORESEEN * budget else 0


def study_id(loaded: Loaded) -> str:
    """Return the key of a study: a digest of the configuration, but for where things are put."""
    content = loaded.workflow.model_dump(mode="json")
    content.pop("tracking", None)
    for key in ("output_dir", "cache_dir", "packaging_config", "log_severity_level"):
        content["engine"].pop(key, None)
    return digest_json(content)[:16]


def _text(value: Any) -> str | None:
    return str(value) if value is not None else None


def timed_metrics(loaded: Loaded) -> list[str]:
    """Return the metrics of the evaluator that measure time, which nothing else may disturb."""
    evaluator = loaded.workflow.evaluators.get(str(loaded.workflow.engine.evaluator))
    types = [registry.find(each.type) for each in evaluator.metrics] if evaluator is not None else []
    return [each.type for each in types if each is not None and each.hardware_dependent]
