"""Streamed builds: every architecture computes what its checkpoint does, and a kill or bad weight costs nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
import torch
from built_models import build_genai
from safetensors.torch import load_file, save_file

from olivine.errors import ModelError, OlivineError, StepError
from olivine.models.genai import GenaiModel
from olivine.passes.base import Accelerator, Format, RunContext
from olivine.passes.convert import attaching, building, foreseeing, streamed_build, trial, trying
from olivine.passes.convert.attaching import Attached, Choice
from olivine.passes.convert.foreseeing import foresee
from olivine.passes.convert.skeleton import Skeleton
from olivine.passes.convert.trying import try_result
from olivine.quant.packing import unpack
from olivine.quant.reading import TensorReader
from olivine.quant.rounding import round_weights
from olivine.quant.scheme import Scheme
from olivine.quant.streaming import Matrix

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 400,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "phi3": ("Phi3", {"original_max_position_embeddings": 512, "sliding_window": None}),
    "llama": ("Llama", {"tie_word_embeddings": False}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": False}),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 16}),
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma2": ("Gemma2", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 128}),
    "gemma3": ("Gemma3Text", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 128}),
    "granite": ("Granite", {}),
    "large vocabulary": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True, "vocab_size": 152_065}),
    "smollm3": ("SmolLM3", {"tie_word_embeddings": True}),
}
PROMPT = [5, 17, 250, 33, 9, 120, 77, 8]


def checkpoint(folder: Path, tokenizer: Path, name: str, dtype: torch.dtype = torch.bfloat16, **more: Any) -> Path:
    """Write a random checkpoint of the architecture ``name``; all weights large enough to matter."""
    import transformers

    family, own = ARCHITECTURES[name]
    class_name = f"{family.removesuffix('Text')}ForCausalLM"
    config = getattr(transformers, f"{family}Config")(**(SHAPE | own | more))
    config.architectures = [class_name]
    torch.manual_seed(0)
    model = getattr(transformers, class_name)(config)
    for parameter_name, parameter in model.named_parameters():
        if "norm" in parameter_name or "bias" in parameter_name:
            torch.nn.init.normal_(parameter, 0.5, 0.2)
        else:
            torch.nn.init.normal_(parameter, 0, 0.1)
    model.to(dtype).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tokenizer / file).exists():
            shutil.copyfile(tokenizer / file, folder / file)
    return folder


def float_logits(folder: Path) -> np.ndarray:
    """Return what transformers computes in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT])).logits[0]
    return np.asarray(logits.numpy())


def logits(folder: Path) -> np.ndarray:
    """Return what ONNX Runtime GenAI computes."""
    return np.concatenate(list(GenaiModel(folder, Accelerator()).logits(PROMPT)))


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the relative distance."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_computes_what_its_checkpoint_does(
    name: str, pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = checkpoint(tmp_path / "model", pico_model, name)
    attached: list[tuple[Attached, int]] = []

    def attach(*arguments: Any, foreseen: Sequence[Matrix], **named: Any) -> Attached:
        attached.append((attaching.attach(*arguments, foreseen=foreseen, **named), len(foreseen)))
        return attached[-1][0]

    monkeypatch.setattr(streamed_build, "attach", attach)
    notes = build_genai(source, tmp_path / "out", precision="int8", int4_accuracy_level=1)
    assert notes == []
    assert distance(logits(tmp_path / "out"), float_logits(source)) < 0.03
    assert [(each.as_foreseen, count) for each, count in attached] == [(True, 4 * 3)]


def dequantised(folder: Path, node_name: str) -> np.ndarray:
    """Return the weights of the MatMulNBits node ``node_name`` in ``folder``."""
    model = onnx.load(str(folder / "model.onnx"))
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (node,) = [node for node in model.graph.node if node.name == f"{node_name}/MatMulNBits"]
    values = {attribute.name: attribute.i for attribute in node.attribute}
    packed, scales = tensors[node.input[1]], tensors[node.input[2]]
    codes = unpack(packed, values["bits"], values["block_size"]).astype(np.float32)
    groups = codes.shape[1]
    zeros: Any = np.float32(2 ** (values["bits"] - 1))
    if len(node.input) > 3:
        stored = tensors[node.input[3]].reshape(values["N"], -1)
        zeros = unpack(stored, values["bits"], groups).astype(np.float32)[..., None]
    return ((codes - zeros) * scales.reshape(values["N"], groups, 1)).reshape(values["N"], -1)[:, : values["K"]]


@pytest.mark.parametrize("params", [{}, {"int4_is_symmetric": False}, {"int4_block_size": 128}, {"precision": "int8"}])
def test_graph_holds_the_rounded_rows_in_their_order(params: dict[str, Any], pico_model: Path, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "phi3", torch.float32)
    build_genai(source, tmp_path / "out", **({"precision": "int4"} | params))
    scheme = Scheme(
        8 if "precision" in params else 4, params.get("int4_block_size", 32), params.get("int4_is_symmetric", True)
    )
    tensors = load_file(source / "model.safetensors")
    gate, up = tensors["model.layers.1.mlp.gate_up_proj.weight"].chunk(2)
    for node, weight in (
        ("/model/layers.2/attn/qkv_proj", tensors["model.layers.2.self_attn.qkv_proj.weight"]),
        ("/model/layers.1/mlp/gate_proj", gate),
        ("/model/layers.1/mlp/up_proj", up),
        ("/model/layers.0/mlp/down_proj", tensors["model.layers.0.mlp.down_proj.weight"]),
        ("/lm_head", tensors["lm_head.weight"]),
    ):
        expected = round_weights(weight, scheme, "search").dequantise().numpy()
        # Two codes in a thousand may differ by one; rows out of place would be more than 1 apart.
        assert distance(dequantised(tmp_path / "out", node), expected) < 0.01, node


def test_tied_embeddings_stay_tied(pico_model: Path, tmp_path: Path) -> None:
    tied = checkpoint(tmp_path / "tied", pico_model, "llama-tied")
    build_genai(tied, tmp_path / "tied-out", precision="int4")
    model = onnx.load(str(tmp_path / "tied-out" / "model.onnx"), load_external_data=False)
    places = {
        tensor.name: [entry.value for entry in tensor.external_data if entry.key in ("offset", "length")]
        for tensor in model.graph.initializer
    }
    assert places["model.embed_tokens.weight"] == places["lm_head.MatMulNBits.qweight"]
    assert "GatherBlockQuantized" in {node.op_type for node in model.graph.node}
    untied = checkpoint(tmp_path / "untied", pico_model, "llama")
    build_genai(untied, tmp_path / "untied-out", precision="int4")
    sizes = [(tmp_path / each / "model.onnx.data").stat().st_size for each in ("tied-out", "untied-out")]
    assert sizes[1] - sizes[0] >= 400 * 64  # the embedding, in 8 bits where it is not shared


@pytest.mark.parametrize(("embedding", "head", "limit"), [(8, None, 0.02), (4, 8, 0.15), (8, 4, 0.15)])
def test_embedding_and_head_take_bits_of_their_own(
    embedding: int, head: int | None, limit: float, pico_model: Path, tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "llama")
    build_genai(source, tmp_path / "out", precision="int8", embedding_bits=embedding, lm_head_bits=head)
    model = onnx.load(str(tmp_path / "out" / "model.onnx"), load_external_data=False)
    bits = {
        node.name: {attribute.name: attribute.i for attribute in node.attribute}["bits"]
        for node in model.graph.node
        if node.op_type in ("MatMulNBits", "GatherBlockQuantized")
    }
    assert bits["/model/embed_tokens/Gather"] == embedding
    assert bits["/lm_head/MatMulNBits"] == (head or 8)
    assert distance(logits(tmp_path / "out"), float_logits(source)) < limit


def test_float16_and_shards_are_read_alike(pico_model: Path, tmp_path: Path) -> None:
    whole = checkpoint(tmp_path / "whole", pico_model, "llama", torch.float16)
    shards = tmp_path / "shards"
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float16).save_pretrained(shards, max_shard_size="100KB")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(whole / file, shards / file)
    assert len(list(shards.glob("*.safetensors"))) > 2
    for name, source in (("a", whole), ("b", shards)):
        build_genai(source, tmp_path / name, precision="int4")
    np.testing.assert_array_equal(logits(tmp_path / "a"), logits(tmp_path / "b"))


@pytest.mark.parametrize("cut", [False, True])
def test_excluded_modules_keep_their_values(
    cut: bool, pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cut:  # tried with its first layers
        monkeypatch.setattr(trial, "SIZE", 20_000)
    source = checkpoint(tmp_path / "model", pico_model, "phi3", torch.float16)
    notes = build_genai(
        source,
        tmp_path / "out",
        precision="int8",
        int4_accuracy_level=1,
        int4_nodes_to_exclude=["/lm_head/MatMul", "*.mlp.gate_up_proj", "*/embed_tokens/Gather", "/no/such/MatMul"],
    )
    assert notes[-1 - cut] == "int4_nodes_to_exclude: the model has no /no/such/MatMul" or notes[-1].endswith("MatMul")
    model = onnx.load(str(tmp_path / "out" / "model.onnx"))
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    held = load_file(source / "model.safetensors")
    gate, up = held["model.layers.2.mlp.gate_up_proj.weight"].float().numpy().reshape(2, 96, 64)
    weights = {node.name: tensors[node.input[1]] for node in model.graph.node if node.op_type == "FusedMatMul"}
    assert len(weights) == 7
    np.testing.assert_array_equal(weights["/model/layers.2/mlp/gate_proj/MatMul"], gate)
    np.testing.assert_array_equal(weights["/model/layers.2/mlp/up_proj/MatMul"], up)
    np.testing.assert_array_equal(weights["/lm_head/MatMul"], held["lm_head.weight"].float().numpy())
    assert distance(logits(tmp_path / "out"), float_logits(source)) < 0.03


def test_rows_out_of_their_place_are_noticed(pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def split_wrongly(self: Any, marks: np.ndarray) -> Any:
        """Take rows of key and value for each other, as a loader does that splits a fused matrix wrongly."""
        found = slices(self, marks)
        return (found[0], found[2], found[1]) if len(found) == 3 else found

    slices = Skeleton.slices
    stored = streamed_build.attach

    def attach(*arguments: Any, **named: Any) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(Skeleton, "slices", split_wrongly)
            wrong = stored(*arguments, **named)
        right = stored(*arguments, **named)
        streams.append(wrong.matrices)
        return right

    streams: list[Any] = []
    stream = streamed_build.stream
    monkeypatch.setattr(streamed_build, "attach", attach)
    monkeypatch.setattr(streamed_build, "stream", lambda _, *rest, **named: stream(streams[-1], *rest, **named))
    source = checkpoint(tmp_path / "model", pico_model, "llama")
    with pytest.raises(StepError, match=r"does not compute with the weights of /model/layers\.0/attn/qkv_proj"):
        build_genai(source, tmp_path / "out", precision="int4")


@pytest.mark.parametrize("name", ["phi3", "qwen3", "gemma2"])
def test_large_model_is_tried_with_its_first_layers(
    name: str, pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = checkpoint(tmp_path / "model", pico_model, name)
    build_genai(source, tmp_path / "whole", precision="int4")
    monkeypatch.setattr(trial, "SIZE", 20_000)
    seen: list[np.ndarray] = []

    def compare(context: RunContext, precision: str, folder: Path) -> None:
        """Keep what the cut model computes, then try it as ever."""
        assert folder != context.output
        seen.append(logits(folder))
        try_result(context, precision, folder)

    monkeypatch.setattr("olivine.passes.convert.model_builder.try_result", compare)
    notes = build_genai(source, tmp_path / "out", precision="int4")
    assert notes == ["the result is tried with its first 1 of 3 layers, for it is large"]
    for file in ("model.onnx", "model.onnx.data", "genai_config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    config = json.loads((source / "config.json").read_text())
    config["num_hidden_layers"] = 1
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:1]
    (source / "config.json").write_text(json.dumps(config))
    assert distance(seen[0], float_logits(source)) < 0.3  # as far as int4 is from one layer, and no further


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weight_that_is_no_number_is_named(bad: float, pico_model: Path, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "llama")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 7] = bad
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"model\.layers\.1\.mlp\.up_proj\.weight holds {bad} at element 199"):
        build_genai(source, tmp_path / "out", precision="int4")


def test_checkpoint_that_is_no_plain_decoder_is_loaded_by_the_builder(pico_model: Path, tmp_path: Path) -> None:
    source = shutil.copytree(pico_model, tmp_path / "model")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.extra.weight"] = torch.zeros(2, 2)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    build_genai(source, tmp_path / "out", precision="int4")
    assert (tmp_path / "out" / "model.onnx").exists()
    with pytest.raises(OlivineError, match=r"model\.layers\.0\.extra\.weight is no tensor of a plain decoder"):
        plan_of(source, int4_algo_config="search")


def plan_of(source: Path, **params: Any) -> None:
    """Raise what the plan says against ``params``."""
    from olivine.errors import PlanError
    from olivine.models.checkpoint import read_checkpoint
    from olivine.passes.base import ModelFacts, PlanContext
    from olivine.passes.convert.builder_params import ModelBuilderParams
    from olivine.passes.convert.model_builder import ModelBuilder

    found = read_checkpoint(source)
    context = PlanContext(ModelFacts(found.format, found.config, source), Accelerator(), Accelerator(), False)
    problems = ModelBuilder.check(ModelBuilderParams(precision="int4", **params), context)
    if problems:
        raise PlanError(problems)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "intermediate_size",
            128,
            r"mlp\.down_proj\.weight is 64 x 96, and config\.json makes it 64 x 128; and 8 more",
        ),
        (
            "num_key_value_heads",
            4,
            r"self_attn\.k_proj\.weight is 32 x 64, and config\.json makes it 64 x 64; and 5 more",
        ),
        ("vocab_size", 500, r"is 400 x 64, and config\.json makes it 500 x 64; and 1 more"),
        ("num_hidden_layers", 4, r"there is no model\.layers\.3\.mlp\.down_proj\.weight"),
    ],
)
def test_weights_that_do_not_fit_the_configuration(
    key: str, value: int, expected: str, pico_model: Path, tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "llama")
    plan_of(source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(OlivineError, match=expected):
        plan_of(source)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.self_attn.k_proj.weight",
        "model.layers.2.mlp.up_proj.weight",
        "model.layers.0.input_layernorm.weight",
        "model.norm.weight",
        "lm_head.weight",
    ],
)
def test_weight_that_is_not_there_is_named_before_anything_is_read(name: str, pico_model: Path, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "llama")
    tensors = load_file(source / "model.safetensors")
    del tensors[name]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OlivineError, match=f"there is no {re.escape(name)}"):
        plan_of(source)


WORKER = """
import sys
sys.path.insert(0, {tests!r})
if __name__ == "__main__":
    from pathlib import Path
    import olivine.quant.streaming as streaming
    streaming.SYNC_BYTES = 1
    from test_streamed_build import build_in
    build_in(Path({source!r}), Path({output!r}), Path({scratch!r}), slowly={slowly})
"""

APART = "import olivine.passes.convert.building as building; building.APART = 0"
"""Has the graph built in a process of its own, and matrices rounded meanwhile."""


def context_in(source: Path, output: Path, scratch: Path, progress: Any) -> RunContext:
    """Return the context of a pass that keeps in ``scratch`` what outlives a kill."""
    return RunContext(
        inputs={"model": source},
        input_format=Format.HF,
        output=output,
        checkpoint=scratch,
        data={},
        host=Accelerator(),
        target=Accelerator(),
        progress=progress,
        note=print,
    )


def build_in(source: Path, output: Path, scratch: Path, *, slowly: bool = False) -> None:
    """Build with a folder for what outlives a kill; print each matrix that is done."""
    from olivine.passes.convert.builder_params import ModelBuilderParams
    from olivine.passes.convert.model_builder import ModelBuilder

    def progress(done: float, total: float | None, *, unit: str = "", message: str = "", **values: float) -> None:
        print(message, flush=True)
        if slowly and message.startswith("rounding"):
            time.sleep(0.1)

    output.mkdir(exist_ok=True)
    scratch.mkdir(exist_ok=True)
    context = context_in(source, output, scratch, progress)
    ModelBuilder().run(ModelBuilderParams(precision="int4"), context)


@pytest.mark.parametrize("beside", [False, True])
def test_killed_build_goes_on_where_it_was(beside: bool, pico_model: Path, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "llama")
    output, scratch = tmp_path / "out", tmp_path / "scratch"
    script = WORKER.format(
        tests=str(Path(__file__).parent), source=str(source), output=str(output), scratch=str(scratch), slowly=True
    )
    if beside:  # six matrices are done long before another process has imported the builder
        script = script.replace("    streaming.SYNC", f"    {APART}\n    streaming.SYNC")
    (tmp_path / "worker.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "worker.py")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        seen += line.startswith("rounding")
        if seen == 6:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    journal = scratch / "journal.jsonl"
    kept = [json.loads(line)["name"] for line in journal.read_text().splitlines()]
    assert 4 <= len(kept) <= 7
    before = (scratch / "model.onnx.data").stat().st_ino
    assert beside is not (scratch / "skeleton" / "out" / "model.onnx").exists()
    build_in(source, output, scratch)
    assert (output / "model.onnx.data").stat().st_ino == before  # the same file, not one made anew
    assert not journal.exists()
    build_genai(source, tmp_path / "whole", precision="int4")
    assert (output / "model.onnx.data").read_bytes() == (tmp_path / "whole" / "model.onnx.data").read_bytes()


def test_data_file_of_another_choice_is_not_gone_on_with(pico_model: Path, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "llama")
    build_genai(source, tmp_path / "whole", precision="int4")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "model.onnx.data").write_bytes(bytes(100))
    done = [{"name": matrix.name, "error": 0.0, "bytes": matrix.bytes} for matrix in foreseen_in(source)]
    (scratch / "journal.jsonl").write_text("".join(json.dumps(each) + "\n" for each in done))
    build_in(source, tmp_path / "out", scratch)
    assert (tmp_path / "out" / "model.onnx.data").read_bytes() == (tmp_path / "whole" / "model.onnx.data").read_bytes()


def test_process_of_the_builder_gives_the_same_and_goes_when_its_parent_is_killed(
    pico_model: Path, tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "llama")
    build_genai(source, tmp_path / "here", precision="int4")
    output, scratch = tmp_path / "out", tmp_path / "scratch"
    script = WORKER.format(
        tests=str(Path(__file__).parent), source=str(source), output=str(output), scratch=str(scratch), slowly=False
    ).replace("streaming.SYNC_BYTES = 1", APART)
    (tmp_path / "worker.py").write_text(script)
    command = [sys.executable, str(tmp_path / "worker.py")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment)
    builder = child_of(process.pid)
    process.kill()
    process.wait()
    builder.wait(10)
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert (output / "model.onnx.data").read_bytes() == (tmp_path / "here" / "model.onnx.data").read_bytes()


def child_of(process: int) -> psutil.Process:
    """Wait until a process has started another to work for it, and return that."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for child in psutil.Process(process).children():
            if "spawn_main" in " ".join(child.cmdline()) and child.cpu_times().user > 0.5:
                return child
        time.sleep(0.05)
    raise AssertionError("the builder was given no process of its own")


def test_weights_stay_mapped_only_where_that_takes_less(
    pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "phi3")
    build_genai(source, tmp_path / "out", precision="int4")
    graph = tmp_path / "out" / "model.onnx"
    assert not trying.takes_less_mapped(graph.parent)
    monkeypatch.setattr(trying, "LARGE", 1)
    model = onnx.load(str(graph), load_external_data=False)
    rows = [each for node in model.graph.node for each in node.attribute if each.name == "N"]
    assert len(rows) == 3 * 5 + 1
    for count, less in (
        (1, True),
        (10**6, False),
    ):  # narrow, and so wide that widening one takes more than all there is
        rows[-1].i = count
        for each in rows[:-1]:
            each.i = 1
        onnx.save(model, str(graph))
        assert trying.takes_less_mapped(graph.parent) is less


def foreseen_in(source: Path) -> tuple[Matrix, ...]:
    """Return what is foreseen of the checkpoint with the usual parameters."""
    reader = TensorReader(source)
    return foresee(reader.tensors, reader.checkpoint.config, lambda *_: Choice(Scheme(), "search"), "float32")


def test_what_the_graph_has_not_is_not_built(pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "llama")
    monkeypatch.setattr(foreseeing, "foresee", lambda *_: ())
    build_genai(source, tmp_path / "plain", precision="int4")
    first, second, *others = foreseen_in(source)
    wrong = (replace(first, name="/model/layers.0/mlp/no_proj"), replace(second, name=first.name), *others)
    monkeypatch.setattr(foreseeing, "foresee", lambda *_: wrong)
    monkeypatch.setattr(building, "APART", 0)
    build_genai(source, tmp_path / "out", precision="int4")
    for file in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()


def test_builder_that_fails_ends_the_rounding_beside_it(pico_model: Path, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "llama")
    failed = Event()
    rounded: list[str] = []

    def build(*_: object) -> None:
        failed.set()
        raise StepError("the model builder failed")

    def progress(*_: object, message: str = "", **__: object) -> None:
        if message.startswith("rounding"):
            rounded.append(message)
            failed.wait()
            time.sleep(0.1)

    (tmp_path / "out").mkdir()
    (tmp_path / "scratch").mkdir()
    context = context_in(source, tmp_path / "out", tmp_path / "scratch", progress)
    foreseen = foreseen_in(source)
    with pytest.raises(StepError, match="the model builder failed"):
        streamed_build.build_streamed(
            TensorReader(source),
            context,
            build,
            lambda _: pytest.fail("no graph"),
            tied=False,
            foreseen=foreseen,
            beside=True,
        )
    assert len(rounded) < len(foreseen)
