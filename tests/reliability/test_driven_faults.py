"""Each driver of faults, a few times; docs/reliability.md has what was seen when ``run.py`` repeated them.

Those that take minutes run where ``OLIVINE_ALL_FAULTS`` is set.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import clocks
import damage
import disks
import hubs
import kills
import power
import pytest
import sharing
from faulty_hub import MODEL, FaultyHub
from small_example import Example, no_network, undisturbed

long = pytest.mark.skipif(not os.environ.get("OLIVINE_ALL_FAULTS"), reason="it takes minutes; set OLIVINE_ALL_FAULTS")


@pytest.fixture(scope="session")
def base(pico_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pico model in a folder that the undisturbed run may lie beside."""
    return Path(shutil.copytree(pico_model, tmp_path_factory.mktemp("reliability") / "pico"))


def assert_nothing_wrong(seen: Counter[str]) -> None:
    assert [what for what, times in seen.items() if times and what.startswith("WRONG")] == []


def test_the_example_runs_where_there_is_no_route(base: Path) -> None:
    if not no_network():
        pytest.skip("a network namespace is not permitted here")
    peace = undisturbed(base)
    assert peace.without_network
    assert "file model.onnx" in peace.results


def test_a_run_killed_at_random_moments_makes_what_it_would_have_made(base: Path, tmp_path: Path) -> None:
    seen = kills.drive(tmp_path, base, 1, seed=1)
    assert_nothing_wrong(seen)
    assert seen["kills"] == 1
    assert seen["results equal to the undisturbed run's, digest by digest"] == seen["runs completed afterwards"] > 0


def test_a_run_whose_disk_fills_up_says_so_and_goes_on_with_room(base: Path, tmp_path: Path) -> None:
    seen = disks.drive(tmp_path, base, 1, seed=1)
    assert_nothing_wrong(seen)
    assert seen["results equal to the undisturbed run's, digest by digest"] == 1


def test_damaged_files_of_the_cache_are_made_again(base: Path, tmp_path: Path) -> None:
    seen = damage.drive(tmp_path, base, 1, seed=3)
    assert_nothing_wrong(seen)
    assert seen["results equal to the undisturbed run's, digest by digest"] == 1


def test_two_runs_on_one_cache_make_each_step_once(base: Path, tmp_path: Path) -> None:
    seen = sharing.drive(tmp_path, base, 1, seed=1, processes=2)
    assert_nothing_wrong(seen)
    assert seen["Steps made once, and used by all"] == 4


def test_everything_is_synced_before_it_appears(base: Path, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    seen = power.drive(tmp_path, base, 1, seed=1)
    assert_nothing_wrong(seen)
    assert seen["renames of artifacts, checkpoints and outputs"] > 5


@long
def test_a_clock_that_jumps_changes_nothing(base: Path, tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    seen = clocks.drive(tmp_path, base, 1, seed=1)
    assert_nothing_wrong(seen)
    assert seen["jumps"] > 0


@long
def test_a_model_is_fetched_from_a_hub_that_fails_now_and_then(base: Path, tmp_path: Path) -> None:
    seen = hubs.drive(tmp_path, base, 1, seed=1)
    assert_nothing_wrong(seen)
    assert seen["runs afterwards with the hub switched off"] == 1


def test_a_model_that_comes_damaged_every_time_is_not_used(base: Path, tmp_path: Path) -> None:
    example = Example(tmp_path / "project", base)
    (example.folder / "base-model").unlink()
    hub = FaultyHub(base, faults=("altered",), rate=1.0)
    with hub.serving() as address:
        status = example.run(
            "--set",
            f"input_model.model_path={MODEL}",
            environment={"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address},
        )
    assert status == 3
    assert "came damaged from the hub" in example.said
    assert not list((tmp_path / "hub").rglob("*.safetensors"))


def test_the_trace_of_a_file_that_was_not_synced_is_told(tmp_path: Path) -> None:
    trace = [
        f'7 openat(AT_FDCWD</>, "{tmp_path}/cache/staging/a/files/x", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 3',
        f"7 write(3<{tmp_path}/cache/staging/a/files/x>, ..., 5) = 5",
        f'7 rename("{tmp_path}/cache/staging/a", "{tmp_path}/cache/artifacts/ab/abcd") = 0',
    ]
    wrong = [what for what in power.check(trace, tmp_path) if what.startswith("WRONG")]
    assert len(wrong) == 3
    assert "WRONG file not synced before its rename: cache/staging/a/files/x" in wrong
    assert "WRONG folder not synced after the rename to cache/artifacts/ab/abcd" in wrong
