"""What this machine has: processor, memory, GPUs, and which ONNX Runtime execution providers are installed.

Everything is read from the operating system and from package metadata, so that ``plan`` needs neither torch nor
onnxruntime to know it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from olivine.hardware.packages import installed_version

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""CPU flags, x86 and Arm, that mean bfloat16 matrix units. Without one a bf16 matrix product is emulated."""

CPU_FEATURES = (
    "avx2", "fma", "f16c", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp",
    "i8mm", "sve", "bf16",
)  # fmt: skip
"""CPU flags that kernels for language models make use of."""

GPU_WITH_BF16 = 8.0
"""First CUDA compute capability (Ampere) with bfloat16 matrix units."""

PROVIDERS_OF_DISTRIBUTION: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("CPUExecutionProvider",),
    "onnxruntime-gpu": ("CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"),
    "onnxruntime-directml": ("DmlExecutionProvider", "CPUExecutionProvider"),
    "onnxruntime-webgpu": ("WebGpuExecutionProvider", "CPUExecutionProvider"),
    "onnxruntime-qnn": ("QNNExecutionProvider", "CPUExecutionProvider"),
    "onnxruntime-openvino": ("OpenVINOExecutionProvider", "CPUExecutionProvider"),
}
"""Execution providers that each ONNX Runtime distribution brings."""


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU: its name, memory in bytes, CUDA compute capability (``9.0``), and the driver's version."""

    name: str
    memory_bytes: int
    capability: float
    driver: str = ""


@dataclass(frozen=True)
class Machine:
    """What this machine has.

    Attributes:
        processor: the CPU's name.
        cores: logical cores this process may use.
        memory_bytes: physical memory.
        cpu_has_bf16: whether the CPU has bfloat16 matrix units.
        gpus: NVIDIA GPUs that the driver shows.
    """

    processor: str
    cores: int
    memory_bytes: int
    cpu_has_bf16: bool
    gpus: tuple[Gpu, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Return a text that is the same for machines on which the same timing may be expected."""
        gpus = "+".join(gpu.name for gpu in self.gpus) or "no gpu"
        return f"{self.processor} x{self.cores}, {round(self.memory_bytes / 2**30)} GiB, {gpus}"

    def has_bf16(self, device: str) -> bool:
        """Return whether ``device`` (``cpu``, ``gpu``, ``npu``) multiplies bfloat16 matrices in hardware."""
        if device == "gpu":
            return all(gpu.capability >= GPU_WITH_BF16 for gpu in self.gpus)
        return device == "cpu" and self.cpu_has_bf16


@cache
def this_machine() -> Machine:
    """Look at this machine, once a process."""
    name, flags = _processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(name, cores, _memory_bytes(), bool(BF16_FLAGS & flags), _gpus())


def cpu_features() -> list[str]:
    """Return those of :data:`CPU_FEATURES` that this processor has; none where the system does not say (not Linux)."""
    flags = _processor()[1]
    return [name for name in CPU_FEATURES if name in flags]


def execution_providers() -> dict[str, str]:
    """Return the execution providers that are installed, each with the distribution that brings it."""
    found: dict[str, str] = {}
    for name, providers in PROVIDERS_OF_DISTRIBUTION.items():
        if installed_version(name) is None:
            continue
        for provider in providers:
            found.setdefault(provider, name)
    return found


def _processor() -> tuple[str, frozenset[str]]:
    """Return the CPU's name and its feature flags (Linux; elsewhere no flags, so bf16 is not assumed)."""
    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = frozenset(value.split())
                break
    return name, flags


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        import psutil

        return int(psutil.virtual_memory().total)


def _gpus() -> tuple[Gpu, ...]:
    """Ask the NVIDIA driver's own tool; no driver, no GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        answer = subprocess.run(
            [tool, "--query-gpu=name,memory.total,compute_cap,driver_version", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()  # the tool is there but the driver is not: the same as no GPU
    gpus = []
    for line in answer.strip().splitlines():
        name, memory, capability, driver = (part.strip() for part in line.rsplit(",", 3))
        gpus.append(Gpu(name, int(float(memory) * 2**20), float(capability), driver))
    return tuple(gpus)
