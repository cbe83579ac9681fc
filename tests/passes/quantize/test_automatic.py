"""``bits: auto``: the checkpoint fits its budget, others load it, and what cannot fit is refused with what can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from built_models import PROMPT, rows, trained_model

from olivine.config.schema import DataConfig
from olivine.models.checkpoint import read_checkpoint
from olivine.passes.base import Accelerator, ModelFacts, PlanContext
from olivine.passes.conformance import run_pass
from olivine.passes.quantize.quantize import Quantize, QuantizeParams
from olivine.quant.reading import TensorReader
from olivine.quant.stored.reading import QuantizedCheckpointReader


@pytest.mark.parametrize("form", ["olive", "compressed-tensors"])
def test_checkpoint_fits_its_size_with_the_schemes_that_were_told(form: str, pico_model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    text = DataConfig(
        name="text", data_files=str(tmp_path / "rows.jsonl"), text_template=PROMPT + "{tone}", max_seq_len=64
    )
    params = QuantizeParams(form=form, bits="auto", max_size="230kB", calibration_data_config="text")
    notes: list[str] = []
    source = trained_model(pico_model)
    made = run_pass(Quantize, params, {"model": source}, tmp_path, data={"calibration_data_config": text}, notes=notes)
    size = sum(file.stat().st_size for file in (tmp_path / "output").iterdir())
    assert 190_000 < size <= 230_000
    mixture = made.attributes["mixture"]
    found = QuantizedCheckpointReader(TensorReader(tmp_path / "output")).schemes
    for name, scheme in found.items():
        fused = name
        for part in ("q_proj", "k_proj", "v_proj"):
            fused = fused.replace(f".{part}", ".qkv_proj")
        for part in (".gate_proj", ".up_proj"):
            fused = fused.replace(part, ".gate_up_proj")
        assert scheme.bits == mixture[fused]["bits"]
        assert scheme.group_size == mixture[fused]["group_size"]
    assert any("bits a weight" in note for note in notes)
    assert made.metrics["size_bytes"] == size


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"bits": "auto"}, "bits: auto has no budget"),
        ({"bits": "auto", "average_bits": 5, "group_size": 64}, "group_size and bits: auto contradict each other"),
        ({"bits": "auto", "max_size": "1kB"}, "the smallest possible is 0.1"),
        ({"bits": "auto", "average_bits": 2}, "is the least"),
        ({"bits": 4, "max_size": "1GB"}, "max_size goes with bits: auto, and bits is 4"),
    ],
)
def test_plan_says_what_is_wrong_with_a_budget(params: dict[str, Any], expected: str, pico_model: Path) -> None:
    found = read_checkpoint(pico_model)
    facts = ModelFacts(found.format, found.config, pico_model, found.modules)
    context = PlanContext(facts, Accelerator(), Accelerator(), False)
    assert expected in " ".join(map(str, Quantize.check(QuantizeParams(**params), context)))
