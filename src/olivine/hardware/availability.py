"""Whether the runtime and the device of a target are on this machine, and what is missing if not."""

from __future__ import annotations

from dataclasses import dataclass

from olivine.config.profiles import Kind
from olivine.hardware.machine import Machine

NEEDS_NVIDIA = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"})


@dataclass(frozen=True)
class Missing:
    """What keeps a target from being this machine, and what to do about it; empty if nothing can be done."""

    what: str
    remedy: str = ""


def missing_for(kind: Kind, gib: int | None, machine: Machine, providers: dict[str, str]) -> list[Missing]:
    """Return what this machine lacks to be a target of ``kind`` with ``gib`` GiB; nothing: it is one.

    Args:
        machine: this machine.
        providers: the execution providers that are installed here.
    """
    found = []
    if kind.execution_provider not in providers:
        remedy = f"`pip install 'olivine[{kind.extra}]'`" if kind.extra else ""
        found.append(Missing(f"no ONNX Runtime with {kind.execution_provider}", remedy))
    if kind.execution_provider in NEEDS_NVIDIA and not machine.gpus:
        found.append(Missing("no NVIDIA GPU"))
    memory = machine.memory_bytes if kind.device == "cpu" else max((g.memory_bytes for g in machine.gpus), default=0)
    # A machine sold with 16 GiB shows a little less.
    if gib is not None and memory and memory < 0.93 * gib * 2**30:
        found.append(Missing(f"less memory: {memory / 2**30:.1f} GiB"))
    return found
