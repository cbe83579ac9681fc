"""Evaluation rows are taken out before anything is packed, and nothing leaks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from letter_tokens import rows

from olivine.data.formats import Row
from olivine.data.splitting import duplicates_between, split_rows
from olivine.errors import DataError


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40),
    share=st.floats(0.05, 0.9),
    seed=st.integers(0, 9),
    group=st.booleans(),
)
def test_a_split_is_a_partition_in_the_order_of_the_rows(
    texts: list[str], share: float, seed: int, group: bool
) -> None:
    given_rows = rows(*texts)
    try:
        train, evaluation, report = split_rows(given_rows, share, seed, group_duplicates=group)
    except DataError:
        assert len(set(texts)) == 1 or round(share * len(texts)) >= len(texts)
        return
    assert sorted(row.line for row in train + evaluation) == [row.line for row in given_rows]
    for side in (train, evaluation):
        assert side
        assert [row.line for row in side] == sorted(row.line for row in side)
    assert report.duplicates == duplicates_between(train, evaluation)
    assert report.duplicate_rows == len(texts) - len(set(texts))
    assert (report.train_rows, report.eval_rows) == (len(train), len(evaluation))
    if group:
        assert report.duplicates == 0


def test_the_share_is_of_rows() -> None:
    train, evaluation, _ = split_rows(rows(*map(str, range(10))), 0.3, seed=0)
    assert (len(train), len(evaluation)) == (7, 3)


def test_a_number_is_a_number_of_rows() -> None:
    assert len(split_rows(rows(*map(str, range(10))), 4, seed=0)[1]) == 4


def test_the_seed_decides() -> None:
    texts = rows(*map(str, range(50)))
    assert split_rows(texts, 0.2, seed=1) == split_rows(texts, 0.2, seed=1)
    assert split_rows(texts, 0.2, seed=1) != split_rows(texts, 0.2, seed=2)


def test_identical_rows_across_the_split_are_counted_if_they_are_not_kept_together() -> None:
    texts = rows(*["same"] * 10)
    _, evaluation, report = split_rows(texts, 0.3, seed=0, group_duplicates=False)
    assert report.duplicates == len(evaluation) == 3


def test_rows_that_are_all_identical_cannot_be_split_without_a_leak() -> None:
    with pytest.raises(DataError, match="identical"):
        split_rows(rows(*["same"] * 10), 0.3, seed=0)


def test_only_the_columns_that_matter_decide_what_is_identical() -> None:
    numbered = [Row({"id": number, "text": "ab"[number % 2]}, "f", number) for number in range(8)]
    assert split_rows(numbered, 0.5, seed=0)[2].duplicate_rows == 0
    train, evaluation, report = split_rows(numbered, 0.5, seed=0, columns=["text"])
    assert report.duplicate_rows == 6
    assert {row.values["text"] for row in train}.isdisjoint(row.values["text"] for row in evaluation)


@pytest.mark.parametrize("size", [0, 10, 11, -1, 0.0, 1.0, 1.5, -0.5])
def test_a_size_that_leaves_a_side_empty_is_an_error(size: float) -> None:
    with pytest.raises(DataError, match="evaluation"):
        split_rows(rows(*map(str, range(10))), size, seed=0)


def test_duplicates_between_counts_evaluation_rows() -> None:
    assert duplicates_between(rows("a", "b"), rows("a", "a", "c")) == 2
