"""A plan says what a run will take, and refuses what does not fit, with numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from olivine.api import prepare
from olivine.config.schema import DataConfig
from olivine.config.sizes import memory_limit
from olivine.engine.engine import run_plan
from olivine.errors import ConfigError, UnavailableError
from olivine.passes.base import Accelerator, Format, ModelFacts, PlanContext
from olivine.passes.convert.builder_params import ModelBuilderParams
from olivine.passes.convert.model_builder import ModelBuilder
from olivine.passes.estimate import Estimate
from olivine.passes.finetune.lora import LoRA
from olivine.passes.finetune.merge import MergeAdapterWeights, MergeParams
from olivine.passes.quantize.quantize import Quantize, QuantizeParams
from olivine.planning.resources import remedies

GB = 10**9


def phi3_mini() -> PlanContext:
    """Return what a plan knows of microsoft/Phi-3-mini, without its files."""
    hidden, intermediate, vocabulary = 3072, 8192, 32064
    modules = {"model.embed_tokens": (vocabulary, hidden), "lm_head": (vocabulary, hidden)}
    for layer in range(32):
        prefix = f"model.layers.{layer}."
        modules |= {
            f"{prefix}self_attn.qkv_proj": (3 * hidden, hidden),
            f"{prefix}self_attn.o_proj": (hidden, hidden),
            f"{prefix}mlp.gate_up_proj": (2 * intermediate, hidden),
            f"{prefix}mlp.down_proj": (hidden, intermediate),
        }
    parameters = sum(rows * columns for rows, columns in modules.values()) + 65 * hidden
    config = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": 32}
    facts = ModelFacts(Format.HF, config, None, modules, parameters=parameters, weights=2 * parameters)
    return PlanContext(facts, Accelerator(), Accelerator(), False)


def test_streaming_a_large_model_takes_a_fraction_of_loading_it() -> None:
    streamed = ModelBuilder.estimate(ModelBuilderParams(precision="int4"), phi3_mini(), {})
    loaded = ModelBuilder.estimate(ModelBuilderParams(precision="int4", int4_algo_config="rtn"), phi3_mini(), {})
    assert 0.8 * GB < streamed.memory < 1.5 * GB
    assert 15 * GB < loaded.memory < 30 * GB
    assert 2.0 * GB < streamed.output < 2.6 * GB
    assert [text for text, _ in loaded.lighter] == ["int4_algo_config: search"]
    assert loaded.lighter[0][1].memory == streamed.memory


def test_what_streams_instead_is_named_if_the_target_has_it() -> None:
    def named(precision: str, provider: str) -> list[str]:
        context = replace(phi3_mini(), target=Accelerator("gpu", provider))
        found = ModelBuilder.estimate(ModelBuilderParams(precision=precision), context, {})
        assert all(each.needed < 1.5 * GB < found.needed for _, each in found.lighter)
        return [text for text, _ in found.lighter]

    assert named("fp16", "CUDAExecutionProvider") == ["precision: int8", "precision: int4"]
    assert named("fp16", "DmlExecutionProvider") == ["precision: int4"]
    assert named("fp16", "NvTensorRTRTXExecutionProvider") == []  # the builder alone makes models for it


def test_a_quantised_checkpoint_and_a_merged_one_have_their_sizes() -> None:
    context = phi3_mini()
    assert Quantize.estimate(QuantizeParams(), context, {}).output == pytest.approx(2.4 * GB, rel=0.1)
    adapter = replace(context, model=replace(context.model, format=Format.PEFT))
    assert MergeAdapterWeights.estimate(MergeParams(), adapter, {}).output == context.model.weights


def test_training_counts_weights_state_and_activations() -> None:
    context = phi3_mini()

    def memory(**arguments: Any) -> int:
        given = {"train_data_config": "d", "training_args": {"per_device_train_batch_size": 1, **arguments}}
        params, _ = LoRA.resolve(LoRA.params_type.model_validate(given), context)
        return LoRA.estimate(params, context, {}).memory

    assert memory() > 4 * context.model.parameters
    assert memory(gradient_checkpointing=True) < memory()
    assert memory(per_device_train_batch_size=4) > memory(per_device_train_batch_size=2)


def test_files_that_are_mapped_while_a_model_is_converted_need_no_room() -> None:
    params, context, data = training()
    found = LoRA.estimate(params, context, data)
    weights = context.model.weights
    assert found.phases["loading"] > 4 * context.model.parameters + weights
    assert found.mapped == {"loading": weights}
    assert found.needed == max(found.phases["training"], found.phases["loading"] - weights)


def test_what_is_trained_in_full_counts_too() -> None:
    context = phi3_mini()

    def estimate(**given: Any) -> Estimate:
        params, _ = LoRA.resolve(LoRA.params_type.model_validate({"train_data_config": "d", **given}), context)
        return LoRA.estimate(params, context, {})

    head = 32064 * 3072
    more, less = estimate(modules_to_save=["lm_head"]), estimate()
    assert more.output == less.output + 4 * head
    assert more.phases["training"] == less.phases["training"] + 16 * head
    assert estimate(layers_to_transform=[0]).output * 32 == less.output
    assert estimate(exclude_modules=["down_proj"]).output < less.output


@pytest.fixture
def workflow(tmp_path: Path, pico_model: Path) -> dict[str, Any]:
    return {
        "input_model": {"model_path": str(pico_model)},
        "passes": {"b": {"type": "ModelBuilder", "precision": "int4"}},
        "engine": {"cache_dir": str(tmp_path / "cache"), "output_dir": str(tmp_path / "out")},
    }


def test_too_little_memory_is_refused_with_numbers_and_force_goes_on(
    workflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("olivine.hardware.memory.free_memory_bytes", lambda: 300_000_000)
    with pytest.raises(UnavailableError, match=r"b needs about \d+ MB of memory while \w+, and .* 300 MB free"):
        prepare(workflow)
    plan, _ = prepare(workflow, force=True)
    assert any("this machine has 300 MB free" in note for note in plan.notes)


def test_too_little_disk_is_refused_with_numbers(workflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("olivine.store.disk.free_bytes", lambda _: 1000)
    with pytest.raises(UnavailableError, match="of disk, and 0 MB are free at"):
        prepare(workflow)


def test_a_budget_below_the_estimate_is_refused(workflow: dict[str, Any]) -> None:
    workflow["engine"]["max_memory"] = "100MB"
    with pytest.raises(UnavailableError, match=r"engine.max_memory allows 100 MB"):
        prepare(workflow)


@pytest.mark.parametrize(
    ("given", "bytes_"), [("12GB", 12 * GB), ("8GiB", 8 * 2**30), (1000, 1000), ("1.5 mb", 1_500_000), (None, None)]
)
def test_sizes(given: Any, bytes_: int | None) -> None:
    assert memory_limit(given) == bytes_


@pytest.mark.parametrize("given", ["much", "-1GB", "0", "12XB"])
def test_no_sizes(given: str) -> None:
    with pytest.raises(ConfigError, match="is no size"):
        memory_limit(given)


def test_the_plan_for_machines_has_the_figures(workflow: dict[str, Any]) -> None:
    from olivine.cli.plan import plan_as_json

    plan, _ = prepare(workflow)
    found = json.loads(json.dumps(plan_as_json(plan), default=str))["steps"][0]["estimate"]
    assert found["memory_bytes"] == max(found["memory_bytes_by_phase"].values())
    assert found["seconds"] is None


def test_remedies_name_the_parameter_and_what_it_takes_then() -> None:
    heavy = Estimate(
        {"merging": 19 * GB},
        lighter=(
            ("torch_dtype: bfloat16", Estimate({"merging": 9_600_000_000})),
            ("other: thing", Estimate({"merging": 20 * GB})),
            ("all: of it", Estimate({"merging": 2 * GB})),
        ),
    )
    assert remedies("merge", "pass", heavy, 15 * GB) == (
        "in passes.merge set torch_dtype: bfloat16 (9.6 GB), or all: of it (2.0 GB); or use a machine with 19.0 GB of "
        "memory free"
    )
    assert "the least it can do with is 2.0 GB, with all: of it" in remedies("merge", "pass", heavy, GB)


def training(**arguments: Any) -> tuple[Any, PlanContext, dict[str, DataConfig]]:
    context = replace(phi3_mini(), max_memory=None)
    data = {"train_data_config": DataConfig(name="d", max_seq_len=1024)}
    given = {"train_data_config": "d", "training_args": {"per_device_train_batch_size": 8, **arguments}}
    params, _ = LoRA.resolve(LoRA.params_type.model_validate(given), context)
    return params, context, data


def test_a_refused_training_is_told_what_takes_less() -> None:
    params, context, data = training()
    found = LoRA.estimate(params, context, data)
    said = [text for text, _ in found.lighter]
    assert said[0] == "training_args.gradient_checkpointing: true"
    assert "training_args.per_device_train_batch_size: 1 with gradient_accumulation_steps: 32" in said
    assert "data_configs.d.max_seq_len: 512" in said
    assert said[-1].startswith("type: QLoRA")
    amounts = [each.memory for _, each in found.lighter]
    assert max(amounts) < found.memory
    assert min(amounts) == amounts[-1]


def test_training_keeps_within_a_budget_with_the_same_effective_batch() -> None:
    params, context, data = training()
    whole = LoRA.estimate(params, context, data).memory
    for limit in (whole, int(whole * 0.6), int(whole * 0.3)):
        within = replace(context, max_memory=limit)
        kept, notes = LoRA.within(params, within, data)
        arguments = kept.training_args
        assert LoRA.estimate(kept, within, data).memory <= limit
        assert arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"] == 32
        assert bool(notes) == (limit < whole)
        assert LoRA.within(kept, within, data) == (kept, [])
    assert LoRA.within(params, replace(context, max_memory=GB), data) == (params, [])


def test_streaming_takes_fewer_threads_within_a_budget() -> None:
    many = replace(phi3_mini(), cores=64)
    whole = Quantize.estimate(QuantizeParams(), many, {}).memory
    narrow = Quantize.estimate(QuantizeParams(), replace(many, max_memory=1_200_000_000), {}).memory
    assert narrow <= 1_200_000_000 < whole


def test_hidden_states_go_to_disk_within_a_budget() -> None:
    params = QuantizeParams(method="gptq", samples=256, sequence_length=1024)
    whole = Quantize.estimate(params, phi3_mini(), {})
    within = Quantize.estimate(params, replace(phi3_mini(), max_memory=whole.memory - 500_000_000), {})
    assert within.memory <= whole.memory - 500_000_000
    assert within.temporary >= whole.temporary


def test_merging_holds_one_tensor_whatever_the_file(tmp_path: Path) -> None:
    modules = phi3_mini().model.modules

    def merging(*names: str, **params: Any) -> Estimate:
        adapted = {name: 8 for name in modules if name.endswith(names)} if names else None
        facts = replace(phi3_mini().model, format=Format.PEFT, adapter=50_000_000, adapted=adapted)
        return MergeAdapterWeights.estimate(MergeParams(**params), replace(phi3_mini(), model=facts), {})

    kept, wide = merging("o_proj"), merging("o_proj", torch_dtype="float32")
    assert kept.memory < wide.memory < 1.2 * GB
    assert wide.output == 2 * kept.output
    assert kept.memory + 9 * 3072 * 16384 < merging("o_proj", "gate_up_proj").memory < 1.2 * GB
    assert merging().memory > phi3_mini().model.weights  # peft has to merge it, in memory


def test_large_weights_are_left_for_the_run_to_read(workflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("olivine.planning.ground.READ_AT_ONCE", 1000)
    looked, _ = prepare(workflow, read_weights=False)
    assert looked.unread > 1000
    assert any("have not been read yet" in note for note in looked.notes)
    read, store = prepare(workflow)
    assert read.unread == 0
    assert read.steps[0].digest != looked.steps[0].digest
    with pytest.raises(ValueError, match="cannot be run"):
        run_plan(looked, store, lambda event: None)
    again, _ = prepare(workflow, read_weights=False)  # now they are known, if they have been as they are for a while
    assert again.steps[0].digest == (read if not again.unread else looked).steps[0].digest


def test_a_time_that_is_not_known_is_said_once_with_what_measures_it(
    workflow: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from olivine.cli.plan import show

    plan, _ = prepare(workflow)
    show(plan, as_json=False)
    said = capsys.readouterr().out
    assert said.count("not known yet") == 1
    assert f"`olivine doctor --cache-dir {plan.cache_dir}`" in said
