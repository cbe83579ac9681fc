"""Planning of evaluations: what is measured on which model, and whether goals can be judged by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from olivine.config.profiles import KINDS
from olivine.config.schema import DataConfig
from olivine.errors import ConfigError, Location, OlivineError, Problem, UnavailableError
from olivine.evaluate import registry as metric_registry
from olivine.evaluate.base import RECORDING, REFERENCE, Metric, Workload
from olivine.evaluate.formats import TEXT_FORMATS
from olivine.evaluate.goals import INPUT, Wanted
from olivine.passes.base import Format, ModelFacts, Params, Requirement
from olivine.planning.data import DataPlanning, data_references
from olivine.planning.evaluations import estimate_evaluation
from olivine.planning.plan import EVALUATE_FINAL, EVALUATE_INPUT, Source
from olivine.planning.requirements import check_requirements
from olivine.planning.step import Step


class EvaluationPlanning(DataPlanning):
    """Adds the Steps that measure."""

    def _remember_unquantised(self, model: Source, facts: ModelFacts) -> None:
        if facts.format is Format.HF:
            self.unquantised = model, facts

    def _record(
        self, metric_type: type[Metric[Any]], params: Params, own: Mapping[str, DataConfig], where: Location
    ) -> Source | None:
        """Plan what a metric keeps of the unquantised model, once for all that is compared with it."""
        reference = getattr(params, REFERENCE, None)
        if reference is not None:
            compared = self._reference(reference, where)
            if compared is None:
                return None
        elif self.unquantised is not None:
            compared = self.unquantised
        else:
            self._problem(
                Problem(
                    f"{metric_type.type} has nothing to compare with",
                    where,
                    "it compares with the unquantised model, and neither the input model nor a pass gives one",
                    "begin with a checkpoint in full precision, or leave the metric out",
                )
            )
            return None
        model, facts = compared
        host = self._place(self.workflow.engine.host, "engine.host")
        system, needed = self._system_of(self.workflow.engine.host), metric_type.requires.get(facts.format, ())
        self._check_place(host, system, needed, f"recording {metric_type.type} of a {facts.format} model", where)
        values = params.model_dump(mode="json")
        metric = {"index": 0, "name": metric_type.type, "type": metric_type.type}
        left_out = {*own, REFERENCE}  # their content is in the digest, by itself
        step = Step(
            kind="evaluate",
            type="record",
            version=metric_type.version,
            params={"metrics": [metric | {"params": {k: v for k, v in values.items() if k not in left_out}}]},
            inputs={"model": model.identity},
            data={f"0.{key}": self._identify(config) for key, config in own.items()},
            device=host.device,
            libraries=self._libraries(system, sorted(metric_type.shaped_by)),
            remote_code=self.trust,
        )
        if step.digest not in {each.digest for each in self.steps}:
            self._add(
                f"record {metric_type.type}",
                step,
                sources={"model": model},
                consumes=facts.format,
                produces=Format.METRICS,
                data={f"0.{key}": config for key, config in own.items()},
                where=where,
                host=host,
                system=system,
                requires=needed,
                estimate=estimate_evaluation(
                    facts,
                    [metric_type.workload(params, self._sizes(own))],
                    host,
                    has_bf16=self.machine.has_bf16(host.device),
                ),
                sound=not self.problems,
            )
        return Source(step=step.digest, identity=f"step:{step.digest}")

    def _reference(self, reference: str, where: Location) -> tuple[Source, ModelFacts] | None:
        """Return the model that a metric is told to compare with, and what is known of it."""
        from olivine.models.checkpoint import read_checkpoint
        from olivine.models.hub import locate

        file = self._file(reference)
        try:
            folder = file if file.exists() else locate(reference).path
            if folder is None:
                raise UnavailableError(
                    f"the reference {reference} is not on this machine", remedy=f"download it: hf download {reference}"
                )
            checkpoint = read_checkpoint(folder)
        except OlivineError as error:
            into = self.unavailable if isinstance(error, UnavailableError) else self.problems
            into += [replace(each, where=where) for each in error.problems]
            return None
        facts = ModelFacts(
            checkpoint.format,
            checkpoint.config,
            folder,
            checkpoint.modules,
            parameters=checkpoint.parameters,
            weights=sum(tensor.bytes for tensor in checkpoint.tensors.values()),
        )
        return Source(path=folder, identity=self._identity(folder, checkpoint.files, {})), facts

    def _evaluate(
        self, name: str, evaluator: str, path: str, model: Source, facts: ModelFacts, base: Source | None
    ) -> None:
        """Plan the measuring of ``model`` with ``evaluator``, on the target, in a fresh process."""
        where = self.loaded.locate(f"evaluators.{evaluator}")
        metrics: list[dict[str, Any]] = []
        data: dict[str, DataConfig] = {}
        recordings: dict[str, Source] = {}
        scripts: dict[str, str] = {}
        libraries, version = set[str](), 0
        work: list[Workload | None] = []
        machine = None
        system, requires = self._system_of(self.workflow.engine.target_system), list[Requirement]()
        if facts.format is Format.PEFT:
            self._problem(
                Problem(
                    "an adapter on its own cannot be measured",
                    self.loaded.locate(path),
                    remedy="merge it first: add MergeAdapterWeights",
                )
            )
            return
        for index, config in enumerate(self.workflow.evaluators[evaluator].metrics):
            metric_type = metric_registry.find(config.type)
            place = self.loaded.locate(f"evaluators.{evaluator}.metrics.{index}")
            if metric_type is None:
                raise ConfigError(f"there is no metric {config.type!r}", where=place)
            if facts.format not in metric_type.measures:
                self.notes.append(
                    f"{config.type} is not measured on {name.removeprefix('evaluate ')}: it is {facts.format}"
                )
                continue
            if facts.format is Format.ONNX and metric_type.measures >= TEXT_FORMATS and not _can_be_asked(facts):
                self.notes.append(
                    f"{config.type} is not measured on {name.removeprefix('evaluate ')}: there is no tokenizer beside "
                    "the graph"
                )
                continue
            own_reference = config.params.get(REFERENCE) is not None
            if (
                metric_type.compares
                and not own_reference
                and self.unquantised is not None
                and model == self.unquantised[0]
            ):
                self.notes.append(
                    f"{config.type} is not measured on {name.removeprefix('evaluate ')}: it is what others are "
                    "compared with"
                )
                continue
            params = metric_type.params_type.model_validate(config.params)
            try:
                params = metric_type.settle(
                    params, {each.name: each.metric_config or {} for each in config.sub_types or ()}
                )
            except OlivineError as error:
                for problem in error.problems:
                    self._problem(self._placed(problem, f"evaluators.{evaluator}.metrics.{index}"))
                continue
            needed = metric_type.requires.get(facts.format, ())
            requires += needed
            if not system:
                subject = f"measuring {config.type} on a {facts.format} model"
                self.unavailable += check_requirements(needed, subject, place)
            own = {key: self._data_config(value) for key, value in data_references(params).items()}
            data |= {f"{index}.{key}": each for key, each in own.items()}
            for each in own.values():
                self._identify(each)
            self._check_metric(metric_type, params, own, f"evaluators.{evaluator}.metrics.{index}")
            script = metric_type.script(params)
            if script is not None:
                params = self._script(params, script, place)
                scripts[str(index)] = self._script_digest(script)
                will_run = f"code of a metric will run: {script} (sha256 {scripts[str(index)][:16]})"
                if will_run not in self.notes:
                    self.notes.append(will_run)
            if metric_type.compares:
                recording = self._record(metric_type, params, own, place)
                if recording is not None:
                    recordings[f"{RECORDING}{index}"] = recording
            work.append(metric_type.workload(params, self._sizes(own)))
            metrics.append(
                {
                    "index": index,
                    "name": config.name or config.type,
                    "type": metric_type.type,
                    "params": params.model_dump(mode="json"),
                }
            )
            libraries.update(metric_type.shaped_by)
            version += metric_type.version
            if metric_type.hardware_dependent:
                machine = self._machine_of(self.workflow.engine.target_system).fingerprint
        provider = self.target.execution_provider
        if not system and facts.format in (Format.GENAI, Format.ONNX) and provider not in self.providers:
            self.unavailable.append(
                Problem(
                    f"the model is to be measured with {provider}, which is not installed here",
                    self.loaded.locate("engine.target"),
                    f"installed: {', '.join(self.providers) or 'no ONNX Runtime'}",
                    f"{_runtime_of(provider)}choose another target, or measure nothing here: leave engine.evaluator "
                    "out (--no-measure)",
                )
            )
        sources = {"model": model} | ({"base": base} if base else {}) | recordings
        step = Step(
            kind="evaluate",
            type="evaluate",
            version=version,
            params={
                "metrics": [
                    {
                        **metric,
                        "params": {
                            k: v
                            for k, v in metric["params"].items()
                            if f"{metric['index']}.{k}" not in data and k != REFERENCE
                        },
                    }
                    for metric in metrics
                ]
            }
            | ({"scripts": scripts} if scripts else {}),
            inputs={name: source.identity for name, source in sources.items()},
            data={key: self._identify(config) for key, config in data.items()},
            device=self.target.device,
            target=provider,
            machine=machine,
            libraries=self._libraries(system, sorted(libraries)),
            remote_code=self.trust,
        )
        self._add(
            name,
            step,
            sources=sources,
            consumes=facts.format,
            produces=Format.METRICS,
            data=data,
            where=where,
            host=self.target,
            system=system,
            requires=requires,
            estimate=estimate_evaluation(facts, work, self.target, has_bf16=self.machine.has_bf16(self.target.device)),
            sound=not self.problems,
            hub=any(each["type"] == "lm_eval" for each in metrics),
        )

    def _file(self, path: str) -> Path:
        """Return a path of the configuration, which is meant from its folder."""
        base = self.loaded.file.absolute().parent if self.loaded.file is not None else Path.cwd()
        return base / Path(path).expanduser()

    def _check_metric(
        self, metric_type: type[Metric[Any]], params: Params, own: Mapping[str, DataConfig], path: str
    ) -> None:
        """Look for what is wrong with a metric and its data."""
        if metric_type.check.__func__ is Metric.check.__func__:  # type: ignore[attr-defined]
            for each in own.values():
                self._check_data(each)
        for problem in metric_type.check(params, own):
            self._problem(self._placed(problem, path))

    def _script_digest(self, script: str) -> str:
        """Return the digest of a script's content, empty if there is none."""
        file = self._file(script)
        return self.store.digest_file(file) if file.is_file() else ""

    def _script(self, params: Any, script: str, where: Location) -> Any:
        """Say it if a script may not run or is not there; return the parameters with its absolute path."""
        file = self._file(script)
        if not file.is_file():
            self._problem(Problem(f"there is no file {file}", where, remedy="correct user_script"))
        elif file.resolve() not in self.scripts:
            self.unavailable.append(
                Problem(
                    f"{script} would have to run",
                    where,
                    "code from a configuration runs only if you allow it",
                    f"read it, and give --allow-script {script}",
                )
            )
        user = params.user_config.model_copy(update={"user_script": str(file)})
        return params.model_copy(update={"user_config": user})

    def _check_goals(self, goals: list[Wanted]) -> None:
        """Say which goals can never be judged."""
        evaluator = self.workflow.engine.evaluator
        final = EVALUATE_FINAL if self.workflow.passes else EVALUATE_INPUT
        for goal in goals:
            where = self.loaded.locate(f"evaluators.{evaluator}.{goal.path}")
            metric_type = metric_registry.find(goal.type)
            known = metric_type.higher_is_better if metric_type is not None else {}
            if known and "." not in goal.value and goal.value not in known:
                self._problem(
                    Problem(f"{goal.type} has no value {goal.value!r}", where, remedy=f"it has {', '.join(known)}")
                )
            elif goal.higher_is_better is None:
                self._problem(
                    Problem(
                        f"nothing says whether a higher {goal.name} is better",
                        where,
                        remedy="add higher_is_better: true, or false",
                    )
                )
            if goal.against not in (None, INPUT, *self.workflow.passes):
                there = ", ".join(self.workflow.passes) or "no pass"
                self._problem(Problem(f"no pass is called {goal.against!r}", where, remedy=f"there is {there}"))
                continue
            if goal.against == INPUT and not self.workflow.passes:
                self._problem(
                    Problem(
                        f"{goal.name} is to be compared with the input model, which is the only one",
                        where,
                        remedy="give a threshold, or add passes",
                    )
                )
            names = {final: "the final model"}
            if goal.against is not None:
                names[EVALUATE_INPUT if goal.against == INPUT else f"evaluate {goal.against}"] = (
                    "the input model" if goal.against == INPUT else goal.against
                )
            for name, model in names.items():
                planned = next((step for step in self.steps if step.name == name), None)
                indexes = [each["index"] for each in planned.step.params["metrics"]] if planned is not None else []
                if planned is not None and goal.index not in indexes:
                    self._problem(
                        Problem(
                            f"the goal for {goal.name} cannot be judged: it is not measured on {model}",
                            where,
                            f"{goal.type} cannot measure a model of the format {planned.consumes}, or compares with it",
                            "give a threshold, or compare with a pass whose result it can measure",
                        )
                    )


def _can_be_asked(graph: ModelFacts) -> bool:
    """Return whether a plain ONNX graph has a tokenizer beside it."""
    from olivine.models.onnx_text import has_tokenizer

    return graph.path is not None and has_tokenizer(graph.path)


def _runtime_of(provider: str) -> str:
    """Return how to get the ONNX Runtime of an execution provider, as the beginning of a remedy; empty if none can."""
    extra = next((kind.extra for kind in KINDS.values() if kind.execution_provider == provider), "")
    return f"install olivine[{extra}], " if extra else ""
