"""Quantize: what it accepts, what it refuses before anything runs, and that others load what it makes."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from olivine.errors import ModelError, Problem
from olivine.hardware.machine import this_machine
from olivine.models.checkpoint import read_checkpoint
from olivine.models.huggingface import HfModel
from olivine.passes.base import Accelerator, ModelFacts, PassResult, PlanContext
from olivine.passes.conformance import Interrupted, PassConformance, content_digests, run_pass
from olivine.passes.quantize.quantize import Quantize, QuantizeParams
from olivine.quant.reading import TensorReader
from olivine.quant.rounding import round_weights
from olivine.quant.scheme import Scheme
from olivine.quant.stored.reading import QuantizedCheckpointReader


class TestOliveForm(PassConformance):
    @pytest.fixture
    def pass_type(self) -> type[Quantize]:
        return Quantize

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return {"lm_head_bits": 8, "overrides": [{"pattern": "*.down_proj", "bits": 8, "symmetric": False}]}

    @pytest.fixture
    def inputs(self, pico_model: Path) -> Mapping[str, Path]:
        return {"model": pico_model}


class TestGptqForm(TestOliveForm):
    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return {"form": "gptq", "symmetric": False, "modules_to_exclude": ["model.layers.0.self_attn.*"]}


class TestCompressedTensorsForm(TestOliveForm):
    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return {"form": "compressed-tensors", "bits": 8, "group_size": -1}


def context_of(source: Path, *, exists: bool = True, **config: Any) -> PlanContext:
    """Return what the plan knows of ``source``, with other entries in its ``config.json``."""
    found = read_checkpoint(source)
    facts = ModelFacts(found.format, {**found.config, **config}, source if exists else None, found.modules)
    return PlanContext(facts, Accelerator(), Accelerator(), this_machine().has_bf16("cpu"))


def problems(source: Path | PlanContext, **params: Any) -> list[Problem]:
    """Return what the plan has to say against ``params``."""
    context = source if isinstance(source, PlanContext) else context_of(source)
    return Quantize.check(QuantizeParams(**params), context)


def quantise(source: Path, folder: Path, progress: Any = None, **params: Any) -> PassResult:
    return run_pass(Quantize, QuantizeParams(**params), {"model": source}, folder, progress=progress)


def edited(source: Path, folder: Path, name: str, row: int, value: float) -> Path:
    """Return a copy of a checkpoint with another value in one tensor."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name][row, 0] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("method", ["rtn", "rtn_half", "search", "k_quant", "hqq"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_are_rounded_by_the_method(method: Any, symmetric: bool, pico_model: Path, tmp_path: Path) -> None:
    quantise(pico_model, tmp_path, method=method, symmetric=symmetric, group_size=16)
    found = QuantizedCheckpointReader(TensorReader(tmp_path / "output")).read_rounded("model.layers.1.mlp.up_proj")
    weight = torch.from_numpy(TensorReader(pico_model).read("model.layers.1.mlp.gate_up_proj.weight"))[128:]
    expected = round_weights(weight, Scheme(4, 16, symmetric), method, scale_dtype=torch.float16)
    difference = (found.codes.int() - expected.codes.int()).abs()
    assert float((difference > 0).float().mean()) < 0.01  # sums in another order may tip the balance
    error = float((found.dequantise() - weight).norm() / weight.norm())
    assert error == pytest.approx(float((expected.dequantise() - weight).norm() / weight.norm()), rel=1e-3)


def test_overrides_and_exclusions_take_modules_by_pattern(pico_model: Path, tmp_path: Path) -> None:
    result = quantise(
        pico_model,
        tmp_path,
        form="gptq",
        group_size=64,
        lm_head_bits=8,
        modules_to_exclude=["*.1.self_attn.o_proj"],
        overrides=[
            {"pattern": "*.mlp.*", "group_size": 16},
            {"pattern": "*.down_proj", "bits": 8, "symmetric": False},
            {"pattern": "lm_head", "group_size": 32},
        ],
    )
    schemes = QuantizedCheckpointReader(TensorReader(tmp_path / "output")).schemes
    assert schemes == {
        "model.layers.0.self_attn.qkv_proj": Scheme(4, 64, True),
        "model.layers.0.self_attn.o_proj": Scheme(4, 64, True),
        "model.layers.0.mlp.gate_up_proj": Scheme(4, 16, True),
        "model.layers.0.mlp.down_proj": Scheme(8, 16, False),
        "model.layers.1.self_attn.qkv_proj": Scheme(4, 64, True),
        "model.layers.1.mlp.gate_up_proj": Scheme(4, 16, True),
        "model.layers.1.mlp.down_proj": Scheme(8, 16, False),
        "lm_head": Scheme(8, 32, True),
    }
    assert "model.layers.1.self_attn.o_proj.weight" in read_checkpoint(tmp_path / "output").tensors
    assert result.attributes["overrides"]["lm_head"] == {"bits": 8, "group_size": 32, "symmetric": True}


def test_a_fused_matrix_is_named_by_its_parts_or_as_the_model_has_it(pico_model: Path, tmp_path: Path) -> None:
    overrides = [{"pattern": "*.qkv_proj", "bits": 8}, {"pattern": "*.1.mlp.up_proj", "bits": 2}]
    quantise(pico_model, tmp_path, overrides=overrides)
    schemes = QuantizedCheckpointReader(TensorReader(tmp_path / "output")).schemes
    assert {name for name, scheme in schemes.items() if scheme.bits == 8} == {
        f"model.layers.{layer}.self_attn.{each}_proj" for layer in (0, 1) for each in "qkv"
    }
    assert [name for name, scheme in schemes.items() if scheme.bits == 2] == ["model.layers.1.mlp.up_proj"]


def test_metrics_tell_size_and_error(pico_model: Path, tmp_path: Path) -> None:
    four = quantise(pico_model, tmp_path / "four").metrics
    eight = quantise(pico_model, tmp_path / "eight", bits=8).metrics
    on_disk = sum(file.stat().st_size for file in (tmp_path / "four" / "output").iterdir())
    assert four["size_bytes"] == on_disk
    assert four["bits_per_weight"] == pytest.approx(4.5, abs=0.05)
    assert 0.03 < four["weight_error"] < 0.15
    assert eight["weight_error"] < four["weight_error"] / 8


def test_progress_tells_module_error_and_bytes(pico_model: Path, tmp_path: Path) -> None:
    seen: list[tuple[float, float | None, str, float | None]] = []

    def progress(done: float, total: float | None, *, unit: str = "", message: str = "", **values: float) -> None:
        assert unit == "MB"
        seen.append((done, total, message, values.get("error")))

    quantise(pico_model, tmp_path, progress=progress)
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    assert seen[-1][0] == pytest.approx(seen[-1][1])
    rounded = {message: error for _, _, message, error in seen if message.startswith("rounding")}
    assert len(rounded) == 14
    assert all(error is not None and 0 < error < 0.2 for error in rounded.values())


def test_a_killed_run_rounds_only_what_is_missing(
    pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("olivine.quant.stored.writing.SYNC_BYTES", 1)
    undisturbed = quantise(pico_model, tmp_path / "undisturbed")
    seen = []

    def die(done: float, total: float | None, **_: Any) -> None:
        seen.append(done)
        if len(seen) == 6:
            raise Interrupted

    with pytest.raises(Interrupted):
        quantise(pico_model, tmp_path / "run", progress=die)
    read: set[tuple[str, int]] = set()
    original = TensorReader.read_rows

    def spy(self: TensorReader, name: str, start: int, stop: int) -> Any:
        read.add((name, start))
        return original(self, name, start, stop)

    monkeypatch.setattr(TensorReader, "read_rows", spy)
    (tmp_path / "run" / "output").rename(tmp_path / "left-behind")
    again = quantise(pico_model, tmp_path / "run")
    assert ("model.layers.0.self_attn.qkv_proj.weight", 0) not in read
    assert ("model.layers.1.mlp.down_proj.weight", 0) in read
    assert again == undisturbed
    assert content_digests(tmp_path / "run" / "output") == content_digests(tmp_path / "undisturbed" / "output")


@pytest.mark.parametrize("name", ["model.layers.1.mlp.down_proj.weight", "model.embed_tokens.weight"])
def test_nan_is_found_and_the_tensor_named(name: str, pico_model: Path, tmp_path: Path) -> None:
    source = edited(pico_model, tmp_path / "nan", name, 5, float("nan"))
    with pytest.raises(ModelError, match=f"{name} holds nan at element".replace(".", r"\.")):
        quantise(source, tmp_path / "run")
    assert not list((tmp_path / "run" / "output").iterdir())


def test_a_pattern_that_names_nothing_is_told_with_the_nearest(pico_model: Path) -> None:
    found = problems(pico_model, modules_to_exclude=["down_proj"], form="gptq")
    assert [(str(each.where), each.remedy) for each in found] == [("modules_to_exclude.0", "did you mean *.down_proj?")]
    found = problems(pico_model, overrides=[{"pattern": "*.donw_proj", "bits": 8}])
    assert found[0].what == "'*.donw_proj' names no module of the model"
    assert str(found[0].where) == "overrides.0.pattern"
    assert found[0].remedy == "did you mean *.down_proj?"
    found = problems(pico_model, overrides=[{"pattern": "model.layers.0.mlp.dwn_proj", "bits": 8}])
    assert found[0].remedy == "did you mean model.layers.0.mlp.down_proj?"


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"group_size": 256}, "groups of 256 do not divide its 64 input features"),
        ({"form": "olive", "modules_to_exclude": ["*.0.mlp.up_proj"]}, "up_proj cannot be left as it is"),
        (
            {"overrides": [{"pattern": "*.v_proj", "group_size": 16}]},
            "q_proj, k_proj and v_proj of model.layers.0.self_attn (and 1 more) are stored in different ways",
        ),
        ({"modules_to_exclude": ["*"], "form": "gptq"}, "nothing is quantised"),
    ],
)
def test_what_cannot_work_is_known_before_it_runs(params: dict[str, Any], said: str, pico_model: Path) -> None:
    found = problems(pico_model, **params)
    assert any(said in each.what for each in found)
    assert all(each.where is not None and each.why and each.remedy for each in found)


def test_the_same_problems_are_found_where_the_model_is_still_to_be_made(pico_model: Path) -> None:
    context = context_of(pico_model, exists=False)
    assert problems(context) == []
    assert problems(context, group_size=256) == problems(pico_model, group_size=256)
    unknown = PlanContext(ModelFacts(context.model.format), Accelerator(), Accelerator(), False)
    assert problems(unknown, modules_to_exclude=["anything"]) == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hidden_size": 128}, "lm_head.weight is 400 x 64, and config.json makes it 400 x 128"),
        ({"num_hidden_layers": 3}, "there is no model.layers.2.mlp.down_proj.weight"),
        ({"intermediate_size": 120}, "down_proj.weight is 64 x 128, and config.json makes it 64 x 120 (and 3 more)"),
        ({"vocab_size": 401}, "is 400 x 64, and config.json makes it 401 x 64"),
        ({"quantization_config": {"quant_method": "gptq"}}, "is quantised already"),
    ],
)
def test_a_checkpoint_that_does_not_fit_its_config_is_refused(
    config: dict[str, Any], said: str, pico_model: Path
) -> None:
    found = problems(context_of(pico_model, **config))
    assert any(said in each.what for each in found)
    assert all(each.why and each.remedy for each in found)


def test_other_models_are_refused_by_what_is_strange_in_them(pico_model: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(pico_model, tmp_path / "moe"))
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.mlp.experts.0.w1.weight"] = torch.zeros(8, 64)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.0.mlp.experts.0.w1.weight is no tensor of a plain decoder" in problems(source)[0].what
    with pytest.raises(ModelError, match="no plain decoder"):
        quantise(source, tmp_path / "run")


def test_a_quantised_checkpoint_is_not_quantised_again(pico_model: Path, tmp_path: Path) -> None:
    quantise(pico_model, tmp_path / "first")
    with pytest.raises(ModelError, match="quantised already"):
        quantise(tmp_path / "first" / "output", tmp_path / "second")


def test_notes_say_what_readers_do_not_take(pico_model: Path) -> None:
    def notes(**params: Any) -> list[str]:
        tied = context_of(pico_model, tie_word_embeddings=True)
        return Quantize.resolve(QuantizeParams(**params), tied)[1]

    assert notes() == []
    assert "beside" in notes(lm_head_bits=8)[0]
    assert "compressed-tensors 0.15" in notes(form="compressed-tensors", symmetric=False)[0]
    assert "model builder" in notes(form="gptq", modules_to_exclude=["*.down_proj"])[0]


def test_a_workflow_runs_it(pico_model: Path, tmp_path: Path) -> None:
    import olivine

    config = {
        "input_model": {"type": "HfModel", "model_path": str(pico_model)},
        "passes": {"q": {"type": "Quantize", "form": "compressed-tensors"}},
        "engine": {"output_dir": str(tmp_path / "out"), "cache_dir": str(tmp_path / "cache")},
    }
    (tmp_path / "w.json").write_text(json.dumps(config))
    olivine.run(str(tmp_path / "w.json"))
    (made,) = (tmp_path / "out").rglob("config.json")
    assert json.loads(made.read_text())["quantization_config"]["quant_method"] == "compressed-tensors"


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": True},
    "Mistral": {"head_dim": 16, "sliding_window": None},
    "Qwen2": {},
    "Qwen3": {"head_dim": 32},
    "Gemma": {"head_dim": 16},
    "Gemma2": {"head_dim": 32, "query_pre_attn_scalar": 16},
    "Phi3": {"original_max_position_embeddings": 512},
    "Granite": {},
    "SmolLM3": {"tie_word_embeddings": True},
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_computes_with_what_was_rounded(name: str, tmp_path: Path) -> None:
    import transformers

    config = getattr(transformers, f"{name}Config")(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        vocab_size=400,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        **ARCHITECTURES[name],
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    model.save_pretrained(tmp_path / "model")
    assert problems(tmp_path / "model", form="compressed-tensors", symmetric=False, lm_head_bits=8) == []
    quantise(tmp_path / "model", tmp_path, form="compressed-tensors", symmetric=False, lm_head_bits=8)
    found = QuantizedCheckpointReader(TensorReader(tmp_path / "output"))
    assert len(found.schemes) == 2 * (4 if name == "Phi3" else 7) + 1
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "output").eval()
    with torch.no_grad():
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())  # no longer tied
        for module in found.schemes:
            model.get_submodule(module).weight.copy_(found.read_rounded(module).dequantise())
        ids = torch.arange(1, 20).view(1, -1)
        expected, computed = model(ids).logits, loaded(ids).logits
    assert float((expected - computed).abs().max()) <= 1e-4
    assert float(expected.std()) > 0.01


MEASURE = """
import os, resource, sys
os.cpu_count = lambda: 2  # what is in memory depends on the threads
from pathlib import Path
from olivine.passes.conformance import run_pass
from olivine.passes.quantize.quantize import Quantize, QuantizeParams
small, large, folder = map(Path, sys.argv[1:])
for form in ("olive", "gptq", "compressed-tensors"):
    run_pass(Quantize, QuantizeParams(form=form), {"model": small}, folder / form / "small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for form in ("olive", "gptq", "compressed-tensors"):
    run_pass(Quantize, QuantizeParams(form=form), {"model": large}, folder / form / "large")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def sparse_checkpoint(source: Path, folder: Path) -> int:
    """Write a Phi-3 of zeros into a file with holes; return its bytes."""
    hidden, inner, words, layers = 1024, 4096, 16384, 6
    shapes = {"model.embed_tokens": (words, hidden), "lm_head": (words, hidden)}
    for layer in range(layers):
        shapes |= {
            f"model.layers.{layer}.self_attn.qkv_proj": (3 * hidden, hidden),
            f"model.layers.{layer}.self_attn.o_proj": (hidden, hidden),
            f"model.layers.{layer}.mlp.gate_up_proj": (2 * inner, hidden),
            f"model.layers.{layer}.mlp.down_proj": (hidden, inner),
        }
    header, end = {}, 0
    for name, (rows, width) in shapes.items():
        begin, end = end, end + 2 * rows * width
        header[f"{name}.weight"] = {"dtype": "BF16", "shape": [rows, width], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    config = json.loads((source / "config.json").read_text())
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "vocab_size": words, "num_hidden_layers": layers}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | sizes))
    with open(folder / "model.safetensors", "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    return end


def test_the_model_is_never_in_memory(pico_model: Path, tmp_path: Path) -> None:
    size = sparse_checkpoint(pico_model, tmp_path / "large")
    command = [sys.executable, "-c", MEASURE, str(pico_model), str(tmp_path / "large"), str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    growth = int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)
    assert size > 260e6
    assert growth < 100e6  # a tile in each thread: its bytes, floats and codes


@pytest.mark.parametrize("form", ["olive", "gptq", "compressed-tensors"])
def test_what_it_makes_is_measured_as_it_was_rounded(form: Any, pico_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    quantise(pico_model, tmp_path, form=form, symmetric=False, lm_head_bits=8)
    rounded = QuantizedCheckpointReader(TensorReader(tmp_path / "output"))
    reference = AutoModelForCausalLM.from_pretrained(pico_model).eval()
    with torch.no_grad():
        for layer in range(2):
            for fused, names in (("self_attn.qkv_proj", "qkv"), ("mlp.gate_up_proj", ("gate", "up"))):
                module = f"model.layers.{layer}.{fused}"
                parts = [f"{module.rpartition('.')[0]}.{each}_proj" for each in names]
                whole = [rounded.read_rounded(each).dequantise() for each in (parts if form == "olive" else [module])]
                reference.get_submodule(module).weight.copy_(torch.cat(whole))
            for name in ("self_attn.o_proj", "mlp.down_proj"):
                module = f"model.layers.{layer}.{name}"
                reference.get_submodule(module).weight.copy_(rounded.read_rounded(module).dequantise())
        reference.lm_head.weight.copy_(rounded.read_rounded("lm_head").dequantise())
        expected = reference(torch.tensor([[5, 17, 250, 33]])).logits[0].numpy()
    found = np.concatenate(list(HfModel(tmp_path / "output", Accelerator()).logits([5, 17, 250, 33])))
    np.testing.assert_allclose(found, expected, atol=1e-4)
