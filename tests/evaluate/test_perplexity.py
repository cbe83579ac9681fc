"""Perplexity in the protocol of sliding windows, the same for every format."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from built_models import genai_of
from metric_inputs import context

from olivine.errors import DataError
from olivine.evaluate.perplexity import Perplexity, PerplexityParams, windows
from olivine.models.text import open_text_model

TEXT = "the cat sat on the mat and cricket is a wonderful sport " * 8


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": TEXT + str(number)}) + "\n" for number in range(3)))
    return file


def measure(model: Path, file: Path, config: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    given = PerplexityParams(data_config="data", **params)
    return Perplexity().measure(given, context(model, file, **(config or {})))


def reference(model: Path, ids: list[int], length: int, stride: int) -> tuple[float, int]:
    """Return the summed loss and the tokens scored, as transformers' own documentation computes it."""
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model)
    total, count, done = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + length, len(ids))
        window = torch.tensor([ids[begin:end]])
        labels = window.clone()
        labels[:, : -(end - done)] = -100
        with torch.no_grad():
            loss = network(window, labels=labels).loss.item()
        scored = int((labels[:, 1:] != -100).sum())
        if scored:
            total, count = total + loss * scored, count + scored
        done = end
        if end == len(ids):
            break
    return total, count


@pytest.mark.parametrize(("length", "stride"), [(64, 64), (64, 20), (500, 500), (40, 1)])
def test_windows_are_those_of_the_standard_protocol(pico_model: Path, length: int, stride: int) -> None:
    model = open_text_model(pico_model)
    ids = model.encode_prompt(TEXT)[:150]
    losses = [loss for chunk in windows(model, ids, length, stride) for loss in chunk]
    total, count = reference(pico_model, ids, length, stride)
    assert len(losses) == count
    assert sum(losses) == pytest.approx(total, rel=1e-4)


def test_genai_fp32_agrees_with_the_checkpoint(pico_model: Path, texts: Path) -> None:
    ours = measure(genai_of(pico_model, "fp32"), texts, max_seq_len=128)
    theirs = measure(pico_model, texts, max_seq_len=128)
    assert ours["tokens"] == theirs["tokens"]
    assert ours["perplexity"] == pytest.approx(theirs["perplexity"], rel=1e-3)


def test_perplexity_is_the_exponential_of_the_mean_loss(pico_model: Path, texts: Path) -> None:
    found = measure(pico_model, texts)
    assert found["perplexity"] == pytest.approx(math.exp(found["nll"]))
    assert next(iter(found)) == "perplexity"


def test_trained_model_is_less_surprised_by_its_own_text(pico_model: Path, tone_model: Path, tones: Path) -> None:
    config = {
        "text_template": "### Text: {phrase}\n### The tone is:\n{tone}",
        "strategy": "line-by-line",
    }
    assert measure(tone_model, tones, config)["tokens"] == measure(pico_model, tones, config)["tokens"]


def test_rows_are_joined_or_scored_alone_as_the_strategy_has_it(pico_model: Path, texts: Path) -> None:
    model = open_text_model(pico_model)
    alone = measure(pico_model, texts, {"strategy": "line-by-line"})
    rows = [TEXT + str(number) for number in range(3)]
    assert alone["tokens"] == sum(len(model.encode(row)) for row in rows)  # BOS is context, not scored
    joined = measure(pico_model, texts, {"strategy": "join", "joiner": "\n\n"}, max_seq_len=512)
    length = len(model.encode("\n\n".join(rows)))
    assert joined["tokens"] == length + 1 - math.ceil((length + 1) / 512)


def test_small_stride_scores_every_token_but_the_first(pico_model: Path, texts: Path) -> None:
    model = open_text_model(pico_model)
    found = measure(pico_model, texts, {"joiner": None}, max_seq_len=64, stride=16)
    assert found["tokens"] == len(model.encode("".join(TEXT + str(number) for number in range(3))))


def test_it_stops_after_the_tokens_that_were_asked_for(pico_model: Path, texts: Path) -> None:
    assert 50 <= measure(pico_model, texts, max_seq_len=32, max_tokens=50)["tokens"] < 100


def test_text_of_one_token_has_nothing_to_score(pico_model: Path, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="no row of data has a token that can be scored"):
        measure(pico_model, tmp_path / "one.jsonl", add_special_tokens=False)
