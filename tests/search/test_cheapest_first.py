"""A candidate that can no longer qualify is stopped at the cheapest test that tells: real passes, real metrics."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def search(folder: Path, model: Path, bits: list[int], metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """Quantise a model to some widths, and return what the search found."""
    rows = [json.dumps({"text": "the cat sat on the mat, joy and fear and surprise " * 3}) for _ in range(60)]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    config = {
        "version": 1,
        "input_model": {"model_path": str(model)},
        "data_configs": [{"name": "rows", "data_files": "rows.jsonl"}],
        "passes": {"q": {"type": "Quantize", "bits": bits, "lm_head_bits": 8}},
        "evaluators": {"e": {"metrics": metrics}},
        "engine": {
            "evaluator": "e",
            "evaluate_input_model": False,
            "search_strategy": {"sampler": "sequential"},
            "cache_dir": "cache",
        },
    }
    (folder / "workflow.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "olivine", "run", "workflow.json"],
        cwd=folder, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stdout + done.stderr
    found: dict[str, Any] = json.loads((folder / "models" / "status.json").read_text())["search"]
    return found


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory, pico_model: Path) -> list[int]:
    """Bytes with 4 and 8 bits, measured."""
    found = search(tmp_path_factory.mktemp("sizes"), pico_model, [4, 8], [{"type": "size"}])
    return [each["size_bytes"] for each in found["trials"]]


def test_a_size_that_is_out_of_reach_is_known_before_anything_is_made(
    tmp_path: Path, pico_model: Path, sizes: list[int]
) -> None:
    size = {"name": "size_bytes", "goal": {"type": "threshold", "value": 0.7 * sizes[0]}}
    found = search(tmp_path, pico_model, [8, 4], [{"type": "size", "sub_types": [size]}])
    assert [each["state"] for each in found["trials"]] == ["stopped", "stopped"]
    for trial, truth in zip(found["trials"], reversed(sizes), strict=True):
        assert trial["steps"] == []
        assert trial["verdicts"][0]["predicted"]
        assert trial["verdicts"][0]["measured"] == pytest.approx(truth, rel=0.15)
        assert "size.size_bytes would be about" in trial["reason"]
    assert found["trials"][found["pick"]]["point"] == {"q.bits": 4}, "the nearest miss is made, to be shown"
    status = json.loads((tmp_path / "models" / "status.json").read_text())
    assert not status["goals"][0]["predicted"]


def test_a_size_within_the_estimates_error_is_measured(tmp_path: Path, pico_model: Path, sizes: list[int]) -> None:
    size = {"name": "size_bytes", "goal": {"type": "threshold", "value": sizes[0] - 1}}
    found = search(tmp_path, pico_model, [4], [{"type": "size", "sub_types": [size]}])
    [trial] = found["trials"]
    assert trial["verdicts"][0]["measured"] == sizes[0]
    assert not trial["verdicts"][0]["predicted"]


def test_a_divergence_that_is_out_of_reach_is_known_from_a_few_samples(tmp_path: Path, pico_model: Path) -> None:
    kl = {"name": "kl", "priority": 1, "goal": {"type": "threshold", "value": 1e-4}}
    metrics = [
        {"type": "divergence", "data_config": "rows", "max_tokens": 2048, "sub_types": [kl]},
        {"type": "perplexity", "data_config": "rows", "max_rows": 5},
    ]
    found = search(tmp_path, pico_model, [2, 8], metrics)
    two, eight = found["trials"]
    assert two["state"] == "stopped"
    assert two["reason"].startswith("on a few samples: missed by ")
    assert two["metrics"]["divergence"]["tokens"] == 512
    assert [each["name"] for each in two["steps"]][-1] == "measure divergence on a few samples"
    assert eight["qualifies"]
    assert eight["metrics"]["divergence"]["tokens"] == 2048
    assert [each["name"] for each in eight["steps"]][-2:] == [
        "measure divergence on a few samples", "measure divergence, perplexity",
    ]  # fmt: skip
