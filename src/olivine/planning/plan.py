"""From a Workflow to a Plan: the Steps in order, what is known to be wrong, and what the Store already holds.

Pure but for reading: no model weights, no network unless the model is not on disk, nothing from the model or the data
is executed, and neither torch, transformers nor onnxruntime is imported.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.config.schema import DataConfig, System, Workflow
from olivine.errors import ConfigError, Location, OlivineError, PlanError, Problem, UnavailableError
from olivine.evaluate import registry as metric_registry
from olivine.evaluate.base import RECORDING, REFERENCE, Metric, Workload
from olivine.evaluate.goals import INPUT, Wanted, goals_of
from olivine.hardware.machine import Machine, execution_providers, this_machine
from olivine.hardware.placement import check_host, place
from olivine.hardware.targets import Target, target_of
from olivine.passes import registry as pass_registry
from olivine.passes.base import Accelerator, Format, ModelFacts, Params, PlanContext, Requirement
from olivine.passes.estimate import DataSize, Estimate
from olivine.planning.amounts import gigabytes, memory_limit
from olivine.planning.away import (
    data_stays,
    environment_of,
    has_addresses,
    identity_of,
    is_away,
    machine_of,
    model_stays,
    processes_of,
    reads_hub,
    runner_name,
    version_at,
)
from olivine.planning.evaluations import estimate_evaluation
from olivine.planning.fit import Fit, fit_of
from olivine.planning.requirements import check_requirements, specifiers, versions_of
from olivine.planning.step import Step
from olivine.store import digest_json

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.data.rows import Survey
    from olivine.search.planning import Search
    from olivine.storage.fetching import Fetcher
    from olivine.store import Store


@dataclass(frozen=True)
class Source:
    """Where an input of a Step comes from: a folder that exists, or the result of an earlier Step.

    Exactly one of ``path``, ``step`` (a digest), ``hub`` (an id, with ``revision``) and ``address`` is set.
    ``subfolder`` is appended to the folder.
    """

    path: Path | None = None
    step: str | None = None
    hub: str | None = None
    revision: str | None = None
    address: str | None = None
    """Something elsewhere that has not been fetched."""
    subfolder: str = ""
    identity: str = ""
    """What goes into the digest of a Step that consumes it."""
    where: Location | None = None
    """The place of a model of the hub in the configuration."""


@dataclass(frozen=True)
class PlannedStep:
    """A Step with all that is needed to run it and to tell the user about it.

    Attributes:
        name: its name in the configuration (``lora``), or ``evaluate input model`` / ``evaluate MODEL``.
        step: the frozen description.
        sources: where its inputs come from.
        consumes: format of the model that enters.
        produces: format of the result.
        data: the data configs by parameter, paths absolute.
        surveys: what was found in the data, by data config name.
        where: the place of the Step in the configuration.
        host: where it runs.
        target: where the model ships to.
        cached: whether the Store holds the result.
        system: the name of the system that runs it; empty for this machine.
        requires: packages that it needs there, as ``pip`` takes them.
        spreads: whether several processes can share its work.
        reads_hub: whether it may read the Hugging Face hub while it runs.
        notes: decisions worth telling.
        estimate: what it will take; ``None`` if that cannot be told (a model that is not on this machine yet).
    """

    name: str
    step: Step
    sources: Mapping[str, Source]
    consumes: Format
    produces: Format
    data: Mapping[str, DataConfig]
    where: Location
    host: Accelerator
    target: Accelerator
    cached: bool
    system: str = ""
    requires: tuple[str, ...] = ()
    spreads: bool = False
    reads_hub: bool = False
    notes: tuple[str, ...] = ()
    surveys: Mapping[str, Survey] = field(default_factory=dict)
    estimate: Estimate | None = None

    @property
    def place(self) -> str:
        """Where it runs, in words."""
        return f"{self.system} ({self.host.device})" if self.system else self.host.device

    @property
    def digest(self) -> str:
        """The key of its result in the Store."""
        return self.step.digest


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        workflow: the canonical configuration, as resolved.
        steps: in the order they run: the input model's evaluation, the passes, the final model's evaluation.
        final: where the model that ships comes from.
        final_format: its format.
        notes: notes of the dialect and of the plan as a whole.
        cache_dir: the Store.
        output_dir: where the result goes.
        trust_remote_code: whether code that comes with the model may run.
        layout: the release of Olive whose output folder is wanted (``olive-0.6``), if any.
        output_where: the place of ``output_dir`` in the configuration.
        scripts: Python files of metrics that may run.
        search: the search whose first candidate this is, if one is asked for.
        target: the machine that the model ships to.
        fit: what the final model takes there, if its size is known.
        unread: bytes of the model's files whose content was not read: the digests of the Steps are not those of a run,
            and whether the Store holds results is not known.
    """

    workflow: Workflow
    steps: tuple[PlannedStep, ...]
    final: Source
    final_format: Format
    notes: tuple[str, ...]
    cache_dir: Path
    output_dir: Path
    dialect: str
    file: Path | None
    trust_remote_code: bool = False
    layout: str | None = None
    output_where: Location | None = None
    scripts: tuple[Path, ...] = ()
    search: Search | None = None
    target: Target | None = None
    fit: Fit | None = None
    unread: int = 0

    @property
    def passes(self) -> tuple[PlannedStep, ...]:
        """The Steps that change the model."""
        return tuple(step for step in self.steps if step.step.kind == "pass")

    @property
    def model_dir(self) -> Path:
        """The folder that gets the model's files: the output folder, or what the layout has in it."""
        if self.layout is None:
            return self.output_dir
        from olivine.engine.layouts import model_folder

        return self.output_dir / model_folder(self.layout, self)

    def evaluation(self, which: str) -> PlannedStep | None:
        """Return the evaluation of ``input`` or ``final``, if one is planned."""
        names = {"input": EVALUATE_INPUT, "final": EVALUATE_FINAL}
        return next((step for step in self.steps if step.name == names[which]), None)


READ_AT_ONCE = 128 << 20
"""Bytes that are read for digests when a plan is only looked at: more takes longer than a look should."""

EVALUATE_INPUT = "evaluate input model"
EVALUATE_FINAL = "evaluate final model"


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

    Raises:
        PlanError: with everything that is known to be wrong, not only the first.
        UnavailableError: the same, if all that is wrong is missing here (packages, devices, the hub).
    """
    if fetcher is None:
        from olivine.storage.fetching import Fetcher

        fetcher = Fetcher(store, loaded.workflow.azureml_client)
    planner = _Planner(loaded, store, trust_remote_code, scripts, machine or this_machine(), fetcher, fetch_models)
    planner.read_weights = read_weights
    planner.online = online
    return planner.plan()


class _Planner:
    """Holds what accumulates while a plan is made: problems, notes, and the model as it is so far."""

    def __init__(
        self,
        loaded: Loaded,
        store: Store,
        trust_remote_code: bool,
        scripts: Collection[Path],
        machine: Machine,
        fetcher: Fetcher,
        fetch_models: bool,
    ) -> None:
        self.loaded = loaded
        self.workflow: Workflow = loaded.workflow
        self.store = store
        self.trust = trust_remote_code
        self.scripts = frozenset(each.resolve() for each in scripts)
        self.machine = machine
        self.fetcher = fetcher
        self.fetch_models = fetch_models
        self.online = True
        self.data_here: dict[str, DataConfig] = {}
        self.stay: set[str] = set()
        self.problems: list[Problem] = []
        self.unavailable: list[Problem] = []
        self.notes: list[str] = []
        self.steps: list[PlannedStep] = []
        self.surveys: dict[str, Survey] = {}
        self.identities: dict[str, Any] = {}
        self.checked: set[str] = set()
        self.unquantised: tuple[Source, ModelFacts] | None = None
        self.read_weights = True
        self.unread = 0
        engine = self.workflow.engine
        self.target = self._place(engine.target_system, "engine.target")
        self.target_machine = self._target_machine()
        self.limit = memory_limit(engine.max_memory, self.loaded.locate("engine.max_memory"))
        self.providers = execution_providers()

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
                f"{gigabytes(self.unread)} of the model's files have not been read yet: the run reads them first, and "
                "then it is known whether the cache holds results of them"
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
        )

    def _final_precision(self) -> str | None:
        """Return the precision that the last pass builds in, if it says one."""
        passes = [step for step in self.steps if step.step.kind == "pass"]
        return str(passes[-1].step.params.get("precision")) if passes else None

    # The input model ------------------------------------------------------------------------------------------------

    def _input_model(self) -> tuple[Source, ModelFacts, Source | None]:
        """Return the model that goes in, what is known of it, and its base if it is an adapter."""
        from olivine.models.checkpoint import read_checkpoint
        from olivine.models.hub import Located, locate
        from olivine.models.mlflow import MLMODEL, checkpoint_in
        from olivine.storage.addresses import is_address

        given = self.workflow.input_model
        path = "input_model.model_path"
        unknown = Source(identity="unknown"), ModelFacts(Format.HF), None
        known: Mapping[str, str] = {}
        stays = False
        try:
            if is_address(given.model_path) and model_stays(self.workflow):
                return self._model_elsewhere(given.model_path), unknown[1], None
            if is_address(given.model_path):
                from olivine.planning.elsewhere import Absent, model_here

                found = model_here(given, self.fetcher, self._note, code=self.trust, fetch=self.fetch_models)
                if isinstance(found, Absent):
                    self.notes.append(found.note)
                    where = self.loaded.locate(path)
                    return Source(address=found.address, identity=found.identity, where=where), unknown[1], None
                located, known = Located(found.path, None), found.sha256
            else:
                stays = model_stays(self.workflow)
                located = locate(given.model_path, given.load_kwargs.revision, used_here=not stays)
            if located.path is not None and (located.path / MLMODEL).is_file():
                folder, notes = checkpoint_in(located.path, self.store.shared_dir)
                located = Located(folder, None)
                self.notes.extend(notes)
        except OlivineError as error:
            self._error(error, path)
            return unknown
        if located.path is None:
            revision = located.revision or given.load_kwargs.revision or "main"
            absent = (
                "is not on this machine yet" if "/" in given.model_path else "is no folder here, but an id of the hub"
            )
            when = "where the Steps run" if stays else "first"
            self.notes.append(f"{given.model_path} ({revision}) {absent}: it will be downloaded {when}")
            facts = self._facts_from_the_hub(given.model_path, revision) if self.online else ModelFacts(Format.HF)
            return self._on_the_hub(revision, path), facts, None
        try:
            checkpoint = read_checkpoint(located.path)
        except OlivineError as error:
            self._error(error, path)
            return unknown
        if located.revision:
            identity = f"hub:{given.model_path}@{located.revision}"
            # What is kept of the run names the commit, so that it can be repeated when the branch has moved on.
            pinned = given.load_kwargs.model_copy(update={"revision": located.revision})
            self.workflow = self.workflow.model_copy(
                update={"input_model": given.model_copy(update={"load_kwargs": pinned})}
            )
            if self.trust and checkpoint.needs_remote_code and not any(located.path.glob("*.py")):
                self.notes.append(f"the code that comes with {given.model_path} will be downloaded first")
                return self._on_the_hub(located.revision, path), ModelFacts(Format.HF), None
        else:
            # Only what shapes the model: a link in the folder may lead to the whole disk.
            identity = self._identity(located.path, checkpoint.files, known)
        source = Source(path=located.path, identity=identity)
        if located.revision and stays:
            # What this machine's cache has need not be uploaded: the hub gives it to the others too.
            source = Source(hub=given.model_path, revision=located.revision, identity=identity)
        facts = ModelFacts(
            checkpoint.format,
            checkpoint.config,
            located.path,
            checkpoint.modules,
            parameters=checkpoint.parameters,
            weights=(weights := sum(tensor.bytes for tensor in checkpoint.tensors.values()) or checkpoint.bytes),
            beside=checkpoint.bytes - weights,
        )
        if checkpoint.needs_remote_code and not self.trust:
            self.notes.append(
                "the model brings Python code of its own; it will not run, the installed library's implementation is "
                "used (--trust-remote-code allows it)"
            )
        if self.trust and (checkpoint.needs_remote_code or any(located.path.glob("*.py"))):
            from olivine.models.remote_code import code_elsewhere, describe_code

            if elsewhere := code_elsewhere(checkpoint.config):
                self._problem(
                    Problem(
                        f"the model's config.json takes code from another repository: {', '.join(elsewhere)}",
                        self.loaded.locate(path),
                        "--trust-remote-code is for the code that lies in the model's own folder, which the plan shows "
                        "with its digest; that of another repository can change without notice",
                        "copy that code into the model's folder and correct auto_map",
                    )
                )
            self.notes.append(f"code that comes with the model will run: {describe_code(located.path)}")
        if given.adapter_path is None:
            return source, facts, None
        adapter = Path(given.adapter_path)
        if is_address(given.adapter_path):
            from olivine.planning.elsewhere import adapter_here

            try:
                adapter = adapter_here(given.adapter_path, self.fetcher, self._note)
            except OlivineError as error:
                self._error(error, "input_model.adapter_path")
                return source, replace(facts, format=Format.PEFT), source
        if not (adapter / "adapter_config.json").is_file():
            self._problem(
                Problem(
                    f"there is no adapter in {adapter}",
                    self.loaded.locate("input_model.adapter_path"),
                    "an adapter folder holds adapter_config.json and adapter_model.safetensors",
                )
            )
            return Source(path=adapter), replace(facts, format=Format.PEFT), source
        try:
            read_checkpoint(adapter)
        except OlivineError as error:
            self._error(error, "input_model.adapter_path")
        files = [path for path in adapter.rglob("*") if path.is_file()]
        own = sum(path.stat().st_size for path in files if path.suffix == ".safetensors" and path.parent == adapter)
        if self._unread(files):
            identity = self._identity(adapter, files, {})
        else:
            identity = f"files:{self.store.digest_tree(adapter)}"
        return Source(path=adapter, identity=identity), replace(facts, format=Format.PEFT, adapter=own), source

    def _identity(self, folder: Path, files: Sequence[Path], known: Mapping[str, str]) -> str:
        """Return what stands for files in digests: their content, or, if reading is left to the run, their state.

        The second never equals the first, so nothing is found in the Store, or put there, under it.

        Args:
            folder: where they lie.
            files: the files.
            known: SHA-256 of some of them, by their path below ``folder``.
        """
        names = {each: str(each.relative_to(folder)) for each in files}
        unread = self._unread([each for each, name in names.items() if name not in known])
        if not unread:
            rest = [each for each, name in names.items() if not known.get(name)]
            read = dict(zip(rest, self.store.digest_files(rest), strict=True))
            content = [[name, known.get(name) or read[each]] for each, name in names.items()]
            return f"files:{digest_json(content)}"
        self.unread += unread
        state = [[str(each), (at := each.stat()).st_size, at.st_mtime_ns, at.st_ino, at.st_dev] for each in files]
        return f"unread:{digest_json(state)}"

    def _unread(self, files: Sequence[Path]) -> int:
        """Return the bytes of files whose content is left for the run: it is much, and nobody has read it."""
        if self.read_weights:
            return 0
        unread = sum(each.stat().st_size for each in files if not self.store.knows_digest(each))
        return unread if unread > READ_AT_ONCE else 0

    def _facts_from_the_hub(self, model_id: str, revision: str) -> ModelFacts:
        """Return what the hub says of a model that is not on this machine.

        A hub that does not answer is no fault of the plan: the run will say so if it still does not.
        """
        from olivine.models.hub_facts import Unknown, ask_hub

        try:
            found = ask_hub(model_id, revision)
        except Unknown as reason:
            self.notes.append(f"what it takes is not known before it is here: {reason}")
            return ModelFacts(Format.HF)
        commit = f", of the commit {found.commit[:12]}" if found.commit else ""
        self.notes.append(f"{gigabytes(found.bytes)} will be downloaded{commit}")
        return ModelFacts(
            Format.HF_QUANTIZED if found.config.get("quantization_config") else Format.HF,
            found.config,
            None,
            found.modules,
            parameters=found.parameters,
            weights=found.bytes,
        )

    def _on_the_hub(self, revision: str, path: str) -> Source:
        """Return the input model as something to be downloaded."""
        name = self.workflow.input_model.model_path
        return Source(hub=name, revision=revision, identity=f"hub:{name}@{revision}", where=self.loaded.locate(path))

    def _model_elsewhere(self, address: str) -> Source:
        """Return a model that only other machines read, so that it stays where it is."""
        self._note(f"the model stays where it is, and is read there: {address}")
        identity = f"elsewhere:{address}@{self._version_at(address)}"
        return Source(address=address, identity=identity, where=self.loaded.locate("input_model.model_path"))

    def _version_at(self, address: str) -> str:
        """Return what changes with the content of an address."""
        return version_at(address, self.fetcher, self._note) if self.online else ""

    # Passes ---------------------------------------------------------------------------------------------------------

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
        self._check_place(host, system, pass_type.requires, f"the pass {pass_type.type}", where)
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
        self.steps.append(
            PlannedStep(
                name=name,
                step=step,
                sources=sources,
                consumes=facts.format,
                produces=pass_type.produces,
                data=data,
                where=where,
                host=host,
                target=self.target,
                cached=usable and self.store.find(step.digest) is not None,
                system=system,
                requires=specifiers(pass_type.requires, host.device),
                spreads=pass_type.spreads,
                reads_hub=reads_hub(sources, data),
                estimate=replace(estimate, output=estimate.output + facts.beside) if estimate is not None else None,
                notes=tuple(notes),
                surveys={
                    config.name: self.surveys[config.name] for config in data.values() if config.name in self.surveys
                },
            )
        )
        result = Source(step=step.digest, identity=f"step:{step.digest}")
        after = replace(facts, format=pass_type.produces, path=None, own_base=pass_type.own_base)
        if estimate is not None and pass_type.produces is Format.PEFT:
            after = replace(after, adapter=estimate.output - (facts.weights if pass_type.own_base else 0))
        if estimate is not None and pass_type.produces is not Format.PEFT:
            after = replace(after, weights=estimate.output)
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

    # Data -----------------------------------------------------------------------------------------------------------

    def _data_config(self, name: str) -> DataConfig:
        """Return a data config whose files are on this machine: what is elsewhere is fetched, once."""
        if name not in self.data_here:
            from olivine.planning.elsewhere import data_here

            config = self.workflow.data_config(name)
            if has_addresses(config) and data_stays(self.workflow, name):
                self.data_here[name] = config
                self.stay.add(name)
                return config
            try:
                config = data_here(config, self.fetcher, self._note)
            except OlivineError as error:
                self._error(error, f"data_configs.{name}.data_files")
                # It is said once; rows that are not here need not be missed, too.
                self.checked.add(name)
                self.identities[name] = None
            self.data_here[name] = config
        return self.data_here[name]

    def _check_data(self, config: DataConfig) -> None:
        """Check a data config and its rows, once."""
        if config.name in self.checked:
            return
        self.checked.add(config.name)
        from olivine.data.rows import find_problems
        from olivine.data.sequences import check_config

        try:
            found = check_config(config) if config.name in self.stay else find_problems(config)
        except OlivineError as error:
            self._error(error, f"data_configs.{config.name}")
            return
        for problem in found:
            self._problem(self._placed(problem, f"data_configs.{config.name}"))

    def _check_lengths(self, config: DataConfig, facts: ModelFacts) -> None:
        """Refuse joined blocks that are longer than the model has positions for."""
        limit = facts.config.get("max_position_embeddings")
        if not config.strategy.startswith("join") or not isinstance(limit, int) or config.max_seq_len <= limit:
            return
        self._problem(
            Problem(
                f"blocks of {config.max_seq_len} tokens do not fit the model, which has positions for {limit}",
                self.loaded.locate(f"data_configs.{config.name}.max_seq_len"),
                "what lies beyond would be trained on positions that the model never saw",
                f"set max_seq_len to at most {limit}",
            )
        )

    def _identify(self, config: DataConfig) -> Any:
        """Survey the rows of a data config, and return what identifies its content and use in a digest."""
        if config.name in self.identities:
            return self.identities[config.name]
        from olivine.data.identity import identity
        from olivine.data.rows import survey

        found: Any = None
        try:
            if config.name in self.stay:
                self.identities[config.name] = identity_of(config, self._version_at)
                return self.identities[config.name]
            self.surveys[config.name] = survey(config)
            found = identity(config, self.store.digest_file, self.store.digest_tree)
        except OlivineError as error:
            self._error(error, f"data_configs.{config.name}")
        self.identities[config.name] = found
        return found

    def _sizes(self, data: Mapping[str, DataConfig]) -> dict[str, DataSize]:
        """Return how much there is in data configs, by the key that names them, as far as that is known."""
        found = {}
        for key, config in data.items():
            surveyed = self.surveys.get(config.name)
            if surveyed is not None and surveyed.rows is not None and surveyed.first_rows:
                found[key] = DataSize(surveyed.rows, _characters(config, surveyed))
        return found

    # Evaluation -----------------------------------------------------------------------------------------------------

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
            self.steps.append(
                PlannedStep(
                    name=f"record {metric_type.type}",
                    step=step,
                    sources={"model": model},
                    consumes=facts.format,
                    produces=Format.METRICS,
                    data={f"0.{key}": config for key, config in own.items()},
                    where=where,
                    host=host,
                    target=self.target,
                    cached=not self.problems and self.store.find(step.digest) is not None,
                    system=system,
                    requires=specifiers(needed, host.device),
                    reads_hub=reads_hub({"model": model}, own),
                    estimate=estimate_evaluation(
                        facts,
                        [metric_type.workload(params, self._sizes(own))],
                        host,
                        has_bf16=self.machine.has_bf16(host.device),
                    ),
                )
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
            if metric_type.check.__func__ is Metric.check.__func__:  # type: ignore[attr-defined]
                for each in own.values():
                    self._check_data(each)
            for problem in metric_type.check(params, own):
                self._problem(self._placed(problem, f"evaluators.{evaluator}.metrics.{index}"))
            script = metric_type.script(params)
            if script is not None:
                params = self._script(params, script, place)
                scripts[str(index)] = self.store.digest_file(file) if (file := self._file(script)).is_file() else ""
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
                    "install olivine[gpu] or olivine[directml], choose another target, or measure nothing here: leave "
                    "engine.evaluator out (--no-measure)",
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
        self.steps.append(
            PlannedStep(
                name=name,
                step=step,
                sources=sources,
                consumes=facts.format,
                produces=Format.METRICS,
                data=data,
                where=where,
                host=self.target,
                target=self.target,
                cached=not self.problems and self.store.find(step.digest) is not None,
                system=system,
                requires=specifiers(requires, self.target.device),
                reads_hub=reads_hub(sources, data) or any(each["type"] == "lm_eval" for each in metrics),
                surveys={
                    config.name: self.surveys[config.name] for config in data.values() if config.name in self.surveys
                },
                estimate=estimate_evaluation(
                    facts, work, self.target, has_bf16=self.machine.has_bf16(self.target.device)
                ),
            )
        )

    def _file(self, path: str) -> Path:
        """Return a path of the configuration, which is meant from its folder."""
        base = self.loaded.file.absolute().parent if self.loaded.file is not None else Path.cwd()
        return base / Path(path).expanduser()

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

    # Places and problems --------------------------------------------------------------------------------------------

    def _target_machine(self) -> Target:
        """Return what is known of the machine that the model ships to."""
        name = self.workflow.engine.target_system
        system = self.workflow.systems[name] if name is not None else System()
        try:
            return target_of(name, system, self.target, self.machine)
        except ValueError as error:
            self._problem(Problem(str(error), self.loaded.locate(f"systems.{name}.memory")))
            return Target(name or "target", self.target)

    def _place(self, name: str | None, path: str) -> Accelerator:
        name = name or runner_name(self.workflow, None)
        system = self.workflow.systems[name] if name is not None else System()
        accelerator = place(system, self._machine_of(name))
        if not accelerator.execution_provider:
            self._problem(
                Problem(
                    f"{repr(name) if isinstance(name, str) else 'the target'} has no execution provider",
                    self.loaded.locate(path),
                    f"for a device {accelerator.device} there are several",
                    "name it, e.g. execution_provider: QNNExecutionProvider",
                )
            )
        return accelerator

    def _machine_of(self, name: str | None) -> Machine:
        """Return the machine that Steps of a system run on."""
        name = runner_name(self.workflow, name)
        system = self.workflow.systems[name] if name is not None else System()
        return machine_of(system) if is_away(system) else self.machine

    def _check_place(
        self, host: Accelerator, system: str, requires: Sequence[Requirement], subject: str, where: Location
    ) -> None:
        """Say what a Step needs that is not on this machine, if it runs here."""
        machine = self._machine_of(system or None)
        if not system or host.device == "npu":
            self.unavailable += check_host(host, machine, self.loaded.locate("engine.host"))
        if not system:
            self.unavailable += check_requirements(requires, subject, where)

    def _libraries(self, system: str, shaped_by: Sequence[str]) -> dict[str, str]:
        """Return the versions of the libraries that shape a result, or what says them where it is made elsewhere."""
        if system:
            return environment_of(self.workflow.systems[system], self.store.digest_file)
        return versions_of(shaped_by)

    def _shared_by(self, system: str, spreads: bool, notes: list[str]) -> dict[str, str]:
        """Return what says, in a digest, how many processes share a Step's work, for that shapes the result too."""
        count = processes_of(self.workflow.systems[system]) if system and spreads else 1
        if count == 1:
            return {}
        notes.append(f"{count} processes share the work: each step takes {count} times per_device_train_batch_size")
        return {"processes": str(count)}

    def _system_of(self, name: str | None) -> str:
        """Return the name of the system that runs a Step; empty for this machine."""
        name = runner_name(self.workflow, name)
        return name if name is not None and self.workflow.systems[name].type != "LocalSystem" else ""

    def _check_folders(self, output_dir: Path) -> None:
        """Find out now, not after an hour, that a result could not be written."""
        from olivine.store.publishing import check_writable

        for path, key in (
            (output_dir, "engine.output_dir"),
            (Path(self.workflow.engine.cache_dir), "engine.cache_dir"),
        ):
            problem = check_writable(path)
            if problem is not None:
                self._problem(replace(problem, where=self.loaded.locate(key)))
        model = Path(self.workflow.input_model.model_path)
        if model.is_dir() and output_dir.is_dir() and output_dir.samefile(model):
            self._problem(
                Problem(
                    f"{output_dir} is the folder of the input model",
                    self.loaded.locate("engine.output_dir"),
                    "the result would lie between its files",
                    "choose another folder",
                )
            )

    def _placed(self, problem: Problem, path: str) -> Problem:
        """Put a key's place in the configuration in front; a place in a data file stays as it is."""
        if problem.where is not None and problem.where.file is not None:
            return problem
        key = problem.where.path if problem.where is not None else None
        return replace(problem, where=self.loaded.locate(f"{path}.{key}" if key else path))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _problem(self, problem: Problem) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _error(self, error: OlivineError, path: str) -> None:
        """Keep an error's problems, adding where in the configuration it belongs if it does not say a place itself."""
        into = self.unavailable if isinstance(error, UnavailableError) else self.problems
        for problem in error.problems:
            placed = self._placed(problem, path)
            if placed not in into:
                into.append(placed)


def _characters(config: DataConfig, survey: Survey) -> float:
    """Return the mean length of the texts of the rows that were read."""
    from olivine.data.templates import render

    lengths = []
    for row in survey.first_rows:
        try:
            lengths.append(sum(len(piece.text) for piece in render(config, row).pieces))
        except (OlivineError, ValueError):  # a chat needs the tokenizer; other faults have been told
            lengths.append(sum(len(str(value)) for value in row.values.values()))
    return sum(lengths) / len(lengths)


def data_references(params: Params) -> dict[str, str]:
    """Return the parameters that name a data config (every name that ends in ``data_config``) and are set."""
    return {
        key: value
        for key in type(params).model_fields
        if key.endswith("data_config") and isinstance(value := getattr(params, key), str)
    }
