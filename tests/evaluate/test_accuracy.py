"""Accuracy by generated label, on checkpoints and on what ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from built_models import PROMPT, genai_of, rows
from metric_inputs import ACCURACY, context

from olivine.config.schema import DataConfig
from olivine.errors import ConfigError, DataError
from olivine.evaluate.accuracy import Accuracy, AccuracyParams, label_of, score


def measure(model: Path, file: Path, **params: Any) -> dict[str, Any]:
    return Accuracy().measure(AccuracyParams(**(ACCURACY | params)), context(model, file))


def write(file: Path, *lines: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_model_that_knows_every_answer_has_accuracy_one(tone_model: Path, tone_genai: Path, tones: Path) -> None:
    for model in (tone_model, tone_genai):
        found = measure(model, tones)
        assert (found["accuracy"], found["count"], found["unanswered"], found["majority"]) == (1.0, 12, 0.0, 0.25)
        assert found["confusion"]["joy"] == {"joy": 3}
        assert found["labels"]["sad"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "count": 3}
        assert next(iter(found)) == "accuracy"


def test_untrained_model_answers_nothing(pico_model: Path, tones: Path) -> None:
    found = measure(pico_model, tones)
    assert found["accuracy"] < 0.5
    assert found["unanswered"] > 0.5


def test_int4_and_fp32_are_asked_the_same(tone_model: Path, tones: Path) -> None:
    assert measure(genai_of(tone_model, "int4"), tones)["count"] == 12


def test_wrong_rows_count_against_it(tone_genai: Path, tmp_path: Path) -> None:
    given = rows()
    given[0] = given[0] | {"tone": "sad"}  # was joy
    found = measure(tone_genai, write(tmp_path / "data.jsonl", *given))
    assert found["accuracy"] == pytest.approx(11 / 12)
    assert found["confusion"]["sad"] == {"joy": 1, "sad": 3}


def test_batches_do_not_change_answers(tone_genai: Path, tones: Path) -> None:
    assert measure(tone_genai, tones, batch_size=1) == measure(tone_genai, tones, batch_size=16)


def test_likelihood_always_answers(tone_genai: Path, tones: Path, pico_model: Path) -> None:
    assert measure(tone_genai, tones, answer_by="likelihood")["accuracy"] == 1.0
    assert measure(pico_model, tones, answer_by="likelihood")["unanswered"] == 0.0


def test_labels_differ_by_case_only_if_asked(tone_genai: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "data.jsonl", *({**row, "tone": row["tone"].title()} for row in rows()))
    assert measure(tone_genai, file)["accuracy"] == 1.0
    assert measure(tone_genai, file, ignore_case=False)["accuracy"] == 0.0


def test_prompt_comes_from_the_data_config_if_not_given(tone_genai: Path, tones: Path) -> None:
    params = AccuracyParams(**(ACCURACY | {"prompt_template": None}))
    found = Accuracy().measure(params, context(tone_genai, tones, text_template=PROMPT + "{tone}"))
    assert found["accuracy"] == 1.0


def test_prompt_without_bos_is_another_prompt(tone_genai: Path, tones: Path) -> None:
    without = measure(tone_genai, tones, add_special_tokens=False)
    assert without["count"] == 12


def test_first_rows_only(tone_genai: Path, tones: Path) -> None:
    assert measure(tone_genai, tones, max_rows=5)["count"] == 5


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("joy", "joy"),
        ("  Joy!", "joy"),
        ("joy\n### Text: more", "joy"),
        ("joyful", None),
        ("sadness and more", "sadness"),
        ("sad", "sad"),
        ("a joy", None),
        ("", None),
        ("SAD.", "sad"),
    ],
)
def test_label_that_the_answer_begins_with(answer: str, expected: str | None) -> None:
    params = AccuracyParams(data_config="data", label_col="tone")
    assert label_of(answer, {"joy": "joy", "sad": "sad", "sadness": "sadness"}, params) == expected


def test_scores_by_hand() -> None:
    found = score(["a", "a", "b", "b"], ["a", "b", "b", None])
    assert found["accuracy"] == 0.5
    assert found["unanswered"] == 0.25
    assert found["labels"]["a"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "count": 2}
    assert found["labels"]["b"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "count": 2}
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["confusion"] == {"a": {"a": 1, "b": 1}, "b": {"(none)": 1, "b": 1}}


def test_null_label_names_the_row(tone_genai: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "data.jsonl", rows()[0], {"phrase": "x", "tone": None})
    with pytest.raises(DataError, match=r"data\.jsonl:2.*'tone' is null"):
        measure(tone_genai, file)


def test_missing_column_says_the_nearest(tone_genai: Path, tones: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'tones'.*Did you mean 'tone'"):
        measure(tone_genai, tones, label_col="tones")
    with pytest.raises(DataError, match="no column 'frase'"):
        measure(tone_genai, tones, prompt_template="{frase}")


def test_label_that_is_not_among_those_given(tone_genai: Path, tones: Path) -> None:
    with pytest.raises(DataError, match="not among `labels`: surprise"):
        measure(tone_genai, tones, labels=["joy", "sad", "fear"])


def test_label_that_could_never_be_answered(tone_genai: Path, tones: Path) -> None:
    with pytest.raises(DataError, match="Set max_new_tokens to"):
        measure(tone_genai, tones, labels=["joy", "sad", "fear", "surprise", "x" * 30])


def test_prompt_that_holds_the_answer(tone_genai: Path, tones: Path) -> None:
    with pytest.raises(DataError, match="the prompt holds the answer"):
        measure(tone_genai, tones, prompt_template="{phrase} {tone}")


def test_template_that_reaches_into_values_is_refused(tone_genai: Path, tones: Path) -> None:
    with pytest.raises(ConfigError, match="asks for a part of a value"):
        measure(tone_genai, tones, prompt_template="{phrase.__class__}")


def test_empty_data(tone_genai: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError):
        measure(tone_genai, tmp_path / "empty.jsonl")


def problems(file: Path, **params: Any) -> str:
    data = {"data_config": DataConfig(name="data", data_files=str(file))}
    return "\n".join(map(str, Accuracy.check(AccuracyParams(**(ACCURACY | params)), data)))


def test_plan_finds_nothing_wrong_with_what_can_be_measured(tones: Path) -> None:
    assert problems(tones) == ""


def test_plan_finds_what_the_measuring_would_find(tones: Path, tmp_path: Path) -> None:
    assert "no column 'mood'" in problems(tones, label_col="mood")
    assert "holds the answer" in problems(tones, prompt_template="{tone}")
    assert "prompt is not known" in problems(tones, prompt_template=None)
    assert "cannot be read" in problems(tones, prompt_template="{phrase")
    null = write(tmp_path / "null.jsonl", rows()[0], {"phrase": "x", "tone": None})
    assert "null.jsonl:2" in problems(null)
