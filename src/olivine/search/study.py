"""A study: candidates are asked for, made and measured, the cheapest test first, until the budget is spent.

Everything that a candidate shares with another is in the Store: a fine-tune is done once, whatever is quantised of it.
The journal has what failed or was stopped, so that a study that was killed goes on to the same answer: the sampler is
asked again with the same seed, and gets the same answers, now from the journal and the Store.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from olivine.config.schema import SearchStrategy
from olivine.engine.engine import Run, new_run_dir, run_plan
from olivine.engine.result import Result
from olivine.errors import OlivineError, Problem, StepError
from olivine.evaluate import registry
from olivine.evaluate.goals import Verdict, goals_of, judge, number_in, sentence
from olivine.events import Event, EventSink
from olivine.planning.parts import by_cost, part_of
from olivine.planning.plan import Plan, PlannedStep, make_plan
from olivine.search.asking import Asker, asker
from olivine.search.pareto import Objective, front, objectives_of, rank
from olivine.search.space import FLOWS, Point, Space
from olivine.search.trial import Journal, Trial
from olivine.store import Store, digest_json
from olivine.systems.registry import RunnerFactory
from olivine.systems.registry import make_runner as runner_of

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.systems.base import Runner

LEAST_TIMEOUT_S = 600.0
"""A candidate may always take so long, unless the configuration says otherwise."""
PATIENCE = 10.0
"""A candidate may take so many times longer than the longest so far."""


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


class _Study:
    """One search: its space, its trials so far, and the workers that it uses."""

    def __init__(self, plan: Plan, store: Store, sink: EventSink, make_runner: RunnerFactory) -> None:
        assert plan.search is not None
        self.plan = plan
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
        self.largest = 0
        self.emitting = threading.Lock()
        self.id = study_id(self.loaded)
        self.journal = Journal(store.root / "studies" / self.id)
        self.known: dict[str, Trial] = {}
        self.idle: list[dict[str, Runner]] = []
        self.running = 0

    def run(self) -> Result:
        """Search and publish."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.known = {each.key: each for each in self.journal.begin(self.description())}
        self.emit("study-started", **self.description(), dialect=self.plan.dialect, file=_text(self.plan.file),
                  resumed=len(self.known), log=str(self.run_dir / "log.txt"))  # fmt: skip
        try:
            if self.strategy.execution_order == "joint":
                self.search(self.space)
            else:
                self.pass_by_pass()
        finally:
            for runners in self.idle:
                for each in runners.values():
                    each.close()
        return self.finish()

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

    def search(self, space: Space) -> list[Trial]:
        """Try points of ``space`` until the budget, the time or the points are spent; return the trials."""
        asking = asker(space, self.strategy, self.objectives)
        budget = self.budget()
        found: list[Trial] = []
        workers = self.strategy.workers
        with ThreadPoolExecutor(workers) as pool:
            while (budget is None or len(found) < budget) and not self.is_over(found):
                wanted = workers if budget is None else min(workers, budget - len(found))
                points = [point for point in (asking.ask() for _ in range(wanted)) if point is not None]
                if not points:
                    break
                first = len(self.trials)
                if len(points) == 1:
                    batch = [self.trial(first, points[0])]
                else:
                    batch = list(pool.map(self.trial, range(first, first + len(points)), points))
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
        """Settle the choices of one pass after the other, those behind it being at their first."""
        fixed: dict[str, Any] = {}
        names = [FLOWS, *self.loaded.workflow.passes]
        owner = {each.name: each.name.split(".")[0] for each in self.space.dimensions}
        for name in names:
            own = [each.name for each in self.space.dimensions if owner[each.name] == name]
            if not own:
                continue
            first = replace(self.space, fixed=fixed).first()
            later = {key: value for key, value in first.items() if key not in fixed and owner[key] != name}
            found = self.search(replace(self.space, fixed={**fixed, **later}))
            best = self.best(found)
            if best is None:
                return
            fixed |= {key: value for key, value in best.point.items() if owner[key] == name}

    # One candidate --------------------------------------------------------------------------------------------------

    def trial(self, number: int, point: Point) -> Trial:
        """Make and measure a candidate, or take it from the journal."""
        started = time.monotonic()
        workflow = self.space.at(point)
        try:
            plan = make_plan(
                replace(self.loaded, workflow=workflow), Store(self.store.root),
                trust_remote_code=self.plan.trust_remote_code, scripts=self.plan.scripts,
            )  # fmt: skip
        except OlivineError as error:
            failed = Trial(number, digest_json(point), point, "failed", str(error))
            return self.repeated(failed) if failed.key in self.known else self.ended(failed)
        key = digest_json([[step.digest for step in plan.steps], [each.goal.model_dump() for each in self.goals]])
        self.plans[key] = plan
        if key in self.known:
            return self.repeated(replace(self.known[key], number=number, point=point))
        self.emit("trial-started", number=number, point=dict(point))
        with self.candidate(number, plan) as (run, expired):
            state, reason, verdicts, metrics = self.carry_out(plan, run, expired)
        model = run.artifacts.get(plan.final.step or "")
        self.longest = max(self.longest, time.monotonic() - started)
        self.largest = max([self.largest, *(step.peak_memory for step in run.results)])
        values = [number_in(metrics, each.metric, each.value) for each in self.objectives]
        trial = Trial(
            number=number,
            key=key,
            point=dict(point),
            state=state,  # type: ignore[arg-type]
            reason=reason,
            values=values,
            verdicts=verdicts,
            metrics=metrics,
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

        self.wait_for_memory()
        run.runners = self.idle.pop() if self.idle else {}
        timer = threading.Timer(limit, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield run, expired
        finally:
            timer.cancel()
            with self.emitting:
                self.running -= 1
            if expired.is_set():
                for each in run.runners.values():
                    each.close()
            else:
                self.idle.append(run.runners)

    def wait_for_memory(self) -> None:
        """Wait until there is room for a candidate as large as the largest so far, or nothing else runs."""
        from olivine.hardware.memory import free_memory_bytes

        while True:
            with self.emitting:
                if self.running == 0 or free_memory_bytes() > 1.2 * self.largest:
                    self.running += 1
                    return
            time.sleep(0.5)

    def carry_out(
        self, plan: Plan, run: Run, expired: threading.Event
    ) -> tuple[str, str, tuple[Verdict, ...], dict[str, Any]]:
        """Run a candidate's Steps; return the state it ends in, why, the verdicts, and what was measured."""
        final = plan.evaluation("final") or plan.evaluation("input")
        assert final is not None
        metrics: dict[str, Any] = {}
        verdicts = judge(self.goals, {}, {})
        try:
            for planned in plan.steps:
                if expired.is_set():
                    raise StepError("its time was up")
                if planned is not final:
                    run.do(planned)
                    _refuse_nan(planned.name, run.results[-1].metrics)
            for measured in self.measured(final, run):
                metrics |= measured
                _refuse_nan(final.name, measured)
                verdicts = judge(self.goals, metrics, run.baselines(final))
                hopeless = [each for each in verdicts if each.measured is not None and not each.met and not each.near]
                if hopeless and len(metrics) < len(final.step.params["metrics"]):
                    return "stopped", "; ".join(sentence(each) for each in hopeless), verdicts, metrics
            verdicts = run.judge() if self.goals else ()
        except OlivineError as error:
            reason = "it took longer than a candidate may" if expired.is_set() else str(error)
            return "failed", reason, verdicts, metrics
        return "complete", "", verdicts, metrics

    def measured(self, final: PlannedStep, run: Run) -> Iterator[dict[str, Any]]:
        """Yield what is measured, the cheapest first; the parts together are then the whole evaluation's result."""
        names = [each["name"] for each in final.step.params["metrics"]]
        groups = by_cost(final)
        if len(groups) == 1 or len(set(names)) < len(names) or run.store.find(final.digest) is not None:
            run.do(final)
            yield run.measured(final)
            return
        found: dict[str, Any] = {}
        parts = []
        for group in groups:
            kinds = [each["name"] for each in final.step.params["metrics"] if each["index"] in group]
            part = part_of(final, group, name=f"measure {', '.join(kinds)}")
            run.do(part)
            parts.append(part)
            found |= run.measured(part)
            yield run.measured(part)
        run.assemble(final, {name: found[name] for name in names}, parts)

    # The end --------------------------------------------------------------------------------------------------------

    def best(self, trials: list[Trial]) -> Trial | None:
        """Return the pick: the best by priority of those that qualify; the nearest miss if none does."""
        complete = {each.number: _numbers(each) for each in trials if each.qualifies and _is_measured(each)}
        by_number = {each.number: each for each in trials}
        ordered = front(complete, self.objectives)
        if ordered:
            return by_number[ordered[0]]
        misses = [each for each in trials if each.state != "failed"]
        return min(misses, key=lambda each: (each.violation, self.ranked(each), each.number), default=None)

    def ranked(self, trial: Trial) -> tuple[float, ...]:
        """Return what sorts a trial among those that are as near to the goals."""
        return rank(_numbers(trial), self.objectives) if _is_measured(trial) else ()

    def finish(self) -> Result:
        """Choose, write the outcome, and publish the model that was chosen."""
        trials = self.trials
        best = self.best(trials)
        if best is None:
            reasons = list(dict.fromkeys(each.reason for each in trials))
            error = StepError(
                [
                    Problem(
                        f"every candidate failed, {len(trials)} of {len(trials)}",
                        self.loaded.locate("engine.search_strategy"),
                        remedy=f"`olivine study trials {self.id[:8]} --cache-dir {self.store.root}` has all of them",
                    ),
                    *(Problem(each) for each in reasons[:5]),
                ]
            )
            self.emit("run-failed", reason=str(error), exit_code=error.exit_code, log=str(self.run_dir / "log.txt"))
            raise error
        result = self.outcome(best)
        self.journal.finish(result)
        self.emit("study-done", **{key: value for key, value in result.items() if key != "trials"})
        published = replace(self.plans[best.key], notes=(), layout=self.plan.layout)
        return run_plan(
            published,
            self.store,
            self.last_sink,
            make_runner=self.make_runner,
            search=result,
            started=self.started,
        )

    def last_sink(self, event: Event) -> None:
        """Pass on what publishing says; its Steps were told of before."""
        if event.event in ("published", "run-done", "run-failed", "verdict"):
            self.sink(event)

    def outcome(self, best: Trial) -> dict[str, Any]:
        """Return what `status.json` and the journal keep of the study."""
        qualifying = [each for each in self.trials if each.qualifies and _is_measured(each)]
        compared = qualifying or [each for each in self.trials if each.state == "complete" and _is_measured(each)]
        numbers = front({each.number: _numbers(each) for each in compared}, self.objectives)
        states = [each.state for each in self.trials]
        runs = {step["digest"] for each in self.trials for step in each.steps if not step["cached"]}
        return {
            **self.description(),
            "trials": [each.as_json() for each in self.trials],
            "complete": states.count("complete"),
            "stopped": states.count("stopped"),
            "failed": states.count("failed"),
            "qualifying": len(qualifying),
            "steps_run": len(runs),
            "pareto_front": numbers,
            "pick": best.number,
            "pick_point": dict(best.point),
            "why": self.why(best, qualifying, numbers),
        }

    def why(self, best: Trial, qualifying: list[Trial], numbers: list[int]) -> str:
        """Return in a sentence why the pick was picked."""
        if not best.qualifies:
            missed = "; ".join(sentence(each) for each in best.verdicts if not each.met and each.measured is not None)
            return f"none of {len(self.trials)} candidates meets every goal; this is the nearest miss: {missed}"
        first = self.objectives[0] if self.objectives else None
        of = f"{len(qualifying)} that qualify" if self.goals else f"{len(qualifying)} that were measured"
        if first is None:
            return f"the first of {of}"
        word = "highest" if first.higher_is_better else "lowest"
        equal = [each for each in qualifying if each.values[0] == best.values[0]]
        tie = ""
        if len(equal) > 1 and len(self.objectives) > 1:
            tie = f"; of {len(equal)} that are equal in it, the best in {self.objectives[1].name}"
        return f"the {word} {first.name} of {of}, {len(numbers)} of them on the Pareto front{tie}"

    def emit(self, event: str, **data: Any) -> None:
        """Tell the sink."""
        with self.emitting:
            self.sink(Event(event, "", data))


def study_id(loaded: Loaded) -> str:
    """Return the key of a study: a digest of the configuration, but for where things are put."""
    content = loaded.workflow.model_dump(mode="json")
    content.pop("tracking", None)
    for key in ("output_dir", "cache_dir", "packaging_config", "log_severity_level"):
        content["engine"].pop(key, None)
    return digest_json(content)[:16]


def _refuse_nan(step: str, metrics: Mapping[str, Any], path: str = "") -> None:
    """Raise a StepError if a Step reported what is no number: nothing can be said of such a candidate."""
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            _refuse_nan(step, value, f"{path}{key}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise StepError(f"{step} gave {value} for {path}{key}", why="the model's numbers are broken")


def _is_measured(trial: Trial) -> bool:
    return all(value is not None for value in trial.values)


def _numbers(trial: Trial) -> list[float]:
    return [value for value in trial.values if value is not None]


def _text(value: Any) -> str | None:
    return str(value) if value is not None else None


def timed_metrics(loaded: Loaded) -> list[str]:
    """Return the metrics of the evaluator that measure time, which nothing else may disturb."""
    evaluator = loaded.workflow.evaluators.get(str(loaded.workflow.engine.evaluator))
    types = [registry.find(each.type) for each in evaluator.metrics] if evaluator is not None else []
    return [each.type for each in types if each is not None and each.hardware_dependent]
