"""The data of examples/phrase-tone: enough, balanced, distinct; nothing of the evaluation is trained on."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "examples" / "phrase-tone" / "data"
TONES = {"Sad", "Joy", "Fear", "Surprise"}
PERSIAN = re.compile(r"[\u0600-\u06ff]")
SHARED_WORDS = 5
"""A run of this many words in common is no coincidence; shorter ones are idioms ("with a heavy heart")."""


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def normalised(phrase: str) -> str:
    """The phrase without case, punctuation, and white space."""
    return "".join(re.findall(r"\w", phrase.casefold()))


def runs_of_words(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[\w'\u200c]+", text.casefold())
    return {tuple(words[start : start + SHARED_WORDS]) for start in range(len(words) - SHARED_WORDS + 1)}


@pytest.fixture(scope="module")
def train() -> list[dict[str, str]]:
    return rows("train")


@pytest.fixture(scope="module")
def evaluation() -> list[dict[str, str]]:
    return rows("eval")


@pytest.mark.parametrize("name", ["train", "eval"])
def test_each_row_has_a_phrase_and_one_of_the_four_tones(name: str) -> None:
    for number, row in enumerate(rows(name), start=1):
        assert row.keys() == {"phrase", "tone"}, f"{name}.jsonl line {number}"
        assert row["phrase"] == row["phrase"].strip() != "", f"{name}.jsonl line {number}"
        assert row["tone"] in TONES, f"{name}.jsonl line {number}"


def test_there_are_800_distinct_english_and_100_distinct_persian_phrases(train, evaluation) -> None:
    distinct = {normalised(row["phrase"]): row["phrase"] for row in train + evaluation}
    persian = sum(1 for phrase in distinct.values() if PERSIAN.search(phrase))
    assert persian >= 100
    assert len(distinct) - persian >= 800


def test_no_phrase_occurs_twice(train, evaluation) -> None:
    counts = Counter(normalised(row["phrase"]) for row in train + evaluation)
    assert [phrase for phrase, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("name", ["train", "eval"])
@pytest.mark.parametrize("language", ["English", "Persian"])
def test_tones_are_balanced(name: str, language: str) -> None:
    counts = Counter(
        row["tone"] for row in rows(name) if bool(PERSIAN.search(row["phrase"])) == (language == "Persian")
    )
    assert counts.keys() == TONES
    assert max(counts.values()) <= 1.5 * min(counts.values())


def test_phrases_are_sentences_of_5_to_25_words(train, evaluation) -> None:
    lengths = {row["phrase"]: len(row["phrase"].split()) for row in train + evaluation}
    assert {phrase: length for phrase, length in lengths.items() if not 4 <= length <= 25} == {}


def test_evaluation_has_200_phrases_with_32_persian_ones(evaluation) -> None:
    assert len(evaluation) == 200
    assert sum(1 for row in evaluation if PERSIAN.search(row["phrase"])) == 32


def test_the_base_models_text_holds_nothing_of_the_evaluation(evaluation) -> None:
    known = set().union(*(runs_of_words(sign) for sign in re.split(r"[;\n]", (DATA / "text.txt").read_text("utf-8"))))
    assert [row["phrase"] for row in evaluation if runs_of_words(row["phrase"]) & known] == []
