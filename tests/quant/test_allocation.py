"""The allocation keeps its budget, and is close to the best that trying everything finds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olivine.quant.allocation import Option, allocate, allocate_within, smallest

choices = st.lists(
    st.builds(Option, st.none(), st.integers(1, 60), st.floats(0, 10).map(lambda value: round(value, 3))),
    min_size=1,
    max_size=4,
)
matrices = st.lists(choices, min_size=1, max_size=5).map(lambda each: {str(place): it for place, it in enumerate(each)})


def total(chosen: dict[str, Option]) -> tuple[int, float]:
    """Return bytes and loss in sum."""
    return sum(each.bytes for each in chosen.values()), sum(each.loss for each in chosen.values())


def every(options: dict[str, list[Option]]) -> list[tuple[int, float]]:
    """Return bytes and loss of every choice there is."""
    return [
        (sum(each.bytes for each in picked), sum(each.loss for each in picked))
        for picked in itertools.product(*options.values())
    ]


@given(matrices, st.integers(0, 200))
@settings(max_examples=300, deadline=None)
def test_keeps_the_bytes_and_is_near_the_least_loss(options: dict[str, list[Option]], spare: int) -> None:
    budget = smallest(options) + spare
    chosen = allocate(options, budget)
    used, lost = total(chosen)
    assert used <= budget
    assert all(chosen[name] in choices for name, choices in options.items())
    best = min(loss for size, loss in every(options) if size <= budget)
    # No more than the one step that did not fit is given away.
    widest = max(max(each.loss for each in it) - min(each.loss for each in it) for it in options.values())
    assert best - 1e-9 <= lost <= best + widest + 1e-9


@given(matrices, st.floats(0, 1))
@settings(max_examples=300, deadline=None)
def test_keeps_the_loss_and_needs_few_bytes(options: dict[str, list[Option]], part: float) -> None:
    losses = [loss for _, loss in every(options)]
    limit = min(losses) + part * (max(losses) - min(losses)) + 1e-9
    used, lost = total(allocate_within(options, limit))
    assert lost <= limit + 1e-9
    best = min(size for size, loss in every(options) if loss <= limit)
    widest = max(max(each.bytes for each in it) - min(each.bytes for each in it) for it in options.values())
    assert best <= used <= best + widest


def test_bits_go_where_they_save_the_most() -> None:
    low, high = Option(None, 4, 1.0), Option(None, 8, 0.1)
    options = {"head": [low, Option(None, 8, 0.1)], "dull": [Option(None, 4, 0.2), high], "big": [low, high]}
    chosen = allocate(options, 16)
    assert {name: each.bytes for name, each in chosen.items()} in (
        {"head": 8, "dull": 4, "big": 4},
        {"head": 4, "dull": 4, "big": 8},
    )
    assert {name: each.bytes for name, each in allocate(options, 20).items()} == {"head": 8, "dull": 4, "big": 8}


def test_impossible_budgets_say_what_is_possible() -> None:
    options = {"a": [Option(None, 4, 1.0), Option(None, 8, 0.5)], "b": [Option(None, 3, 2.0)]}
    with pytest.raises(ValueError, match="6 bytes do not suffice: the smallest choice takes 7"):
        allocate(options, 6)
    with pytest.raises(ValueError, match=r"a loss of 1 cannot be had: the best choice loses 2\.5"):
        allocate_within(options, 1.0)


def test_thousand_matrices_take_no_time() -> None:
    options = {
        str(number): [Option(None, 1000 * bits, (number % 17 + 1) / 4.0**bits) for bits in (2, 4, 8)]
        for number in range(1000)
    }
    used, _ = total(allocate(options, 4_500_000))
    assert 4_490_000 < used <= 4_500_000
