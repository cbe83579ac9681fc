"""0.6.2: parameters of data stand at the component that they belong to (``load_dataset_config`` and its siblings).

Before, three places had them: ``params_config.component_kwargs`` went before ``params_config``, and that before
``components.*.params``. What stood in ``params_config`` itself went to each component with a parameter of that name.
"""

from __future__ import annotations

from olivine.config.dialects.data_parameters import (
    DATALOADER,
    HUGGINGFACE,
    LOAD,
    TEXT_KWARGS,
    TEXT_SOURCES,
    holds_rows,
    prepares_text,
)
from olivine.config.dialects.document import Document, Entries, Section
from olivine.config.dialects.models import task_of

PARTS = ("load_dataset", "pre_process_data", "post_process_data", "dataloader")


def translate(document: Document) -> None:
    """Move every parameter to its component."""
    data = document.root.get("data_configs")
    for each in data if isinstance(data, Entries) else ():
        if isinstance(each, Section):
            _translate_one(document, each)


def _translate_one(document: Document, config: Section) -> None:
    flat = _taken(document, config, "params_config")
    kwargs = _taken(document, flat, "component_kwargs")
    components = _taken(document, config, "components")
    rows = holds_rows(config)
    for part in PARTS:
        target = config.get(f"{part}_config")
        layers = [_taken(document, kwargs, part)]
        own = _taken(document, flat, part) if part in flat and isinstance(flat[part], Section) else None
        component = _taken(document, components, part)
        params = _taken(document, component, "params")
        component.take("name")
        section = target if isinstance(target, Section) else Section(component.origin)
        wanted = [key for key in flat if _belongs(key, part, rows, component)]
        mine = Section(flat.origin)
        for key in wanted:
            value, origin = flat.take(key)
            mine.put(key, value, origin)
        layers += [each for each in (own, mine, component, params) if each is not None]
        for layer in layers:
            for key, value in layer.items():
                if section.get(key) is None:
                    section.put(key, value, layer.origins.get(key))
                elif section[key] != value and value is not None:
                    document.note(layer.at(key), f"has no effect: {'.'.join(map(str, section.at(key)))} goes first")
        if section:
            config.put(f"{part}_config", section, section.origin)
        if part == "pre_process_data":
            _not_passed_on(document, config, mine)
    for key in flat:
        document.fault(flat.at(key), f"`{key}` is not a parameter of a data config")
    for key in kwargs:
        document.fault(kwargs.at(key), f"`{key}` is not a component", remedy=f"the components are {', '.join(PARTS)}")
    for key in components:
        document.fault(components.at(key), f"`{key}` is not a component", remedy=f"they are {', '.join(PARTS)}")


def _not_passed_on(document: Document, config: Section, flat: Section) -> None:
    """Leave out what Olive did: what prepares text has few parameters of its own, and takes the others by kwargs only.

    Where a text would then come from nowhere, Olive stopped, and what was meant is plain.
    """
    process = config.section("pre_process_data_config")
    if not prepares_text(config, task_of(document)):
        return
    lost = [key for key in flat if key in TEXT_KWARGS and process.origins.get(key) == flat.origins.get(key)]
    others = [key for key in process if key in TEXT_SOURCES and key not in lost]
    for key in lost:
        if others or key not in TEXT_SOURCES:
            document.without_effect(process, key, "Olive took it from component_kwargs only")


def _taken(document: Document, section: Section, key: str) -> Section:
    """Remove the object below a key and return it; an empty one if it is not there."""
    if key not in section:
        return Section(section.at(key))
    path = section.at(key)
    value, _ = section.take(key)
    if isinstance(value, Section):
        return value
    if value is not None:
        document.fault(path, f"`{key}` must be an object")
    return Section(path)


def _belongs(key: str, part: str, rows: bool, component: Section) -> bool:
    """Return whether a parameter that stands for all components goes to this one.

    They are asked in the order of :data:`PARTS`; the component that prepares rows takes what no other knows.
    """
    if part == "load_dataset":
        return key in (HUGGINGFACE if rows else LOAD)
    if part == "dataloader":
        return key in DATALOADER
    if part == "pre_process_data":
        return key not in DATALOADER
    return False
