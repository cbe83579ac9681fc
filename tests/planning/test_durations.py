"""How long a Step takes is told from what was measured of the machine, and from earlier runs of the same pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from olivine.hardware.calibration import calibrate
from olivine.hardware.machine import Machine, this_machine
from olivine.hardware.rates import Rates, keep_rates, kept_rates, rates_file
from olivine.passes.effort import Effort, effort_from
from olivine.passes.estimate import Estimate
from olivine.planning.durations import EFFORT, MACHINE, Durations
from olivine.store import Store

RATES = Rates(float32=1e11, bfloat16=0, memory=1e10, read=1e9, write=5e8, interpreter=1e7)
HERE = Machine("a processor", 4, 2**34, False)


def store_with(folder: Path, *runs: tuple[str, Effort, float], machine: Machine = HERE) -> Store:
    """Return a Store whose earlier runs took so many seconds."""
    store = Store(folder)
    for number, (kind, effort, seconds) in enumerate(runs):
        with store.stage(f"{number:032x}") as staging:
            (staging.path / "file").write_text("content")
            staging.commit(
                format="hf",
                step={"type": kind},
                inputs={},
                metrics={},
                attributes={EFFORT: effort.as_json(), MACHINE: machine.fingerprint},
                history=[],
                seconds=seconds,
                peak_memory=1,
            )
    return store


def test_effort_takes_the_time_of_all_its_parts() -> None:
    effort = Effort(products=2e11, moved=1e10, read=1e9, written=5e8, steps=1e7)
    assert effort.seconds(RATES) == pytest.approx(2 + 1 + 1 + 1 + 1)
    assert Effort(half_products=1e9).seconds(RATES) == pytest.approx(2.0)  # emulated, 200 times slower
    assert (effort + effort).seconds(RATES) == pytest.approx(12)
    assert effort_from(effort.as_json()) == effort
    assert effort_from({"flops": 3}) is None
    assert effort_from(None) is None


def test_nothing_measured_means_no_time(tmp_path: Path) -> None:
    estimate = Estimate(effort=Effort(products=1e11))
    assert Durations(Store(tmp_path / "none"), HERE).seconds(estimate, "LoRA") is None
    assert not (tmp_path / "none").exists()


def test_rates_alone_tell_the_time_and_earlier_runs_correct_it(tmp_path: Path) -> None:
    estimate = Estimate(effort=Effort(products=1e12))
    keep_rates(rates_file(tmp_path / "a", HERE), HERE, RATES)
    assert Durations(Store(tmp_path / "a"), HERE).seconds(estimate, "LoRA") == pytest.approx(10)
    runs = [
        ("LoRA", Effort(products=5e11), 10.0),
        ("LoRA", Effort(products=1e10), 9.0),
        ("Other", Effort(steps=1), 9.0),
    ]
    store = store_with(tmp_path / "a", *runs)  # twice as slow as measured; the second is too small to count
    assert Durations(store, HERE).seconds(estimate, "LoRA") == pytest.approx(20, rel=0.05)


def test_files_that_are_read_for_their_digests_take_time(tmp_path: Path) -> None:
    keep_rates(rates_file(tmp_path, HERE), HERE, RATES)
    assert Durations(Store(tmp_path), HERE).digesting(0) == 0
    assert 1.0 < Durations(Store(tmp_path), HERE).digesting(10**9) < 3.0


def test_earlier_runs_alone_tell_the_time(tmp_path: Path) -> None:
    store = store_with(tmp_path, ("LoRA", Effort(products=5e11), 30.0))
    assert Durations(store, HERE).seconds(Estimate(effort=Effort(products=1e12)), "LoRA") == pytest.approx(60, rel=0.05)
    assert Durations(store, HERE).seconds(Estimate(effort=Effort(products=1e12)), "QLoRA") is None


def test_runs_on_another_machine_tell_nothing(tmp_path: Path) -> None:
    other = Machine("another", 64, 2**38, True)
    store = store_with(tmp_path, ("LoRA", Effort(products=5e11), 30.0), machine=other)
    assert Durations(store, HERE).seconds(Estimate(effort=Effort(products=1e12)), "LoRA") is None


def test_rates_belong_to_a_machine_and_what_is_broken_is_not_used(tmp_path: Path) -> None:
    keep_rates(rates_file(tmp_path, HERE), HERE, RATES)
    assert kept_rates(tmp_path, HERE) == RATES
    assert kept_rates(tmp_path, Machine("another", 1, 1, False)) is None
    rates_file(tmp_path, HERE).write_text('{"rates": {"float32": "fast"}}')
    assert kept_rates(tmp_path, HERE) is None


def test_this_machine_is_measured_in_seconds(tmp_path: Path) -> None:
    found = calibrate(tmp_path)
    assert found.float32 > 1e8
    assert found.memory > 1e7
    assert min(found.read, found.write, found.interpreter) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_worker_measures_the_machine_after_a_long_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from olivine.systems import worker

    file = rates_file(tmp_path, this_machine())
    monkeypatch.setattr("olivine.hardware.calibration.calibrate", lambda folder: RATES)
    worker._measure_machine(str(file))
    assert kept_rates(tmp_path, this_machine()) == RATES
    elsewhere = tmp_path / "machines" / "of-another.json"
    worker._measure_machine(str(elsewhere))
    assert not elsewhere.exists()


def test_planning_measures_nothing() -> None:
    code = (
        "import sys; import olivine.planning.durations, olivine.planning.plan, olivine.planning.resources; "
        "print([name for name in ('torch', 'numpy', 'olivine.hardware.calibration') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert out.strip() == "[]"
