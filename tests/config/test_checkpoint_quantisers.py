"""Olive's quantisers of checkpoints are run as Quantize: what each of their parameters becomes."""

from __future__ import annotations

from typing import Any

import pytest

from olivine.config import load
from olivine.config.availability import unavailable
from olivine.config.dialects.checkpoint_quantisers import QUANTISERS
from olivine.config.loading import Loaded
from olivine.errors import ConfigError
from olivine.passes import known
from olivine.passes.quantize.quantize import QuantizeParams

DATA = {
    "name": "texts",
    "type": "HuggingfaceContainer",
    "load_dataset_config": {"data_name": "json", "data_files": "texts.jsonl"},
    "pre_process_data_config": {"max_seq_len": 256, "max_samples": 16, "text_cols": "text"},
}
BUILD = {"type": "ModelBuilder", "precision": "int4"}


def loaded(passes: dict[str, Any], **sections: Any) -> Loaded:
    model = {"type": "HfModel", "model_path": "org/model"}
    return load({"input_model": model, "data_configs": [DATA], "passes": passes, **sections})


def params(kind: str, **given: Any) -> dict[str, Any]:
    """What a pass becomes."""
    found = loaded({"q": {"type": kind, **given}, "b": BUILD})
    assert unavailable(found.workflow) == []
    config = found.workflow.single_pass("q")
    assert config.type == "Quantize"
    return dict(config.params)


def notes(found: Loaded) -> str:
    return "\n".join(str(note) for note in found.notes)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Rtn", {"method": "rtn_half", "form": "olive", "bits": 4, "group_size": 128, "symmetric": False}),
        ("KQuant", {"method": "k_quant", "form": "olive", "bits": 4, "group_size": 32, "symmetric": False}),
        ("Gptq", {"method": "gptq", "form": "olive", "bits": 4, "group_size": 128, "symmetric": False,
                  "damping": 0.01, "act_order": False}),
        ("GptqModel", {"method": "gptq", "form": "gptq", "bits": 4, "group_size": -1, "symmetric": True,
                       "damping": 0.05, "act_order": True}),
        ("GptqQuantizer", {"method": "gptq", "form": "gptq", "bits": 4, "group_size": 128, "symmetric": False,
                           "damping": 0.01, "act_order": False}),
    ],
)  # fmt: skip
def test_the_defaults_of_each_are_written_out(kind: str, expected: dict[str, Any]) -> None:
    assert params(kind) == expected
    QuantizeParams(**expected)


def test_every_translated_pass_is_called_so() -> None:
    assert set(QUANTISERS) == known.TRANSLATED


def test_data_and_how_much_of_them_come_from_the_data_config() -> None:
    found = params("Gptq", data_config="texts", damp_percent=0.1, desc_act=True, group_size=-1)
    assert found["calibration_data_config"] == "texts"
    assert (found["samples"], found["sequence_length"]) == (16, 256)
    assert (found["damping"], found["act_order"], found["group_size"]) == (0.1, True, -1)


def test_a_data_config_in_place_is_found_too() -> None:
    place = {"name": "own", **{key: value for key, value in DATA.items() if key != "name"}}
    found = params("GptqQuantizer", data_config=place)
    assert (found["calibration_data_config"], found["samples"]) == ("own", 16)


def test_whole_rows_are_rounded_largest_inputs_first_unless_told() -> None:
    assert params("Gptq", group_size=-1)["act_order"] is True
    assert params("Gptq", group_size=-1, desc_act=False)["act_order"] is False


@pytest.mark.parametrize("asked", [True, "true", 1])
def test_the_output_layer_is_rounded_if_it_is_asked_for(asked: Any) -> None:
    assert params("Rtn", bits=8, lm_head=asked)["lm_head_bits"] == 8
    assert "lm_head_bits" not in params("Rtn", bits=8, lm_head=False)


def test_numbers_in_texts_are_numbers() -> None:
    found = params("Rtn", bits="8", group_size="-1")
    assert (found["bits"], found["group_size"]) == (8, -1)


def test_overrides_are_patterns_and_one_of_the_output_layer_counts_if_it_is_rounded() -> None:
    overrides = {"model.layers.1.mlp.down_proj": {"bits": 8}, "lm_head": {"bits": 8}, "model.embed_tokens": {"bits": 8}}
    found = loaded({"q": {"type": "Rtn", "overrides": overrides}})
    assert found.workflow.single_pass("q").params["overrides"] == [
        {"pattern": "model.layers.1.mlp.down_proj", "bits": 8}
    ]
    assert "overrides.lm_head: has no effect" in notes(found)
    assert "overrides.model.embed_tokens: has no effect" in notes(found)
    assert {"pattern": "lm_head", "bits": 8} in params("Rtn", overrides=overrides, lm_head=True)["overrides"]


def test_query_key_and_value_have_the_most_accurate_of_the_three() -> None:
    overrides = {"model.layers.0.self_attn.v_proj": {"bits": 8}, "model.layers.0.self_attn.k_proj": {"group_size": 32}}
    found = {each["pattern"]: each for each in params("Gptq", overrides=overrides)["overrides"]}
    assert set(found) == {f"model.layers.0.self_attn.{letter}_proj" for letter in "qkv"}
    for each in found.values():
        assert (each["bits"], each["group_size"], each["symmetric"]) == (8, 128, False)


def test_patterns_of_gptqmodel_are_patterns_here() -> None:
    dynamic = {
        "+:.*lm_head.*": {"bits": 8, "sym": True, "group_size": 32, "desc_act": False},
        r"+:^model\.layers\.0\..*": {"bits": 8},
        "-:.*down_proj$": {},
    }
    found = params("GptqModel", dynamic=dynamic, lm_head=True, static_groups=True, device="cuda")
    assert found["overrides"] == [
        {"pattern": "*lm_head*", "bits": 8, "symmetric": True, "group_size": 32},
        {"pattern": "model.layers.0.*", "bits": 8},
    ]
    assert found["modules_to_exclude"] == ["*down_proj"]


def test_what_nothing_depends_on_is_named() -> None:
    found = loaded({"q": {"type": "GptqQuantizer", "nsamples": 8, "seed": 3, "true_sequential": False, "precision": 4}})
    assert found.workflow.single_pass("q").params["samples"] == 8
    for key in ("seed", "true_sequential", "precision"):
        assert f"passes.q.{key}: has no effect" in notes(found)


def test_a_misspelt_parameter_is_a_mistake() -> None:
    from olivine.errors import ConfigError

    with pytest.raises(ConfigError, match="group_sise"):
        loaded({"q": {"type": "Rtn", "group_sise": 32}})


@pytest.mark.parametrize(
    ("kind", "given", "key"),
    [
        ("GptqModel", {"rotation": "hadamard"}, "rotation"),
        ("GptqModel", {"dynamic": {r"+:.*layers\.[0-9](?!\d).*": {"bits": 8}}}, "dynamic"),
        ("GptqQuantizer", {"dataloader_func": "calibration_data"}, "dataloader_func"),
        ("Rtn", {"group_size": 0}, "group_size"),
        ("Rtn", {"lm_head": [True, False]}, "lm_head"),
    ],
)
def test_what_quantize_does_not_do_leaves_the_pass_as_it_is(kind: str, given: dict[str, Any], key: str) -> None:
    found = loaded({"q": {"type": kind, **given}, "b": BUILD})
    assert found.workflow.single_pass("q").type == kind
    assert found.workflow.single_pass("q").params == given
    assert [each.path for each in unavailable(found.workflow) if each.kind == "pass"] == ["passes.q"]
    assert notes(found).count(f"passes.q.{key}: {kind} is kept as it is") == 1


def test_choices_are_searched_and_alternatives_are_each_translated() -> None:
    passes = {"q": [{"type": "Rtn", "bits": [4, 8]}, {"type": "GptqModel", "sym": [True, False]}]}
    found = loaded(passes, search_strategy={"execution_order": "joint", "sampler": "sequential"})
    first, second = found.workflow.passes["q"]  # type: ignore[misc]
    assert (first.type, first.params["bits"]) == ("Quantize", [4, 8])
    assert (second.type, second.params["symmetric"]) == ("Quantize", [True, False])


RECIPE = {
    "s": {"type": "SelectiveMixedPrecision", "algorithm": "k_quant_last"},
    "g": {"type": "gptq", "group_size": 128},
    "r": {"type": "rtn", "bits": 8, "group_size": 32, "lm_head": True, "embeds": True,
          "overrides": {"lm_head": {"bits": 8}, "model.embed_tokens": {"bits": 8}}},
    "b": BUILD,
}  # fmt: skip


@pytest.mark.parametrize("without", [[], ["s"]])
def test_a_pass_that_rounds_what_another_left_is_one_with_it(without: list[str]) -> None:
    found = loaded({name: value for name, value in RECIPE.items() if name not in without})
    assert list(found.workflow.passes) == ["g", "b"]
    made = found.workflow.single_pass("g").params
    assert (made["method"], made["bits"], made["group_size"], made["lm_head_bits"]) == ("gptq", 4, 128, 8)
    assert made["overrides"] == [{"pattern": "lm_head", "group_size": 32, "symmetric": False}]
    assert "passes.r: the pass before rounds lm_head to 8 bits too" in notes(found)
    assert "passes.r.embeds: has no effect" in notes(found)
    assert unavailable(found.workflow) == []


def test_a_pass_that_finds_nothing_left_has_no_effect() -> None:
    found = loaded({"g": {"type": "Gptq", "lm_head": True}, "r": {"type": "Rtn", "lm_head": True, "bits": 8}})
    assert list(found.workflow.passes) == ["g"]
    assert found.workflow.single_pass("g").params["lm_head_bits"] == 4
    assert "passes.r: has no effect" in notes(found)


def test_mixed_precision_by_sensitivity_is_still_not_available() -> None:
    mixed = {"type": "SelectiveMixedPrecision", "algorithm": "kld_gradient", "ratio": 0.65}
    found = loaded(RECIPE | {"s": mixed})
    assert list(found.workflow.passes) == ["s", "g", "b"]
    assert [each.path for each in unavailable(found.workflow)] == ["passes.s"]


@pytest.mark.parametrize("listed", [True, 7, "texts", {"texts": 1}])
def test_data_configs_of_another_kind_are_the_files_error(listed: Any) -> None:
    with pytest.raises(ConfigError, match="data_configs"):
        loaded({"q": {"type": "Gptq", "data_config": "texts"}, "b": BUILD}, data_configs=listed)
