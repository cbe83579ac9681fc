"""Exact match of free answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from built_models import PROMPT
from metric_inputs import context

from olivine.evaluate.exact_match import ExactMatch, ExactMatchParams, word_f1

PARAMS = {"data_config": "data", "prompt_template": PROMPT, "max_new_tokens": 12}


def test_answers_that_are_right_word_for_word_count(tone_genai: Path, tones: Path) -> None:
    found = ExactMatch().measure(ExactMatchParams(**PARAMS, answer_col="tone"), context(tone_genai, tones))
    assert found == {"exact_match": 1.0, "word_f1": 1.0, "count": 12}


def test_an_answer_that_only_begins_right_is_wrong(tone_genai: Path, tones: Path) -> None:
    tones.write_text(tones.read_text().replace('"joy"', '"joy indeed"'))
    found = ExactMatch().measure(ExactMatchParams(**PARAMS, answer_col="tone"), context(tone_genai, tones))
    assert found["exact_match"] == pytest.approx(9 / 12)
    assert found["word_f1"] == pytest.approx((9 + 3 * 2 / 3) / 12)


def test_f1_of_words() -> None:
    assert word_f1("the cat", "the cat sat") == pytest.approx(0.8)
    assert word_f1("", "") == 1
    assert word_f1("dog", "cat") == 0
