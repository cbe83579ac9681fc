"""ModelBuilder: what it builds runs, what it cannot build is said before anything runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from built_models import build_genai, genai_of

from olivine.errors import ModelError, StepError
from olivine.models.checkpoint import read_checkpoint
from olivine.models.genai import GenaiModel
from olivine.passes.base import Accelerator, Format, ModelFacts, Pass, PlanContext
from olivine.passes.budget import BudgetParams
from olivine.passes.conformance import PassConformance
from olivine.passes.convert.builder_arguments import OPTION_OF_PARAMETER, builder_arguments
from olivine.passes.convert.builder_checks import VALID
from olivine.passes.convert.builder_params import ModelBuilderParams
from olivine.passes.convert.model_builder import ModelBuilder, _forget_loading

CPU = Accelerator()
PHI3 = {"architectures": ["Phi3ForCausalLM"], "num_hidden_layers": 2}


def context(config: dict[str, Any] | None = None, provider: str = "CPUExecutionProvider") -> PlanContext:
    return PlanContext(
        ModelFacts(Format.HF, PHI3 if config is None else config),
        CPU,
        Accelerator("cpu" if provider.startswith("CPU") else "gpu", provider),
        has_bf16=False,
    )


def said(params: dict[str, Any], config: dict[str, Any] | None = None, provider: str = "CPUExecutionProvider") -> str:
    """Return everything that `check` finds wrong."""
    problems = ModelBuilder.check(ModelBuilderParams(**params), context(config, provider))
    return "\n".join(str(problem) for problem in problems)


class TestModelBuilderInt4(PassConformance):
    @pytest.fixture
    def pass_type(self) -> type[Pass[Any]]:
        return ModelBuilder

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return {"precision": "int4"}

    @pytest.fixture
    def inputs(self, pico_model: Path) -> Mapping[str, Path]:
        return {"model": pico_model}


# What it builds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", VALID["cpu"])
def test_every_cpu_precision_generates(pico_model: Path, precision: str) -> None:
    model = GenaiModel(genai_of(pico_model, precision), CPU)
    assert len(list(model.generate([0, 5, 6], 4, ignore_eos=True))) == 4


def test_fewer_bits_take_less_room(pico_model: Path) -> None:
    sizes = [
        sum(file.stat().st_size for file in genai_of(pico_model, precision).glob("model.onnx*"))
        for precision in ("fp32", "int8", "int4")
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[2]


def test_it_says_that_the_result_was_tried(pico_model: Path, tmp_path: Path) -> None:
    assert build_genai(pico_model, tmp_path / "out", precision="int4") == []


def test_search_is_merged_over_the_generation_config(pico_model: Path, tmp_path: Path) -> None:
    build_genai(pico_model, tmp_path / "out", precision="int4", search={"max_length": 99, "top_k": 3})
    search = json.loads((tmp_path / "out" / "genai_config.json").read_text())["search"]
    assert (search["max_length"], search["top_k"]) == (99, 3)
    assert search["num_beams"] == 1


def test_chat_template_and_tokenizer_come_along(pico_model: Path) -> None:
    output = genai_of(pico_model, "int4")
    assert (output / "chat_template.jinja").read_text() == (pico_model / "chat_template.jinja").read_text()
    assert {file.name for file in read_checkpoint(output).tokenizer_files} >= {
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_onnx_graph_names_no_folder_of_this_machine(pico_model: Path) -> None:
    graph = (genai_of(pico_model, "int4") / "model.onnx").read_bytes()
    assert str(pico_model.parent).encode() not in graph


def test_onnx_graph_names_the_builder_s_release_and_no_commit_of_a_repository_around_it(pico_model: Path) -> None:
    import onnx
    import onnxruntime_genai as og

    graph = onnx.load(genai_of(pico_model, "int4") / "model.onnx", load_external_data=False)
    assert graph.producer_version == f"{og.__version__}+{og.__commit__[:7]}"


def test_metadata_only_writes_no_graph(pico_model: Path, tmp_path: Path) -> None:
    notes = build_genai(pico_model, tmp_path / "out", precision="int4", metadata_only=True)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "chat_template.jinja",
        "genai_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "was not tried" in notes[0]


def onnx_nodes(folder: Path) -> Any:
    import onnx

    return onnx.load(folder / "model.onnx", load_external_data=False).graph.node


def test_parameters_reach_the_graph(pico_model: Path, tmp_path: Path) -> None:
    build_genai(
        pico_model,
        tmp_path / "out",
        precision="int4",
        int4_block_size=16,
        int4_accuracy_level=1,
        int4_is_symmetric=False,
        int4_op_types_to_quantize=["MatMul", "Gather"],
        int4_nodes_to_exclude=["/lm_head/MatMul"],
    )
    nodes = list(onnx_nodes(tmp_path / "out"))
    products = [node for node in nodes if node.op_type == "MatMulNBits"]
    for node in products:
        values = {attribute.name: attribute.i for attribute in node.attribute}
        assert (values["block_size"], values["accuracy_level"], values["bits"]) == (16, 1, 4)
        assert len(node.input) >= 4  # zero points: not symmetric
    assert any(node.op_type == "GatherBlockQuantized" for node in nodes)
    assert any(node.op_type == "FusedMatMul" and "lm_head" in node.name for node in nodes)


def test_extra_options_reach_the_builder(pico_model: Path, tmp_path: Path) -> None:
    options = {"num_hidden_layers": 1, "prune_lm_head": True}
    build_genai(pico_model, tmp_path / "out", precision="fp32", extra_options=options)
    nodes = list(onnx_nodes(tmp_path / "out"))
    assert sum(node.op_type == "GroupQueryAttention" for node in nodes) == 1
    with pytest.raises(ModelError, match="prune_lm_head"):
        list(GenaiModel(tmp_path / "out", CPU).logits([5, 6, 7]))


def test_hidden_states_are_an_output_when_asked_for(pico_model: Path, tmp_path: Path) -> None:
    build_genai(pico_model, tmp_path / "out", precision="fp32", include_hidden_states=True)
    config = json.loads((tmp_path / "out" / "genai_config.json").read_text())
    assert "logits" in config["model"]["decoder"]["outputs"]
    import onnx

    outputs = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False).graph.output
    assert "hidden_states" in {output.name for output in outputs}


def test_result_whose_numbers_overflow_is_rejected(pico_model: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    broken = Path(shutil.copytree(pico_model, tmp_path / "model"))
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StepError, match="outputs are not numbers"):
        build_genai(broken, tmp_path / "out", precision="fp32")


def test_what_the_builder_raises_is_told(pico_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(pico_model, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"architectures": ["UnheardOf"]}))
    with pytest.raises(StepError, match="model builder failed: NotImplementedError"):
        build_genai(model, tmp_path / "out", precision="int4")


# What the plan says -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["QNNExecutionProvider", "OpenVINOExecutionProvider", "JsExecutionProvider", ""])
def test_execution_provider_that_the_builder_lacks_is_never_taken_for_cpu(provider: str) -> None:
    assert "cannot build for" in said({"precision": "int4"}, provider=provider)
    assert "CPUExecutionProvider" in said({"precision": "int4"}, provider=provider)


def test_misspelled_execution_provider_gets_a_suggestion() -> None:
    assert "the nearest is CUDAExecutionProvider" in said({"precision": "int4"}, provider="CudaExecutionprovider")
    assert "the nearest" not in said({"precision": "int4"}, provider="QNNExecutionProvider")


@pytest.mark.parametrize(
    ("precision", "provider", "fine"),
    [
        ("fp32", "CPUExecutionProvider", True),
        ("fp16", "CPUExecutionProvider", False),
        ("bf16", "CPUExecutionProvider", False),
        ("bf16", "CUDAExecutionProvider", True),
        ("fp16", "DmlExecutionProvider", True),
        ("int8", "DmlExecutionProvider", False),
        ("bf16", "WebGpuExecutionProvider", False),
        ("int8", "WebGpuExecutionProvider", True),
        ("int4", "NvTensorRTRTXExecutionProvider", True),
        ("int8", "NvTensorRTRTXExecutionProvider", False),
    ],
)
def test_precision_has_to_suit_the_provider(precision: str, provider: str, fine: bool) -> None:
    assert (said({"precision": precision}, provider=provider) == "") is fine


def test_unknown_architecture_lists_what_there_is() -> None:
    text = said({"precision": "int4"}, {"architectures": ["BertModel"]})
    assert "does not know BertModel" in text
    assert "Phi3ForCausalLM" in text


def test_architecture_that_the_builder_bends_to_cuda_is_a_problem_elsewhere() -> None:
    moe = {"architectures": ["PhiMoEForCausalLM"]}
    assert "CUDAExecutionProvider only" in said({"precision": "int4"}, moe)
    assert said({"precision": "int4"}, moe, "CUDAExecutionProvider") == ""


def test_config_without_architectures() -> None:
    assert "names no architecture" in said({"precision": "int4"}, {"model_type": "phi3"})


def test_contradicting_options() -> None:
    assert "contradict" in said({"precision": "int4", "exclude_lm_head": True, "include_hidden_states": True})


TIED = PHI3 | {"tie_word_embeddings": True}


@pytest.mark.parametrize(
    ("params", "config", "expected"),
    [
        ({"precision": "int8", "use_qdq": True}, PHI3, "does not go with precision int8"),
        ({"precision": "int4", "use_qdq": True, "int4_algo_config": "k_quant_mixed"}, PHI3, "choose k_quant"),
        ({"precision": "int4", "use_qdq": True, "int4_op_types_to_quantize": ["Gather"]}, PHI3, "leave Gather out"),
        ({"precision": "int4", "use_qdq": True}, TIED, "shared_embeddings: false"),
    ],
)
def test_what_cannot_be_written_as_qdq(params: dict[str, Any], config: dict[str, Any], expected: str) -> None:
    assert expected in said(params, config).replace("Choose", "choose").replace("Leave", "leave")


def test_what_can_be_written_as_qdq() -> None:
    assert said({"precision": "int4", "use_qdq": True}) == ""
    shared = {"shared_embeddings": False}
    assert said({"precision": "int4", "use_qdq": True, "extra_options": shared}, TIED) == ""


def test_qdq_that_the_plan_allows_is_built(pico_model: Path, tmp_path: Path) -> None:
    build_genai(pico_model, tmp_path / "out", precision="int4", use_qdq=True)
    assert any(node.op_type == "DequantizeLinear" for node in onnx_nodes(tmp_path / "out"))


@pytest.mark.parametrize("algorithm", ["rtn", "k_quant_mixed"])
def test_embedding_that_stays_as_it_is_gets_a_note(pico_model: Path, tmp_path: Path, algorithm: str) -> None:
    params: dict[str, Any] = {
        "precision": "int4",
        "int4_algo_config": algorithm,
        "int4_op_types_to_quantize": ["MatMul", "Gather"],
    }
    _, notes = ModelBuilder.resolve(ModelBuilderParams(**params), context())
    assert "the embedding is not quantised" in notes[0]
    build_genai(pico_model, tmp_path / "out", **params)
    assert not any(node.op_type == "GatherBlockQuantized" for node in onnx_nodes(tmp_path / "out"))


def test_mixed_algorithm_keeps_the_output_layer_in_8_bits(pico_model: Path, tmp_path: Path) -> None:
    build_genai(pico_model, tmp_path / "out", precision="int4", int4_algo_config="k_quant_last")
    bits = {
        node.name: next(attribute.i for attribute in node.attribute if attribute.name == "bits")
        for node in onnx_nodes(tmp_path / "out")
        if node.op_type == "MatMulNBits"
    }
    assert [name for name, count in bits.items() if count == 8] == [name for name in bits if "lm_head" in name]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("int4_block_size", "the nearest is block_size"),
        ("prune_lm_haed", "the nearest is prune_lm_head"),
        ("hf_remote", "--trust-remote-code"),
        ("adapter_path", "MergeAdapterWeights"),
    ],
)
def test_extra_option_that_the_builder_would_ignore(option: str, expected: str) -> None:
    assert expected in said({"precision": "int4", "extra_options": {option: 1}})


def test_option_given_twice() -> None:
    assert "given twice" in said({"precision": "int4", "int4_block_size": 16, "extra_options": {"block_size": 32}})


def test_search_option_that_would_keep_the_model_from_loading() -> None:
    assert "the nearest is max_length" in said({"precision": "int4", "search": {"max_lenght": 5}})


def test_parameters_without_effect_are_noted() -> None:
    params = ModelBuilderParams(precision="fp32", int4_block_size=16, use_cuda_bf16=True, enable_cuda_graph=True)
    _, notes = ModelBuilder.resolve(params, context())
    assert len(notes) == 3
    assert "int4_block_size: no effect" in notes[0]


def test_options_are_written_as_the_builder_reads_them() -> None:
    params = ModelBuilderParams(
        precision="int4",
        int4_is_symmetric=False,
        int4_op_types_to_quantize=["MatMul", "Gather"],
        int4_nodes_to_exclude=["/a", "/b"],
        use_8bits_moe=True,
        extra_options={"prune_lm_head": True},
    )
    assert set(builder_arguments(params)) == {
        "hf_token=false",
        "hf_remote=false",
        "is_symmetric=false",
        "op_types_to_quantize=MatMul/Gather",
        "nodes_to_exclude=/a,/b",
        "moe_quant_type=int8",
        "prune_lm_head=true",
    }
    assert "hf_remote=true" in builder_arguments(params, trust_remote_code=True)


def test_every_parameter_is_an_option_or_handled_here() -> None:
    handled = {"embedding_bits", "lm_head_bits", "precision", "search", "extra_options", *BudgetParams.model_fields}
    assert set(ModelBuilderParams.model_fields) == handled | set(OPTION_OF_PARAMETER)


def test_kinds_of_nodes_that_a_built_model_does_not_have_are_left_out_and_named() -> None:
    params = ModelBuilderParams(precision="int4", int4_op_types_to_quantize=["MatMul", "Gemm"])
    resolved, notes = ModelBuilder.resolve(params, context(PHI3))
    assert resolved.int4_op_types_to_quantize == ["MatMul"]
    assert any("Gemm" in note for note in notes)


def test_quantising_no_node_at_all_is_refused() -> None:
    params = ModelBuilderParams(precision="int4", int4_op_types_to_quantize=["Nothing"])
    assert any("nothing is quantised" in problem.what for problem in ModelBuilder.check(params, context(PHI3)))


def test_nothing_is_kept_of_how_the_tokenizer_was_loaded(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer_config.json"
    file.write_text('{"is_local": true, "local_files_only": true, "eos_token": "<|ende|>", "name": "ä"}')
    _forget_loading(file)
    assert json.loads(file.read_text(encoding="utf-8")) == {"eos_token": "<|ende|>", "name": "ä"}
