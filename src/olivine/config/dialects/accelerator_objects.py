"""0.5.1: an accelerator is an object with its execution providers; before, a name, and the engine had the providers.

Olive then ran the workflow once for every accelerator with every execution provider of the engine that fits it.
"""

from __future__ import annotations

from typing import Any

from olivine.config.dialects.document import Document, Entries, Origin, Section
from olivine.config.dialects.system_keys import ALIASES

FITS = {
    "cpu": frozenset({"CPUExecutionProvider", "OpenVINOExecutionProvider", "VitisAIExecutionProvider"}),
    "gpu": frozenset(
        {
            "CUDAExecutionProvider",
            "DmlExecutionProvider",
            "ROCMExecutionProvider",
            "MIGraphXExecutionProvider",
            "TensorrtExecutionProvider",
            "OpenVINOExecutionProvider",
            "WebGpuExecutionProvider",
            "JsExecutionProvider",
            "CPUExecutionProvider",
        }
    ),
    "npu": frozenset(
        {"QNNExecutionProvider", "VitisAIExecutionProvider", "OpenVINOExecutionProvider", "CPUExecutionProvider"}
    ),
}
"""Execution providers by the device that they run on."""


def translate(document: Document) -> None:
    """Make every accelerator an object, and give it the execution providers of the engine that fit."""
    root = document.root
    path = root.section("engine").at("execution_providers")
    providers, at = root.section("engine").take("execution_providers")
    listed = providers if isinstance(providers, list) else [providers] if providers else []
    systems = [each for each in root.section("systems").values() if isinstance(each, Section)]
    systems += [each for key in ("host", "target") if isinstance(each := root.section("engine").get(key), Section)]
    for system in systems:
        _rename_device(system)
        alias = ALIASES.get(str(system.get("type")).lower())
        if alias is not None and "accelerators" not in system:
            system.put("accelerators", alias[1], system.origins.get("type"))
        accelerators = system.get("accelerators")
        if isinstance(accelerators, str):
            accelerators = [accelerators]
        if accelerators is None and listed and _is_local(system):
            accelerators = [None]
        if isinstance(accelerators, list):
            system.put("accelerators", _objects(accelerators, listed, system, at), system.origins.get("accelerators"))
    if listed and not systems:
        _local_system(document, listed, at)
    elif listed:
        used = {str(each) for system in systems for each in _providers(system)}
        for each in listed:
            if str(each) not in used:
                document.note(path, f"{each} has no effect: no system has a processor for it")


def _providers(system: Section) -> list[Any]:
    """Return the execution providers of all accelerators of a system."""
    accelerators = system.get("accelerators")
    objects = [each for each in accelerators if isinstance(each, Section)] if isinstance(accelerators, list) else []
    found = [each.get("execution_providers") for each in objects]
    return [name for each in found for name in (each if isinstance(each, list) else [each])]


def _rename_device(system: Section) -> None:
    """Olive 0.2 had one ``device`` for a system."""
    if "device" in system and "accelerators" not in system:
        system.rename("device", "accelerators")


def _is_local(system: Section) -> bool:
    return str(system.get("type", "LocalSystem")).lower() in ("localsystem", "local", "pythonenvironment")


def _objects(accelerators: list[Any], providers: list[Any], system: Section, at: Origin) -> Entries:
    made = Entries(system.at("accelerators"))
    for index, each in enumerate(accelerators):
        origin = (
            accelerators.origins[index] if isinstance(accelerators, Entries) else system.origins.get("accelerators")
        )
        if isinstance(each, Section):
            if providers and each.get("execution_providers") is None:
                each.put("execution_providers", _fitting(each.get("device"), providers), at)
            made.add(each, origin)
            continue
        section = Section(origin)
        if each is not None:
            section.put("device", each, origin)
        if providers:
            section.put("execution_providers", _fitting(each, providers), at)
        made.add(section, origin)
    return made


def _fitting(device: Any, providers: list[Any]) -> list[Any]:
    """Return the providers for a device; all of them if none fits, so that nothing is lost."""
    known = FITS.get(str(device).lower(), frozenset())
    return [each for each in providers if str(each) in known] or list(providers)


def _local_system(document: Document, providers: list[Any], at: Origin) -> None:
    """Make a system for execution providers where the file has none."""
    root = document.root
    engine = root.section("engine")
    if engine.get("host") is not None or engine.get("target") is not None:
        return
    accelerator = Section(at)
    accelerator.put("execution_providers", list(providers), at)
    accelerators = Entries(at)
    accelerators.add(accelerator, at)
    system = Section(at)
    system.put("accelerators", accelerators, at)
    systems = Section(at)
    systems.put("local_system", system, at)
    root.put("systems", systems, at)
    engine.put("host", "local_system", at)
    engine.put("target", "local_system", at)
