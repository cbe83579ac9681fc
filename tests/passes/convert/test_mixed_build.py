"""Builds with bits of their own for each matrix: within the budget, told, kept, and found again for another budget."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from built_models import PROMPT, rows, trained_model
from pydantic import ValidationError

from olivine.config.schema import DataConfig
from olivine.errors import Problem, StepError
from olivine.models.checkpoint import read_checkpoint
from olivine.models.genai import GenaiModel
from olivine.passes.base import Accelerator, Format, ModelFacts, PassResult, PlanContext, RunContext
from olivine.passes.convert.builder_params import ModelBuilderParams
from olivine.passes.convert.mixed_facts import mixed_bits
from olivine.passes.convert.model_builder import ModelBuilder


@pytest.fixture(scope="module")
def source(pico_model: Path) -> Path:
    return trained_model(pico_model)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    file = tmp_path_factory.mktemp("text") / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return DataConfig(name="text", data_files=str(file), text_template=PROMPT + "{tone}", max_seq_len=64)


def build(source: Path, folder: Path, text: DataConfig, **params: Any) -> tuple[PassResult, list[str]]:
    """Build ``folder/output`` with precision auto and return the result and the notes."""
    (folder / "output").mkdir(parents=True)
    (folder / "checkpoint").mkdir()
    notes: list[str] = []
    context = RunContext(
        inputs={"model": source},
        input_format=Format.HF,
        output=folder / "output",
        checkpoint=folder / "checkpoint",
        data={"calibration_data_config": text},
        host=Accelerator(),
        target=Accelerator(),
        progress=lambda *_, **__: None,
        note=notes.append,
        shared=folder.parent / "shared",
        identities={"model": "files:1", "calibration_data_config": "2"},
    )
    given = ModelBuilderParams(precision="auto", calibration_data_config="text", **params)
    return ModelBuilder().run(given, context), notes


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def problems(source: Path, **params: Any) -> list[Problem]:
    """Return what the plan says against ``params``."""
    found = read_checkpoint(source)
    facts = ModelFacts(found.format, found.config, source, found.modules)
    context = PlanContext(facts, Accelerator(), Accelerator(), False)
    return ModelBuilder.check(ModelBuilderParams(**{"precision": "auto", **params}), context)


def test_result_fits_its_size_and_a_second_budget_uses_the_sensitivities(
    source: Path, text: DataConfig, tmp_path: Path
) -> None:
    made, notes = build(source, tmp_path / "small", text, max_size="200kB")
    assert 180_000 < size_of(tmp_path / "small" / "output") <= 200_000
    assert not any("earlier run" in note for note in notes)
    mixture = made.attributes["mixture"]
    assert set(mixture) == {
        "model.embed_tokens",
        *(f"model.layers.{n}.{m}" for n in (0, 1) for m in ("self_attn.qkv_proj", "self_attn.o_proj")),
        *(f"model.layers.{n}.mlp.{m}" for n in (0, 1) for m in ("gate_up_proj", "down_proj")),
        "lm_head",
    }
    graph = onnx.load(tmp_path / "small" / "output" / "model.onnx", load_external_data=False).graph
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            name = node.name.removesuffix("/MatMulNBits").replace("/attn/", "/self_attn/").strip("/").replace("/", ".")
            name = re.sub(r"(gate|up)_proj$", "gate_up_proj", name)
            bits = next(each.i for each in node.attribute if each.name == "bits")
            assert mixture[name]["bits"] == bits
    assert sum("in 0" in note or "in 1" in note for note in notes) >= 4  # each kind of matrix has its line
    logits = np.concatenate(list(GenaiModel(tmp_path / "small" / "output", Accelerator()).logits([5, 17, 250])))
    assert np.isfinite(logits).all()

    larger, notes = build(source, tmp_path / "large", text, max_size="260kB")
    assert any("earlier run" in note for note in notes)
    assert 200_000 < size_of(tmp_path / "large" / "output") <= 260_000
    assert larger.metrics["measured_divergence"] < made.metrics["measured_divergence"]
    assert len(list((tmp_path / "shared" / "sensitivities").iterdir())) == 1


def test_average_bits_and_divergence_are_kept(source: Path, text: DataConfig, tmp_path: Path) -> None:
    made, _ = build(source, tmp_path / "bits", text, average_bits=5.5)
    assert 5.2 < made.metrics["bits_per_weight"] <= 5.5
    wanted = made.metrics["measured_divergence"] / 2
    close, _ = build(source, tmp_path / "close", text, max_divergence=wanted)
    assert close.metrics["measured_divergence"] <= wanted
    assert close.metrics["bits_per_weight"] > made.metrics["bits_per_weight"]
    with pytest.raises(StepError, match="max_divergence 1e-12 cannot be had"):
        build(source, tmp_path / "never", text, max_divergence=1e-12)


def test_size_that_only_the_graph_makes_impossible_is_found_before_anything_is_measured(
    source: Path, text: DataConfig, tmp_path: Path
) -> None:
    least = float(str(problems(source, calibration_data_config="t", max_size=1)[0]).split("possible is ")[1].split()[0])
    with pytest.raises(StepError, match=r"the smallest possible is 0\.\d+ MB"):
        build(source, tmp_path / "none", text, max_size=int(1e6 * least) + 6000)
    assert not (tmp_path / "shared").exists()


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, "precision: auto has no budget"),
        ({"max_size": "1MB", "average_bits": 5}, "precision: auto has 2 budgets: max_size, average_bits"),
        ({"max_size": "10kB"}, r"max_size 0\.01 MB cannot be had: the smallest possible is 0\.\d\d MB"),
        ({"average_bits": 2}, r"average_bits 2 cannot be had: \d\.\d+ is the least"),
        ({"average_bits": 5, "int4_block_size": 32}, "int4_block_size and precision: auto contradict"),
        ({"average_bits": 5, "int4_algo_config": "search_mixed"}, "int4_algo_config search_mixed and precision: auto"),
        ({"average_bits": 5, "int4_algo_config": "k_quant"}, "precision auto does not go together with the rest"),
        ({"average_bits": 5, "precision": "int4"}, "average_bits goes with precision: auto, and precision is int4"),
    ],
)
def test_plan_says_what_is_wrong_with_a_budget(params: dict[str, Any], expected: str, source: Path) -> None:
    found = problems(source, **{"calibration_data_config": "text", **params})
    assert any(re.search(expected, str(each)) for each in found), found


def test_unknown_unit_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"'2\.2 gigs' is no size; write it as 500MB, 20GB or 20GiB"):
        ModelBuilderParams(precision="auto", max_size="2.2 gigs")
    assert ModelBuilderParams(precision="auto", max_size="2.2GB").max_size == 2_200_000_000
    assert ModelBuilderParams(precision="auto", max_size="1GiB").max_size == 2**30


def test_layers_in_eight_bits_are_those_of_the_builder() -> None:
    found = mixed_bits("search_mixed", 6)
    layers = {int(name.split(".")[1].split("/")[0]) for name in found if "layers" in name}
    assert layers == {n for n in range(6) if n < 6 / 8 or n >= 7 * 6 / 8 or (n - round(6 / 8)) % 3 == 2}
    assert set(found.values()) == {8}
    assert mixed_bits("search_last", 6) == {"/lm_head": 8}
    assert mixed_bits("search", 6) == {}
