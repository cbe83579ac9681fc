"""Which execution providers ONNX Runtime has here, and whether a tiny model really runs on each.

It happens in a process of its own: a provider with a broken driver may take the process with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from olivine.doctor.finding import Finding, State
from olivine.telemetry import NO_TELEMETRY

TIMEOUT_S = 120
"""A GPU's first start compiles kernels; longer than this, something hangs."""

PROBE = """
import json, sys
provider = sys.argv[1]
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper
onnxruntime.set_default_logger_severity(4)
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])], "probe",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
    [helper.make_tensor("w", TensorProto.FLOAT, [8, 8], numpy.eye(8, dtype=numpy.float32).ravel() * 2)],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
options = onnxruntime.SessionOptions()
if provider != "CPUExecutionProvider":
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[provider])
if provider not in session.get_providers():
    sys.exit(f"the runtime left it out and took {session.get_providers()[0]}")
x = numpy.arange(32, dtype=numpy.float32).reshape(4, 8)
y = session.run(None, {"x": x})[0]
if not numpy.allclose(y, 2 * x, rtol=1e-2):
    sys.exit("it computes wrong results")
"""

LIST = "import json, onnxruntime; print(json.dumps(onnxruntime.get_available_providers()))"

NOT_HERE = frozenset({"AzureExecutionProvider"})
"""Providers that call a service instead of computing; nothing can be tried."""

REMEDIES: dict[str, str] = {
    "CUDAExecutionProvider": "install the CUDA and cuDNN that this onnxruntime-gpu was built for, and see that "
    "nvidia-smi lists the GPU",
    "TensorrtExecutionProvider": "install TensorRT, or leave it: CUDAExecutionProvider does without",
    "DmlExecutionProvider": "update Windows and the graphics driver (DirectX 12 is needed)",
}


def check_providers() -> list[Finding]:
    """Run a tiny model on every execution provider that is installed; none if ONNX Runtime is not."""
    listed = _python(LIST)
    if listed.returncode != 0:
        reason = _last_line(listed.stderr)
        if "No module named 'onnxruntime'" in reason:
            return []
        return [
            Finding(
                "execution providers",
                "onnxruntime",
                State.PROBLEM,
                f"it cannot be imported: {reason}",
                "install it again: `pip install --force-reinstall --no-deps onnxruntime`",
            )
        ]
    names = [name for name in json.loads(listed.stdout) if name not in NOT_HERE]
    return [_try(name) for name in names]


def _try(provider: str) -> Finding:
    try:
        done = _python(PROBE, provider)
    except subprocess.TimeoutExpired:
        return _failed(provider, f"a tiny model did not end within {TIMEOUT_S} s")
    if done.returncode == 0:
        return Finding("execution providers", provider, State.OK, "a tiny model ran on it")
    if done.returncode < 0:
        return _failed(provider, f"the process that tried it was ended by signal {-done.returncode}")
    reason = _last_line(done.stderr)
    if "No module named 'onnx'" in reason:
        return Finding(
            "execution providers", provider, State.WARNING, "not tried: onnx is missing", "`pip install 'olivine[cpu]'`"
        )
    return _failed(provider, reason)


def _failed(provider: str, reason: str) -> Finding:
    remedy = REMEDIES.get(provider, "leave it out of the configuration, or mend its driver")
    return Finding(
        "execution providers", provider, State.PROBLEM, f"it is installed, and does not work: {reason}", remedy
    )


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        env=os.environ | NO_TELEMETRY,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def _last_line(text: str) -> str:
    """Return the end of what a process said, short enough for one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
