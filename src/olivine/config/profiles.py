"""Machines that models ship to, by name: a kind, or a kind with its memory in GiB (``cpu``, ``cuda-24gb``).

The memory is that of the processor: a GPU's own where the kind is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from olivine.config.schema import System, Workflow


@dataclass(frozen=True)
class Kind:
    """A kind of machine.

    Attributes:
        device: kind of processor.
        execution_provider: ONNX Runtime's name.
        summary: one line for lists.
        sizes: memory in GiB of machines that are usual, for lists; any other may be asked for.
        extra: the extra of olivine that brings its runtime; empty if none does.
    """

    device: str
    execution_provider: str
    summary: str
    sizes: tuple[int, ...]
    extra: str = ""


KINDS: Mapping[str, Kind] = {
    "cpu": Kind("cpu", "CPUExecutionProvider", "any processor", (4, 8, 16), "cpu"),
    "cuda": Kind("gpu", "CUDAExecutionProvider", "an NVIDIA GPU", (8, 12, 24, 80), "gpu"),
    "directml": Kind("gpu", "DmlExecutionProvider", "a DirectX 12 GPU on Windows", (4, 8, 16), "directml"),
    "webgpu": Kind("gpu", "WebGpuExecutionProvider", "a GPU in a browser, or through WebGPU", (4, 8)),
    "tensorrt-rtx": Kind("gpu", "NvTensorRTRTXExecutionProvider", "an NVIDIA RTX GPU on Windows", (8, 12, 24)),
}

_NAME = re.compile(r"(?P<kind>[a-z-]+?)(?:-(?P<gib>\d{1,5})gb)?", re.IGNORECASE)


def kind_of(name: str) -> tuple[Kind, int | None] | None:
    """Return the kind and the memory in GiB that the name of a profile says, ``None`` if it is none."""
    match = _NAME.fullmatch(name)
    kind = KINDS.get(match["kind"].lower()) if match else None
    if match is None or kind is None or (match["gib"] is not None and int(match["gib"]) == 0):
        return None
    return kind, int(match["gib"]) if match["gib"] else None


def profile(name: str) -> System | None:
    """Return the system that the name of a profile stands for, ``None`` if it is none."""
    found = kind_of(name)
    if found is None:
        return None
    kind, gib = found
    memory = f"{gib}GiB" if gib else None
    return System.model_validate(
        {"device": kind.device, "execution_provider": kind.execution_provider, "memory": memory}
    )


def with_named_target(workflow: Workflow) -> Workflow:
    """Return the workflow with a target that is a profile, or is described in its place, among the systems."""
    target = workflow.engine.target if workflow.target is None else workflow.target
    if isinstance(target, System):
        system, name = target, "target"
        while name in workflow.systems:
            name += "_"
    elif target is not None and target not in workflow.systems and (found := profile(target)) is not None:
        system, name = found, target
    elif workflow.target is None:
        return workflow
    else:
        assert target is not None
        system, name = workflow.systems[target], target
    engine = workflow.engine.model_copy(update={"target": name})
    return workflow.model_copy(update={"systems": {**workflow.systems, name: system}, "engine": engine, "target": None})


def profile_names() -> list[str]:
    """Return the names of the profiles that lists show."""
    return [name for kind, each in KINDS.items() for name in (kind, *(f"{kind}-{gib}gb" for gib in each.sizes))]
