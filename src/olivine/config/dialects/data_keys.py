"""Data in the canonical form: what Olivine can read and prepare is flat; any other component keeps its parameters."""

from __future__ import annotations

from typing import Any

from olivine.config.dialects.data_parameters import (
    BY_TASK,
    HUGGINGFACE,
    LOADING_WITHOUT_EFFECT,
    OWN_DATALOADER,
    OWN_LOADING,
    loads_from_hub,
    prepares_text,
)
from olivine.config.dialects.document import FILLED, Document, Entries, Section
from olivine.config.dialects.models import task_of
from olivine.config.parsing import KeyPath
from olivine.config.wording import slip, suggestion

CONTAINERS = {
    each.lower(): each
    for each in [
        "DataContainer",
        "HuggingfaceContainer",
        "DummyDataContainer",
        "RawDataContainer",
        "TransformersDummyDataContainer",
        "TransformersPromptDummyDataContainer",
        "TransformersTokenDummyDataContainer",
        "ImageDataContainer",
    ]
}

PREPARING = frozenset(
    [
        "dataset_type",
        "text_template",
        "text_cols",
        "chat_template",
        "message_col",
        "prompt_template",
        "completion_template",
        "prompt_col",
        "completion_col",
        "train_on",
        "strategy",
        "max_seq_len",
        "max_prompt_len",
        "max_completion_len",
        "joiner",
        "add_special_tokens",
        "stride",
        "pad_to_max_len",
        "drop_short_sequences",
        "max_samples",
        "random_seed",
        "random_retries",
        "text_formatting_func",
        "prompt_formatting_func",
        "completion_formatting_func",
    ]
)
"""What the preparation of text has, in canonical names."""

PREPARING_WITHOUT_EFFECT = {
    "use_attention_mask": "a mask over padding follows from the lengths",
    "processing_batch_size": "texts are not tokenised in batches",
    "padding_side": "padding is in no loss on either side",
    "batch_size": "training_args and the metrics say it",
    "model_name": "the model says it",
    "task": "the model says it",
    "trust_remote_code": "the model's load_kwargs say it",
    "kwargs": "nothing is passed on",
    "shuffle": "training shuffles by its seed",
}

SECTIONS = {
    "load_dataset_config": "load_dataset",
    "pre_process_data_config": "pre_process_data",
    "post_process_data_config": "post_process_data",
    "dataloader_config": "dataloader",
}


def translate(document: Document) -> None:
    """Translate every data config."""
    data = document.root.get("data_configs")
    if isinstance(data, Section) and not data:
        document.root.put("data_configs", Entries(data.origin), document.root.origins.get("data_configs"))
        return
    task = task_of(document)
    for config in data if isinstance(data, Entries) else ():
        if isinstance(config, Section):
            _config(document, config, task)


def _config(document: Document, config: Section, task: Any) -> None:
    for key in list(config):
        if config[key] is None and key != "joiner":
            config.take(key)
    loads, text = loads_from_hub(config), prepares_text(config, task)
    kind = str(config.get("type") or "DataContainer")
    known = CONTAINERS.get(kind.lower())
    rows = kind.lower() == "huggingfacecontainer"
    if known is None:
        document.fault(
            config.at("type"),
            f"there is no data container {kind!r}",
            remedy=suggestion(kind, sorted(CONTAINERS.values()), "containers"),
        )
        config.take("type")
    elif loads and (text or known == "HuggingfaceContainer"):
        # Rows of a data set are what a data config is about when nothing is said.
        config.put("type", "HuggingfaceContainer", config.origins.get("type") or FILLED)
    else:
        config.put("type", known, config.origins.get("type") or FILLED)
    if loads:
        _load(document, config)
    else:
        _component(document, config, "load_dataset_config", OWN_LOADING.get(kind.lower(), "local_dataset"))
    asked = config.section("pre_process_data_config").get("task") or task
    by_task = BY_TASK.get(str(asked).lower().removesuffix("-with-past"), {}) if rows else {}
    if text:
        _text(document, config)
    else:
        default = "image_lora_preprocess" if kind.lower() == "imagedatacontainer" else "pre_process"
        _component(
            document, config, "pre_process_data_config",
            by_task.get("pre_process", "huggingface_pre_process") if rows else default,
        )  # fmt: skip
    _component(document, config, "post_process_data_config", by_task.get("post_process", "post_process"))
    loader = config.section("dataloader_config")
    if text and loader.get("type") in (None, "default_dataloader", "no_auto_batch_dataloader"):
        for key in list(loader):
            if key == "type":
                loader.take(key)
            else:
                document.without_effect(loader, key, "training_args and the metrics say it")
        config.take("dataloader_config")
    else:
        default = by_task.get("dataloader") or OWN_DATALOADER.get(kind.lower(), "default_dataloader")
        _component(document, config, "dataloader_config", default)


def _component(document: Document, config: Section, key: str, default: str) -> None:
    """Keep a component with its type and all its parameters."""
    section = config.get(key)
    if section is None:
        config.take(key)
        return
    if not isinstance(section, Section):
        document.fault(config.at(key), f"`{key}` must be an object")
        config.take(key)
        return
    for each in [each for each, value in section.items() if value is None]:
        section.take(each)
    if not section:
        config.take(key)
        return
    section.fill("type", default)
    config.rename(key, SECTIONS[key])


def _load(document: Document, config: Section) -> None:
    load = config.section("load_dataset_config")
    load.take("type")
    for key in list(load):
        if key in HUGGINGFACE:
            value, origin = load.take(key)
            if value is not None:
                config.put(key, _files(document, load, key, value, config), origin)
        elif key in LOADING_WITHOUT_EFFECT:
            document.without_effect(load, key, LOADING_WITHOUT_EFFECT[key])
        elif load[key] is None:
            load.take(key)
        elif (near := slip(key, HUGGINGFACE)) is not None:
            document.fault(load.at(key), f"`{key}` is not a key of {config_name(config)}",
                           remedy=f"did you mean {near}?")  # fmt: skip
            load.take(key)
        elif key != "type":
            document.note(load.at(key), "is an argument of datasets.load_dataset that is not available; it is kept")
    if load:
        # What the loading takes besides is kept beside its type.
        load.put("type", "huggingface_dataset", FILLED)
        config.rename("load_dataset_config", "load_dataset")
    else:
        config.take("load_dataset_config")
    # The old default is one that a data set read from files does not have.
    config.fill("split", "train" if config.get("data_files") is not None else "validation")


def config_name(config: Section) -> str:
    """Return how a data config is called in messages."""
    return f"the data config {config.get('name')}" if config.get("name") else "a data config"


def _files(document: Document, load: Section, key: str, value: Any, config: Section) -> Any:
    """Return the files of the split that is read, where they are given by split."""
    if key != "data_files" or not isinstance(value, Section):
        return value
    split = load.get("split") or config.get("split") or "validation"
    name = str(split).split("[")[0]
    if name in value:
        chosen = value[name]
        if len(value) > 1:
            document.note(load.at(key), f"only the files of the split {name} are used")
        return chosen
    document.fault(load.at(key), f"there are no files of the split {name!r}", remedy=f"there is {', '.join(value)}")
    return None


def _place(config: Section) -> KeyPath:
    """Return where a data config stands in the user's file."""
    return config.origin if isinstance(config.origin, tuple) else config.at("name")


def _text(document: Document, config: Section) -> None:
    process = config.section("pre_process_data_config")
    process.take("type")
    process.rename("source_max_len", "max_seq_len")
    process.rename("corpus_strategy", "strategy")
    for key in list(process):
        value = process[key]
        if key in PREPARING:
            origin = process.take(key)[1]
            if value is not None or key == "joiner":
                config.put(key, value, origin)
        elif value is None:
            process.take(key)
        elif key in PREPARING_WITHOUT_EFFECT:
            document.without_effect(process, key, PREPARING_WITHOUT_EFFECT[key])
        else:
            document.fault(process.at(key), f"`{key}` is not a key of the preparation of text",
                           remedy=suggestion(key, sorted(PREPARING | {"type"})))  # fmt: skip
    config.take("pre_process_data_config")
    strategy = str(config.get("strategy") or "join")
    if strategy.startswith("join"):
        if strategy == "join":
            document.note(
                _place(config), "the last, shorter block is trained on too; Olive left it out (last_block: drop)"
            )
        if config.get("pad_to_max_len"):
            document.without_effect(config, "pad_to_max_len", "joined sequences are full")
        config.take("pad_to_max_len")
    else:
        config.fill("pad_to_max_len", True)
