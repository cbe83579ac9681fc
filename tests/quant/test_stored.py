"""Quantised checkpoints: what is written is read back, by Olivine and by the libraries that the forms are from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from olivine.errors import ModelError
from olivine.models.checkpoint import read_checkpoint
from olivine.passes.base import Format
from olivine.quant.packing import pack
from olivine.quant.reading import TensorReader
from olivine.quant.rounding import Rounded, round_weights
from olivine.quant.scheme import PER_CHANNEL, Scheme
from olivine.quant.stored.form import PackedRows
from olivine.quant.stored.forms import FORMS, FormName, linear_modules
from olivine.quant.stored.reading import QuantizedCheckpointReader
from olivine.quant.stored.writing import QuantizedCheckpointWriter, packed_rows

TORCH = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
NAMES = tuple(FORMS)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pico_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 checkpoint in bfloat16: biases, grouped-query attention, embedding and output layer tied."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("pico") / "qwen2-pico"
    torch.manual_seed(1)
    config = Qwen2Config(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        vocab_size=320,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    model = Qwen2ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def schemes_for(source: Path, form: FormName, scheme: Scheme, **others: Scheme) -> dict[str, Scheme]:
    """Return ``scheme`` for every decoder matrix, and others for those whose name ends so; ``lm_head`` if named."""
    checkpoint = read_checkpoint(source)
    found = {}
    for name in linear_modules(checkpoint.config, checkpoint.modules, FORMS[form]):
        special = [each for ending, each in others.items() if name.endswith(ending)]
        if special or name != "lm_head":
            found[name] = special[0] if special else scheme
    return found


def round_all(writer: QuantizedCheckpointWriter, source: Path) -> dict[str, Rounded]:
    """Return the rounded weights of what is still to be written."""
    reader = TensorReader(source)
    found = {}
    for name in writer.waiting:
        place = writer.sources[name]
        weight = torch.from_numpy(reader.read_rows(place.tensor, place.start, place.stop))
        weight = weight + (name.endswith("v_proj") * weight.abs().max())  # all positive: zero points of 0
        dtype = TORCH[writer.scale_dtype(name)]
        found[name] = round_weights(weight, writer.schemes[name], "search", scale_dtype=dtype)
    return found


def write(
    source: Path, folder: Path, form: FormName, schemes: Mapping[str, Scheme], **options: Any
) -> dict[str, Rounded]:
    """Write ``source`` into the new folder ``folder`` and return what it holds."""
    folder.mkdir()
    writer = QuantizedCheckpointWriter(
        TensorReader(source), folder, form, schemes, work=folder.with_suffix(".work"), **options
    )
    rounded = round_all(writer, source)
    for name, each in rounded.items():
        writer.add(name, each)
    writer.copy_rest()
    writer.finish()
    return rounded


def assert_same(found: Rounded, expected: Rounded) -> None:
    assert found.scheme == expected.scheme
    assert found.in_features == expected.in_features
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.scales, expected.scales)
    assert (found.zeros is None) == (expected.zeros is None)
    if found.zeros is not None and expected.zeros is not None:
        assert torch.equal(found.zeros, expected.zeros)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "group"), [(2, 16), (4, 32), (4, PER_CHANNEL), (8, 64)])
@pytest.mark.parametrize("form", NAMES)
def test_what_is_written_is_read_back(
    form: FormName, bits: int, group: int, symmetric: bool, pico_qwen: Path, tmp_path: Path
) -> None:
    head = Scheme(8, 16, not symmetric)
    schemes = schemes_for(pico_qwen, form, Scheme(bits, group, symmetric), lm_head=head)
    rounded = write(pico_qwen, tmp_path / "out", form, schemes)
    assert read_checkpoint(tmp_path / "out").format is Format.HF_QUANTIZED
    found = QuantizedCheckpointReader(TensorReader(tmp_path / "out"))
    assert found.schemes == schemes
    for name, expected in rounded.items():
        back = found.read_rounded(name)
        assert torch.equal(back.dequantise(), expected.dequantise())
        if form != "gptq" or expected.zeros is None or bool(expected.zeros.all()):
            assert_same(back, expected)


@given(
    st.sampled_from(NAMES),
    st.sampled_from([2, 4, 8]),
    st.sampled_from([16, 32, PER_CHANNEL]),
    st.booleans(),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_every_form_undoes_itself(
    form: FormName, bits: int, group: int, symmetric: bool, tall: int, wide: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    rows, width, scheme = 16 * tall, 32 * wide, Scheme(bits, group, symmetric)
    shape = (rows, scheme.groups(width))
    codes = random.integers(0, 2**bits, (rows, width), dtype=np.uint8)
    zeros = None if symmetric else random.integers(form == "gptq", 2**bits, shape, dtype=np.uint8)
    scales = random.standard_normal(shape).astype(np.float16).astype(np.float32)
    given_rows = PackedRows(scheme, width, pack(codes, bits), scales, zeros)
    stored = FORMS[form]
    tensors = stored.encode("model.layers.0.self_attn.q_proj", given_rows, "F16")
    for suffix, tensor in stored.tensors("model.layers.0.self_attn.q_proj", rows, width, scheme, "F16").items():
        assert suffix in tensors or tensor.axis is None
        assert suffix not in tensors or tensors[suffix].shape == tensor.shape
    found = stored.decode(tensors, scheme, {}, width)
    assert np.array_equal(found.packed, given_rows.packed)
    assert np.array_equal(found.scales, scales)
    if zeros is not None:
        assert found.zeros is not None
        assert np.array_equal(found.zeros[:rows], zeros)


@pytest.mark.parametrize("form", NAMES)
def test_rows_may_come_in_parts_and_in_any_order(form: FormName, pico_model: Path, tmp_path: Path) -> None:
    schemes = schemes_for(pico_model, form, Scheme(4, 16, False), lm_head=Scheme(8, 32, False))
    rounded = write(pico_model, tmp_path / "whole", form, schemes)
    (tmp_path / "parts").mkdir()
    writer = QuantizedCheckpointWriter(
        TensorReader(pico_model), tmp_path / "parts", form, schemes, work=tmp_path / "work"
    )
    writer.copy_rest()
    for name in reversed(writer.waiting):
        rows = writer.sources[name].rows
        for start in reversed(range(0, rows, 32)):
            writer.write_rows(name, start, packed_rows(rounded[name], start, min(start + 32, rows)))
        writer.complete(name)
    writer.finish()
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "parts" / file.name).read_bytes() == file.read_bytes()
    found = QuantizedCheckpointReader(TensorReader(tmp_path / "parts"))
    part = found.read_rounded("lm_head", 64, 96)
    assert torch.equal(part.dequantise(), rounded["lm_head"].dequantise()[64:96])


def test_a_fused_matrix_may_be_given_whole(pico_model: Path, tmp_path: Path) -> None:
    schemes = schemes_for(pico_model, "olive", Scheme(4, 16, False))
    (tmp_path / "out").mkdir()
    reader = TensorReader(pico_model)
    writer = QuantizedCheckpointWriter(reader, tmp_path / "out", "olive", schemes, work=tmp_path / "work")
    fused = "model.layers.1.self_attn.qkv_proj"
    whole = round_weights(
        torch.from_numpy(reader.read(f"{fused}.weight")), Scheme(4, 16, False), scale_dtype=torch.float16
    )
    for name, each in round_all(writer, pico_model).items():
        if not name.startswith("model.layers.1.self_attn") or name.endswith("o_proj"):
            writer.add(name, each)
    writer.add(fused, whole)
    writer.copy_rest()
    writer.finish()
    found = QuantizedCheckpointReader(TensorReader(tmp_path / "out"))
    parts = [found.read_rounded(f"model.layers.1.self_attn.{name}").dequantise() for name in ("q_proj", "k_proj")]
    assert torch.equal(torch.cat(parts), whole.dequantise()[:128])


@pytest.mark.parametrize("form", NAMES)
def test_what_is_not_quantised_is_copied_as_it_is(form: FormName, pico_qwen: Path, tmp_path: Path) -> None:
    write(pico_qwen, tmp_path / "out", form, schemes_for(pico_qwen, form, Scheme(4, 32, True)))
    found, original = load_file(tmp_path / "out" / "model.safetensors"), load_file(pico_qwen / "model.safetensors")
    kept = [name for name in original if not name.endswith("proj.weight")]
    assert any(name.endswith("q_proj.bias") for name in kept)
    for name in kept:
        assert found[name].dtype is torch.bfloat16
        assert torch.equal(found[name], original[name])
    assert not set(original) - set(kept) & set(found)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    assert (tmp_path / "out" / "generation_config.json").read_bytes() == (
        pico_qwen / "generation_config.json"
    ).read_bytes()


def test_biases_of_fused_matrices_go_apart_with_them(pico_model: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(pico_model, tmp_path / "source"))
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.self_attn.qkv_proj.bias"] = torch.arange(192.0)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    write(source, tmp_path / "out", "olive", schemes_for(source, "olive", Scheme(4, 32, True)))
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(found["model.layers.0.self_attn.k_proj.bias"], torch.arange(64.0, 128.0))
    assert not [name for name in found if "qkv" in name]


def test_a_quantised_output_layer_is_no_longer_tied(pico_qwen: Path, tmp_path: Path) -> None:
    schemes = schemes_for(pico_qwen, "gptq", Scheme(4, 32, True), lm_head=Scheme(8, 32, True))
    write(pico_qwen, tmp_path / "out", "gptq", schemes)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    assert config["quantization_config"]["lm_head"] is True
    assert "model.embed_tokens.weight" in read_checkpoint(tmp_path / "out").tensors


@pytest.mark.parametrize("form", NAMES)
def test_large_checkpoints_are_sharded(form: FormName, pico_model: Path, tmp_path: Path) -> None:
    schemes = schemes_for(pico_model, form, Scheme(4, 32, False))
    write(pico_model, tmp_path / "one", form, schemes)
    write(pico_model, tmp_path / "many", form, schemes, shard_bytes=30_000)
    shards = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(shards) > 3
    assert [shard.name for shard in shards] == [
        f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)
    ]
    one, many = load_file(tmp_path / "one" / "model.safetensors"), {}
    for shard in shards:
        loaded = load_file(shard)
        size = sum(tensor.nbytes for tensor in loaded.values())
        assert size <= 30_000 or len(loaded) == 1
        many |= loaded
        with safe_open(shard, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in many.values())


def test_a_killed_run_goes_on_where_it_was(pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schemes = schemes_for(pico_model, "olive", Scheme(4, 32, False))
    rounded = write(pico_model, tmp_path / "whole", "olive", schemes, shard_bytes=30_000)

    def begin() -> QuantizedCheckpointWriter:
        (tmp_path / "out").mkdir(exist_ok=True)
        return QuantizedCheckpointWriter(
            TensorReader(pico_model), tmp_path / "out", "olive", schemes, work=tmp_path / "work", shard_bytes=30_000
        )

    monkeypatch.setattr("olivine.quant.stored.writing.SYNC_BYTES", 20_000)
    first = begin()
    for name in first.waiting[:9]:
        first.add(name, rounded[name], error=0.25)
    del first  # as a killed process does: what came after the last entry of the journal is lost
    second = begin()
    kept = len(schemes) - len(second.waiting)
    assert 0 < kept < 9
    assert {each.error for each in second.done.values()} == {0.25}
    for name in second.waiting[:4]:
        second.add(name, rounded[name])
    with open(tmp_path / "work" / "journal.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"name": "model.la')  # it died over this line
    lost = second._file_of(next(iter(schemes)))
    (tmp_path / "work" / lost).unlink()
    third = begin()
    assert next(iter(schemes)) in third.waiting
    assert all(third._file_of(name) != lost for name in third.done)
    for name in third.waiting:
        third.add(name, rounded[name])
    third.copy_rest()
    third.finish()
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_nothing_is_published_before_all_is_written(pico_model: Path, tmp_path: Path) -> None:
    schemes = schemes_for(pico_model, "olive", Scheme(4, 32, False))
    (tmp_path / "out").mkdir()
    writer = QuantizedCheckpointWriter(
        TensorReader(pico_model), tmp_path / "out", "olive", schemes, work=tmp_path / "work"
    )
    with pytest.raises(ValueError, match=r"not written yet: model\.layers\.0"):
        writer.finish()
    for name, each in round_all(writer, pico_model).items():
        writer.add(name, each)
    with pytest.raises(ValueError, match="what is not quantised"):
        writer.finish()
    assert not list((tmp_path / "out").iterdir())


def test_nan_in_a_tensor_that_is_copied_is_named(pico_model: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(pico_model, tmp_path / "source"))
    tensors = load_file(source / "model.safetensors")
    tensors["model.embed_tokens.weight"][7, 3] = float("inf")
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    schemes = schemes_for(source, "olive", Scheme(4, 32, False))
    writer = QuantizedCheckpointWriter(TensorReader(source), tmp_path, "olive", schemes, work=tmp_path / "work")
    with pytest.raises(ModelError, match=r"model\.embed_tokens\.weight holds inf at element 451"):
        writer.copy_rest()


@pytest.mark.parametrize(
    ("form", "module", "scheme", "reason"),
    [
        ("olive", "model.layers.0.self_attn.qkv_proj", Scheme(4, 32), "there is none"),
        ("olive", "model.layers.0.self_attn.q_proj", Scheme(4, 128), "do not divide its 64 input features"),
        ("gptq", "lm_head", Scheme(2, 32), "401 output features of 2 bits do not fill whole 32-bit words"),
        ("compressed-tensors", "model.layers.9.self_attn.o_proj", Scheme(4, 32), "there is none"),
    ],
)
def test_what_a_form_cannot_hold_is_refused(
    form: FormName, module: str, scheme: Scheme, reason: str, pico_model: Path, tmp_path: Path
) -> None:
    source = pico_model
    if module == "lm_head":  # 401 rows of 2 bits are no whole words
        source = Path(shutil.copytree(pico_model, tmp_path / "odd"))
        tensors = load_file(source / "model.safetensors")
        tensors["lm_head.weight"] = torch.zeros(401, 64)
        save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=reason):
        QuantizedCheckpointWriter(TensorReader(source), tmp_path, form, {module: scheme}, work=tmp_path / "work")


def test_rows_that_do_not_fit_are_refused(pico_model: Path, tmp_path: Path) -> None:
    schemes = schemes_for(pico_model, "olive", Scheme(4, 32, False))
    writer = QuantizedCheckpointWriter(TensorReader(pico_model), tmp_path, "olive", schemes, work=tmp_path / "work")
    name = "model.layers.0.mlp.down_proj"
    rounded = round_all(writer, pico_model)[name]
    with pytest.raises(ValueError, match="rows 16 to 48"):
        writer.write_rows(name, 16, packed_rows(rounded, 16, 48))
    with pytest.raises(ValueError, match="rows 64 to 96"):
        writer.write_rows(name, 64, packed_rows(rounded, 0, 32))
    single = Rounded(rounded.scheme, rounded.in_features, rounded.codes, rounded.scales + 1e-7, rounded.zeros)
    with pytest.raises(ValueError, match="no numbers of F16"):
        writer.add(name, single)


def test_gptq_is_what_its_readers_compute(pico_model: Path, tmp_path: Path) -> None:
    schemes = schemes_for(pico_model, "gptq", Scheme(4, 16, False))
    module = "model.layers.0.mlp.gate_up_proj"
    rounded = write(pico_model, tmp_path / "out", "gptq", schemes)[module]
    stored = {
        name.removeprefix(f"{module}."): tensor
        for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items()
        if name.startswith(module)
    }
    codes = [(stored["qweight"] >> shift) & 15 for shift in range(0, 32, 4)]
    codes = torch.stack(codes, 1).reshape(64, -1)
    zeros = torch.stack([(stored["qzeros"] >> shift) & 15 for shift in range(0, 32, 4)], 2).reshape(4, -1)
    assert int(zeros.max()) < 15  # readers add one without looking
    group = stored["g_idx"].long()
    weight = (codes - (zeros + 1)[group]) * stored["scales"][group].float()
    assert torch.equal(weight.T, rounded.dequantise())


def test_zero_points_of_nought_are_turned_round_for_gptq(pico_qwen: Path, tmp_path: Path) -> None:
    schemes = schemes_for(pico_qwen, "gptq", Scheme(4, 16, False))
    rounded = write(pico_qwen, tmp_path / "out", "gptq", schemes)["model.layers.0.self_attn.v_proj"]
    assert rounded.zeros is not None
    assert not rounded.zeros.all()
    back = QuantizedCheckpointReader(TensorReader(tmp_path / "out")).read_rounded("model.layers.0.self_attn.v_proj")
    assert back.zeros is not None
    assert back.zeros.all()
    assert torch.equal(back.dequantise(), rounded.dequantise())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_compressed_tensors_unpacks_the_same(bits: int, symmetric: bool, pico_qwen: Path, tmp_path: Path) -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    schemes = schemes_for(pico_qwen, "compressed-tensors", Scheme(bits, 32, symmetric))
    rounded = write(pico_qwen, tmp_path / "out", "compressed-tensors", schemes)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    library = BaseCompressor.get_value_from_registry("pack-quantized")
    weights = QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, strategy="group", group_size=32)
    for module, expected in rounded.items():
        own = {name.removeprefix(f"{module}."): each for name, each in stored.items() if name.startswith(f"{module}.")}
        own.pop("bias", None)
        found = library.decompress(own, QuantizationScheme(targets=["Linear"], weights=weights))
        assert torch.equal(found["weight"], expected.dequantise().to(torch.bfloat16))


@pytest.mark.parametrize("model", ["pico_model", "pico_qwen"])
def test_transformers_computes_with_the_dequantised_weights(
    model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    source: Path = request.getfixturevalue(model)
    others = {"down_proj": Scheme(8, 64, True), "lm_head": Scheme(8, PER_CHANNEL, False)}
    schemes = schemes_for(source, "compressed-tensors", Scheme(4, 32, False), **others)
    del schemes["model.layers.0.self_attn.o_proj"]
    rounded = write(source, tmp_path / "out", "compressed-tensors", schemes)
    reference = AutoModelForCausalLM.from_pretrained(source, tie_word_embeddings=False)
    reference.lm_head.weight = torch.nn.Parameter(reference.lm_head.weight.detach().clone())
    with torch.no_grad():
        for name, each in rounded.items():
            reference.get_submodule(name).weight.copy_(each.dequantise())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.arange(1, 20).view(1, -1)
    with torch.no_grad():
        expected, found = reference(ids).logits.float(), loaded(ids).logits.float()
    assert float((expected - found).abs().max()) <= 1e-4
    assert float(expected.std()) > 0.01


@cache
def built(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Build a quantised checkpoint with onnxruntime-genai's builder; return the initialisers."""
    os.environ.setdefault("ORTGENAI_DISABLE_TELEMETRY", "1")
    from onnxruntime_genai.models import builder

    place = (None, str(folder), str(folder / "onnx"), "int4", "cpu", str(folder / "scratch"))
    builder.create_model(*place, **builder.parse_extra_options(*place, []))
    model = onnx.load(folder / "onnx" / "model.onnx")
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("form", ["olive", "gptq"])
def test_the_model_builder_gets_the_same_integers(
    form: FormName, symmetric: bool, pico_model: Path, tmp_path: Path
) -> None:
    others = {"down_proj": Scheme(8, 64, symmetric), "lm_head": Scheme(8, 32, symmetric)}
    schemes = schemes_for(pico_model, form, Scheme(4, 16, symmetric), **others)
    write(pico_model, tmp_path / "out", form, schemes)
    found = QuantizedCheckpointReader(TensorReader(tmp_path / "out"))
    initialisers = built(tmp_path / "out")

    def expected(*modules: str) -> dict[str, np.ndarray[Any, Any]]:
        rows = [found.read_packed(module) for module in modules]
        bits = rows[0].scheme.bits
        zeros = [np.full_like(each.scales, each.scheme.middle, np.uint8) if each.zeros is None else each.zeros
                 for each in rows]  # fmt: skip
        return {
            "qweight": np.concatenate([each.packed for each in rows]),
            "scales": np.concatenate([each.scales for each in rows]),
            "qzeros": np.concatenate([pack(each, bits) for each in zeros]),
        }

    for layer in ("model.layers.0", "model.layers.1"):
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        fused = form == "gptq"
        q, gate_up = [f"{attention}.{each}_proj" for each in "qkv"], f"{mlp}.gate_up_proj"
        matrices = {
            f"{layer}.attn.qkv_proj": expected(*([f"{attention}.qkv_proj"] if fused else q)),
            f"{layer}.attn.o_proj": expected(f"{attention}.o_proj"),
            f"{layer}.mlp.down_proj": expected(f"{mlp}.down_proj"),
            "lm_head": expected("lm_head"),
        }
        for number, name in enumerate(("gate_proj", "up_proj")):
            whole = expected(gate_up) if fused else expected(f"{mlp}.{name}")
            half = slice(128 * number, 128 * (number + 1)) if fused else slice(None)
            matrices[f"{mlp}.{name}"] = {suffix: values[half] for suffix, values in whole.items()}
        for name, wanted in matrices.items():
            for suffix, values in wanted.items():
                stored = initialisers.get(f"{name}.MatMulNBits.{suffix}")
                if stored is None and suffix == "qzeros":
                    assert symmetric  # the kernel's own zero point is the middle
                    assert form == "olive"
                    continue
                assert stored is not None, name
                assert np.array_equal(stored.reshape(-1), values.reshape(-1)), f"{name}.{suffix}"


def changed(folder: Path, output: Path, **config: Any) -> TensorReader:
    """Return a copy of a checkpoint with another ``quantization_config``."""
    shutil.copytree(folder, output)
    text = json.loads((output / "config.json").read_text())
    text["quantization_config"] |= config
    (output / "config.json").write_text(json.dumps(text))
    return TensorReader(output)


def test_what_cannot_be_read_says_so(pico_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not quantised"):
        QuantizedCheckpointReader(TensorReader(pico_model))
    write(pico_model, tmp_path / "out", "gptq", schemes_for(pico_model, "gptq", Scheme(4, 16, False)))
    with pytest.raises(ModelError, match="quantised by awq"):
        QuantizedCheckpointReader(changed(tmp_path / "out", tmp_path / "awq", quant_method="awq"))
    with pytest.raises(ModelError, match="quantised to 3 bits in groups of 16"):
        _ = QuantizedCheckpointReader(changed(tmp_path / "out", tmp_path / "three", bits=3)).schemes
    module = "model.layers.0.self_attn.o_proj"
    with pytest.raises(ModelError, match=r"o_proj\.\w+ is .*ask for"):
        QuantizedCheckpointReader(changed(tmp_path / "out", tmp_path / "group", group_size=32)).read_rounded(module)
    with pytest.raises(ModelError, match="calls itself symmetric"):
        QuantizedCheckpointReader(changed(tmp_path / "out", tmp_path / "sym", sym=True)).read_rounded(module)
    reader = changed(tmp_path / "out", tmp_path / "act")
    tensors = load_file(tmp_path / "act" / "model.safetensors")
    tensors[f"{module}.g_idx"] = tensors[f"{module}.g_idx"].flip(0).contiguous()
    save_file(tensors, tmp_path / "act" / "model.safetensors")
    with pytest.raises(ModelError, match="not consecutive input features"):
        QuantizedCheckpointReader(TensorReader(reader.checkpoint.path)).read_rounded(module)


def test_a_configuration_that_is_nonsense_is_an_error_of_the_model(pico_model: Path, tmp_path: Path) -> None:
    write(pico_model, tmp_path / "out", "gptq", schemes_for(pico_model, "gptq", Scheme(4, 16, False)))
    with pytest.raises(ModelError, match="is no regular expression"):
        _ = QuantizedCheckpointReader(changed(tmp_path / "out", tmp_path / "a", dynamic={"+:(": {"bits": 8}})).schemes
    with pytest.raises(ModelError, match="quantised to 4 bits in groups of None"):
        _ = QuantizedCheckpointReader(changed(tmp_path / "out", tmp_path / "b", group_size=None, dynamic=[])).schemes


def test_compressed_tensors_that_are_no_integers_are_refused(pico_model: Path, tmp_path: Path) -> None:
    schemes = schemes_for(pico_model, "compressed-tensors", Scheme(4, 32, True))
    write(pico_model, tmp_path / "out", "compressed-tensors", schemes)
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}
    reader = changed(tmp_path / "out", tmp_path / "fp8", config_groups={"group_0": group})
    with pytest.raises(ModelError, match="weights of type float"):
        _ = QuantizedCheckpointReader(reader).schemes


def test_a_second_version_gptq_checkpoint_is_read(pico_model: Path, tmp_path: Path) -> None:
    module = "model.layers.0.self_attn.o_proj"
    rounded = write(pico_model, tmp_path / "out", "gptq", schemes_for(pico_model, "gptq", Scheme(4, 16, False)))
    reader = changed(tmp_path / "out", tmp_path / "two", checkpoint_format="gptq_v2")
    tensors = load_file(tmp_path / "two" / "model.safetensors")
    tensors[f"{module}.qzeros"] += 0x11111111
    save_file(tensors, tmp_path / "two" / "model.safetensors")
    found = QuantizedCheckpointReader(TensorReader(reader.checkpoint.path)).read_rounded(module)
    assert torch.equal(found.dequantise(), rounded[module].dequantise())


@pytest.mark.parametrize("form", ["gptq", "compressed-tensors"])
def test_transformers_reads_the_quantization_config(form: FormName, pico_model: Path, tmp_path: Path) -> None:
    from transformers.quantizers.auto import AutoQuantizationConfig

    schemes = schemes_for(pico_model, form, Scheme(4, 32, False), down_proj=Scheme(8, 64, True))
    write(pico_model, tmp_path / "out", form, schemes)
    said = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    found = AutoQuantizationConfig.from_dict(said)
    assert found.quant_method == form
    if form == "gptq":
        assert (found.bits, found.group_size, found.sym, found.desc_act) == (4, 32, False, False)
