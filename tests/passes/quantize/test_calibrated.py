"""Quantize with a calibration set: nearer to the original than rounding alone, the same bytes after a kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import built_models
import numpy as np
import pytest
import torch

from olivine.config.schema import DataConfig
from olivine.errors import DataError, Problem
from olivine.models.checkpoint import read_checkpoint
from olivine.models.huggingface import HfModel
from olivine.passes.base import Accelerator, ModelFacts, PassResult, PlanContext
from olivine.passes.conformance import Interrupted, PassConformance, content_digests, run_pass
from olivine.passes.quantize.quantize import Quantize, QuantizeParams
from olivine.quant.calibration.walking import LayerWalker
from olivine.quant.reading import TensorReader


@pytest.fixture(scope="session")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """The rows that the trained model knows by heart."""
    file = tmp_path_factory.mktemp("phrases") / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in built_models.rows()))
    template = built_models.PROMPT.replace("\n", "\\n").encode().decode("unicode_escape") + "{tone}"
    return DataConfig(name="phrases", data_files=str(file), text_template=template)


class TestCalibrated(PassConformance):
    @pytest.fixture
    def pass_type(self) -> type[Quantize]:
        return Quantize

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return {"method": "calibrated", "samples": 4, "sequence_length": 64, "lm_head_bits": 8}

    @pytest.fixture
    def inputs(self, pico_model: Path) -> Mapping[str, Path]:
        return {"model": pico_model}


class TestGptqOnDataOfTheUser(TestCalibrated):
    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return {"method": "gptq", "form": "gptq", "calibration_data_config": "phrases", "sequence_length": 64}

    @pytest.fixture
    def data(self, phrases: DataConfig) -> Mapping[str, DataConfig]:
        return {"calibration_data_config": phrases}


def quantise(source: Path, folder: Path, data: DataConfig | None = None, **params: Any) -> PassResult:
    given = QuantizeParams(calibration_data_config=data.name if data else None, **params)
    named = {"calibration_data_config": data} if data else {}
    return run_pass(Quantize, given, {"model": source}, folder, data=named)


def divergence(source: Path, made: Path) -> float:
    """Return the mean KL divergence from the original on the prompts it was trained on."""
    from olivine.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(source)
    original, quantised = HfModel(source, Accelerator()), HfModel(made, Accelerator())
    found = []
    for row in built_models.rows():
        ids = tokenizer(built_models.PROMPT.format(**row) + row["tone"])["input_ids"]
        p, q = (
            torch.from_numpy(np.concatenate(list(model.logits(ids)))).double().log_softmax(-1)
            for model in (original, quantised)
        )
        found.append((p.exp() * (p - q)).sum(-1))
    return float(torch.cat(found).mean())


def test_each_method_is_nearer_to_the_original_than_rounding_from_values_alone(
    pico_model: Path, phrases: DataConfig, tmp_path: Path
) -> None:
    source = built_models.trained_model(pico_model)
    found = {}
    for method in ("rtn", "search", "scale_estimation", "gptq", "calibrated"):
        data = None if method in ("rtn", "search") else phrases
        quantise(source, tmp_path / method, data, method=method, **({"sequence_length": 64} if data else {}))
        found[method] = divergence(source, tmp_path / method / "output")
    assert found["search"] < found["rtn"]
    assert max(found[each] for each in ("scale_estimation", "gptq")) < 0.2 * found["rtn"]
    assert found["calibrated"] < min(found["gptq"], found["scale_estimation"])
    assert found["calibrated"] == pytest.approx(0.00013, rel=0.4)


def test_scaling_changes_norms_and_says_what_it_scaled(pico_model: Path, phrases: DataConfig, tmp_path: Path) -> None:
    source = built_models.trained_model(pico_model)
    notes: list[str] = []
    given = QuantizeParams(method="gptq", scaling="awq", calibration_data_config="phrases", sequence_length=64)
    data = {"calibration_data_config": phrases}
    result = run_pass(Quantize, given, {"model": source}, tmp_path / "scaled", data=data, notes=notes)
    assert result.attributes["scaling"] == "awq"
    assert [note.split(" is scaled")[0].rsplit(" ", 1)[-1] for note in notes if note.startswith("scaling")] == [
        "qkv_proj", "o_proj", "gate_up_proj", "down_proj",
    ]  # fmt: skip
    before, after = (TensorReader(each) for each in (source, tmp_path / "scaled" / "output"))
    norms = [name for name in before.tensors if "layernorm" in name]
    assert any(not np.array_equal(before.read(name), after.read(name)) for name in norms)
    assert np.array_equal(before.read("model.norm.weight"), after.read("model.norm.weight"))
    quantise(source, tmp_path / "rtn", method="rtn")
    assert divergence(source, tmp_path / "scaled" / "output") < 0.2 * divergence(source, tmp_path / "rtn" / "output")


def context_of(source: Path, data: DataConfig) -> PlanContext:
    found = read_checkpoint(source)
    facts = ModelFacts(found.format, found.config, source, found.modules)
    return PlanContext(facts, Accelerator(), Accelerator(), False, {"calibration_data_config": data})


def test_data_that_cannot_fill_one_sequence_are_refused_by_the_plan(pico_model: Path, phrases: DataConfig) -> None:
    def check(length: int, **params: Any) -> list[Problem]:
        given = QuantizeParams(calibration_data_config="phrases", sequence_length=length, **params)
        return Quantize.check(given, context_of(pico_model, phrases))

    assert check(500, method="gptq") == []
    (problem,) = check(2000, method="gptq")
    assert "phrases has" in problem.what
    assert "one sequence takes 2000 tokens" in problem.what
    assert problem.where is not None
    assert problem.where.path == "calibration_data_config"
    assert check(2000, method="search") == []


def test_data_of_too_few_tokens_are_refused_by_the_run(pico_model: Path, phrases: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one sequence takes 512"):
        quantise(pico_model, tmp_path, phrases, method="gptq", sequence_length=512)


def test_the_plan_says_what_has_no_effect_and_cuts_sequences_to_the_model(pico_model: Path) -> None:
    found = read_checkpoint(pico_model)
    facts = ModelFacts(found.format, found.config, pico_model, found.modules)
    context = PlanContext(facts, Accelerator(), Accelerator(), False)
    params, notes = Quantize.resolve(QuantizeParams(method="gptq", sweeps=9, sequence_length=1000), context)
    assert params.sequence_length == 512
    assert "sweeps: the method gptq has no use for it" in notes
    assert any("a short text that Olivine brings" in note for note in notes)
    _, notes = Quantize.resolve(QuantizeParams(method="search", scaling="awq"), context)
    assert notes == ["scaling: the method search has no use for it"]


@pytest.mark.parametrize("params", [{"method": "calibrated"}, {"method": "gptq", "scaling": "awq"}])
def test_a_killed_run_goes_on_at_its_layer(
    params: dict[str, Any], pico_model: Path, phrases: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params | {"sequence_length": 64}
    quantise(pico_model, tmp_path / "whole", phrases, **params)

    def die(done: float, total: float | None, *, message: str = "", **_: Any) -> None:
        if "layers.1.mlp" in message:
            raise Interrupted

    given = QuantizeParams(calibration_data_config="phrases", **params)
    named = {"calibration_data_config": phrases}
    with pytest.raises(Interrupted):
        run_pass(Quantize, given, {"model": pico_model}, tmp_path, data=named, progress=die)
    (tmp_path / "output").rename(tmp_path / "died")
    layers: list[int] = []
    walk = LayerWalker.layer
    monkeypatch.setattr(LayerWalker, "layer", lambda self, index: (layers.append(index), walk(self, index))[1])
    run_pass(Quantize, given, {"model": pico_model}, tmp_path, data=named)
    assert layers == [1]
    assert content_digests(tmp_path / "output") == content_digests(tmp_path / "whole" / "output")
    assert list((tmp_path / "checkpoint").rglob("states*")) == []


MEASURE = """
import resource, sys
from pathlib import Path
from olivine.passes.conformance import run_pass
from olivine.passes.quantize.quantize import Quantize, QuantizeParams
params = QuantizeParams(method="calibrated", samples=2, sequence_length=32, sweeps=1)
*models, folder = map(Path, sys.argv[1:])
peaks = []
for number, model in enumerate(models):
    run_pass(Quantize, params, {"model": model}, folder / str(number))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[-1] - peaks[0])
"""


def enlarged(pico: Path, folder: Path, layers: int) -> Path:
    """Write a wider copy of ``pico`` with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(pico, folder)
    sizes = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": layers}
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(pico, **sizes)).save_pretrained(folder)
    return folder


def test_only_one_layer_is_in_memory(pico_model: Path, tmp_path: Path) -> None:
    small, large = (enlarged(pico_model, tmp_path / f"layers-{layers}", layers) for layers in (1, 5))
    command = [sys.executable, "-c", MEASURE, str(small), str(large), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    growth = int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)
    assert (large / "model.safetensors").stat().st_size > 50e6
    assert growth < 25e6


def test_the_plan_counts_a_layer_and_the_hidden_states(pico_model: Path, phrases: DataConfig) -> None:
    given = context_of(pico_model, phrases)
    context = replace(given, model=replace(given.model, parameters=100_000, weights=400_000))
    plain = Quantize.estimate(QuantizeParams(method="search"), context, {})
    few, many = (Quantize.estimate(QuantizeParams(method="gptq", samples=n), context, {}) for n in (1, 1000))
    assert plain.memory < few.memory
    assert many.memory - few.memory == 4 * 999 * 512 * 64
