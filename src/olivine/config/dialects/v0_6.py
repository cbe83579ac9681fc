"""Olive 0.6 (spring 2024): nested ``{type, config}`` objects, ``PyTorchModel`` with ``hf_config``, per-component data.

What an old default was, and the canonical one is not, is written out. 0.6.0 and 0.6.1 have ``params_config`` with
``component_kwargs``; 0.6.2 has ``load_dataset_config`` and its siblings; both are read, with the old priorities
(``component_kwargs`` before ``params_config`` before ``components``).
"""

from __future__ import annotations

from typing import Any

from olivine.config.dialects.translation import Old, Translated
from olivine.config.parsing import KeyPath

LORA_FAMILY = {"lora": "LoRA", "qlora": "QLoRA", "loftq": "LoftQ", "dora": "DoRA"}

TRAINING_DEFAULTS: dict[str, Any] = {
    "seed": 42,
    "data_seed": 42,
    "optim": "paged_adamw_32bit",
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "max_steps": 10000,
    "weight_decay": 0.0,
    "learning_rate": 2e-4,
    "gradient_checkpointing": True,
    "lr_scheduler_type": "constant",
    "warmup_ratio": 0.03,
    "logging_steps": 10,
    "group_by_length": True,
}
"""What Olive 0.6 filled in where a configuration was silent, and transformers or Olivine would not."""

RENAMED = {"lora_r": "r", "lora_alpha": "alpha"}
DEVICE_WORDS = {"cpu_spr": "cpu", "vpu": "npu", "intel_myriad": "npu"}


def translate(raw: dict[str, Any]) -> Translated:
    """Return a configuration of Olive 0.6 in the canonical form."""
    into = Translated({})
    old = Old(raw, (), into)
    old.take("$schema")
    for value, path in old.take_if("workflow_id"):
        into.put(("workflow_id",), value, path)
    old.ignore("azureml_client", "no system here uses Azure ML")
    old.ignore("auto_optimizer_config", "passes are given")
    old.ignore("data_root", "relative data paths are meant from the configuration's folder, then the working directory")
    _pass_flows(old, into)
    _input_model(old.child("input_model"), into)
    engine = old.child("engine")
    providers = engine.take("execution_providers")
    _systems(old.child("systems"), providers, engine.at("execution_providers"), into)
    _data_configs(old.take("data_configs"), into)
    _passes(old.child("passes"), into)
    evaluators = old.take("evaluators")
    _engine(engine, providers, into)
    if evaluators:
        used = into.canonical.get("engine", {}).get("evaluator") is not None
        if used:
            into.fault(
                ("evaluators",),
                "evaluators of this dialect are not available yet",
                "their metrics measure tensors, not what a language model answers",
                "write the file in the canonical form with accuracy, perplexity, speed or size",
            )
        else:
            into.note(("evaluators",), "has no effect: no engine.evaluator names one")
    old.finish("a configuration")
    into.canonical["version"] = 1
    return into


def _pass_flows(old: Old, into: Translated) -> None:
    """One flow that names all passes in order is what happens anyway; anything else is not available."""
    for flows, path in old.take_if("pass_flows"):
        if flows != [list(old._values.get("passes") or {})]:
            into.fault(path, "`pass_flows` is not available yet", remedy="write one configuration for each flow")


# The model ------------------------------------------------------------------------------------------------------------


def _input_model(old: Old, into: Translated) -> None:
    kind = str(old.take("type", "PyTorchModel"))
    config = old.child("config")
    # From 0.7 on the nested object could be left out; such files have the same keys one level up.
    inner = config if config._values else old
    if kind.lower() == "onnxmodel":
        into.put(("input_model", "type"), "ONNXModel", old.at("type"))
    elif kind.lower() not in ("pytorchmodel", "hfmodel"):
        into.fault(
            old.at("type"), f"a model of type {kind!r} is not available yet", remedy="give PyTorchModel or ONNXModel"
        )
    hf = inner.child("hf_config")
    for value, path in hf.take_if("model_name"):
        into.put(("input_model", "model_path"), value, path)
    for value, path in inner.take_if("model_path"):
        into.put(("input_model", "model_path"), _resource(value, path, into), path)  # goes before the name
    for value, path in (*hf.take_if("task"), *inner.take_if("task")):
        into.put(("input_model", "task"), value, path)
    for value, path in inner.take_if("adapter_path"):
        into.put(("input_model", "adapter_path"), _resource(value, path, into), path)
    for key in ("model_loading_args", "from_pretrained_args"):
        if key in hf:
            _load_kwargs(hf.child(key), into)
    if "load_kwargs" in inner:
        _load_kwargs(inner.child("load_kwargs"), into)
    for key in ("model_class", "feature", "components", "dataset"):
        hf.ignore(key, "the checkpoint and the passes say it")
    for key in ("io_config", "dummy_inputs_func", "model_attributes", "model_file_format", "onnx_file_name"):
        inner.ignore(key, "the checkpoint says it")
    for key in ("model_loader", "model_script", "script_dir"):
        for _, path in inner.take_if(key):
            into.fault(
                path, f"`{key}` is not available", "code from a configuration is not run", "give a checkpoint folder"
            )
    hf.finish("hf_config")
    inner.finish("input_model")
    if inner is not old:
        old.finish("input_model")


def _load_kwargs(old: Old, into: Translated) -> None:
    target = ("input_model", "load_kwargs")
    extra = old.child("extra_args")
    for source in (old, extra):
        for key in ("trust_remote_code", "revision"):
            for value, path in source.take_if(key):
                into.put((*target, key), value, path)
                if key == "trust_remote_code" and value:
                    into.note(
                        path, "is not enough on its own: --trust-remote-code on the command line allows it for a run"
                    )
        for key in (
            "torch_dtype",
            "attn_implementation",
            "device_map",
            "max_memory",
            "low_cpu_mem_usage",
            "use_cache",
            "token",
            "use_auth_token",
        ):
            source.ignore(key, "each pass decides how it loads the model")
        for key in ("quantization_method", "quantization_config"):
            for _, path in source.take_if(key):
                into.fault(
                    path, f"`{key}` is not available", remedy="use the pass QLoRA, or ModelBuilder precision int4"
                )
    extra.finish("extra_args")
    old.finish(str(old.path[-1]))


def _resource(value: Any, path: KeyPath, into: Translated) -> Any:
    """Return the path in a resource: a string, or ``{type: file|folder|local_file|local_folder, config: {path}}``."""
    if not isinstance(value, dict):
        return value
    kind = str(value.get("type", "")).lower()
    inner = value.get("config", value)
    if kind in ("file", "folder", "local_file", "local_folder") and isinstance(inner, dict):
        return inner.get("path")
    if kind == "string_name" and isinstance(inner, dict):
        return inner.get("name")
    into.fault(path, f"a resource of type {value.get('type')!r} is not available yet", remedy="give a path or a hub id")
    return "unavailable"


# Systems --------------------------------------------------------------------------------------------------------------


def _systems(old: Old, providers: Any, providers_path: KeyPath, into: Translated) -> None:
    for name in list(old._values):
        _system(name, old.child(name), ("systems", name), into)
    if providers:
        _provider_for_all(providers, providers_path, into)


def _system(name: str, old: Old, target: KeyPath, into: Translated) -> None:
    kind = str(old.take("type", "LocalSystem"))
    config = old.child("config")
    inner = config if config._values else old
    into.put((*target, "type"), "LocalSystem", old.path)
    if kind.lower() not in ("localsystem", "local"):
        into.fault(
            old.at("type"),
            f"a system of type {kind!r} is not available yet",
            remedy="use LocalSystem, which is this machine",
        )
    for value, path in inner.take_if("accelerators"):
        _accelerators(value, path, target, into)
    for value, path in inner.take_if("hf_token"):
        into.put((*target, "hf_token"), bool(value), path)
    if kind.lower() in ("localsystem", "local"):
        inner.finish(f"the system {name}")
        if inner is not old:
            old.finish(f"the system {name}")


def _accelerators(value: Any, path: KeyPath, target: KeyPath, into: Translated) -> None:
    """Translate ``["gpu"]`` and ``[{device, execution_providers}]``; the first counts."""
    listed = value if isinstance(value, list) else [value]
    if not listed:
        return
    if len(listed) > 1:
        into.note(path, f"only the first of {len(listed)} accelerators is used")
    first, place = listed[0], (*path, 0)
    if isinstance(first, str):
        into.put((*target, "device"), DEVICE_WORDS.get(first.lower(), first.lower()), place)
        return
    inner = Old(first, place, into)
    for device, at in inner.take_if("device"):
        into.put((*target, "device"), DEVICE_WORDS.get(str(device).lower(), str(device).lower()), at)
    for found, at in inner.take_if("execution_providers"):
        names = found if isinstance(found, list) else [found]
        if names:
            into.put((*target, "execution_provider"), names[0], at)
        if len(names) > 1:
            into.note(at, f"only the first, {names[0]}, is used")
    inner.finish("an accelerator")


def _provider_for_all(providers: Any, path: KeyPath, into: Translated) -> None:
    """Give every system that names no execution provider the engine's."""
    names = providers if isinstance(providers, list) else [providers]
    for name, system in into.canonical.get("systems", {}).items():
        if "execution_provider" not in system:
            into.put(("systems", name, "execution_provider"), names[0], path)
    if len(names) > 1:
        into.note(path, f"only the first, {names[0]}, is used")


# Data -----------------------------------------------------------------------------------------------------------------


def _data_configs(value: Any, into: Translated) -> None:
    into.canonical["data_configs"] = []
    if value is None:
        return
    if isinstance(value, dict):
        entries = [(("data_configs", key), key, item) for key, item in value.items()]
    elif isinstance(value, list):
        entries = [(("data_configs", index), None, item) for index, item in enumerate(value)]
    else:
        into.fault(("data_configs",), "`data_configs` must be a list")
        return
    for index, (path, key, item) in enumerate(entries):
        into.canonical["data_configs"].append({})
        into.origins[("data_configs", index)] = path
        _data_config(Old(item, path, into), key, ("data_configs", index), into)


def _data_config(old: Old, key: str | None, target: KeyPath, into: Translated) -> None:
    name = old.take("name")
    # In the object form the key is the name that passes refer to.
    into.put((*target, "name"), key if key is not None else name, old.at("name") if name is not None else old.path)
    for each in ("user_script", "script_dir"):
        for _, path in old.take_if(each):
            into.fault(
                path, f"`{each}` is not available yet", "code from a configuration is not run",
                "use text_template, text_cols or chat_template",
            )  # fmt: skip
    kind = str(old.take("type", "DataContainer"))
    if kind.lower() not in ("huggingfacecontainer", "datacontainer"):
        into.fault(
            old.at("type"), f"a data container of type {kind!r} is not available yet", remedy="HuggingfaceContainer"
        )
    flat = old.child("params_config")
    kwargs = flat.child("component_kwargs")
    components = old.child("components")
    component = {
        part: components.child(part) for part in ("load_dataset", "pre_process_data", "post_process_data", "dataloader")
    }
    load = _parameters(old, "load_dataset_config", kwargs.child("load_dataset"), flat, component["load_dataset"])
    process = _parameters(
        old, "pre_process_data_config", kwargs.child("pre_process_data"), flat, component["pre_process_data"]
    )
    for part in ("post_process_data", "dataloader"):
        kwargs.ignore(part, "training_args and the metrics say it")
        component[part].rest()
        old.ignore(f"{part}_config", "training_args and the metrics say it")
    _load(_Layered(load), target, into)
    _process(_Layered(process), target, into)
    for each in ("task", "model_name", "batch_size"):
        flat.ignore(each, "the model and training_args say it")
    for layer in (*load, *process, *component.values(), flat, kwargs, components):
        layer.finish("a data config")
    old.finish("a data config")


def _parameters(old: Old, key: str, kwargs: Old, flat: Old, component: Old) -> list[Old]:
    """Return the layers that hold a component's parameters, the strongest first."""
    config = old.child(key)
    config.take("type")
    nested = config.child("params")
    component.take("type")
    component.take("name")
    return [kwargs, nested, config, flat, component.child("params"), component]


class _Layered:
    """Several objects read as one: the first that has a key wins, and all count it as read."""

    def __init__(self, layers: list[Old]) -> None:
        self.layers = layers

    def take_if(self, key: str) -> tuple[Any, KeyPath] | None:
        """Return the value and its path, or ``None``."""
        found = [each for layer in self.layers for each in layer.take_if(key)]
        return found[0] if found else None

    def ignore(self, key: str, why: str) -> None:
        """See :meth:`Old.ignore`."""
        for layer in self.layers:
            layer.ignore(key, why)


def _load(old: _Layered, target: KeyPath, into: Translated) -> None:
    files = False
    for key in ("data_name", "subset", "data_files", "data_dir", "revision"):
        found = old.take_if(key)
        if found is not None:
            value, path = found
            if isinstance(value, dict) and "type" in value:
                value = _resource(value, path, into)
            files = files or key == "data_files"
            into.put((*target, key), value, path)
    split = old.take_if("split")
    if split is not None:
        into.put((*target, "split"), *split)
    else:
        # The old default is "validation", which a data set read from files does not have.
        into.put((*target, "split"), "train" if files else "validation")
    for key in ("trust_remote_code", "token", "use_auth_token"):
        old.ignore(key, "data is read without running code")
    old.ignore("batch_size", "training_args say it")


def _process(old: _Layered, target: KeyPath, into: Translated) -> None:
    def move(key: str, to: str | None = None) -> Any:
        found = old.take_if(key)
        if found is None:
            return None
        into.put((*target, to or key), *found)
        return found[0]

    kind = move("dataset_type") or "corpus"
    for key in ("text_cols", "text_template", "chat_template", "message_col", "max_samples", "random_seed",
                "random_retries", "stride", "drop_short_sequences"):  # fmt: skip
        move(key)
    strategy = move("corpus_strategy", "strategy") or move("strategy")
    if strategy is None:
        strategy = "line-by-line"
        into.put((*target, "strategy"), strategy)
    source, length = old.take_if("source_max_len"), old.take_if("max_seq_len")
    completion = old.take_if("target_max_len")
    _lengths(kind, source or length, completion, target, into)
    if move("joiner") is None:
        into.put((*target, "joiner"), None)
    if move("add_special_tokens") is None:
        into.put((*target, "add_special_tokens"), True)
    pad = old.take_if("pad_to_max_len")
    if not str(strategy).startswith("join"):
        into.put((*target, "pad_to_max_len"), pad[0] if pad is not None else True, pad[1] if pad is not None else None)
    masked = old.take_if("ignore_source_in_labels")
    if kind == "pair":
        into.put((*target, "train_on"), "all" if masked is not None and masked[0] is False else "completion")
        _pair(old, target, into)
    old.take_if("use_attention_mask")  # a mask over padding follows from the lengths; nothing depends on it
    for key in ("processing_batch_size", "type", "model_name", "task", "trust_remote_code", "padding_side", "kwargs"):
        old.take_if(key)
    if str(strategy) == "join":
        into.put((*target, "last_block"), "keep")


def _lengths(kind: str, source: Any, completion: Any, target: KeyPath, into: Translated) -> None:
    """Old pairs are cut part by part and padded to the sum; a corpus has one length."""
    if source is None:
        return
    if kind != "pair":
        into.put((*target, "max_seq_len"), *source)
        return
    into.put((*target, "max_prompt_len"), *source)
    if completion is not None:
        into.put((*target, "max_completion_len"), *completion)
        if isinstance(source[0], int) and isinstance(completion[0], int):
            into.put((*target, "max_seq_len"), source[0] + completion[0], source[1])


def _pair(old: _Layered, target: KeyPath, into: Translated) -> None:
    """Translate where prompt and completion come from."""
    form = old.take_if("pair_format")
    name = form[0] if form is not None else "default"
    columns = {"default": ("input", "output"), "self_instruct": ("prompt", "completion")}
    if name in columns:
        into.put((*target, "prompt_col"), columns[name][0])
        into.put((*target, "completion_col"), columns[name][1])
    elif name == "custom":
        for part, to in (("input", "prompt"), ("output", "completion")):
            for suffix in ("template", "col"):
                found = old.take_if(f"{part}_{suffix}")
                if found is not None:
                    into.put((*target, f"{to}_{suffix}"), *found)
    elif form is not None:
        into.fault(
            form[1],
            f"the pair format {name!r} is not available",
            remedy="use custom with input_template and output_template",
        )


# Passes ---------------------------------------------------------------------------------------------------------------


def _passes(old: Old, into: Translated) -> None:
    into.canonical["passes"] = {}
    for name in list(old._values):
        _pass(name, old.child(name), into)


def _pass(name: str, old: Old, into: Translated) -> None:
    target: KeyPath = ("passes", name)
    kind = str(old.take("type", ""))
    config = old.child("config")
    for key in ("host", "evaluator"):
        for value, path in old.take_if(key):
            into.put((*target, key), value, path)
    old.ignore("disable_search", "nothing is searched")
    old.ignore("clean_run_cache", "the cache knows what has changed")
    old.ignore("output_name", "only the final model is put into the output folder; the others are in the cache")
    inner = config if config._values else old
    lowered = kind.lower()
    if lowered in LORA_FAMILY:
        _lora(LORA_FAMILY[lowered], inner, target, old, into)
    elif lowered == "genaimodelexporter":
        into.note(old.at("type"), "GenAIModelExporter is called ModelBuilder now")
        into.put((*target, "type"), "ModelBuilder", old.at("type"))
        _as_it_is(inner, target, into)
    else:
        into.put((*target, "type"), kind, old.at("type"))
        _as_it_is(inner, target, into)
    if inner is not old:
        old.finish(f"the pass {name}")


def _as_it_is(inner: Old, target: KeyPath, into: Translated) -> None:
    """Move parameters whose names have not changed; the pass itself checks them."""
    for key, value in inner.rest().items():
        if value is not None:
            into.put((*target, key), value, inner.at(key))


def _lora(kind: str, inner: Old, target: KeyPath, old: Old, into: Translated) -> None:
    double = "double_quant" in inner or "quant_type" in inner
    if kind == "LoRA" and double:
        into.note(inner.at("double_quant"), "LoRA does not quantise; QLoRA is meant, and QLoRA is run")
        kind = "QLoRA"
    into.put((*target, "type"), kind, old.at("type"))
    for key, to in RENAMED.items():
        for value, path in inner.take_if(key):
            into.put((*target, to), value, path)
    for value, path in inner.take_if("torch_dtype"):
        into.put((*target, "torch_dtype"), value, path)
    if "torch_dtype" not in into.canonical["passes"][target[1]]:
        into.put((*target, "torch_dtype"), "auto")
        into.note(
            old.path,
            "no torch_dtype: Olive took bfloat16; `auto` takes it where the hardware multiplies it, else float32",
        )
    if "lora_dropout" not in inner:
        into.put((*target, "lora_dropout"), 0.0)
    if inner.take("use_ort_trainer"):
        into.note(inner.at("use_ort_trainer"), "has no effect: transformers trains")
    inner.ignore("ortmodule_onnx_opset_version", "transformers trains")
    _training_args(inner.child("training_args"), target, into)
    if "eval_data_config" in inner and "eval_dataset_size" in inner:
        inner.ignore("eval_dataset_size", "eval_data_config is given")
    _as_it_is(inner, target, into)


def _training_args(old: Old, target: KeyPath, into: Translated) -> None:
    """Move training arguments, and write out what Olive 0.6 filled in."""
    path = (*target, "training_args")
    into.put(path, {}, old.path)
    extra = old.child("extra_args")
    names = set()
    for key, value, origin in old.merged_with(extra):
        names.add(key)
        if value is not None:
            into.put((*path, key), value, origin)
    old.rest()
    extra.rest()
    filled = [key for key in TRAINING_DEFAULTS if key not in names]
    if "max_steps" in filled and "num_train_epochs" in names:
        # In Olive 0.6 the 10,000 steps overruled the epochs that the user asked for.
        into.note(old.path, "no max_steps: Olive 0.6 trained 10000 steps whatever num_train_epochs says; that is kept")
    for key in filled:
        into.put((*path, key), TRAINING_DEFAULTS[key])


# The engine -----------------------------------------------------------------------------------------------------------


def _engine(old: Old, providers: Any, into: Translated) -> None:
    target: KeyPath = ("engine",)
    into.put(("engine", "cache_dir"), ".olive-cache")
    into.put(("engine", "output_dir"), ".")
    for key in ("cache_dir", "output_dir", "evaluator", "evaluate_input_model", "log_severity_level"):
        for value, path in old.take_if(key):
            into.put((*target, key), value, path)
    for key in ("host", "target"):
        for value, path in old.take_if(key):
            if isinstance(value, dict):
                _system(key, Old(value, path, into), ("systems", f"engine_{key}"), into)
                value = f"engine_{key}"
            into.put((*target, key), value, path)
    if providers and "host" not in into.canonical["engine"] and not into.canonical.get("systems"):
        names = providers if isinstance(providers, list) else [providers]
        into.put(("systems", "local_system"), {"execution_provider": names[0]}, old.at("execution_providers"))
        into.put((*target, "host"), "local_system")
        into.put((*target, "target"), "local_system")
    if old.take("search_strategy"):
        into.fault(old.at("search_strategy"), "a search is not available yet", remedy="set search_strategy to false")
    if old.take("packaging_config"):
        into.fault(old.at("packaging_config"), "packaging is not available yet", remedy="remove packaging_config")
    old.ignore("output_name", "files in the output folder have their plain names")
    for key in ("clean_cache", "clean_evaluation_cache"):
        if old.take(key):
            into.note(old.at(key), "has no effect: the cache knows what has changed (`olivine cache gc` empties it)")
    for key in ("plot_pareto_frontier", "log_to_file", "ort_log_severity_level", "ort_py_log_severity_level"):
        old.take(key)
    old.finish("engine")
