"""Which dialect a configuration is written in: the newest that explains all the evidence in it.

A piece of evidence says that a dialect is older than some release (a key that it removed), or not older (a key that it
brought), or only that the file is Olive's. Weak evidence is a habit rather than a rule, and gives way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from olivine.config.dialects.releases import CANONICAL, KNOWN, OLIVE, age

PASSES_BEFORE = {
    "genaimodelexporter": "0.6",
    "ortperftuning": "0.7",
    "onnxmodeloptimizer": "0.8",
    "onnxiofloat16tofloat32": "0.8",
    "onnxmatmul4quantizer": "0.9",
}
"""Passes by the dialect that no longer had their names."""

PASSES_SINCE = {"gptqquantizer": "0.2", "gptq": "0.9", "gptqmodel": "0.9", "rtn": "0.10", "kquant": "0.10"}
"""Passes that only Olive has, and that are another one in the canonical form, by the dialect that brought them."""

ENGINE_KEYS = frozenset(
    [
        "search_strategy",
        "host",
        "target",
        "evaluator",
        "execution_providers",
        "evaluate_input_model",
        "evaluation_only",
        "cache_dir",
        "clean_cache",
        "clean_evaluation_cache",
        "cache_config",
        "enable_shared_cache",
        "output_dir",
        "output_name",
        "packaging_config",
        "plot_pareto_frontier",
        "no_artifacts",
        "azureml_client_config",
        "cloud_cache_config",
        "log_severity_level",
        "ort_log_severity_level",
        "ort_py_log_severity_level",
        "log_to_file",
    ]
)
"""What Olive 0.7 and later take at the top level for keys of the engine."""

OLD_USER_CONFIG = frozenset(
    [
        "data_dir",
        "dataloader_func",
        "post_processing_func",
        "batch_size",
        "input_names",
        "input_shapes",
        "input_types",
        "func_kwargs",
    ]
)
LORA_TYPES = frozenset({"lora", "qlora", "loftq", "dora"})


@dataclass(frozen=True)
class Detected:
    """A dialect, and what told it."""

    name: str
    evidence: str


@dataclass(frozen=True)
class Evidence:
    """One thing in a file that tells its age.

    Attributes:
        text: what was seen.
        before: the file is older than this dialect.
        since: the file is not older than this dialect.
        weak: a habit; it gives way to the rest.
    """

    text: str
    before: str = CANONICAL
    since: str = OLIVE[0]
    weak: bool = False


def detect(raw: dict[str, Any]) -> Detected:
    """Return the dialect that a configuration is written in. Without evidence of Olive it is the canonical one."""
    if "version" in raw:
        return Detected(CANONICAL, "it has a version")
    found = list(_evidence(raw))
    if not any(each.before != CANONICAL or each.since == OLIVE[0] for each in found):
        return Detected(CANONICAL, "nothing in it is of an older form")
    strong = [each for each in found if not each.weak]
    for trusted in (found, strong):
        names = [name for name in OLIVE if all(age(each.since) <= age(name) < age(each.before) for each in trusted)]
        if names:
            return Detected(names[-1], _told(trusted))
    # Keys of different ages in one file: what is older must be translated, and what is newer is left as it is.
    oldest = min(strong, key=lambda each: age(each.before))
    newest = max(strong, key=lambda each: age(each.since))
    return Detected(KNOWN[max(age(oldest.before) - 1, 0)], f"{oldest.text}, though {newest.text}")


def _told(trusted: list[Evidence]) -> str:
    """Return the evidence that narrows the choice the most, from either side."""
    upper = min(trusted, key=lambda each: age(each.before))
    lower = max(trusted, key=lambda each: age(each.since))
    told = [upper.text] if upper.before != CANONICAL or lower.since == OLIVE[0] else []
    if lower.since != OLIVE[0] and lower.text not in told:
        told.append(lower.text)
    return ", ".join(told)


def _evidence(raw: dict[str, Any]) -> Iterator[Evidence]:
    yield from _top(raw)
    yield from _model(raw.get("input_model"))
    yield from _systems(raw)
    yield from _data(raw)
    yield from _passes(raw)
    yield from _evaluators(raw)
    yield from _engine(raw)


def _olive(text: str, since: str) -> Iterator[Evidence]:
    """Yield what a dialect brought and the canonical form does not have: the file is Olive's, and not older."""
    yield Evidence(text, since=since)
    yield Evidence(text)


def _top(raw: dict[str, Any]) -> Iterator[Evidence]:
    for key, before, since in (
        ("data_config", "0.3", "0.2"),
        ("data_root", "0.7", "0.2"),
        ("pass_flows", "0.8", "0.2"),
        ("azureml_client", "0.9", "0.2"),
        ("auto_optimizer_config", "0.9", "0.5"),
        ("workflow_host", "0.9", "0.7"),
    ):
        if key in raw:
            yield Evidence(f"it has {key}", before, since)
    if "verbose" in raw:
        yield Evidence("it has verbose", "0.3")
    if "builds" in raw:
        yield from _olive("it has builds", "0.10")
    flat = [key for key in raw if key in ENGINE_KEYS]
    if flat:
        yield from _olive(f"{flat[0]} stands at the top level", "0.7")


def _model(model: Any) -> Iterator[Evidence]:
    if not isinstance(model, dict):
        return
    if isinstance(model.get("config"), dict):
        yield Evidence("input_model has a nested config", "0.7", weak=True)
        yield Evidence("input_model has a nested config")
    elif "type" in model and len(model) > 1 and "hf_config" not in model:
        yield Evidence("input_model is flat", since="0.7")
    inner = _inner(model)
    if str(model.get("type", "")).lower() in ("hfmodel", "distributedhfmodel"):
        yield Evidence(f"input_model.type is {model['type']}", since="0.7")
    for key in ("model_storage_kind", "is_file", "aml_storage_name"):
        if key in inner:
            yield Evidence(f"input_model has {key}", "0.3")
    for key in ("name", "version"):
        if key in _object(model.get("config")):
            yield Evidence(f"input_model has a {key}", "0.3", weak=True)
    hf = inner.get("hf_config")
    if isinstance(hf, dict):
        yield Evidence("input_model has an hf_config", "0.7")
        if "dataset" in hf:
            yield Evidence("hf_config has a dataset", "0.6")
        if "model_loading_args" in hf:
            yield Evidence("hf_config has model_loading_args", "0.5")
        if "from_pretrained_args" in hf:
            yield Evidence("hf_config has from_pretrained_args", "0.7", "0.5")


def _systems(raw: dict[str, Any]) -> Iterator[Evidence]:
    for name, system in _items(raw.get("systems")):
        if not isinstance(system, dict):
            continue
        if isinstance(system.get("config"), dict):
            yield Evidence(f"systems.{name} has a nested config", "0.7", weak=True)
            yield Evidence(f"systems.{name} has a nested config")
        if str(system.get("type", "")).lower() == "azureml":
            # Only a habit, because the canonical form has such systems too.
            yield Evidence(f"systems.{name} is of the type AzureML", "0.9", weak=True)
        if "local_docker_config" in _inner(system):
            yield Evidence(f"systems.{name} has a local_docker_config", "0.9")
        accelerators = _inner(system).get("accelerators")
        for each in accelerators if isinstance(accelerators, list) else ():
            if isinstance(each, str):
                yield Evidence(f"systems.{name} has an accelerator that is a plain name", "0.5.1")
            elif isinstance(each, dict):
                yield from _olive(f"systems.{name} has accelerators that are objects", "0.5.1")
            break


def _data(raw: dict[str, Any]) -> Iterator[Evidence]:
    data = raw.get("data_configs")
    if isinstance(data, dict):
        yield Evidence("data_configs is an object", "0.6")
        configs = list(data.values())
    elif isinstance(data, list) and data:
        yield Evidence("data_configs is a list", since="0.6")
        configs = data
    else:
        return
    for config in configs:
        if not isinstance(config, dict):
            continue
        for key in ("params_config", "components"):
            if key in config:
                yield Evidence(f"a data config has {key}", "0.6.2")
        for key in ("load_dataset_config", "pre_process_data_config", "post_process_data_config", "dataloader_config"):
            section = config.get(key)
            if key not in config:
                continue
            yield from _olive(f"a data config has {key}", "0.6.2")
            if not isinstance(section, dict):
                continue
            if isinstance(section.get("params"), dict):
                yield Evidence(f"{key} has nested params", "0.7", weak=True)
            for old in ("source_max_len", "corpus_strategy", "dataset_type", "pair_format", "label_cols"):
                if old in section or old in _object(section.get("params")):
                    yield Evidence(f"a data config has {old}", "0.7")
            for new in ("max_seq_len", "strategy", "label_col", "chat_template"):
                if new in section or new in _object(section.get("params")):
                    yield Evidence(f"a data config has {new}", since="0.7")


def _passes(raw: dict[str, Any]) -> Iterator[Evidence]:
    for name, value in _items(raw.get("passes")):
        if isinstance(value, list):
            yield Evidence(f"passes.{name} is a list of alternatives", since="0.8")
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield from _pass(name, each)


def _pass(name: str, value: dict[str, Any]) -> Iterator[Evidence]:
    kind = str(value.get("type", "")).lower()
    if kind in PASSES_BEFORE:
        yield Evidence(f"there is a pass {value['type']}", PASSES_BEFORE[kind])
    if kind in PASSES_SINCE:
        yield from _olive(f"there is a pass {value['type']}", PASSES_SINCE[kind])
    if isinstance(value.get("config"), dict):
        yield Evidence(f"passes.{name} has a nested config", "0.7", weak=True)
        yield Evidence(f"passes.{name} has a nested config")
    inner = _inner(value)
    for key, before in (("output_name", "0.7"), ("disable_search", "0.8"), ("clean_run_cache", "0.8")):
        if key in value:
            yield Evidence(f"passes.{name} has {key}", before)
    if kind in LORA_TYPES:
        for key, before in (
            ("lora_r", "0.8"),
            ("lora_alpha", "0.8"),
            ("eval_dataset_size", "0.7"),
            ("use_ort_trainer", "0.7"),
            ("bias", "0.7"),
        ):
            if key in inner:
                yield Evidence(f"passes.{name} has {key}", before)
        for key in ("r", "alpha"):
            if key in inner:
                yield Evidence(f"passes.{name} has {key}", since="0.8")
        training = _object(inner.get("training_args"))
        if "evaluation_strategy" in training:
            yield Evidence(f"passes.{name} has an evaluation_strategy", "0.9")
        if "eval_strategy" in training:
            yield Evidence(f"passes.{name} has an eval_strategy", since="0.9")


def _evaluators(raw: dict[str, Any]) -> Iterator[Evidence]:
    for name, evaluator in _items(raw.get("evaluators")):
        if not isinstance(evaluator, dict):
            continue
        if "target" in evaluator:
            yield Evidence(f"evaluators.{name} has a target", "0.3")
        metrics = evaluator.get("metrics")
        for metric in metrics if isinstance(metrics, list) else ():
            if not isinstance(metric, dict):
                continue
            if "sub_types" in metric:
                yield Evidence(f"evaluators.{name} has sub_types")
            for key in _object(metric.get("user_config")):
                if key in OLD_USER_CONFIG:
                    yield Evidence(f"evaluators.{name} has a user_config with {key}", "0.7")
            if metric.get("type") == "size_on_disk":
                yield Evidence(f"evaluators.{name} has a metric size_on_disk", since="0.10")


def _engine(raw: dict[str, Any]) -> Iterator[Evidence]:
    section = _object(raw.get("engine"))
    both = section | {key: value for key, value in raw.items() if key in ENGINE_KEYS}
    for key, before, since in (
        ("evaluation_only", "0.3", "0.2"),
        ("execution_providers", "0.5.1", "0.2"),
        ("output_name", "0.7", "0.2"),
        ("azureml_client_config", "0.6", "0.2"),
    ):
        if key in both:
            yield Evidence(f"the engine has {key}", before, since)
    for key, since in (
        ("cache_config", "0.7"),
        ("cloud_cache_config", "0.7"),
        ("enable_shared_cache", "0.7"),
        ("no_artifacts", "0.8"),
        ("clean_cache", OLIVE[0]),
        ("clean_evaluation_cache", OLIVE[0]),
        ("plot_pareto_frontier", OLIVE[0]),
        ("log_to_file", OLIVE[0]),
        ("ort_log_severity_level", OLIVE[0]),
        ("ort_py_log_severity_level", OLIVE[0]),
    ):
        if key in section:
            yield from _olive(f"the engine has {key}", since)
    # The canonical form has a list there.
    packaging = section.get("packaging_config")
    if isinstance(packaging, dict) or (
        isinstance(packaging, list)
        and any(key in _object(each) for each in packaging for key in ("config", "generative"))
    ):
        yield Evidence("packaging_config is in Olive's form")
    strategy = _object(both.get("search_strategy"))
    for key in ("search_algorithm", "search_algorithm_config"):
        if key in strategy:
            yield Evidence(f"search_strategy has {key}", "0.8")
    if "sampler_config" in strategy:
        yield from _olive("search_strategy has a sampler_config", "0.8")
    if "sampler" in strategy:
        yield Evidence("search_strategy has sampler", since="0.8")
    if both.get("search_strategy") is True:
        yield Evidence("search_strategy is true")


def _inner(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object with what its nested config holds."""
    return value | _object(value.get("config"))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []
