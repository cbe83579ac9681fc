"""The machine that a model ships to, with what is known of it, also when it is not this one."""

from __future__ import annotations

from dataclasses import dataclass

from olivine.config.schema import System
from olivine.config.sizes import parse_size
from olivine.hardware.machine import GPU_WITH_BF16, Machine
from olivine.passes.base import Accelerator


@dataclass(frozen=True)
class Target:
    """A machine that a model ships to.

    Attributes:
        name: a profile's, that of a system in the configuration, or ``this machine``.
        accelerator: its processor and execution provider.
        memory: bytes of that processor's memory; ``None`` if nobody has said.
        context_length: tokens, of prompt and answer together, that have to fit; ``None``: as usual.
        compute_capability: of an NVIDIA GPU; ``None`` if nobody has said.
        is_here: whether the figures are those of this machine.
    """

    name: str
    accelerator: Accelerator
    memory: int | None = None
    context_length: int | None = None
    compute_capability: float | None = None
    is_here: bool = False

    @property
    def lacks_bf16(self) -> bool:
        """Whether it is known to have no bfloat16 units."""
        return self.compute_capability is not None and self.compute_capability < GPU_WITH_BF16


def target_of(name: str | None, system: System, accelerator: Accelerator, machine: Machine) -> Target:
    """Return what is known of the target.

    Args:
        name: as ``engine.target`` has it; ``None``: this machine.
        system: what the name stands for.
        accelerator: that system, resolved.
        machine: this machine; a system on it whose memory nobody has said is taken for it if it has the same processor.

    Raises:
        ValueError: the memory is no size.
    """
    if system.memory is not None:
        memory = parse_size(str(system.memory))
        return Target(name or "target", accelerator, memory, system.context_length, system.compute_capability)
    here = name or "this machine"
    if system.type != "LocalSystem":
        return Target(here, accelerator, None, system.context_length, system.compute_capability)
    if accelerator.device == "cpu":
        return Target(here, accelerator, machine.memory_bytes, system.context_length, is_here=True)
    if accelerator.device == "gpu" and machine.gpus:
        gpu = max(machine.gpus, key=lambda each: each.memory_bytes)
        capability = system.compute_capability or gpu.capability
        return Target(here, accelerator, gpu.memory_bytes, system.context_length, capability, is_here=True)
    return Target(here, accelerator, None, system.context_length, system.compute_capability)
