"""Training: what is learnt, measured, kept, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_training import rows_config, train_small, write_rows

from olivine.config.schema import DataConfig
from olivine.errors import ConfigError, DataError, ModelError, StepError
from olivine.passes.finetune.next_token_loss import IGNORED, chunked_cross_entropy
from olivine.passes.finetune.training import Padding


def test_the_loss_falls(pico_model: Path, rows: DataConfig, tmp_path: Path) -> None:
    result = train_small("LoRA", pico_model, rows, tmp_path, training_args={"max_steps": 20})
    assert result.history[0]["loss"] > result.metrics["train_loss"] + 0.5
    assert result.metrics["train_loss"] == result.history[-1]["loss"]


def test_the_evaluation_loss_is_the_mean_over_tokens(pico_model: Path, rows: DataConfig, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from olivine.data.rows import read_rows
    from olivine.data.sequences import build_sequences
    from olivine.data.splitting import split_rows

    arguments = {"per_device_eval_batch_size": 3, "seed": 7}
    result = train_small("LoRA", pico_model, rows, tmp_path, eval_dataset_size=0.3, training_args=arguments)
    held_out = split_rows(read_rows(rows).rows, 0.3, 7)[1]
    sequences = build_sequences(held_out, rows, AutoTokenizer.from_pretrained(pico_model))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(pico_model), tmp_path / "output").eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for ids in sequences.input_ids:
            batch = torch.tensor([ids])
            total += float(model(batch, labels=batch).loss) * (len(ids) - 1)
            count += len(ids) - 1
    assert result.metrics["eval_loss"] == pytest.approx(total / count, rel=1e-5)
    assert result.metrics["eval_rows"] == len(held_out) == 12
    assert result.metrics["train_rows"] == 28


def test_evaluation_while_training_is_in_the_history(pico_model: Path, rows: DataConfig, tmp_path: Path) -> None:
    arguments = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2}
    result = train_small("LoRA", pico_model, rows, tmp_path, eval_dataset_size=5, training_args=arguments)
    assert [row["step"] for row in result.history if "eval_loss" in row] == [2.0, 4.0]


def test_the_best_weights_are_kept_if_asked_for(pico_model: Path, rows: DataConfig, tmp_path: Path) -> None:
    arguments = {
        "max_steps": 8,
        "learning_rate": 0.3,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "load_best_model_at_end": True,
    }
    result = train_small("LoRA", pico_model, rows, tmp_path, eval_dataset_size=10, training_args=arguments)
    losses = [row["eval_loss"] for row in result.history if "eval_loss" in row]
    assert losses[-2] > min(losses)  # the last step was not the best
    assert result.metrics["eval_loss"] == pytest.approx(min(losses), rel=1e-5)


def test_another_seed_gives_other_weights(pico_model: Path, rows: DataConfig, tmp_path: Path) -> None:
    for seed in (0, 1):
        train_small("LoRA", pico_model, rows, tmp_path / str(seed), training_args={"seed": seed})
    first, second = (tmp_path / str(seed) / "output" / "adapter_model.safetensors" for seed in (0, 1))
    assert first.read_bytes() != second.read_bytes()


def test_batching_and_accumulation_give_the_same_gradient(pico_model: Path, rows: DataConfig, tmp_path: Path) -> None:
    losses = []
    for batch, accumulation in ((1, 4), (4, 1)):
        arguments = {
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": accumulation,
            "max_steps": 6,
        }
        result = train_small("LoRA", pico_model, rows, tmp_path / str(batch), training_args=arguments, lora_dropout=0.0)
        losses.append([row["loss"] for row in result.history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_checkpointing_of_activations_changes_nothing(pico_model: Path, rows: DataConfig, tmp_path: Path) -> None:
    found = []
    for wanted in (False, True):
        arguments = {"gradient_checkpointing": wanted}
        result = train_small("LoRA", pico_model, rows, tmp_path / str(wanted), training_args=arguments)
        found.append([row["loss"] for row in result.history])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_the_adapter_names_its_base_without_a_path(pico_model: Path, rows: DataConfig, tmp_path: Path) -> None:
    train_small("LoRA", pico_model, rows, tmp_path, target_modules=["qkv_proj", "o_proj"])
    config = json.loads((tmp_path / "output" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == pico_model.name
    assert config["target_modules"] == ["o_proj", "qkv_proj"]
    names = {file.name for file in (tmp_path / "output").iterdir()}
    assert {"adapter_model.safetensors", "tokenizer.json"} <= names
    assert "README.md" not in names


def test_qlora_honours_its_targets_and_says_how_the_base_was_held(
    pico_model: Path, rows: DataConfig, tmp_path: Path
) -> None:
    from safetensors import safe_open

    result = train_small("QLoRA", pico_model, rows, tmp_path, target_modules=["o_proj"], double_quant=True)
    with safe_open(tmp_path / "output" / "adapter_model.safetensors", framework="pt") as file:
        assert {key.split(".")[-3] for key in file.keys()} == {"o_proj"}  # noqa: SIM118 (no mapping)
    assert result.attributes["base_in_training"] == {"bits": 4, "type": "nf4", "double_quant": True}


def test_loftq_starts_nearer_to_the_model_than_rounding_alone(
    pico_model: Path, rows: DataConfig, tmp_path: Path
) -> None:
    import torch

    from olivine.passes.finetune.loftq import fit, round_to_nf4

    torch.manual_seed(0)
    weight = torch.randn(96, 64)
    errors = []
    for rounds in (1, 5):
        rounded, a, b = fit(weight, 16, rounds)
        errors.append(float((weight - rounded - b @ a).norm()))
    alone = float((weight - round_to_nf4(weight)).norm())
    assert errors[1] < errors[0] < 0.85 * alone


def test_a_loss_that_is_no_number_is_an_error_with_the_way_out(
    pico_model: Path, rows: DataConfig, tmp_path: Path
) -> None:
    with pytest.raises(StepError, match=r"loss is (nan|inf) at step .*learning_rate"):
        train_small("LoRA", pico_model, rows, tmp_path, training_args={"learning_rate": 1e30, "max_steps": 6})


def test_arguments_that_contradict_each_other_are_an_error(pico_model: Path, rows: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="training_args: transformers refuses"):
        train_small("LoRA", pico_model, rows, tmp_path, training_args={"lr_scheduler_type": "reduce_lr_on_plateau"})


def test_sequences_longer_than_the_model_are_refused(pico_model: Path, tmp_path: Path) -> None:
    rows = rows_config(write_rows(tmp_path / "rows.jsonl", 100)).model_copy(update={"max_seq_len": 1000})
    with pytest.raises(DataError, match="positions for 512"):
        train_small("LoRA", pico_model, rows, tmp_path)


def test_a_checkpoint_of_pickles_is_refused(pico_model: Path, rows: DataConfig, tmp_path: Path) -> None:
    import shutil

    import torch

    model = tmp_path / "pickled"
    shutil.copytree(pico_model, model)
    (model / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, model / "pytorch_model.bin")
    from olivine.passes import registry
    from olivine.passes.conformance import run_pass

    lora = registry.find("LoRA")
    assert lora is not None
    params = lora.params_type.model_validate({"train_data_config": "rows", "training_args": {"seed": 0}})
    with pytest.raises(ModelError, match="pickle"):
        run_pass(lora, params, {"model": model}, tmp_path, data={"train_data_config": rows})


def test_a_data_set_shorter_than_one_block_is_trained_on(pico_model: Path, tmp_path: Path) -> None:
    rows = rows_config(write_rows(tmp_path / "rows.jsonl", 2)).model_copy(update={"max_seq_len": 400})
    result = train_small("LoRA", pico_model, rows, tmp_path)
    assert result.metrics["train_sequences"] == 1


def test_rows_on_both_sides_are_reported(pico_model: Path, rows: DataConfig, tmp_path: Path) -> None:
    from small_training import small_params

    from olivine.passes import registry
    from olivine.passes.conformance import run_pass

    lora = registry.find("LoRA")
    assert lora is not None
    params = small_params("LoRA", pico_model, eval_data_config="rows")
    notes: list[str] = []
    data = {"train_data_config": rows, "eval_data_config": rows}
    result = run_pass(lora, params, {"model": pico_model}, tmp_path, data=data, notes=notes)
    assert result.metrics["duplicates_across_split"] == 40
    assert any("40 of 40 evaluation rows" in note for note in notes)


@pytest.mark.parametrize("tokens", [1, 700, 2500])
def test_the_loss_over_chunks_has_the_value_and_gradient_of_the_plain_one(tokens: int) -> None:
    import torch

    torch.manual_seed(0)
    head, bias = torch.randn(50, 16), torch.randn(50)
    targets = torch.randint(0, 50, (tokens,))
    hidden = torch.randn(tokens, 16, dtype=torch.float32, requires_grad=True)
    ours = chunked_cross_entropy(hidden, head, bias, targets, 3.0) * 2
    ours.backward()
    gradient, hidden.grad = hidden.grad, None
    plain = torch.nn.functional.cross_entropy(hidden @ head.T + bias, targets, reduction="sum") / 3.0 * 2
    plain.backward()
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(gradient, hidden.grad)


def test_a_model_that_scales_its_logits_keeps_its_own_loss(pico_model: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from olivine.passes.finetune.training import agrees_with_chunked

    def wrapped(scale: float) -> Any:
        model = AutoModelForCausalLM.from_pretrained(pico_model)
        head = model.lm_head
        head.register_forward_hook(lambda _module, _inputs, logits: logits * scale)
        return get_peft_model(model, LoraConfig(r=2, target_modules=["o_proj"], task_type="CAUSAL_LM"))

    torch.manual_seed(0)
    assert agrees_with_chunked(wrapped(1.0), list(range(20)))
    assert not agrees_with_chunked(wrapped(5.0), list(range(20)))


def test_a_batch_of_equal_lengths_has_no_mask() -> None:
    example = {"input_ids": [1, 2, 3], "labels": [1, 2, 3], "length": 3}
    assert "attention_mask" not in Padding(0)([example, example])


def test_a_batch_of_different_lengths_is_padded_and_masked() -> None:
    batch = Padding(9)(
        [
            {"input_ids": [1, 2, 3], "labels": [1, 2, 3], "length": 3},
            {"input_ids": [4, 9], "labels": [4, IGNORED], "length": 1},
        ]
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["labels"].tolist() == [[1, 2, 3], [4, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
