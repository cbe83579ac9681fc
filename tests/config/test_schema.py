"""The JSON Schema for editors, and the reference made from the same source."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from olivine.config.json_schema import json_schema
from olivine.config.reference import reference_markdown

ROOT = Path(__file__).resolve().parents[2]
VALID = {
    "version": 1,
    "input_model": {"model_path": "base"},
    "data_configs": [{"name": "train", "data_files": ["a.jsonl"]}],
    "passes": {
        "lora": {"type": "LoRA", "r": 8, "train_data_config": "train", "host": "here"},
        "builder": {"type": "ModelBuilder", "precision": "int4"},
    },
    "systems": {"here": {"device": "cpu"}},
    "evaluators": {"e": {"metrics": [{"type": "size"}]}},
    "engine": {"evaluator": "e"},
}


def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_a_valid_workflow_passes() -> None:
    assert list(validator().iter_errors(VALID)) == []


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("passes", {"lora": {"type": "LoRA", "lora_r": 8, "train_data_config": "t"}}),
        ("passes", {"builder": {"type": "ModelBuilder"}}),
        ("passes", {"x": {"type": "Nonsense"}}),
        ("engine", {"outptu_dir": "x"}),
        ("evaluators", {"e": {"metrics": [{"type": "size", "sise": 1}]}}),
    ],
)
def test_mistakes_are_found(section: str, value: object) -> None:
    assert list(validator().iter_errors(VALID | {section: value}))


def test_the_command_prints_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "olivine", "config", "schema"], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout) == json_schema()


def test_the_reference_in_docs_is_up_to_date() -> None:
    written = (ROOT / "docs" / "config-reference.md").read_text(encoding="utf-8")
    assert written == reference_markdown(), "run: python -m olivine.config.reference > docs/config-reference.md"
