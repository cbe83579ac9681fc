"""A fine-tuned model is asked as it was in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from olivine.models.prompting import PromptStyle, trained_style


def folder_with(tmp_path: Path, config: dict[str, Any], **train: Any) -> Path:
    workflow = {
        "input_model": {"model_path": "base"},
        "data_configs": [{"name": "other"}, {"name": "train", **config}],
        "passes": {"lora": {"type": "LoRA", "train_data_config": "train"}, "builder": {"type": "ModelBuilder"}},
    }
    (tmp_path / "workflow.yaml").write_text(yaml.safe_dump(workflow))
    return tmp_path


def prompt(style: PromptStyle | None) -> str:
    assert style is not None
    return style.prompt("HERE")


def test_template_up_to_the_last_column_is_the_prompt(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"text_template": "### Text: {phrase}\n### The tone is:\n{tone}"})
    assert prompt(trained_style(folder)) == "### Text: HERE\n### The tone is:\n"


def test_bos_follows_the_training(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"text_template": "{a} -> {b}", "add_special_tokens": False})
    style = trained_style(folder)
    assert prompt(style) == "HERE -> "
    assert style is not None
    assert not style.add_special_tokens


def test_prompt_template_of_a_pair(tmp_path: Path) -> None:
    pair = {"dataset_type": "pair", "prompt_template": "Q: {q}\nA:", "completion_template": " {a}"}
    assert prompt(trained_style(folder_with(tmp_path, pair))) == "Q: HERE\nA:"


def test_columns_joined_by_a_space(tmp_path: Path) -> None:
    assert prompt(trained_style(folder_with(tmp_path, {"text_cols": ["phrase", "tone"]}))) == "HERE "


def test_chat_is_asked_through_the_chat_template(tmp_path: Path) -> None:
    assert trained_style(folder_with(tmp_path, {"chat_template": True})) == PromptStyle(None)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"text_template": "{a} {b} {c}"},
        {"text_template": "{only}"},
        {"text_template": "{a.b} {c}"},
        {"text_cols": ["a"]},
        {"chat_template": "{{ messages }}"},
        {"no_such_key": 1},
    ],
)
def test_prompt_that_one_text_cannot_fill_is_not_guessed(tmp_path: Path, config: dict[str, Any]) -> None:
    assert trained_style(folder_with(tmp_path, config)) is None


@pytest.mark.parametrize("content", ["", "just text", "- a\n- b", "passes: [", "passes: {a: 1}", "\x00"])
def test_file_of_somebody_elses_is_not_heeded(tmp_path: Path, content: str) -> None:
    (tmp_path / "workflow.yaml").write_text(content)
    assert trained_style(tmp_path) is None


def test_folder_without_workflow(tmp_path: Path) -> None:
    assert trained_style(tmp_path) is None


def test_literal_braces_survive(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"text_template": '{{"text": "{phrase}"}} -> {tone}'})
    assert prompt(trained_style(folder)) == '{"text": "HERE"} -> '
