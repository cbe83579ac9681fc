"""Divergence from the unquantised model: the mathematics, what is kept, and what quantising costs."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from built_models import genai_of
from metric_inputs import context

from olivine.errors import ModelError
from olivine.evaluate.divergence import Divergence, DivergenceParams, divergence, top_and_rest

PARAMS = DivergenceParams(data_config="data", top_k=16)
TEXT = {"text_template": "### Text: {phrase}\n### The tone is:\n{tone}"}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (np.exp(p) * (p - q)).sum(-1)


def test_with_the_whole_vocabulary_it_is_the_exact_divergence() -> None:
    generator = np.random.default_rng(0)
    p, q = (log_softmax(generator.normal(size=(50, 30)) * 3) for _ in range(2))
    found = divergence(*top_and_rest(p, 30), q)
    assert found == pytest.approx(kl(p, q), rel=1e-5, abs=1e-6)


def test_with_a_tail_it_is_a_lower_bound_that_grows_with_k_and_is_never_negative() -> None:
    generator = np.random.default_rng(1)
    p, q = (log_softmax(generator.normal(size=(50, 30)) * 3) for _ in range(2))
    found = [divergence(*top_and_rest(p, k), q) for k in (1, 4, 16, 30)]
    for fewer, more in itertools.pairwise(found):
        assert (fewer <= more + 1e-5).all()
    assert (found[0] >= -1e-6).all()
    assert found[0].mean() < 0.9 * found[-1].mean()


def test_equal_predictions_do_not_diverge_even_where_the_tail_has_next_to_nothing() -> None:
    p = log_softmax(np.array([[40.0, 0.0, 0.0, -30.0], [0.0, 0.0, 0.0, 0.0]]))
    assert divergence(*top_and_rest(p, 2), p) == pytest.approx([0, 0], abs=1e-6)


def recorded(model: Path, file: Path, folder: Path) -> Path:
    folder.mkdir()
    Divergence().record(PARAMS, context(model, file, **TEXT), folder)
    return folder


def test_a_model_does_not_diverge_from_itself_and_int4_does(tone_model: Path, tones: Path, tmp_path: Path) -> None:
    kept = recorded(tone_model, tones, tmp_path / "kept")
    found = {
        name: Divergence().measure(PARAMS, replace(context(model, tones, **TEXT), recording=kept))
        for name, model in {
            "itself": tone_model,
            "fp32": genai_of(tone_model, "fp32"),
            "int4": genai_of(tone_model, "int4"),
        }.items()
    }
    assert set(found["int4"]) == set(Divergence.units) == set(Divergence.higher_is_better)
    assert found["itself"]["kl"] == pytest.approx(0, abs=1e-6)
    assert found["itself"]["top_agreement"] == 1
    assert found["fp32"]["kl"] == pytest.approx(0, abs=1e-4)
    assert found["int4"]["kl"] > 10 * abs(found["fp32"]["kl"])
    assert 0.5 < found["int4"]["top_agreement"] < 1


def test_models_with_another_tokenizer_are_not_compared(pico_model: Path, tones: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(pico_model, tmp_path / "other"))
    words = json.loads((other / "tokenizer.json").read_text())
    words["model"]["merges"] = []
    (other / "tokenizer.json").write_text(json.dumps(words))
    kept = recorded(pico_model, tones, tmp_path / "kept")
    with pytest.raises(ModelError, match="other tokens"):
        Divergence().measure(PARAMS, replace(context(other, tones, **TEXT), recording=kept))
