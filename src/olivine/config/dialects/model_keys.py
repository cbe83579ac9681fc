"""The model in the canonical form: its kind spelled as it is, how it is loaded, and what is only kept."""

from __future__ import annotations

from typing import get_args

from olivine.config.dialects.document import Document, Entries, Section
from olivine.config.dialects.models import DEFAULT_TASK
from olivine.config.dialects.releases import age
from olivine.config.schema.models import ModelType
from olivine.config.wording import slip

TYPES = {each.lower(): each for each in get_args(ModelType)}
FORMER = {
    "compositeonnxmodel": "CompositeModel",
    "compositepytorchmodel": "CompositeModel",
    "distributedpytorchmodel": "DistributedHfModel",
}
"""Kinds that became others, in components too."""
LOADING = frozenset({"trust_remote_code", "revision"})
KEPT = frozenset({"torch_dtype", "attn_implementation", "device_map", "max_memory", "quantization_method",
                  "quantization_config"})  # fmt: skip
"""Keys of ``load_kwargs`` that the canonical form has too."""
WITHOUT_EFFECT = {
    "low_cpu_mem_usage": "weights are read as they are needed",
    "use_cache": "each pass decides it",
    "token": "the hub's token comes from the environment",
    "use_auth_token": "the hub's token comes from the environment",
    "cache_dir": "the hub's cache is where HF_HOME says",
    "resume_download": "downloads are always resumed",
    "local_files_only": "HF_HUB_OFFLINE says it",
    "use_safetensors": "safetensors go first, and nothing is unpickled",
    "ignore_mismatched_sizes": "a checkpoint must fit",
}
IO_CONFIG = ("input_names", "input_shapes", "input_types", "output_names", "output_shapes", "output_types")
RANKS = frozenset({"model_name_pattern", "num_ranks", "ranks"})


def translate(document: Document) -> None:
    """Spell the kind, gather what ``from_pretrained`` takes, and say what only exports by tracing read."""
    model = document.root.get("input_model")
    if isinstance(model, Section):
        _model(document, model, top=True)


def _model(document: Document, model: Section, *, top: bool) -> None:
    kind = str(model.get("type", "HfModel")).lower()
    if kind in FORMER:
        document.note(model.at("type"), f"{model['type']} is {FORMER[kind]} now")
        kind = FORMER[kind].lower()
    if kind in TYPES:
        model.put("type", TYPES[kind], model.origins.get("type") or model.origin)
    if "handler" in model:
        document.without_effect(model, "handler", "the type says it")
    if isinstance(model.get("load_kwargs"), Section):
        _load_kwargs(document, model["load_kwargs"])
        if not model["load_kwargs"]:
            model.take("load_kwargs")
    if top and kind == "hfmodel" and "task" not in model and age(document.dialect) >= age("0.7"):
        model.fill("task", DEFAULT_TASK)
    ranks = [key for key in RANKS if key in model]
    if ranks:
        gathered = Section(model.origin)
        for key in ranks:
            value, origin = model.take(key)
            gathered.put(key, value, origin)
        model.put("ranks", gathered, gathered.origins[ranks[0]])
    if "model_config" in model:
        model.rename("model_config", "model_config_file")
    if kind == "distributedonnxmodel":
        model.rename("model_filepaths", "model_components")
    _io_config(model)
    document.without_effect(model, "mlflow_transformer_model_cache_dir", "nothing is copied out of the folder")
    if kind == "hfmodel":
        for key in ("io_config", "dummy_inputs_func", "model_attributes", "model_class", "generative"):
            if key in model:
                document.note(model.at(key), "is kept for exports that trace the model; ModelBuilder does without")
    if kind in ("hfmodel", "onnxmodel") and "model_script" in model:
        document.note(model.at("model_script"), "is recorded, and not run")
    _components(document, model)


def _io_config(model: Section) -> None:
    """An SNPE model had the parts of its ``io_config`` beside it."""
    parts = [key for key in IO_CONFIG if key in model]
    if not parts:
        return
    if not isinstance(model.get("io_config"), Section):
        model.put("io_config", Section(model.origin), model.origins.get(parts[0]))
    for key in parts:
        model.move(key, model["io_config"])


def _components(document: Document, model: Section) -> None:
    parts = model.get("model_components")
    names, _ = model.take("model_component_names")
    if not isinstance(parts, Entries):
        return
    for index, part in enumerate(parts):
        if isinstance(part, Section):
            if isinstance(names, Entries) and index < len(names) and "name" not in part:
                part.put("name", names[index], names.origins[index])
            _model(document, part, top=False)


def _load_kwargs(document: Document, load: Section) -> None:
    extra = load.get("extra_args")
    if isinstance(extra, Section):
        for key in list(extra):
            if key in LOADING | KEPT:
                extra.move(key, load)
    elif extra is None:
        extra = Section(load.origin)
    else:
        return
    load.rename("_attn_implementation", "attn_implementation")
    for key, why in WITHOUT_EFFECT.items():
        document.without_effect(load, key, why)
        document.without_effect(extra, key, why)
    if load.get("trust_remote_code"):
        document.note(
            load.at("trust_remote_code"),
            "is not enough on its own: --trust-remote-code on the command line allows it for a run",
        )
    for key in sorted(KEPT - {"quantization_method", "quantization_config"}):
        if key in load:
            document.note(load.at(key), "is kept for exports that load the model; each pass here decides how it loads")
    _other_arguments(document, load, extra)
    if not extra:
        load.take("extra_args")


def _other_arguments(document: Document, load: Section, extra: Section) -> None:
    """Any other key is an argument of ``from_pretrained``, in ``extra_args`` or beside it."""
    own = LOADING | KEPT | {"extra_args"}
    for key in [key for key in load if key not in own]:
        near = slip(key, own)
        if near is not None:
            document.fault(load.at(key), f"`{key}` is not a key of load_kwargs", remedy=f"did you mean {near}?")
            load.take(key)
            continue
        load.move(key, extra)
    for key in extra:
        document.note(extra.at(key), "is kept for exports that load the model; each pass here decides how it loads")
    if extra and "extra_args" not in load:
        load.put("extra_args", extra, load.origin)
