"""A fine-tuned model is asked as it was in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from olivine.models.prompting import PromptStyle, columns, fill, prompt_part, trained_style


def folder_with(tmp_path: Path, config: dict[str, Any], **train: Any) -> Path:
    workflow = {
        "input_model": {"model_path": "base"},
        "data_configs": [{"name": "other"}, {"name": "train", **config}],
        "passes": {"lora": {"type": "LoRA", "train_data_config": "train"}, "builder": {"type": "ModelBuilder"}},
    }
    (tmp_path / "workflow.yaml").write_text(yaml.safe_dump(workflow))
    return tmp_path


def test_template_up_to_the_last_column_is_the_prompt(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"text_template": "### Text: {phrase}\n### The tone is:\n{tone}"})
    assert trained_style(folder) == PromptStyle("### Text: {phrase}\n### The tone is:\n", True)


def test_bos_follows_the_training(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"text_template": "{a} -> {b}", "add_special_tokens": False})
    assert trained_style(folder) == PromptStyle("{a} -> ", False)


def test_prompt_template_of_a_pair(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"prompt_template": "Q: {q}\nA:", "completion_template": " {a}"})
    assert trained_style(folder) == PromptStyle("Q: {q}\nA:", True)


def test_chat_is_asked_through_the_chat_template(tmp_path: Path) -> None:
    assert trained_style(folder_with(tmp_path, {"chat_template": True})) == PromptStyle(None, True)


@pytest.mark.parametrize(
    "config", [{}, {"text_template": "{a} {b} {c}"}, {"text_template": "{only}"}, {"text_cols": ["a", "b"]}]
)
def test_prompt_that_one_text_cannot_fill_is_not_guessed(tmp_path: Path, config: dict[str, Any]) -> None:
    assert trained_style(folder_with(tmp_path, config)) is None


@pytest.mark.parametrize("content", ["", "just text", "- a\n- b", "passes: [", "passes: {a: 1}", "\x00"])
def test_file_of_somebody_elses_is_not_heeded(tmp_path: Path, content: str) -> None:
    (tmp_path / "workflow.yaml").write_text(content)
    assert trained_style(tmp_path) is None


def test_folder_without_workflow(tmp_path: Path) -> None:
    assert trained_style(tmp_path) is None


def test_nothing_in_a_template_is_evaluated() -> None:
    assert fill("{x.__class__} and {{y}}", "text") == "text and {y}"


def test_literal_braces_survive_the_cut() -> None:
    part = prompt_part('{{"text": "{phrase}"}} -> {tone}')
    assert part is not None
    assert fill(part, "hi") == '{"text": "hi"} -> '


def test_columns_are_named_once_in_order() -> None:
    assert columns("{b} {a} {b}") == ["b", "a"]
