"""olivine doctor: what it sees of a machine that is in order, and of one that is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from olivine.doctor import State
from olivine.doctor.packages import _doubles, _extras
from olivine.hardware.memory import free_memory_bytes, killed_for_memory, memory_limit_bytes

REQUIREMENTS = [
    "torch<2.14,>=2.6; extra == 'torch'",
    "onnxruntime<1.33,>=1.24; extra == 'cpu'",
    "onnx<1.24,>=1.18; extra == 'cpu'",
    "ray<3,>=2.40; extra == 'ray'",
]


def doctor(folder: Path, **environment: str) -> tuple[int, dict[str, Any], str]:
    """Run the verb in ``folder``; return its exit status, its JSON, and everything that it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "olivine", "doctor", "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | environment,
        timeout=120,
    )
    return done.returncode, json.loads(done.stdout), done.stdout + done.stderr


def found(report: dict[str, Any], subject: str) -> dict[str, Any]:
    return next(each for each in report["findings"] if each["subject"] == subject)


def test_a_sound_machine_is_told_so_and_no_token_is_shown(tmp_path: Path) -> None:
    status, report, written = doctor(tmp_path, HF_TOKEN="hf_canary", HF_HUB_OFFLINE="1")
    assert status == 0
    assert report["sound"] is True
    assert found(report, "CPUExecutionProvider")["state"] == "ok"
    assert found(report, "login")["state"] == "ok"
    assert "offline" in found(report, "network")["text"]
    assert "hf_canary" not in written


def test_a_runtime_that_cannot_be_imported_is_a_problem_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libonnxruntime.so: cannot open shared object file')\n")
    status, report, _ = doctor(tmp_path, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert status == 3
    problem = found(report, "onnxruntime")
    assert problem["state"] == "problem"
    assert "libonnxruntime.so" in problem["text"]
    assert "pip install" in problem["remedy"]


def test_the_page_gives_each_line_that_is_not_in_order_its_remedy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "olivine", "doctor"], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0
    assert "execution providers" in done.stdout
    assert "nothing is wrong" in done.stdout or "warning" in done.stdout


def test_a_damaged_artifact_is_counted_and_left_where_it_is(tmp_path: Path) -> None:
    from olivine.doctor.surroundings import check_cache
    from olivine.store import Store

    store = Store(tmp_path / "cache")
    for digest in ("a" * 64, "b" * 64):
        with store.stage(digest) as staging:
            (staging.path / "model.bin").write_bytes(b"0123456789")
            staging.commit(format="hf", step={"type": "Test"}, inputs={})
    store.release()
    (sound,) = check_cache(tmp_path / "cache")
    assert sound.state is State.OK
    damaged = next((tmp_path / "cache" / "artifacts").glob(f"*/{'a' * 64}/**/model.bin"))
    damaged.chmod(0o644)
    damaged.write_bytes(b"0123")
    (finding,) = check_cache(tmp_path / "cache")
    assert finding.state is State.WARNING
    assert "1 damaged" in finding.text
    assert damaged.read_bytes() == b"0123"


def test_two_runtimes_in_one_folder_are_a_problem() -> None:
    (problem,) = _doubles({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.0"})
    assert problem.state is State.PROBLEM
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in problem.remedy
    assert "onnxruntime-gpu==1.31.0" in problem.remedy
    assert list(_doubles({"onnxruntime": "1.32.0", "onnxruntime-genai": "0.18.0"})) == []


@pytest.mark.parametrize(
    ("installed", "subject", "state", "remedy"),
    [
        ({"torch": "2.13.0", "onnxruntime": "1.32.0"}, "[cpu]", State.WARNING, "olivine[cpu]"),
        ({"torch": "2.20.0"}, "torch", State.WARNING, "pip install 'torch<2.14,>=2.6'"),
        ({"torch": "2.13.0"}, "[ray]", State.ABSENT, "olivine[ray]"),
        ({"torch": "2.13.0"}, "ONNX Runtime", State.ABSENT, "olivine[cpu]"),
    ],
)
def test_what_is_missing_or_too_new_is_named(
    installed: dict[str, str], subject: str, state: State, remedy: str
) -> None:
    finding = next(each for each in _extras(installed, REQUIREMENTS) if each.subject == subject)
    assert finding.state is state
    assert remedy in finding.remedy


def test_a_container_s_limit_counts_as_free_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 600000\ninactive_file 50000\n")
    assert free_memory_bytes(tmp_path) == 350_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory_bytes(tmp_path) > 1_000_000


@pytest.mark.parametrize("seen_from", ["the host", "the container"])
def test_limits_of_the_first_version_and_of_groups_around_count(tmp_path: Path, seen_from: str) -> None:
    membership = tmp_path / "self"
    membership.write_text("9:name=systemd:/\n4:memory:/outer/inner\n0::/\n")
    outer = tmp_path / "memory" / ("outer" if seen_from == "the host" else "")
    inner = outer / "inner" if seen_from == "the host" else outer
    inner.mkdir(parents=True)
    for folder in {inner, outer}:
        (folder / "memory.limit_in_bytes").write_text("9223372036854771712\n")
        (folder / "memory.usage_in_bytes").write_text("700000\n")
        (folder / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 50000\n")
        (folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    assert memory_limit_bytes(tmp_path, membership) is None
    (outer / "memory.limit_in_bytes").write_text("1000000\n")
    (inner / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert free_memory_bytes(tmp_path, membership) == 350_000
    assert memory_limit_bytes(tmp_path, membership) == 1_000_000
    assert killed_for_memory(tmp_path, membership) == 3


def test_the_best_speed_of_the_machine_that_was_seen_is_kept_in_the_cache(tmp_path: Path) -> None:
    from olivine.doctor.speed import check_speed
    from olivine.hardware.machine import this_machine
    from olivine.hardware.rates import Rates, keep_rates, kept_rates, rates_file

    assert check_speed(tmp_path / "none", this_machine())[0].state is State.OK
    assert not (tmp_path / "none").exists()
    # A machine that multiplies as none does, and was busy when its memory was measured.
    keep_rates(rates_file(tmp_path, this_machine()), this_machine(), Rates(1e18, 0, 1, 1, 1, 1))
    (found,) = check_speed(tmp_path, this_machine())
    kept = kept_rates(tmp_path, this_machine())
    assert "1000000000 GFLOP/s in float32" in found.text
    assert kept is not None
    assert kept.float32 == 1e18
    assert min(kept.memory, kept.read, kept.write, kept.interpreter) > 1000
