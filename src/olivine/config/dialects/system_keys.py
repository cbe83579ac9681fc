"""Systems in the canonical form: the type spelled as it is, one processor with one execution provider in front.

The aliases of Azure compute say what processor they have. A system that stands in place of a name gets one. Olive ran a
workflow once for each accelerator and execution provider; all but the first are in ``more_accelerators``.
"""

from __future__ import annotations

from typing import Any

from olivine.config.dialects.document import Document, Entries, Origin, Section
from olivine.config.dialects.nested_objects import flatten

TYPES = {
    "localsystem": "LocalSystem",
    "local": "LocalSystem",
    "azureml": "AzureML",
    "docker": "Docker",
    "pythonenvironment": "PythonEnvironment",
    "isolatedort": "IsolatedORT",
}

ALIASES: dict[str, tuple[str, str]] = {
    "azurend12ssystem": ("AzureML", "gpu"),
    "azurend24rssystem": ("AzureML", "gpu"),
    "azurend24ssystem": ("AzureML", "gpu"),
    "azurendv2system": ("AzureML", "gpu"),
    "azurend6ssystem": ("AzureML", "gpu"),
    "azurend96a100system": ("AzureML", "gpu"),
    "azurend96asystem": ("AzureML", "gpu"),
    "azurenvsystem": ("AzureML", "gpu"),
    "surfaceprosystem1796": ("LocalSystem", "gpu"),
    "surfaceprosystem1807": ("LocalSystem", "gpu"),
}
"""Names of machines that stood for a type and a device."""

DEVICES = {"cpu_spr": "cpu", "vpu": "npu", "intel_myriad": "npu"}
"""Devices of Intel that are kinds of the ones we know."""

MISSPELT = {"preprend_to_path": "prepend_to_path"}
"""Misspellings in examples that people copied."""


def translate(document: Document) -> None:
    """Translate every system, and those that stand in the engine, in passes and in builds."""
    root = document.root
    _hoist(document, root.section("engine"), "engine")
    for name, each in document.passes():
        _hoist(document, each, name)
    _hoist(document, root, "workflow")
    for name, each in root.section("systems").items():
        if isinstance(each, Section):
            _system(document, name, each)


def _hoist(document: Document, owner: Section, prefix: str) -> None:
    """Give a name to a system that stands in place of one."""
    for key in ("host", "target", "workflow_host"):
        value = owner.get(key)
        if not isinstance(value, Section):
            continue
        flatten(document, value, "config")
        systems = document.root.get("systems")
        if not isinstance(systems, Section):
            systems = Section(owner.origins.get(key))
            document.root.put("systems", systems, owner.origins.get(key))
        same = [name for name, each in systems.items() if each == value]
        name = same[0] if same else f"{prefix}_{key}" if key != "workflow_host" else "workflow_host"
        while name in systems and not same:
            name += "_"
        systems.put(name, value, owner.origins.get(key))
        owner.put(key, name, owner.origins.get(key))


def _system(document: Document, name: str, system: Section) -> None:
    kind = str(system.get("type", "LocalSystem"))
    lowered = kind.lower()
    if lowered in ALIASES:
        made, device = ALIASES[lowered]
        origin = system.origins.get("type")
        document.note(system.at("type"), f"{kind} is {made} with a {device}")
        system.put("type", made, origin)
        if "accelerators" not in system:
            system.put("device", device, origin)
    elif lowered in TYPES:
        system.put("type", TYPES[lowered], system.origins.get("type") or system.origin)
    for old, new in MISSPELT.items():
        if old in system:
            document.note(system.at(old), f"{new} is meant")
            system.rename(old, new)
    flatten(document, system, "local_docker_config")
    system.rename("requirements_file_path", "requirements_file")
    if isinstance(system.get("prepend_to_path"), str):
        paths = Entries(system.origins.get("prepend_to_path"))
        paths.add(system["prepend_to_path"], system.origins.get("prepend_to_path"))
        system.put("prepend_to_path", paths, system.origins.get("prepend_to_path"))
    if str(system["type"]) == "LocalSystem" if "type" in system else True:
        for key in ("olive_managed_env", "requirements_file", "is_dev"):
            document.without_effect(system, key, "a LocalSystem runs in this environment")
    if "accelerators" in system:
        value, origin = system.take("accelerators")
        _accelerators(document, system, value, origin)
    if "execution_providers" in system:
        path = system.at("execution_providers")
        value, origin = system.take("execution_providers")
        first, *rest = value if isinstance(value, list) and value else [value]
        system.put("execution_provider", first, origin)
        if rest:
            document.note(path, f"only the first, {first}, is used")


def _accelerators(document: Document, system: Section, value: Any, origin: Origin) -> None:
    """Put the first processor with its first execution provider in front, and the rest behind."""
    path: tuple[str | int, ...] = origin if isinstance(origin, tuple) else ("systems",)
    found: list[Section] = []
    listed = value if isinstance(value, Entries) else [value]
    for index, each in enumerate(listed):
        at = listed.origins[index] if isinstance(listed, Entries) else origin
        if isinstance(each, str):
            section = Section(at)
            section.put("device", each, at)
        elif isinstance(each, Section):
            section = each
        else:
            document.fault((*path, index), "an accelerator must be an object")
            continue
        found += _each_provider(document, section)
    if not found:
        return
    first, *rest = found
    for key in list(first):
        first.move(key, system)
    if rest:
        more = Entries(origin)
        for each in rest:
            each.take("execution_provider_path")
            more.add(each, each.origin)
        system.put("more_accelerators", more, origin)
        document.note(path, "Olive made a model for each of them; Olivine makes one workflow's, that of the first")


def _each_provider(document: Document, accelerator: Section) -> list[Section]:
    """Return an accelerator with several execution providers as several with one."""
    device = accelerator.get("device")
    if isinstance(device, str):
        lowered = device.lower()
        accelerator.put("device", DEVICES.get(lowered, lowered), accelerator.origins.get("device"))
        if lowered in DEVICES:
            document.note(accelerator.at("device"), f"{device} is a {DEVICES[lowered]} here")
    if "execution_provider" in accelerator and "execution_providers" not in accelerator:
        return [accelerator]
    path = accelerator.at("execution_providers")
    providers, at = accelerator.take("execution_providers")
    if providers is None:
        return [accelerator]
    listed = providers if isinstance(providers, list) else [providers]
    made = []
    for index, provider in enumerate(listed):
        one = Section(accelerator.origin)
        for key, value in accelerator.items():
            one.put(key, value, accelerator.origins.get(key))
        origin = providers.origins[index] if isinstance(providers, Entries) else at
        if isinstance(provider, list):
            if len(provider) != 2:
                document.fault((*path, index), "an execution provider is a name, or a name and a library")
                continue
            one.put("execution_provider_path", provider[1], origin)
            provider = provider[0]
        one.put("execution_provider", provider, origin)
        made.append(one)
    return made or [accelerator]
