"""Speed and size: what is reported, and that it is what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from built_models import genai_of
from metric_inputs import context

from olivine.evaluate.size import Size, SizeParams
from olivine.evaluate.speed import Speed, SpeedParams, percentile, spread


@pytest.mark.parametrize("format", ["hf", "genai"])
def test_speed_reports_every_value_it_declares(pico_model: Path, format: str) -> None:
    model = pico_model if format == "hf" else genai_of(pico_model, "int4")
    found = Speed().measure(SpeedParams(prompt_tokens=20, new_tokens=4, repeats=3, warmup=1), context(model))
    assert set(found) == set(Speed.units) == set(Speed.higher_is_better)
    assert all(value > 0 for name, value in found.items() if not name.endswith("spread"))
    assert found["decode_tokens_per_s_p95"] <= found["decode_tokens_per_s"]
    assert found["ttft_ms_p95"] >= found["ttft_ms"]
    assert found["prefill_tokens_per_s"] == pytest.approx(20 / found["ttft_ms"] * 1000)


def test_longer_prompt_takes_longer(pico_model: Path) -> None:
    model = genai_of(pico_model, "fp32")
    short, long = (
        Speed().measure(SpeedParams(prompt_tokens=tokens, new_tokens=2, repeats=5), context(model))["ttft_ms"]
        for tokens in (2, 500)
    )
    assert long > short


def test_speed_belongs_to_the_machine_and_size_does_not() -> None:
    assert Speed.hardware_dependent
    assert not Size.hardware_dependent


def test_percentile_and_spread() -> None:
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert percentile([1.0, 3.0], 95) == pytest.approx(2.9)
    assert percentile([7.0], 95) == 7.0
    assert spread([1.0, 2.0, 4.0]) == 1.5


def test_size_counts_the_files_that_ship_and_not_the_papers(pico_model: Path, tmp_path: Path) -> None:
    import shutil

    model = Path(shutil.copytree(genai_of(pico_model, "int4"), tmp_path / "model"))
    before = Size().measure(SizeParams(), context(model))
    assert before["size_bytes"] == sum(file.stat().st_size for file in model.iterdir())
    for paper in ("model_card.md", "workflow.yaml", "status.json", "metrics.json"):
        (model / paper).write_text("paper" * 100)
    assert Size().measure(SizeParams(), context(model)) == before
