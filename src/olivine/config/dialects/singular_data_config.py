"""0.3: ``data_config`` at the top level became ``data_configs``: an object of data configs by name, or a single one."""

from __future__ import annotations

from olivine.config.dialects.data_config_list import refer
from olivine.config.dialects.document import Document, Entries, Section

OWN = frozenset({"name", "type", "params_config", "components", "user_script", "script_dir"})
"""Keys that a data config has itself; none of them is the name of one."""


def translate(document: Document) -> None:
    """Put the data configs into ``data_configs``; a single one without a name is called ``data_config``."""
    root = document.root
    if "data_config" not in root:
        return
    value, origin = root.take("data_config")
    if not isinstance(value, Section):
        document.fault(("data_config",), "`data_config` must be an object")
        return
    if value and all(isinstance(each, Section) for each in value.values()) and OWN.isdisjoint(value):
        for name in list(value):
            each, at = value.take(name)
            _add(root, name, each, at)
        return
    value.fill("name", "data_config")
    refer(root, "data_config", str(value["name"]))
    _add(root, str(value["name"]), value, origin)


def _add(root: Section, name: str, value: Section, origin: object) -> None:
    """Add one data config to those that there are."""
    at = origin if isinstance(origin, tuple) else None
    data = root.get("data_configs")
    if isinstance(data, Entries):
        value.put("name", name, value.origins.get("name") or at)
        data.add(value, at)
        return
    if not isinstance(data, Section):
        data = Section(root.at("data_config"))
        root.put("data_configs", data)
    data.put(name, value, at)
