"""Turn a System of the configuration into the accelerator it means on this machine."""

from __future__ import annotations

from olivine.config.schema import System
from olivine.errors import Location, Problem
from olivine.hardware.machine import Machine
from olivine.passes.base import Accelerator

PROVIDER_OF_DEVICE = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}
DEVICE_OF_PROVIDER = {
    "CPUExecutionProvider": "cpu",
    "CUDAExecutionProvider": "gpu",
    "TensorrtExecutionProvider": "gpu",
    "NvTensorRTRTXExecutionProvider": "gpu",
    "DmlExecutionProvider": "gpu",
    "WebGpuExecutionProvider": "gpu",
    "JsExecutionProvider": "gpu",
    "ROCMExecutionProvider": "gpu",
    "QNNExecutionProvider": "npu",
    "OpenVINOExecutionProvider": "cpu",
}


def place(system: System, machine: Machine) -> Accelerator:
    """Resolve ``device: auto`` and a missing execution provider.

    A system that names only its provider gets that provider's device. ``auto`` takes the GPU if there is one.
    """
    device = system.device
    if device == "auto":
        if system.execution_provider is not None:
            device = DEVICE_OF_PROVIDER.get(system.execution_provider, "cpu")  # type: ignore[assignment]
        else:
            device = "gpu" if machine.gpus else "cpu"
    provider = system.execution_provider or PROVIDER_OF_DEVICE.get(device, "")
    return Accelerator(device, provider)


def check_host(accelerator: Accelerator, machine: Machine, where: Location) -> list[Problem]:
    """Return what keeps passes from running on ``accelerator`` on this machine."""
    if accelerator.device == "gpu" and not machine.gpus and accelerator.execution_provider != "DmlExecutionProvider":
        return [
            Problem(
                "the passes are to run on a GPU, and this machine shows none",
                where,
                "no NVIDIA driver answered",
                "set the system's device to cpu, or run where a GPU is (nvidia-smi must list it)",
            )
        ]
    if accelerator.device == "npu":
        return [
            Problem(
                "passes cannot run on an NPU",
                where,
                remedy="use the NPU's system as `target`, and a cpu or gpu as `host`",
            )
        ]
    return []
