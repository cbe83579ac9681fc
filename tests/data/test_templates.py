"""From a row to its text, and what a template must not do."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from letter_tokens import config

from olivine.data.formats import Row
from olivine.data.templates import Piece, parse_template, render, used_columns
from olivine.errors import ConfigError, DataError

ROW = Row({"phrase": "hello", "tone": "joy", "Best Answer": "42", "score": 0.5, "text": "plain"}, "f.jsonl", 7)


def text(row: Row = ROW, **values: Any) -> str:
    return render(config(**values), row).text


def test_columns_are_filled_in() -> None:
    assert text(text_template="### Text: {phrase}\n### Tone:\n{tone}") == "### Text: hello\n### Tone:\njoy"


def test_column_names_may_contain_spaces() -> None:
    assert text(text_template="A: {Best Answer}") == "A: 42"


def test_doubled_braces_are_literal() -> None:
    assert text(text_template='{{"tone": "{tone}"}}') == '{"tone": "joy"}'


def test_format_specifications_and_conversions_work_as_in_python() -> None:
    assert text(text_template="{score:.2f} {tone!r} {tone:>5}") == "0.50 'joy'   joy"


@pytest.mark.parametrize(
    "template",
    [
        "{phrase.__class__}",
        "{phrase.__class__.__mro__}",
        "{phrase[0]}",
        "{phrase:{tone.__class__}}",
        "{phrase:{tone}}",
        "{}",
        "{ }",
        "{phrase",
        "phrase}",
        "{phrase!x}",
        '{"phrase": {phrase}}',
    ],
)
def test_a_template_that_asks_for_more_than_columns_is_refused(template: str) -> None:
    with pytest.raises(ConfigError) as raised:
        render(config(text_template=template), ROW)
    (problem,) = raised.value.problems
    assert problem.where is not None
    assert problem.where.path == "text_template"
    assert problem.remedy


def test_a_template_without_a_column_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no column"):
        used_columns(config(text_template="always the same"))


def test_columns_are_joined_by_one_space() -> None:
    assert text(text_cols=["phrase", "tone"]) == "hello joy"


def test_the_column_text_is_the_default() -> None:
    assert text() == "plain"


def test_a_template_wins_over_columns() -> None:
    setting = config(text_template="{tone}", text_cols=["phrase"])
    assert used_columns(setting) == {"tone"}
    assert render(setting, ROW).text == "joy"


def test_prompt_and_completion_of_a_corpus_are_one_text() -> None:
    setting = config(prompt_template="{phrase} -> ", completion_col="tone", train_on="completion")
    assert render(setting, ROW).pieces == (Piece("hello -> ", False), Piece("joy", True))
    assert render(setting.model_copy(update={"train_on": None}), ROW).text == "hello -> joy"


def test_the_completion_of_a_template_begins_at_its_last_placeholder() -> None:
    setting = config(text_template="T: {phrase} A: {tone}.", train_on="completion")
    assert render(setting, ROW).pieces == (Piece("T: hello A: ", False), Piece("joy.", True))


def test_a_pair_is_two_pieces_of_which_the_prompt_is_not_learnt() -> None:
    setting = config(dataset_type="pair", prompt_col="phrase", completion_template=" {tone}")
    assert used_columns(setting) == {"phrase", "tone"}
    assert render(setting, ROW).pieces == (Piece("hello", False), Piece(" joy", True))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"dataset_type": "pair", "prompt_col": "phrase"}, "completion_col"),
        ({"dataset_type": "pair"}, "prompt_col"),
        ({"dataset_type": "pair", "chat_template": True}, "dataset_type"),
        ({"prompt_col": "phrase", "prompt_template": "{phrase}", "completion_col": "tone"}, "prompt_col"),
        ({"train_on": "completion"}, "train_on"),
        ({"train_on": "completion", "prompt_col": "phrase"}, "train_on"),
        ({"text_cols": []}, "text_cols"),
    ],
)
def test_contradictory_and_incomplete_configs_name_the_key(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        used_columns(config(**values))
    where = raised.value.problems[0].where
    assert where is not None
    assert where.path == key


@pytest.mark.parametrize("value", [3, 2.5, True, datetime.date(2024, 5, 1)])
def test_numbers_truth_and_dates_are_written_as_str_writes_them(value: Any) -> None:
    assert text(Row({"text": value}, "f", 1)) == str(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "is null"),
        (["a"], "holds a list where text is expected"),
        ({"a": 1}, "holds an object where text is expected"),
        (b"a", "holds binary where text is expected"),
        (float("nan"), "is not a number"),
        ("\ud83d", "holds half of a surrogate pair"),
    ],
)
def test_what_is_no_text_is_an_error_with_file_line_and_column(value: Any, said: str) -> None:
    with pytest.raises(DataError, match=rf"^f\.jsonl:7: column 'text' {said}"):
        text(Row({"text": value}, "f.jsonl", 7))


def test_a_missing_column_suggests_the_nearest() -> None:
    with pytest.raises(DataError, match=r"f\.jsonl:7: column 'Tone' is missing. Did you mean 'tone'\?"):
        text(text_template="{Tone}")


def test_a_specification_that_does_not_fit_the_value_names_the_row() -> None:
    with pytest.raises(DataError, match=r"f\.jsonl:7: the template cannot format this row"):
        text(text_template="{tone:.2f}")


def test_a_template_splits_without_losing_anything() -> None:
    whole = parse_template("{{a}} {phrase}, {tone} {{b}}")
    before, after = whole.split()
    assert before.fill(ROW.values) + after.fill(ROW.values) == whole.fill(ROW.values) == "{a} hello, joy {b}"
