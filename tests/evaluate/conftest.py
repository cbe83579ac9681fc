"""Data and models for the metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from built_models import genai_of, rows, trained_model


@pytest.fixture(scope="session")
def tone_model(pico_model: Path) -> Path:
    """A checkpoint that knows the tone of twelve phrases by heart."""
    return trained_model(pico_model)


@pytest.fixture(scope="session")
def tone_genai(tone_model: Path) -> Path:
    """The same as a GenAI model in fp32."""
    return genai_of(tone_model, "fp32")


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """The twelve phrases with their tones, as JSON Lines."""
    file = tmp_path / "tones.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return file
