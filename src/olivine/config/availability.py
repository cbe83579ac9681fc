"""What a workflow asks for that is understood but cannot be had here: found before anything starts.

What nothing refers to (a system, a data config, an evaluator) is not looked at: it takes no part in the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from olivine.config.placeholders import find_placeholders, is_placeholder
from olivine.config.references import in_vault
from olivine.config.schema import DataConfig, Evaluator, InputModel, MetricConfig, PassConfig, System, Workflow
from olivine.errors import Problem, UnavailableError

if TYPE_CHECKING:
    from olivine.config.loading import Loaded

RUNNABLE_MODELS = frozenset({"HfModel", "ONNXModel"})
RUNNABLE_SYSTEMS = frozenset({"LocalSystem", "AzureML"})
CLASSIFYING = "text-classification"
"""The task of models that are measured, and not changed."""
CLASSIFIED = ("torch_metrics",)
"""Metrics of classifiers, which prepare rows as ``huggingface_pre_process`` does."""


@dataclass(frozen=True)
class Finding:
    """One thing that is understood and not available.

    Attributes:
        path: the key in the canonical form (``passes.conversion``).
        kind: ``pass``, ``system``, ``metric``, ``evaluator``, ``model``, ``data``, ``search``, ``packaging``,
            ``engine`` or ``placeholder``.
        name: what is not available (``OnnxConversion``).
        what: the fact, in one sentence without a final full stop.
        why: the reason.
        remedy: what to do instead.
    """

    path: str
    kind: str
    name: str
    what: str
    why: str = ""
    remedy: str = ""


def unavailable(workflow: Workflow) -> list[Finding]:
    """Return everything in a workflow that Olivine understands but cannot run; empty means it can be planned."""
    found = [
        *_model(workflow.input_model, "input_model", changed=bool(workflow.passes)),
        *_data(workflow),
        *_systems(workflow),
        *_passes(workflow),
        *_evaluators(workflow),
        *_engine(workflow),
        *_placeholders(workflow),
    ]
    return list(dict.fromkeys(found))


def refuse_unavailable(loaded: Loaded) -> None:
    """Stop if a configuration asks for something that cannot be had here.

    Raises:
        UnavailableError: with everything that :func:`unavailable` finds, each with its place in the file.
    """
    found = [
        Problem(each.what, loaded.locate(each.path), each.why, each.remedy) for each in unavailable(loaded.workflow)
    ]
    if found:
        raise UnavailableError(found)


def _model(model: InputModel, path: str, *, changed: bool) -> Iterator[Finding]:
    kind = model.type
    if kind not in RUNNABLE_MODELS:
        code = model.model_loader is not None or model.model_script is not None
        yield Finding(
            f"{path}.type",
            "model",
            kind,
            f"models of the type {kind} are not available yet",
            "its code would have to run to make the model" if code else "Olivine reads checkpoint and ONNX folders",
            "save the checkpoint as safetensors and give its folder as an HfModel"
            if kind in ("PyTorchModel", "OptimumModel", "DistributedHfModel")
            else "give a checkpoint folder, or a folder with ONNX files",
        )
        return
    runs = model.task.startswith("text-generation") or (model.task == CLASSIFYING and not changed)
    if kind == "HfModel" and not runs:
        yield Finding(
            f"{path}.task",
            "model",
            model.task,
            f"models for the task {model.task} are not available yet",
            "passes are for language models that generate text; classifiers are only measured"
            if model.task == CLASSIFYING
            else "Olivine runs language models that generate text",
            "remove the passes to measure it as it is"
            if model.task == CLASSIFYING
            else "remove the task if the model does",
        )
    if model.load_kwargs.quantization_method is not None:
        yield Finding(
            f"{path}.load_kwargs.quantization_method",
            "model",
            model.load_kwargs.quantization_method,
            "quantising while loading is not available",
            remedy="let QLoRA or ModelBuilder quantise",
        )
    for key in ("model_path", "adapter_path"):
        yield from _address(getattr(model, key) or "", f"{path}.{key}", "model")


def _address(address: str, path: str, kind: str) -> Iterator[Finding]:
    """Yield an address of a kind that nothing here fetches."""
    from olivine.storage.addresses import SCHEMES

    if in_vault(address):
        return  # what it is, is known when it is used
    scheme = address.partition("://")[0].lower()
    if "://" in address and scheme not in (*SCHEMES, "azureml"):
        yield Finding(
            path,
            kind,
            address,
            f"{scheme}:// cannot be fetched",
            remedy="download it, and give the path on this machine; or use https, azureml, abfs, s3, gs or hf",
        )


def _systems(workflow: Workflow) -> Iterator[Finding]:
    engine = workflow.engine
    asked = {engine.host, engine.target_system, workflow.workflow_host}
    asked |= {config.host for _, config in _each_pass(workflow)}
    for name, system in workflow.systems.items():
        if name in asked and system.type not in RUNNABLE_SYSTEMS and not is_placeholder(system.type):
            yield _system(name, system)
    host = workflow.workflow_host
    if host is not None and workflow.systems[host].type != "AzureML" and host not in (engine.host, engine.target):
        yield Finding(
            "workflow_host",
            "system",
            "workflow_host",
            f"a workflow can be sent as a whole to an AzureML system, and {host} is a {workflow.systems[host].type}",
            remedy="remove it, or run the command on that machine",
        )


def _system(name: str, system: System) -> Finding:
    remedies = {
        "PythonEnvironment": "install olivine into that environment and run it there with a LocalSystem",
        "IsolatedORT": "use a LocalSystem, or remove the reference to it",
        "Docker": "run olivine in the container with a LocalSystem",
    }
    return Finding(
        f"systems.{name}",
        "system",
        system.type,
        f"systems of the type {system.type} are not available yet",
        "Olivine runs on this machine and in jobs of Azure Machine Learning",
        remedies[system.type],
    )


def _each_pass(workflow: Workflow) -> Iterator[tuple[str, PassConfig]]:
    """Yield every pass with its path; of alternatives each."""
    for name, value in workflow.passes.items():
        if isinstance(value, list):
            for index, each in enumerate(value):
                yield f"passes.{name}.{index}", each
        else:
            yield f"passes.{name}", value


def _passes(workflow: Workflow) -> Iterator[Finding]:
    from olivine.passes import known, registry

    for path, config in _each_pass(workflow):
        if registry.find(config.type) is None:
            found = known.find(config.type)
            yield Finding(
                path,
                "pass",
                config.type,
                f"the pass {config.type} is not available",
                found.why if found is not None else "",
                found.instead if found is not None else "",
            )
    if workflow.engine.search_strategy:
        return
    for name, value in workflow.passes.items():
        if isinstance(value, list):
            yield Finding(
                f"passes.{name}",
                "search",
                name,
                "there are alternatives for a pass, and no search that chooses among them",
                remedy="set engine.search_strategy, or give the one that is wanted",
            )
    if workflow.pass_flows is not None:
        yield Finding(
            "pass_flows",
            "search",
            "pass_flows",
            "there are several chains of passes, and no search that chooses among them",
            remedy="set engine.search_strategy, or give each a configuration of its own",
        )
    yield from _searched(workflow)


def _searched(workflow: Workflow) -> Iterator[Finding]:
    """Yield parameters that only a search can give a value, in passes that are run."""
    from olivine.passes import registry
    from olivine.passes.choices import searched_parameters

    for path, config in _each_pass(workflow):
        found = registry.find(config.type)
        for key in searched_parameters(found.params_type, None, config.params) if found is not None else ():
            yield Finding(
                f"{path}.{key}",
                "search",
                key,
                f"{key} has choices in place of a value, and no search is asked for",
                remedy=f"set engine.search_strategy, or give {key} one value",
            )


def _asked_metrics(workflow: Workflow) -> Iterator[tuple[str, MetricConfig]]:
    """Yield the metrics that are measured, each with its path."""
    for name, evaluator in _asked_evaluators(workflow):
        for index, metric in enumerate(evaluator.metrics):
            yield f"evaluators.{name}.metrics.{index}", metric


def _asked_evaluators(workflow: Workflow) -> Iterator[tuple[str, Evaluator]]:
    """Yield the evaluators that something refers to, by name."""
    asked = {workflow.engine.evaluator} | {config.evaluator for _, config in _each_pass(workflow)}
    asked |= {build.evaluator for build in workflow.builds.values()}
    yield from ((name, each) for name, each in workflow.evaluators.items() if name in asked)


def _evaluators(workflow: Workflow) -> Iterator[Finding]:
    from olivine.evaluate import known, registry

    for name, evaluator in _asked_evaluators(workflow):
        if evaluator.type is not None:
            why, instead = known.EVALUATORS.get(evaluator.type, ("code from a configuration is not run", known.ANSWERS))
            yield Finding(
                f"evaluators.{name}",
                "evaluator",
                evaluator.type,
                f"the evaluator {evaluator.type} is not available yet",
                why,
                instead,
            )
    for path, metric in _asked_metrics(workflow):
        if registry.find(metric.type) is None:
            yield _metric(path, metric)


def _metric(path: str, metric: MetricConfig) -> Finding:
    from olivine.evaluate import known

    found = known.find(metric.type)
    return Finding(
        path,
        "metric",
        metric.type,
        f"the metric {metric.type} is not available",
        found.why if found is not None else "",
        found.instead if found is not None else "",
    )


def _data(workflow: Workflow) -> Iterator[Finding]:
    metrics = [metric for _, metric in _asked_metrics(workflow)]
    classified = _data_named([each for each in metrics if each.type in CLASSIFIED])
    others = _data_named(
        [*(config for _, config in _each_pass(workflow)), *(each for each in metrics if each.type not in CLASSIFIED)]
    )
    for config in workflow.data_configs:
        if config.name in classified | others:
            yield from _data_config(config, f"data_configs.{config.name}", classified=config.name not in others)


def _data_named(nodes: Sequence[PassConfig | MetricConfig]) -> set[str]:
    """Return the names of the data configs that passes or metrics refer to."""
    return {
        value
        for node in nodes
        for key, value in node.params.items()
        if key.endswith("data_config") and isinstance(value, str)
    }


def _data_config(config: DataConfig, path: str, *, classified: bool) -> Iterator[Finding]:
    if config.type != "HuggingfaceContainer":
        yield Finding(
            f"{path}.type",
            "data",
            config.type,
            f"data of the type {config.type} is not available yet",
            "Olivine reads rows of data sets",
            "give data_files, or the name of a data set",
        )
    for key in ("load_dataset", "pre_process_data"):
        component = getattr(config, key)
        if classified and component is not None and component.type == "huggingface_pre_process":
            continue
        if component is not None and component.type == "huggingface_dataset":
            arguments = ", ".join(component.params)
            yield Finding(
                f"{path}.{key}",
                "data",
                arguments,
                f"data cannot be loaded with {arguments} yet",
                "these are arguments of datasets.load_dataset and of a data set's own code",
                "remove them, or write the rows into a file, and give it as data_files",
            )
        elif component is not None:
            code = config.user_script is not None
            yield Finding(
                f"{path}.{key}",
                "data",
                component.type,
                f"the {'loading' if key == 'load_dataset' else 'preparation'} {component.type} is not available yet",
                "data is read without running code" if code else "Olivine prepares text for language models",
                "write the prepared rows into a file, and give it as data_files",
            )
    if config.col_filters is not None:
        yield Finding(
            f"{path}.col_filters",
            "data",
            "col_filters",
            "rows cannot be filtered by their columns yet",
            remedy="filter them before, or choose them by split",
        )
    files = [config.data_files] if isinstance(config.data_files, str) else config.data_files or []
    for address in files:
        yield from _address(address, f"{path}.data_files", "data")
    if "://" in (config.data_name or ""):
        yield Finding(
            f"{path}.data_name",
            "data",
            str(config.data_name),
            "a saved data set is not fetched from an address",
            remedy="give its files as data_files",
        )


def _engine(workflow: Workflow) -> Iterator[Finding]:
    engine = workflow.engine
    for index, packaging in enumerate(engine.packaging_config or []):
        if packaging.type in ("AzureMLModels", "AzureMLData") and not packaging.export_in_mlflow_format:
            continue
        if packaging.type in ("AzureMLModels", "AzureMLData"):
            yield Finding(
                f"engine.packaging_config.{index}.export_in_mlflow_format",
                "packaging",
                "export_in_mlflow_format",
                "models are not written as MLflow models yet",
                remedy="remove it: the model is registered as it is",
            )
            continue
        yield Finding(
            f"engine.packaging_config.{index}",
            "packaging",
            packaging.type,
            f"packing models as {packaging.type} is not available yet",
            remedy="remove it: the output folder holds the model with its papers",
        )
    if workflow.builds:
        yield Finding(
            "builds",
            "engine",
            "builds",
            "several builds in one configuration are not available yet",
            remedy="give each a configuration of its own",
        )
    chosen = workflow.auto_optimizer_config
    if chosen is not None and not workflow.passes and not chosen.disable_auto_optimizer:
        yield Finding(
            "auto_optimizer_config",
            "engine",
            "auto_optimizer_config",
            "passes are not chosen for you yet",
            "the configuration names none, and old releases of Olive chose some themselves",
            "name the passes, e.g. passes: {builder: {type: ModelBuilder, precision: int4}}",
        )


def _placeholders(workflow: Workflow) -> Iterator[Finding]:
    for path, value in find_placeholders(workflow.model_dump(mode="json", exclude_defaults=True, warnings=False)):
        dotted = ".".join(str(part) for part in path if part != "params")
        yield Finding(
            dotted,
            "placeholder",
            value,
            f"{value!r} is not filled in",
            "the file is a template",
            f"put a value there, or give --set {dotted}=VALUE",
        )
