"""0.7: a Hugging Face checkpoint is an ``HfModel``; before, a ``PyTorchModel`` with an ``hf_config``."""

from __future__ import annotations

from olivine.config.dialects.document import Document, Entries, Section

KEYS = frozenset(
    {
        "model_name",
        "task",
        "feature",
        "model_class",
        "components",
        "from_pretrained_args",
        "use_ort_implementation",
        "config",
    }
)
FEATURES = {"causal-lm": "text-generation", "causal-lm-with-past": "text-generation-with-past"}
"""Names of tasks in the export of old releases of transformers."""


def translate(document: Document) -> None:
    """Make an HfModel of a PyTorchModel with hf_config, and rename the kinds of model that are made of others."""
    model = document.root.get("input_model")
    if not isinstance(model, Section):
        return
    _rename_kind(model)
    kind = str(model.get("type", "PyTorchModel")).lower()
    hf = model.get("hf_config")
    if hf is None:
        if kind == "pytorchmodel" and "model_loader" not in model and _is_mlflow(model):
            model.put("type", "HfModel", model.origins.get("type") or model.origin)
            _file_format(document, model)
        if "type" not in model:
            model.put("type", "PyTorchModel" if "model_loader" in model else "HfModel", model.origin)
        return
    if not isinstance(hf, Section):
        document.fault(model.at("hf_config"), "`hf_config` must be an object")
        model.take("hf_config")
        return
    model.take("hf_config")
    # A loader of the user's own goes before hf_config, which then only tells the task.
    if kind == "pytorchmodel" and "model_loader" not in model:
        model.put("type", "HfModel", model.origins.get("type") or model.origin)
    _name(document, model, hf)
    hf.move("task", model)
    if "feature" in hf:
        feature = hf["feature"]
        if feature in FEATURES and "task" not in model:
            model.put("task", FEATURES[feature], hf.origins.get("feature"))
            hf.take("feature")
        else:
            document.without_effect(hf, "feature", "the task says it")
    hf.move("model_class", model)
    _components(document, model, hf)
    hf.move("from_pretrained_args", model, "load_kwargs")
    document.without_effect(hf, "use_ort_implementation", "graphs of its own made by optimum are not used")
    document.without_effect(hf, "config", "the model's own config.json is read")
    if str(model.get("type", "")).lower() == "hfmodel":
        _file_format(document, model)
    for key in hf:
        from olivine.config.wording import suggestion

        document.fault(hf.at(key), f"`{key}` is not a key of hf_config", remedy=suggestion(key, sorted(KEYS)))


def _rename_kind(model: Section) -> None:
    renamed = {"compositepytorchmodel": "CompositeModel", "distributedpytorchmodel": "DistributedHfModel"}
    new = renamed.get(str(model.get("type", "")).lower())
    if new is not None:
        model.put("type", new, model.origins.get("type"))


def _name(document: Document, model: Section, hf: Section) -> None:
    """The path, if there is one, is where the weights are; the name then only told the tokenizer and the config."""
    if "model_path" in model:
        if "model_name" in hf:
            if model["model_path"] != hf["model_name"]:
                document.note(hf.at("model_name"), "has no effect: model_path is given, and goes first")
            hf.take("model_name")
    else:
        hf.move("model_name", model, "model_path")


def _components(document: Document, model: Section, hf: Section) -> None:
    """A model exported part by part is one that is made of components."""
    value, origin = hf.take("components")
    if value is None:
        return
    if not isinstance(value, Entries):
        document.fault(hf.at("components"), "`components` must be a list")
        return
    parts = Entries(origin)
    for index, each in enumerate(value):
        at = value.origins[index]
        if not isinstance(each, Section):
            document.fault((*(at if isinstance(at, tuple) else ()),), "a component must be an object")
            continue
        if "component_func" in each:
            each.rename("component_func", "model_loader")
        each.put("type", "PyTorchModel", at)
        parts.add(each, at)
    model.put("type", "CompositeModel", model.origins.get("type") or model.origin)
    model.put("model_components", parts, origin)


def _is_mlflow(model: Section) -> bool:
    return str(model.get("model_file_format", "")).lower().removeprefix("pytorch.") == "mlflow"


def _file_format(document: Document, model: Section) -> None:
    """An MLflow folder of a transformers model is recognised; other formats do not go with hf_config."""
    kind = str(model.get("model_file_format", "")).lower().removeprefix("pytorch.")
    if kind in ("mlflow", "entiremodel", "huggingface"):
        document.without_effect(model, "model_file_format", "the folder tells")
    document.without_effect(model, "mlflow_transformer_model_cache_dir", "nothing is copied out of the folder")
