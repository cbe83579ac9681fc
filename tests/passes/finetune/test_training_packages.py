"""Training arguments that ask for packages of their own: the plan says so, not the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_training import plan_for

from olivine.errors import UnavailableError
from olivine.passes.finetune.dora import DoRA
from olivine.passes.finetune.lora import LoRA
from olivine.passes.finetune.qlora import QLoRA
from olivine.passes.finetune.training_arguments import known_fields
from olivine.passes.finetune.training_packages import OPTIMISERS, REPORTERS


def extra(model: Path, **arguments: Any) -> list[str]:
    params = LoRA.params_type.model_validate({"train_data_config": "rows", "training_args": arguments})
    resolved, _ = LoRA.resolve(params, plan_for(model))
    return [each.distribution for each in LoRA.needs(resolved) if each not in LoRA.requires]


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        ({"optim": "galore_adamw"}, ["galore-torch"]),
        ({"optim": "schedule_free_adamw"}, ["schedulefree"]),
        ({"report_to": ["wandb", "tensorboard"]}, ["wandb", "tensorboard|tensorboardX"]),
        ({"deepspeed": "zero3.json"}, ["deepspeed"]),
        ({"use_liger_kernel": True}, ["liger-kernel"]),
        ({"optim": "paged_adamw_32bit", "report_to": "none"}, []),  # on a CPU its plain twin is taken
        ({"optim": "sgd", "report_to": ["none"]}, []),
    ],
)
def test_an_argument_brings_its_package(arguments: dict[str, Any], needed: list[str], pico_model: Path) -> None:
    assert extra(pico_model, **arguments) == needed


def test_every_optimiser_and_reporter_of_the_library_is_known() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    plain = {"adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"}
    elsewhere = {"adamw_torch_xla", "adamw_torch_npu_fused"}
    starts = tuple(start for names, _ in OPTIMISERS for start in names)
    named = {each for each in known_fields()["optim"].choices if each.startswith(starts)}
    assert set(known_fields()["optim"].choices) - named == plain | elsewhere
    assert set(INTEGRATION_TO_CALLBACK) == set(REPORTERS)


def test_a_package_that_a_pass_has_anyway_is_named_once(pico_model: Path) -> None:
    params = QLoRA.params_type.model_validate({"train_data_config": "rows"})
    resolved, _ = QLoRA.resolve(params, plan_for(pico_model, device="gpu", has_bf16=True))
    assert resolved.training_args["optim"] == "paged_adamw_32bit"
    assert [each.distribution for each in QLoRA.needs(resolved)].count("bitsandbytes") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"report_to": "tensorbord"}, "did you mean tensorboard?"),
        ({"report_to": "all"}, "every service whose package happens to be installed"),
        ({"report_to": ["wandb", "all"]}, "name those that you want"),
        ({"deepspeed": True}, "give DeepSpeed's JSON file"),
    ],
)
def test_what_cannot_be_handed_on_is_a_problem(arguments: dict[str, Any], said: str, pico_model: Path) -> None:
    params = DoRA.params_type.model_validate({"train_data_config": "rows", "training_args": arguments})
    context = plan_for(pico_model)
    (problem,) = DoRA.check(DoRA.resolve(params, context)[0], context)
    assert said.lower() in str(problem).lower()


@pytest.mark.parametrize(
    ("given", "services"),
    [
        ("wandb", "wandb"),
        (["mlflow", "tensorboard", "wandb"], "mlflow and wandb"),
        ("tensorboard", None),
        ("none", None),
    ],
)
def test_the_plan_tells_where_training_figures_are_sent(given: Any, services: str | None, pico_model: Path) -> None:
    params = LoRA.params_type.model_validate({"train_data_config": "rows", "training_args": {"report_to": given}})
    told = [note for note in LoRA.resolve(params, plan_for(pico_model))[1] if "report_to" in note]
    assert [f"sent to {services}," in note for note in told] == ([True] if services else [])


def test_the_plan_refuses_with_what_to_install(pico_model: Path, tmp_path: Path) -> None:
    import olivine

    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "the cat sat on the mat"}\n' * 8)
    workflow = {
        "version": 1,
        "input_model": {"model_path": str(pico_model)},
        "data_configs": [{"name": "rows", "data_files": str(rows), "max_seq_len": 8}],
        "passes": {"tune": {"type": "LoRA", "train_data_config": "rows", "training_args": {"optim": "galore_adamw"}}},
        "engine": {"cache_dir": str(tmp_path / "cache"), "output_dir": str(tmp_path / "out")},
    }
    with pytest.raises(UnavailableError, match="pip install 'galore-torch'"):
        olivine.plan(workflow)
