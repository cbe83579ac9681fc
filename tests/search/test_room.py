"""Memory of candidates that are made side by side: the rule, and two real candidates that together are too large."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from olivine.search.room import MARGIN, Room


def nothing() -> int:
    return 0


def come(room: Room, estimate: int) -> tuple[threading.Event, list[int]]:
    """Let a candidate come in on a thread of its own; return what tells that it is in, and what it waited for."""
    entered, waited = threading.Event(), list[int]()

    def enter() -> None:
        room.enter(estimate, waited.append)
        entered.set()

    threading.Thread(target=enter, daemon=True).start()
    return entered, waited


def test_the_first_comes_in_however_large_it_is() -> None:
    room = Room(limit=100, free=lambda: 50, taken=nothing)
    assert room.enter(1000) == 1200


def test_what_is_promised_and_not_yet_taken_is_not_free() -> None:
    held = [0]
    room = Room(free=lambda: 10_000 - held[0], taken=lambda: held[0])
    room.enter(5000)
    entered, waited = come(room, 5000)
    assert not entered.wait(0.3), "both would see 10,000 bytes free, and take 12,000"
    assert waited == [6000]
    small, _ = come(room, 3000)
    assert small.wait(5), "what is left suffices for it, whoever waits"
    held[0] = 5000
    assert not entered.wait(0.7)


def test_it_waits_until_another_has_left() -> None:
    room = Room(limit=10_000, free=lambda: 10**9, taken=nothing)
    promised = room.enter(5000)
    entered, _ = come(room, 5000)
    assert not entered.wait(0.2)
    room.leave(promised)
    assert entered.wait(5)


def test_a_candidate_may_be_as_large_as_the_largest_so_far() -> None:
    room = Room(limit=int(3 * MARGIN * 1000), free=lambda: 10**9, taken=nothing)
    room.learn(2000)
    assert room.enter(100) == MARGIN * 2000
    entered, _ = come(room, 100)
    assert not entered.wait(0.2)


@pytest.mark.parametrize("free", [1000, 5000])
def test_room_is_made_by_memory_that_others_give_back(free: int) -> None:
    available = [0]
    room = Room(free=lambda: available[0], taken=nothing)
    room.enter()
    entered, _ = come(room, 3000)
    time.sleep(0.1)
    available[0] = free
    assert entered.wait(2) == (free > MARGIN * 3000)


@pytest.fixture
def search(tmp_path: Path, pico_model: Path) -> Callable[[str], list[dict[str, Any]]]:
    """Quantise a model to two widths side by side within some memory; return the events."""

    def run(max_memory: str) -> list[dict[str, Any]]:
        config = {
            "version": 1,
            "input_model": {"model_path": str(pico_model)},
            "passes": {"q": {"type": "Quantize", "bits": [4, 8]}},
            "evaluators": {"e": {"metrics": [{"type": "size"}]}},
            "engine": {
                "evaluator": "e",
                "evaluate_input_model": False,
                "search_strategy": {"sampler": "sequential", "workers": 2},
                "max_memory": max_memory,
                "cache_dir": "cache",
            },
        }
        (tmp_path / "workflow.json").write_text(json.dumps(config))
        done = subprocess.run(
            [sys.executable, "-m", "olivine", "run", "workflow.json", "--json"],
            cwd=tmp_path, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def spans(events: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Return when the first Step of each candidate began and its last ended, in the order in which they began."""
    times = [[each["time"] for each in events if each.get("candidate") == number] for number in (0, 1)]
    return sorted((min(each), max(each)) for each in times)


def test_two_candidates_that_together_exceed_the_budget_wait_for_each_other(search) -> None:
    """Rounding is estimated to take 179 MB with one thread and 238 with two, so two and the margin exceed 400 MB."""
    events = search("400MB")
    [waiting] = [each for each in events if each["event"] == "trial-waiting"]
    assert MARGIN * 170e6 < waiting["memory_bytes"] < 400e6
    (_, ended), (began, _) = spans(events)
    assert ended <= began


def test_two_candidates_that_fit_together_run_side_by_side(search) -> None:
    events = search("4GB")
    assert "trial-waiting" not in {each["event"] for each in events}
    (_, ended), (began, _) = spans(events)
    assert began < ended
