"""0.3: the one ``data_config`` at the top level became one of several ``data_configs``."""

from __future__ import annotations

from olivine.config.dialects.document import Document, Entries, Section


def translate(document: Document) -> None:
    """Put the one data config into ``data_configs``; it is called ``data_config`` where it has no name."""
    root = document.root
    if "data_config" not in root:
        return
    value, origin = root.take("data_config")
    if not isinstance(value, Section):
        document.fault(("data_config",), "`data_config` must be an object")
        return
    value.fill("name", "data_config")
    _refer(root, str(value["name"]))
    data = root.get("data_configs")
    if isinstance(data, Section):
        data.put(str(value["name"]), value, origin)
        return
    if not isinstance(data, Entries):
        data = Entries(root.at("data_config"))
        root.put("data_configs", data)
    data.add(value, origin)


def _refer(value: object, name: str) -> None:
    """Let what refers to the section by its key refer to it by its name."""
    if isinstance(value, Section):
        for key, item in value.items():
            if key.endswith("data_config") and item == "data_config":
                value[key] = name
            else:
                _refer(item, name)
    elif isinstance(value, Entries):
        for item in value:
            _refer(item, name)
