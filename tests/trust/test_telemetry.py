"""Libraries report nothing to their makers, also in a program that uses Olivine as a library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from olivine.telemetry import NO_TELEMETRY, switch_off_telemetry

PROGRAM = """
import sys, time
from pathlib import Path
from onnx import TensorProto, helper, save
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value("x")], [value("y")])
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "m.onnx")
if "plain" in sys.argv:
    import onnxruntime
    onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
else:
    from olivine.models.sessions import open_session
    open_session(Path("m.onnx"), "CPUExecutionProvider")
time.sleep(3)
"""


def asked(folder: Path, how: str) -> list[str]:
    """Return the sockets of the internet that a program opens."""
    environment = {name: value for name, value in os.environ.items() if name not in NO_TELEMETRY}
    trace = folder / f"{how}.txt"
    subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(trace), sys.executable, "-c", PROGRAM, how],
        cwd=folder,
        env=environment | {"HOME": str(folder)},
        check=True,
        timeout=200,
    )
    return [line for line in trace.read_text().splitlines() if "sa_family=AF_INET" in line]


def test_onnx_runtime_reports_nothing(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    assert asked(tmp_path, "olivine") == []
    assert not list(tmp_path.rglob("*onnxruntime*"))


def test_what_was_imported_before_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    for name in NO_TELEMETRY:
        monkeypatch.setenv(name, "")
    switch_off_telemetry()
    assert datasets.config.HF_UPDATE_DOWNLOAD_COUNTS is False
    assert {name: os.environ[name] for name in NO_TELEMETRY} == NO_TELEMETRY
