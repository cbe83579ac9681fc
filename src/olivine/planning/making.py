"""From a Workflow to a Plan: the Steps in order, what is known to be wrong, and what the Store already holds.

Pure but for reading: no model weights, no network unless the model is not on disk, nothing from the model or the data
is executed, and neither torch, transformers nor onnxruntime is imported.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.config.sizes import gigabytes
from olivine.errors import ConfigError, Location, PlanError, Problem, UnavailableError
from olivine.evaluate.goals import INPUT, goals_of
from olivine.hardware.machine import Machine, this_machine
from olivine.passes import registry as pass_registry
from olivine.passes.base import Format, ModelFacts, PlanContext, Requirement
from olivine.passes.effort import Effort
from olivine.passes.estimate import DIGESTING
from olivine.planning.data import data_references
from olivine.planning.fit import fit_of
from olivine.planning.input_model import InputModelPlanning
from olivine.planning.measuring import EvaluationPlanning
from olivine.planning.plan import EVALUATE_FINAL, EVALUATE_INPUT, Plan, Source
from olivine.planning.requirements import check_requirements
from olivine.planning.step import Step

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.planning.known import Known
    from olivine.storage.fetching import Fetcher
    from olivine.store import Store


def make_plan(
    loaded: Loaded,
    store: Store,
    *,
    trust_remote_code: bool = False,
    scripts: Collection[Path] = (),
    machine: Machine | None = None,
    fetcher: Fetcher | None = None,
    fetch_models: bool = True,
    read_weights: bool = True,
    online: bool = True,
    known: Known | None = None,
) -> Plan:
    """Make the Plan of a loaded configuration.

    Args:
        loaded: the configuration; its paths are absolute.
        store: asked for what it holds; nothing is written to it but the digests of files that were read, and what is
            fetched from elsewhere.
        trust_remote_code: whether the user allowed code that comes with the model to run, for this run.
        scripts: Python files of metrics that the user allowed to run, for this run.
        machine: what runs it; this machine unless a test says otherwise.
        fetcher: fetches what the configuration names by an address; by default one that says nothing.
        fetch_models: whether a model is fetched, too, and not only looked at.
        read_weights: whether the content of large weight files that nobody has read yet is read for the digests, as a
            run needs it. To look at a plan it takes too long.
        online: whether it may be asked what lies at an address that only other machines read.
        known: what was learnt of the model and the data, where they are; then they are not looked at here.

    Raises:
        PlanError: with everything that is known to be wrong, not only the first.
        UnavailableError: the same, if all that is wrong is missing here (packages, devices, the hub).
    """
    if fetcher is None:
        from olivine.storage.fetching import Fetcher

        fetcher = Fetcher(store, loaded.workflow.azureml_client)
    arguments = (loaded, store, trust_remote_code, scripts, machine or this_machine(), fetcher, fetch_models)
    if known is not None:
        from olivine.planning.known import InformedPlanner

        return InformedPlanner(*arguments, known).plan()
    planner = Planner(*arguments)
    planner.read_weights = read_weights
    planner.online = online
    return planner.plan()


class Planner(InputModelPlanning, EvaluationPlanning):
    """Walks the passes."""

    def plan(self) -> Plan:
        engine = self.workflow.engine
        model, facts, base = self._input_model()
        self._remember_unquantised(model, facts)
        goals = goals_of(self.workflow.evaluators[engine.evaluator]) if engine.evaluator is not None else []
        against = {goal.against for goal in goals}
        if engine.evaluator is not None and (engine.evaluate_input_model or INPUT in against):
            self._evaluate(EVALUATE_INPUT, engine.evaluator, "engine.evaluator", model, facts, base)
        for name in self.workflow.passes:
            model, facts, base = self._pass(name, model, facts, base)
            self._remember_unquantised(model, facts)
            evaluator = self.workflow.single_pass(name).evaluator
            if evaluator is None and name in against:
                evaluator = engine.evaluator
            if evaluator is not None:
                self._evaluate(f"evaluate {name}", evaluator, f"passes.{name}.evaluator", model, facts, base)
        if engine.evaluator is not None and self.workflow.passes:
            self._evaluate(EVALUATE_FINAL, engine.evaluator, "engine.evaluator", model, facts, base)
        self._check_goals(goals)
        if not self.workflow.passes and engine.evaluator is None:
            self._problem(
                Problem(
                    "there is nothing to do: the configuration has neither passes nor an evaluator",
                    self.loaded.locate("passes"),
                    remedy="add a pass, e.g. passes: {builder: {type: ModelBuilder, precision: int4}}",
                )
            )
        if self.workflow.tracking is not None:
            where = self.loaded.locate("tracking")
            needed = Requirement("mlflow-skinny|mlflow", "mlflow", ">=3.1,<4")
            self.unavailable += check_requirements([needed], "tracking", where)
        client = self.workflow.azureml_client
        if client is not None and client.cloud_metadata:
            self._note(
                f"Azure is asked at {client.cloud_metadata.get('resource_manager', 'other addresses')}, as "
                "azureml_client.cloud_metadata says: tokens are sent there"
            )
        if engine.shared_cache is not None:
            where = self.loaded.locate("engine.shared_cache")
            self.unavailable += check_requirements([Requirement("fsspec", "remote", "")], "engine.shared_cache", where)
        output_dir = Path(engine.output_dir)
        self._check_folders(output_dir)
        if self.unread:
            self.notes.append(
                f"{gigabytes(self.unread)} of the model's files have not been read yet: the run reads them, and then "
                "it is known whether the cache holds results of them"
            )
        self.unavailable = list(dict.fromkeys(self.unavailable))
        if self.problems:
            raise PlanError(self.problems + self.unavailable)
        if self.unavailable:
            raise UnavailableError(self.unavailable)
        return Plan(
            workflow=self.workflow,
            steps=tuple(self.steps),
            final=model,
            final_format=facts.format,
            notes=(*(str(note) for note in self.loaded.notes), *self.notes),
            cache_dir=Path(engine.cache_dir),
            output_dir=output_dir,
            dialect=self.loaded.dialect,
            file=self.loaded.file,
            trust_remote_code=self.trust,
            scripts=tuple(sorted(self.scripts)),
            output_where=self.loaded.locate("engine.output_dir"),
            target=self.target_machine,
            fit=fit_of(facts, self.target_machine, full_precision=self._final_precision() == "fp32"),
            unread=self.unread,
            unread_files=tuple(self.unread_files),
        )

    def _final_precision(self) -> str | None:
        """Return the precision that the last pass builds in, if it says one."""
        passes = [step for step in self.steps if step.step.kind == "pass"]
        return str(passes[-1].step.params.get("precision")) if passes else None

    def _pass(
        self, name: str, model: Source, facts: ModelFacts, base: Source | None
    ) -> tuple[Source, ModelFacts, Source | None]:
        """Plan one pass and return the model as it will be after it."""
        config = self.workflow.single_pass(name)
        where = self.loaded.locate(f"passes.{name}")
        pass_type = pass_registry.find(config.type)
        if pass_type is None:
            raise ConfigError(f"there is no pass {config.type!r}", where=where)
        host = self._place(
            config.host or self.workflow.engine.host, f"passes.{name}.host" if config.host else "engine.host"
        )
        problems_before = len(self.problems)
        if facts.format not in pass_type.accepts:
            self._problem(self._chain_problem(name, pass_type.type, pass_type.accepts, facts.format, where))
        params = pass_type.params_type.model_validate(config.params)
        named = {key: self._data_config(value) for key, value in data_references(params).items()}
        machine = self._machine_of(config.host or self.workflow.engine.host)
        context = PlanContext(
            facts,
            host,
            self.target,
            machine.has_bf16(host.device),
            named,
            cores=max(1, machine.cores),
            max_memory=self.limit,
        )
        params, notes = pass_type.resolve(params, context)
        for problem in pass_type.check(params, context):
            self._problem(self._placed(problem, f"passes.{name}"))
        if getattr(params, "precision", None) == "bf16" and self.target_machine.lacks_bf16:
            self._problem(
                Problem(
                    f"{self.target_machine.name} has no bfloat16 units",
                    self.loaded.locate(f"passes.{name}.precision"),
                    f"its compute capability is {self.target_machine.compute_capability}, and they came with 8.0",
                    "choose fp16 or int4",
                )
            )
        system = self._system_of(config.host or self.workflow.engine.host)
        requires = pass_type.needs(params)
        self._check_place(host, system, requires, f"the pass {pass_type.type}", where)
        data = {key: self._data_config(value) for key, value in data_references(params).items()}
        for each in data.values():
            self._check_data(each)
            self._check_lengths(each, facts)
        identities = {key: self._identify(config) for key, config in data.items()}
        usable = len(self.problems) == problems_before
        sized = usable and bool(facts.parameters and facts.weights)
        context = replace(context, sizes=self._sizes(data))
        if sized:
            params, decisions = pass_type.within(params, context, data)
            notes = [*notes, *decisions]
        sources = {"model": model} | ({"base": base} if base is not None else {})
        values = params.model_dump(mode="json")
        step = Step(
            kind="pass",
            type=pass_type.type,
            version=pass_type.version,
            params={key: value for key, value in values.items() if key not in data},
            inputs={key: source.identity for key, source in sources.items()},
            data=identities,
            device=host.device,
            target=self.target.execution_provider if pass_type.made_for_target else None,
            libraries=self._libraries(system, pass_type.shaped_by) | self._shared_by(system, pass_type.spreads, notes),
            remote_code=self.trust,
        )
        estimate = pass_type.estimate(params, context, data) if sized else None
        whole = None
        if estimate is not None:
            sealing = Effort(moved=DIGESTING * estimate.output)
            whole = replace(estimate, output=estimate.output + facts.beside, effort=estimate.effort + sealing)
        self._add(
            name,
            step,
            sources=sources,
            consumes=facts.format,
            produces=pass_type.produces,
            data=data,
            where=where,
            host=host,
            system=system,
            requires=requires,
            estimate=whole,
            sound=usable,
            spreads=pass_type.spreads,
            timeout=config.timeout,
            notes=notes,
        )
        result = Source(step=step.digest, identity=f"step:{step.digest}")
        after = replace(facts, format=pass_type.produces, path=None, own_base=pass_type.own_base)
        if estimate is not None and pass_type.produces is Format.PEFT:
            own_weights = estimate.output - (facts.weights if pass_type.own_base else 0)
            after = replace(after, adapter=own_weights, adapted=pass_type.adapted(params, facts.modules))
        if estimate is not None and pass_type.produces is not Format.PEFT:
            after = replace(after, weights=estimate.output, adapter=0, adapted=None)
        if pass_type.produces is not Format.PEFT:
            return result, after, None
        own = Source(step=step.digest, subfolder="base", identity=f"step:{step.digest}/base")
        return result, after, own if pass_type.own_base else model

    def _chain_problem(
        self, name: str, type_name: str, accepts: frozenset[Format], given: Format, where: Location
    ) -> Problem:
        """Say why ``name`` cannot follow what comes before it, and which passes could stand in between."""
        producer = self.steps[-1].name if self.steps and self.steps[-1].step.kind == "pass" else "the input model"
        wanted = " or ".join(sorted(accepts))
        between = [
            known.type
            for known in (pass_registry.find(each) for each in pass_registry.BUILTIN)
            if known is not None and given in known.accepts and known.produces in accepts
        ]
        remedy = (
            f"put {' or '.join(between)} before {name}"
            if between
            else f"reorder the passes so that {name} gets {wanted}"
        )
        return Problem(f"{type_name} takes {wanted}, but {producer} gives {given}", where, remedy=remedy)
