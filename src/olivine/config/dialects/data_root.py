"""0.7: ``data_root`` is gone; relative paths of data were meant from it."""

from __future__ import annotations

import posixpath
from typing import Any

from olivine.config.dialects.document import Document, Entries, Section

PATHS = ("data_files", "data_dir")


def translate(document: Document) -> None:
    """Put the root before every relative path of data."""
    path = document.root.at("data_root")
    root, _ = document.root.take("data_root")
    if root is None:
        return
    if not isinstance(root, str):
        document.fault(path, "`data_root` must be text")
        return
    changed = False
    data = document.root.get("data_configs")
    for config in data if isinstance(data, Entries) else ():
        load = config.section("load_dataset_config") if isinstance(config, Section) else Section()
        changed |= _join(load, "data_files", root)
        # Beside a hub's name, data_dir is a folder of the hub.
        if load.get("data_name") is None:
            changed |= _join(load, "data_dir", root)
    for _, each in document.passes():
        changed |= _join(each, "data_dir", root)
    for evaluator in document.root.section("evaluators").values():
        metrics = evaluator.get("metrics") if isinstance(evaluator, Section) else None
        for metric in metrics if isinstance(metrics, Entries) else ():
            if isinstance(metric, Section):
                changed |= _join(metric.section("user_config"), "data_dir", root)
    document.note(path, "stands before every relative path of data now" if changed else "has no effect: no data path")


def _join(section: Section, key: str, root: str) -> bool:
    value = section.get(key)
    joined = _joined(value, root)
    if joined == value:
        return False
    section.put(key, joined, section.origins.get(key))
    return True


def _joined(value: Any, root: str) -> Any:
    if isinstance(value, str):
        return value if posixpath.isabs(value) or "://" in value else posixpath.join(root, value)
    if isinstance(value, Entries):
        made = Entries(value.origin)
        for index, each in enumerate(value):
            made.add(_joined(each, root), value.origins[index])
        return made
    if isinstance(value, Section) and "type" not in value:
        made_section = Section(value.origin)
        for key, each in value.items():
            made_section.put(key, _joined(each, root), value.origins.get(key))
        return made_section
    return value
