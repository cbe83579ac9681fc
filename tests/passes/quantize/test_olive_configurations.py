"""Configurations that were written for Olive's quantisers run, and what they make is what they ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from olivine.cli.main import main
from olivine.config import load
from olivine.config.writing import upgraded
from olivine.quant.reading import TensorReader
from olivine.quant.stored.reading import QuantizedCheckpointReader

LAST = {"type": "ModelBuilder", "precision": "int4"}


def written(folder: Path, model: Path, passes: dict[str, Any]) -> Path:
    """Write a configuration as Olive 0.10 has it, with calibration data beside it."""
    sentence = "the cat sat on the mat and cricket is a wonderful sport, number"
    rows = "".join(json.dumps({"text": f"{sentence} {number}"}) + "\n" for number in range(40))
    (folder / "texts.jsonl").write_text(rows)
    config = {
        "input_model": {"type": "HfModel", "model_path": str(model)},
        "systems": {
            "local": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "data_configs": [
            {
                "name": "texts",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {"data_name": "json", "data_files": "texts.jsonl", "split": "train"},
                "pre_process_data_config": {"max_seq_len": 64, "max_samples": 8, "text_cols": "text"},
            }
        ],
        "passes": passes,
        "target": "local",
        "no_artifacts": True,
        "cache_dir": "cache",
        "output_dir": "out",
    }
    file = folder / "olive.json"
    file.write_text(json.dumps(config))
    return file


def bits_of(folder: Path) -> dict[str, int]:
    """The bits of every quantised product of a GenAI model."""
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
    return {
        node.name: next(each.i for each in node.attribute if each.name == "bits")
        for node in graph.node
        if node.op_type == "MatMulNBits"
    }


@pytest.mark.parametrize(
    ("passes", "down"),
    [
        (
            {
                "g": {
                    "type": "gptq",
                    "group_size": 32,
                    "lm_head": True,
                    "data_config": "texts",
                    "overrides": {"model.layers.0.mlp.down_proj": {"bits": 8}},
                }
            },
            8,
        ),
        ({"r": {"type": "Rtn", "group_size": 64}}, 4),
    ],
)
def test_a_quantised_checkpoint_is_built(
    passes: dict[str, Any], down: int, pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, pico_model, {**passes, "b": LAST})
    assert main(["run", "--config", str(file)]) == 0
    bits = bits_of(tmp_path / "out")
    assert bits["/model/layers.0/mlp/down_proj/MatMulNBits"] == down
    assert {value for name, value in bits.items() if "layers.0/mlp/down" not in name} == {4}
    assert any("lm_head" in name for name in bits)


def test_the_upgrade_is_clean_and_plans_to_the_same(
    pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    passes = {
        "g": {"type": "Gptq", "group_size": 32, "data_config": "texts"},
        "r": {"type": "Rtn", "lm_head": True, "group_size": 32},
    }
    before = load(written(tmp_path, pico_model, {**passes, "b": LAST}))
    (tmp_path / "new.yaml").write_text(upgraded(before, tmp_path))
    after = load(tmp_path / "new.yaml")
    assert after.workflow == before.workflow
    assert after.notes == ()
    assert main(["config", "check", "new.yaml", "--plan"]) == 0


@pytest.mark.parametrize("symmetric", [False, True])
def test_rtn_rounds_by_the_rule_of_olive(
    symmetric: bool, pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rtn = {"type": "Rtn", "group_size": 32, "sym": symmetric}
    assert main(["run", "--config", str(written(tmp_path, pico_model, {"r": rtn}))]) == 0
    module = "model.layers.0.mlp.down_proj"
    weight = load_file(pico_model / "model.safetensors")[f"{module}.weight"].reshape(64, 4, 32)
    if symmetric:  # the largest magnitude is half a step beyond the codes either side of the middle
        scales, zeros = np.abs(weight).max(-1) / 7.5, np.full((64, 4), 8)
    else:
        low, high = np.minimum(weight.min(-1), 0), np.maximum(weight.max(-1), 0)
        scales = (high - low) / 15
        zeros = np.round(-low / scales)
    made = QuantizedCheckpointReader(TensorReader(tmp_path / "out")).read_rounded(module)
    np.testing.assert_allclose(made.scales.numpy(), scales, rtol=1e-3)
    if made.zeros is not None:
        np.testing.assert_array_equal(made.zeros.numpy(), zeros)
    stored = made.scales.numpy()[..., None]  # half precision
    expected = np.clip(np.round(weight / stored + zeros[..., None]), 0, 15)
    assert (made.codes.numpy().reshape(64, 4, 32) == expected).mean() > 0.998  # halves may fall to either side
