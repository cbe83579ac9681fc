"""0.6: ``data_configs`` became a list, and a model brought no data set of its own any more.

In the object that it was, the key is the name that passes and metrics refer to, whatever ``name`` says. The data set
in ``hf_config.dataset`` was used by every metric that named no data.
"""

from __future__ import annotations

import re
from typing import Any

from olivine.config.dialects.document import Document, Entries, Section

OF_THE_MODEL = "__input_model_data_config__"
"""Olive's name for the data config that it made of the model's data set."""


def translate(document: Document) -> None:
    """Make a list, with the data of the model at its end."""
    root = document.root
    old = root.get("data_configs")
    if isinstance(old, Section):
        listed = Entries(old.origin)
        for key, value in old.items():
            origin = old.origins.get(key)
            if isinstance(value, Section):
                name = re.sub(r"[^A-Za-z0-9_-]", "_", key)
                if name != key:
                    document.note(old.at(key), f"is called {name} now")
                    refer(root, key, name)
                if value.get("name") not in (None, key, name):
                    document.note(value.at("name"), f"has no effect: what refers to it calls it {key}")
                if value.get("name") != name:
                    value.put("name", name, origin)
                listed.add(value, origin)
            else:
                document.fault(old.at(key), f"`{key}` must be an object")
        root.put("data_configs", listed, root.origins.get("data_configs"))
    _dataset_of_the_model(document)


def refer(value: Any, old: str, new: str) -> None:
    """Let what refers to a data config refer to its new name."""
    if isinstance(value, Section):
        for key, item in value.items():
            if key.endswith("data_config") and item == old:
                value[key] = new
            else:
                refer(item, old, new)
    elif isinstance(value, Entries):
        for item in value:
            refer(item, old, new)


def _listed(document: Document) -> Entries:
    found = document.root.get("data_configs")
    if not isinstance(found, Entries):
        found = Entries()
        document.root.put("data_configs", found)
    return found


def _dataset_of_the_model(document: Document) -> None:
    hf = document.root.section("input_model").section("hf_config")
    if "dataset" not in hf:
        return
    path = hf.at("dataset")
    dataset, origin = hf.take("dataset")
    if not isinstance(dataset, Section):
        document.fault(path, "`dataset` must be an object")
        return
    made = Section(origin)
    made.put("name", OF_THE_MODEL, origin)
    made.put("type", "HuggingfaceContainer", origin)
    made.put("params_config", dataset, origin)
    _listed(document).add(made, origin)
    document.note(path, f"is the data config {OF_THE_MODEL} now, for every metric that names no data")
    evaluators = document.root.section("evaluators")
    for evaluator in evaluators.values():
        metrics = evaluator.get("metrics") if isinstance(evaluator, Section) else None
        for metric in metrics if isinstance(metrics, Entries) else ():
            if isinstance(metric, Section) and metric.get("data_config") is None and not _has_data(metric):
                metric.put("data_config", OF_THE_MODEL, origin)


def _has_data(metric: Section) -> bool:
    user = metric.section("user_config")
    return any(user.get(key) is not None for key in ("dataloader_func", "data_dir", "evaluate_func", "input_names"))
