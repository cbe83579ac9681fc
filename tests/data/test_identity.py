"""Two data configs that mean the same have one identity; whatever changes the sequences changes it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from olivine.config.schema import DataConfig
from olivine.data.identity import identity


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"phrase": "a", "tone": "b"}\n')
    return file


def identify(rows: Path, **keys: Any) -> Any:
    config = {"name": "train", "data_files": str(rows), "text_template": "{phrase} {tone}"} | keys
    return identity(DataConfig.model_validate(config), digest, digest)


@pytest.mark.parametrize(
    "keys", [{"name": "other"}, {"data_name": "json"}, {"text_cols": ["phrase", "tone"]}, {"subset": "x"}]
)
def test_keys_without_effect_do_not_count(rows: Path, keys: dict[str, Any]) -> None:
    assert identify(rows, **keys) == identify(rows)


@pytest.mark.parametrize(
    "keys",
    [
        {"data_name": "text", "text_template": None},
        {"text_template": None, "text_cols": "phrase"},
        {"max_seq_len": 7},
        {"joiner": None},
        {"split": "train[:50%]"},
        {"on_bad_row": "skip"},
    ],
)
def test_keys_with_effect_count(rows: Path, keys: dict[str, Any]) -> None:
    assert identify(rows, **keys) != identify(rows)


def test_the_content_counts_and_the_place_does_not(rows: Path, tmp_path: Path) -> None:
    before = identify(rows)
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(rows.read_bytes())
    assert identify(moved) == before
    rows.write_text('{"phrase": "a", "tone": "c"}\n')
    assert identify(rows) != before
