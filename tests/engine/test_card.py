"""The model card: read back by huggingface_hub, which is what reads it on the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from finished_run import finished_run
from huggingface_hub import ModelCard

from olivine.engine.card_metadata import carried_from, hub_id


@pytest.fixture(scope="module")
def published(pico_model: Path) -> Path:
    """Output folder of a run that fine-tunes and builds a model whose card names a licence."""
    return finished_run(pico_model) / "out"


def test_the_hub_library_reads_the_card_with_every_measurement(published: Path) -> None:
    data = ModelCard.load(published / "model_card.md").data
    measured = json.loads((published / "metrics.json").read_text())["final"]
    assert data.base_model == "pico"
    assert data.base_model_relation == "finetune"
    assert data.library_name == "onnxruntime-genai"
    assert data.pipeline_tag == "text-generation"
    assert {"olivine", "quantized", "4-bit"} <= set(data.tags)
    assert data.metrics[0] == "accuracy"
    found = {(each.dataset_name, each.metric_type): each.metric_value for each in data.eval_results}
    assert found["tones", "accuracy"] == measured["accuracy"]["accuracy"]
    assert found["tones", "f1"] == measured["accuracy"]["macro_f1"]
    assert found["none: measured on the machine", "size_bytes"] == measured["size"]["size_bytes"]
    assert {each.dataset_type for each in data.eval_results} == {"rows.jsonl", "none"}


def test_the_licence_and_the_languages_of_the_base_are_carried_over_and_nothing_else(published: Path) -> None:
    card = ModelCard.load(published / "model_card.md")
    assert card.data.license == "other"
    assert card.data.license_name == "pico-licence"
    assert card.data.license_link == "https://example.org/licence"
    assert card.data.language == ["en", "fa"]
    assert "pico-licence" in card.text
    assert "How it is quantised" in card.text


@pytest.mark.parametrize(
    "text", ["", "# no head", "---\n: [broken\n---\n", "---\n- a list\n---\n", "---\nlicense: 3\n---\n"]
)
def test_a_card_that_says_nothing_usable_carries_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert carried_from(tmp_path) == {}
    assert carried_from(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("microsoft/Phi-3-mini-4k-instruct", "microsoft/Phi-3-mini-4k-instruct"),
        ("/data/models/my-base/", "my-base"),
        ("C:\\models\\base", "base"),
        ("/data/<script>alert(1)", None),
        ("/data/مدل", None),
    ],
)
def test_a_base_model_is_named_only_by_what_can_be_an_id(path: str, expected: str | None) -> None:
    assert hub_id(path) == expected


def test_the_bits_of_each_matrix_are_told_also_if_a_later_pass_builds_on_them() -> None:
    from olivine.engine.card import _quantisation

    row = {"bits": 4, "group_size": 32, "symmetric": False, "loss": 0.00125, "bytes": 5_000_000}
    kept = {"bits": None, "group_size": None, "symmetric": None, "loss": 0.0, "bytes": 2000}
    chosen = {
        "precision": "int4",
        "mixture": {"lm_head": row, "model.embed_tokens": kept},
        "average_bits": 5.25,
        "predicted_divergence": 0.00125,
        "measured_divergence": 0.0013,
    }
    for passes in ([chosen], [chosen, {"precision": "int4", "execution_provider": "cpu"}]):
        text = "\n".join(_quantisation(passes))
        assert "| lm_head | 4 | 32 | yes | 5.0 MB | 0.00125 |" in text
        assert "| model.embed_tokens | float |  |  | 2.0 kB | 0 |" in text
        assert "5.25 a weight" in text
        assert "0.0013 measured" in text
    assert "lm_head" not in "\n".join(_quantisation([{"precision": "int4"}]))
