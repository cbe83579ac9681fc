"""What a plan resolves, notes and refuses about fine-tuning, before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_training import plan_for

from olivine.errors import Problem
from olivine.passes import registry
from olivine.passes.base import Format, ModelFacts, Params
from olivine.passes.finetune import training_arguments
from olivine.passes.finetune.target_modules import default_targets


def resolve(
    model: Path, name: str = "LoRA", *, device: str = "cpu", has_bf16: bool = False, **given: Any
) -> tuple[Any, list[str], list[Problem]]:
    """Return resolved parameters, notes and problems."""
    pass_type = registry.find(name)
    assert pass_type is not None
    context = plan_for(model, device=device, has_bf16=has_bf16)
    params = pass_type.params_type.model_validate({"train_data_config": "rows"} | given)
    found, notes = pass_type.resolve(params, context)
    assert isinstance(found, Params)
    return found, notes, pass_type.check(found, context)


def one(problems: list[Problem]) -> str:
    assert len(problems) == 1
    assert problems[0].where is not None
    return str(problems[0])


def test_the_fields_read_from_source_are_those_of_the_library() -> None:
    from transformers import TrainingArguments

    assert set(training_arguments.known_fields()) == set(TrainingArguments.__dataclass_fields__)


def test_the_choices_read_from_source_are_those_of_the_library() -> None:
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    fields = training_arguments.known_fields()
    assert set(fields["lr_scheduler_type"].choices) == {each.value for each in SchedulerType}
    assert set(fields["optim"].choices) == {each.value for each in OptimizerNames}


def test_every_default_and_fallback_is_one_the_library_takes() -> None:
    assert training_arguments.problems(training_arguments.with_defaults({}, on_gpu=True)) == []
    optimisers = training_arguments.known_fields()["optim"].choices
    assert set(training_arguments.ON_CPU.values()) <= set(optimisers)


def test_checking_training_arguments_imports_nothing_heavy() -> None:
    code = (
        "import sys; from olivine.passes.finetune import training_arguments as t; assert t.problems({'max_stepz': 1}); "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_auto_dtype_is_float32_without_bf16_units(pico_model: Path) -> None:
    params, notes, _ = resolve(pico_model)
    assert params.torch_dtype == "float32"
    assert any("no bfloat16 units" in note for note in notes)


def test_auto_dtype_is_bfloat16_with_them(pico_model: Path) -> None:
    assert resolve(pico_model, has_bf16=True)[0].torch_dtype == "bfloat16"


def test_an_explicit_bfloat16_is_obeyed_and_its_cost_told(pico_model: Path) -> None:
    params, notes, problems = resolve(pico_model, torch_dtype="bfloat16")
    assert params.torch_dtype == "bfloat16"
    assert any("200 times slower" in note for note in notes)
    assert problems == []


def test_float16_on_a_cpu_is_refused(pico_model: Path) -> None:
    assert "float16 cannot be trained on a CPU" in one(resolve(pico_model, torch_dtype="float16")[2])


@pytest.mark.parametrize("optimiser", ["paged_adamw_32bit", "adamw_bnb_8bit", "paged_lion_8bit"])
def test_an_optimiser_that_needs_a_gpu_falls_back_on_a_cpu(optimiser: str, pico_model: Path) -> None:
    params, notes, problems = resolve(pico_model, training_args={"optim": optimiser})
    assert params.training_args["optim"] == "adamw_torch"
    assert any(optimiser in note and "adamw_torch" in note for note in notes)
    assert problems == []


def test_on_a_gpu_the_optimiser_stays(pico_model: Path) -> None:
    params, _, _ = resolve(pico_model, device="gpu", has_bf16=True, training_args={"optim": "paged_adamw_32bit"})
    assert params.training_args["optim"] == "paged_adamw_32bit"


def test_qlora_on_a_gpu_takes_the_paged_optimiser(pico_model: Path) -> None:
    params, _, _ = resolve(pico_model, "QLoRA", device="gpu", has_bf16=True)
    assert params.training_args["optim"] == "paged_adamw_32bit"
    assert params.compute_dtype == "bfloat16"


@pytest.mark.parametrize(("device", "expected"), [("cpu", False), ("gpu", True)])
def test_activations_are_recomputed_on_a_gpu_only(device: str, expected: bool, pico_model: Path) -> None:
    assert resolve(pico_model, device=device)[0].training_args["gradient_checkpointing"] is expected


def test_all_projections_are_adapted_by_default(pico_model: Path) -> None:
    params, _, _ = resolve(pico_model)
    assert params.target_modules == ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]


def test_experts_gates_heads_and_embeddings_are_left_alone() -> None:
    modules = dict.fromkeys(
        [
            "model.embed_tokens",
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.mlp.gate",
            "model.layers.0.mlp.shared_expert_gate",
            "model.layers.0.mlp.experts.3.gate_proj",
            "lm_head",
        ],
        (8, 8),
    )
    assert default_targets(modules) == ["gate_proj", "q_proj"]


def test_a_target_that_matches_nothing_is_named_with_the_nearest(pico_model: Path) -> None:
    text = one(resolve(pico_model, target_modules=["qkv_prj", "o_proj"])[2])
    assert "'qkv_prj' in target_modules matches no module" in text
    assert "Did you mean qkv_proj?" in text


def test_a_regular_expression_may_name_targets(pico_model: Path) -> None:
    assert resolve(pico_model, target_modules=r"model\.layers\.1\..*_proj")[2] == []
    assert "matches no module" in one(resolve(pico_model, target_modules=r"decoder\..*")[2])


def test_targets_of_a_model_that_is_not_here_yet_are_not_judged() -> None:
    pass_type = registry.find("LoRA")
    assert pass_type is not None
    params = pass_type.params_type.model_validate({"train_data_config": "rows", "target_modules": ["anything"]})
    context = replace(plan_for_nothing(), model=ModelFacts(Format.HF))
    assert pass_type.check(pass_type.resolve(params, context)[0], context) == []


def plan_for_nothing() -> Any:
    from olivine.passes.base import Accelerator, PlanContext

    return PlanContext(ModelFacts(Format.HF), Accelerator(), Accelerator(), False)


def test_a_layer_that_is_not_there_is_refused(pico_model: Path) -> None:
    assert "numbered 0 to 1" in one(resolve(pico_model, layers_to_transform=[1, 2])[2])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"evaluation_strategy": "steps"}, {"eval_strategy": "steps"}),
        ({"group_by_length": True}, {"train_sampling_strategy": "group_by_length"}),
        ({"group_by_length": False}, {}),
        ({"warmup_ratio": 0.1}, {"warmup_steps": 0.1}),
        ({"warmup_ratio": 0.1, "warmup_steps": 5}, {"warmup_steps": 5}),
        ({"eval_steps": None}, {}),
        ({"adafactor": True}, {"optim": "adafactor"}),
        ({"evaluation_strategy": False}, {"eval_strategy": "no"}),  # what YAML reads `no` as
    ],
)
def test_old_names_are_understood(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert training_arguments.translate(given) == (expected, [])


@pytest.mark.parametrize("name", ["overwrite_output_dir", "output_dir", "logging_dir", "no_cuda"])
def test_what_is_left_out_is_told(name: str) -> None:
    found, notes = training_arguments.translate({name: "x"})
    assert found == {}
    assert name in notes[0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"learning_rat": 1e-4}, "did you mean learning_rate?"),
        ({"evaluation_stratgy": "no"}, "did you mean evaluation_strategy?"),
        ({"max_steps": 0}, "nothing would be trained"),
        ({"num_train_epochs": 0}, "nothing would be trained"),
        ({"learning_rate": "1e-4"}, "write it with a dot"),
        ({"max_steps": "10"}, "max_steps is '10', and must be int"),
        ({"lr_scheduler_type": "cosin"}, "did you mean cosine"),
        ({"train_sampling_strategy": "by_length"}, "did you mean group_by_length?"),
        ({"gradient_accumulation_steps": 0}, "must be 1 or more"),
        ({"push_to_hub": True}, "uploads nothing"),
        ({"fp16": True}, "needs a GPU"),
        ({"load_best_model_at_end": True}, "needs evaluation while training"),
    ],
)
def test_a_wrong_training_argument_is_a_problem(arguments: dict[str, Any], text: str, pico_model: Path) -> None:
    found = one(resolve(pico_model, training_args=arguments)[2])
    assert text.lower() in found.lower()


def test_a_negative_number_of_steps_means_epochs(pico_model: Path) -> None:
    params, _, problems = resolve(pico_model, training_args={"max_steps": -1})
    assert problems == []
    assert params.training_args["num_train_epochs"] == 3.0


def test_evaluation_without_data_is_switched_off_and_told(pico_model: Path) -> None:
    params, notes, _ = resolve(pico_model, training_args={"evaluation_strategy": "steps", "eval_steps": 5})
    assert params.training_args["eval_strategy"] == "no"
    assert any("no evaluation data" in note for note in notes)


def test_two_sources_of_evaluation_data_are_refused(pico_model: Path) -> None:
    assert "keep one" in one(resolve(pico_model, eval_data_config="rows", eval_dataset_size=0.1)[2]).lower()


def test_all_problems_are_told_at_once(pico_model: Path) -> None:
    problems = resolve(pico_model, target_modules=["x"], training_args={"max_stepz": 3}, torch_dtype="float16")[2]
    assert [problem.where.path for problem in problems if problem.where] == [
        "training_args.max_stepz",
        "target_modules",
        "torch_dtype",
    ]
