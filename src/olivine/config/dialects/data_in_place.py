"""Data configs by name: passes (up to 0.6.2) and metrics (always) took a whole data config in place of its name."""

from __future__ import annotations

import re

from olivine.config.dialects.document import Document, Entries, Section
from olivine.config.dialects.nested_objects import flatten


def translate(document: Document) -> None:
    """Move data configs that stand in passes and metrics into the list, and name them there."""
    owners = list(document.passes())
    for name, evaluator in document.root.section("evaluators").items():
        metrics = evaluator.get("metrics") if isinstance(evaluator, Section) else None
        for index, metric in enumerate(metrics if isinstance(metrics, Entries) else ()):
            if isinstance(metric, Section):
                owners.append((f"{name}_{metric.get('name') or index}", metric))
    for name, owner in owners:
        for key, value in list(owner.items()):
            if key.endswith("data_config") and isinstance(value, Section):
                _hoist(document, owner, key, value, f"{name}_{key}")


def _hoist(document: Document, owner: Section, key: str, value: Section, otherwise: str) -> None:
    """Give a data config a name of its own; one that is in the list already is referred to."""
    origin = owner.origins.get(key)
    listed = document.root.get("data_configs")
    if not isinstance(listed, Entries):
        if isinstance(listed, Section) and listed:
            return  # the schema says that it must be a list
        listed = Entries()
        document.root.put("data_configs", listed)
    name = re.sub(r"\W", "_", str(value.get("name") or otherwise), flags=re.ASCII)
    if value not in listed:
        taken = {each.get("name") for each in listed if isinstance(each, Section)}
        while name in taken:
            name += "_"
        value.put("name", name, value.origins.get("name") or value.origin)
        for part in ("load_dataset_config", "pre_process_data_config", "post_process_data_config", "dataloader_config"):
            flatten(document, value.get(part), "params")
        listed.add(value, origin)
    owner.put(key, name, origin)
