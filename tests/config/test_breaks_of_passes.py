"""What each release of Olive changed about passes, metrics, searches and the engine, one break at a time."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from olivine.config import load
from olivine.config.dialects.document import FILLED, Document, unwrap, wrap


def broken(raw: dict[str, Any], *modules: str, dialect: str = "0.6") -> Document:
    """A document after some breaks."""
    document = Document(wrap(raw), dialect)
    for module in modules:
        import_module(f"olivine.config.dialects.{module}").translate(document)
    return document


def after(raw: dict[str, Any], *modules: str, dialect: str = "0.6") -> Any:
    """The plain values of a document after some breaks."""
    return unwrap(broken(raw, *modules, dialect=dialect).root)


def notes(document: Document) -> str:
    return "\n".join(str(note) for note in document.notes)


# Passes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("GenAIModelExporter", "ModelBuilder"),
        ("OrtPerfTuning", "OrtSessionParamsTuning"),
        ("ONNXModelOptimizer", "OnnxPeepholeOptimizer"),
        ("OnnxIOFloat16ToFloat32", "OnnxIODataTypeConverter"),
        ("OnnxMatMul4Quantizer", "OnnxBlockWiseRtnQuantization"),
    ],
)
def test_a_renamed_pass_has_its_last_name_and_it_is_said(old: str, new: str) -> None:
    document = broken({"passes": {"p": {"type": old}}}, "renamed_passes")
    assert document.root["passes"]["p"]["type"] == new
    assert "passes.p.type" in notes(document)


def test_a_name_in_another_case_is_no_news() -> None:
    document = broken({"passes": {"p": {"type": "onnxconversion"}}}, "renamed_passes")
    assert document.root["passes"]["p"]["type"] == "OnnxConversion"
    assert document.notes == []


def test_the_4_bit_quantiser_is_split_by_its_algorithm() -> None:
    raw = {"passes": {"p": {"type": "OnnxMatMul4Quantizer", "algorithm": "HQQ", "block_size": 32}}}
    assert after(raw, "renamed_passes")["passes"]["p"] == {"type": "OnnxHqqQuantization", "block_size": 32, "bits": 4}


def test_rank_and_scale_of_every_adapter_are_renamed_in_alternatives_too() -> None:
    raw = {"passes": {"p": [{"type": "qlora", "lora_r": 8}, {"type": "LoRA", "lora_alpha": 2}]}}
    assert after(raw, "adapter_parameters")["passes"]["p"] == [{"type": "qlora", "r": 8}, {"type": "LoRA", "alpha": 2}]


def test_training_defaults_of_0_6_are_written_out() -> None:
    document = broken({"passes": {"p": {"type": "LoRA", "train_data_config": "d"}}}, "adapter_defaults")
    lora = document.root["passes"]["p"]
    assert lora["lora_dropout"] == 0.0
    assert lora["training_args"]["max_steps"] == 10000
    assert lora["training_args"]["gradient_accumulation_steps"] == 16
    assert lora["training_args"].origins["max_steps"] is FILLED


def test_training_defaults_since_0_7_are_those_of_transformers_and_olive() -> None:
    raw = {"passes": {"p": {"type": "LoRA", "eval_data_config": "e"}}}
    lora = after(raw, "adapter_defaults", dialect="0.7")["passes"]["p"]
    assert "lora_dropout" not in lora
    assert "max_steps" not in lora["training_args"]
    assert lora["training_args"]["per_device_train_batch_size"] == 8
    assert lora["training_args"]["optim"] == "paged_adamw_32bit"
    assert lora["training_args"]["eval_strategy"] == "steps"


@pytest.mark.parametrize(("kind", "optimiser"), [("LoRA", None), ("QLoRA", "paged_adamw_32bit")])
def test_since_0_9_only_4_bit_training_has_the_paged_optimiser(kind: str, optimiser: str | None) -> None:
    lora = after({"passes": {"p": {"type": kind}}}, "adapter_defaults", dialect="0.9")["passes"]["p"]
    assert lora["training_args"].get("optim") == optimiser


def test_extra_args_stand_beside_the_others_and_what_is_given_is_not_filled() -> None:
    raw = {"passes": {"p": {"type": "LoRA", "training_args": {"max_steps": 5, "extra_args": {"max_grad_norm": 0.3}}}}}
    arguments = after(raw, "adapter_defaults")["passes"]["p"]["training_args"]
    assert (arguments["max_steps"], arguments["max_grad_norm"]) == (5, 0.3)
    assert "extra_args" not in arguments


def test_epochs_that_were_overruled_stay_overruled_and_it_is_said() -> None:
    raw = {"passes": {"p": {"type": "LoRA", "training_args": {"num_train_epochs": 2}}}}
    document = broken(raw, "adapter_defaults")
    assert document.root["passes"]["p"]["training_args"]["max_steps"] == 10000
    assert "10000 steps" in notes(document)


def test_a_misspelt_training_argument_is_a_fault_and_a_strange_one_has_no_effect() -> None:
    pytest.importorskip("transformers")
    raw = {"passes": {"p": {"type": "LoRA", "training_args": {"learning_rat": 1e-4, "zzz": 1}}}}
    document = broken(raw, "adapter_defaults")
    assert [fault.remedy for fault in document.faults] == ["did you mean learning_rate?"]
    assert "training_args.zzz: has no effect" in notes(document)


def test_parameters_that_a_later_release_does_not_read_have_no_effect() -> None:
    raw = {"passes": {"p": {"type": "LoRA", "lora_r": 8, "eval_dataset_size": 0.3}}}
    document = broken(raw, "adapter_defaults", dialect="0.9")
    assert not {"lora_r", "eval_dataset_size", "r"} & set(document.root["passes"]["p"])
    assert "passes.p.lora_r" in notes(document)
    assert "passes.p.eval_dataset_size" in notes(document)


def test_a_parameter_of_another_pass_has_no_effect_and_a_misspelt_one_stays_to_be_refused() -> None:
    raw = {"passes": {"p": {"type": "ModelBuilder", "save_as_external_data": True, "precison": "int4"}}}
    document = broken(raw, "pass_keys")
    assert document.root["passes"]["p"] == {"type": "ModelBuilder", "precison": "int4"}
    assert "save_as_external_data" in notes(document)


def test_an_unknown_parameter_of_a_pass_that_is_not_run_is_kept_and_named() -> None:
    raw = {"passes": {"p": {"type": "OnnxConversion", "target_opsett": 17}}}
    document = broken(raw, "pass_keys")
    assert document.root["passes"]["p"]["target_opsett"] == 17
    assert "target_opset meant" in notes(document)


def test_a_single_alternative_is_a_pass() -> None:
    raw = {"passes": {"p": [{"type": "OnnxConversion", "target_opset": 17}]}}
    assert after(raw, "pass_keys")["passes"]["p"] == {"type": "OnnxConversion", "target_opset": 17}


# Flows and searches ---------------------------------------------------------------------------------------------------

PASSES = {"a": {"type": "A"}, "b": {"type": "B"}, "c": {"type": "C"}}


def test_a_single_flow_is_the_order_of_the_passes_and_what_it_leaves_out_is_named() -> None:
    document = broken({"passes": PASSES, "pass_flows": [["c", "a"]]}, "pass_flows")
    assert list(document.root["passes"]) == ["c", "a"]
    assert "pass_flows" not in document.root
    assert "passes.b: has no effect" in notes(document)


def test_several_flows_are_kept() -> None:
    raw = {"passes": PASSES, "pass_flows": [["a", "b"], ["a", "c"]]}
    assert after(raw, "pass_flows") == raw


def test_a_flow_with_an_unknown_pass_is_a_fault() -> None:
    document = broken({"passes": {"conversion": {"type": "A"}}, "pass_flows": [["convertion"]]}, "pass_flows")
    assert [fault.remedy for fault in document.faults] == ["did you mean conversion?"]


def test_the_search_algorithm_is_the_sampler() -> None:
    raw = {
        "engine": {
            "search_strategy": {
                "execution_order": "joint",
                "search_algorithm": "tpe",
                "search_algorithm_config": {"num_samples": 3, "seed": 0},
            }
        }
    }
    expected = {"execution_order": "joint", "sampler": "tpe", "max_samples": 3, "seed": 0, "include_pass_params": True}
    assert after(raw, "search_algorithm", "search_strategy")["engine"]["search_strategy"] == expected


def test_a_sampler_of_old_releases_tried_one_point_unless_told() -> None:
    raw = {"engine": {"search_strategy": {"execution_order": "joint", "search_algorithm": "random"}}}
    assert after(raw, "search_algorithm")["engine"]["search_strategy"]["max_samples"] == 1


def test_exhaustive_is_sequential() -> None:
    raw = {"engine": {"search_strategy": {"execution_order": "joint", "search_algorithm": "exhaustive"}}}
    expected = {"execution_order": "joint", "sampler": "sequential", "include_pass_params": True}
    assert after(raw, "search_algorithm", "search_strategy")["engine"]["search_strategy"] == expected


def test_a_search_that_is_true_is_joint_and_sequential() -> None:
    document = broken({"engine": {"search_strategy": True}}, "search_strategy")
    expected = {"execution_order": "joint", "sampler": "sequential", "include_pass_params": True}
    assert document.root["engine"]["search_strategy"] == expected
    assert "engine.search_strategy" in notes(document)


def test_choices_of_a_search_parameter_are_a_list() -> None:
    parameter = {"olive_parameter_type": "SearchParameter", "type": "Categorical", "support": [1, 2]}
    raw = {"engine": {"search_strategy": {"sampler": "tpe"}}, "passes": {"p": {"type": "X", "bits": parameter}}}
    assert after(raw, "search_strategy")["passes"]["p"]["bits"] == [1, 2]


def test_default_value_is_left_to_the_default_where_nothing_is_searched() -> None:
    raw = {"passes": {"p": {"type": "X", "bits": "DEFAULT_VALUE", "more": "SEARCHABLE_VALUES"}}}
    assert after(raw, "search_strategy")["passes"]["p"] == {"type": "X", "more": "SEARCHABLE_VALUES"}


@pytest.mark.parametrize(("dialect", "kept"), [("0.6", True), ("0.8", False)])
def test_disable_search_counts_in_a_search_up_to_0_7(dialect: str, kept: bool) -> None:
    raw = {
        "engine": {"search_strategy": {"sampler": "tpe"}},
        "passes": {"p": {"type": "X", "disable_search": True}},
    }
    document = broken(raw, "search_strategy", dialect=dialect)
    assert ("disable_search" in document.root["passes"]["p"]) is kept
    assert bool(document.notes) is not kept


# Evaluators and metrics -----------------------------------------------------------------------------------------------


def metric(**keys: Any) -> dict[str, Any]:
    return {"evaluators": {"e": {"metrics": [keys]}}}


def measured(document: Document) -> Any:
    return unwrap(document.root["evaluators"]["e"]["metrics"][0])


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"type": "accuracy", "sub_types": [{"name": "f1_score"}]}, "torch_metrics"),
        ({"type": "accuracy", "backend": "huggingface_metrics", "sub_types": [{"name": "f1"}]}, "huggingface_metrics"),
        ({"type": "accuracy", "data_config": "d", "sub_types": [{"name": "perplexity"}]}, "perplexity"),
        ({"type": "latency", "sub_types": [{"name": "avg"}]}, "latency"),
        ({"type": "size_on_disk", "sub_types": [{"name": "bytes"}]}, "size"),
        ({"type": "custom", "sub_types": [{"name": "mine"}], "user_config": {"metric_func": "f"}}, "custom"),
    ],
)
def test_a_metric_is_called_by_what_computes_it(given: dict[str, Any], kind: str) -> None:
    assert measured(broken(metric(**given), "metrics"))["type"] == kind


def test_goals_and_priorities_are_kept_and_no_priority_is_none() -> None:
    goal = {"type": "percent-max-degradation", "value": 2}
    values = [{"name": "accuracy_score", "priority": 1, "goal": goal}, {"name": "auc", "priority": -1}]
    document = broken(metric(type="accuracy", sub_types=values), "metrics")
    assert measured(document)["sub_types"] == [
        {"name": "accuracy_score", "priority": 1, "goal": goal},
        {"name": "auroc"},
    ]


def test_settings_beside_user_config_belong_to_it() -> None:
    document = broken(metric(type="latency", inference_settings={"onnx": {}}, sub_types=[]), "metrics", dialect="0.8")
    assert measured(document) == {"type": "latency", "user_config": {"inference_settings": {"onnx": {}}}}


def test_an_unknown_key_of_user_config_is_a_fault() -> None:
    document = broken(metric(type="latency", user_config={"dataloader_fun": "f"}), "metrics")
    assert [fault.remedy for fault in document.faults] == ["did you mean dataloader_func?"]


def test_a_misspelt_value_is_a_fault() -> None:
    document = broken(metric(type="latency", sub_types=[{"name": "agv"}]), "metrics")
    assert [fault.remedy for fault in document.faults] == ["did you mean avg?"]


def test_an_evaluator_in_place_gets_a_name() -> None:
    raw = {"engine": {"evaluator": {"metrics": [{"type": "latency"}]}}}
    found = after(raw, "named_evaluators")
    assert found["evaluators"][found["engine"]["evaluator"]] == {"metrics": [{"type": "latency"}]}


def test_metrics_by_name_are_put_where_they_are_named() -> None:
    raw = {"metrics": [{"name": "m", "type": "latency"}, {"name": "n"}], "evaluators": {"e": {"metrics": ["m"]}}}
    document = broken(raw, "named_evaluators")
    assert measured(document) == {"name": "m", "type": "latency"}
    assert "metrics" not in document.root
    assert "metrics.1: has no effect" in notes(document)


def test_an_evaluator_that_measures_nothing_goes() -> None:
    document = broken({"evaluators": {"e": {}}, "engine": {"evaluator": "e"}}, "metrics")
    assert document.root["evaluators"] == {}
    assert document.root["engine"] == {}
    assert len(document.notes) == 2


def test_a_file_that_only_measures_has_no_passes() -> None:
    raw = {"engine": {"evaluation_only": True, "evaluator": "e"}, "passes": {"p": {"type": "X"}}}
    document = broken(raw, "evaluation_only", dialect="0.2")
    assert "passes" not in document.root
    assert document.root["engine"]["evaluate_input_model"] is True


# The engine -----------------------------------------------------------------------------------------------------------


def test_cache_config_stands_in_the_engine() -> None:
    raw = {"engine": {"cache_config": {"cache_dir": "c", "enable_shared_cache": True}}}
    document = broken(raw, "engine_keys", dialect="0.8")
    assert document.root["engine"] == {"cache_dir": "c", "output_dir": "."}
    assert "enable_shared_cache" in notes(document)


def test_of_two_cache_folders_the_one_on_this_machine_is_taken() -> None:
    raw = {"engine": {"cache_dir": ["https://account.blob.core.windows.net/container", "here"]}}
    assert after(raw, "engine_keys")["engine"]["cache_dir"] == "here"


def test_a_key_at_its_default_is_not_worth_a_word_and_another_is() -> None:
    document = broken({"engine": {"clean_cache": False, "log_to_file": True}}, "engine_keys")
    assert document.root["engine"] == {"output_dir": "."}
    assert len(document.notes) == 1
    assert "log_to_file" in notes(document)


def test_an_output_file_is_its_folder() -> None:
    document = broken({"engine": {"output_dir": "models/encoder.onnx"}}, "engine_keys", dialect="0.10")
    assert document.root["engine"]["output_dir"] == "models"
    assert "encoder.onnx" in notes(document)


def test_packaging_is_a_flat_list() -> None:
    raw = {
        "engine": {"packaging_config": {"type": "zipfile", "name": "n", "config": {"export_in_mlflow_format": True}}}
    }
    expected = [{"type": "Zipfile", "name": "n", "export_in_mlflow_format": True}]
    assert after(raw, "packaging")["engine"]["packaging_config"] == expected


def test_an_evaluator_of_tasks_is_the_metric_lm_eval() -> None:
    evaluator = {"type": "LMEvaluator", "tasks": ["arc_easy", "size_on_disk", "mmlu"], "limit": 10, "batch_size": 4,
                 "model_class": "ortgenai"}  # fmt: skip
    loaded = load(
        {
            "input_model": {"type": "HfModel", "model_path": "org/m"},
            "evaluators": {"lm": evaluator},
            "passes": {"p": {"type": "ModelBuilder", "precision": "int4"}},
            "evaluator": "lm",
        }
    )
    found = loaded.workflow.evaluators["lm"]
    assert found.type is None
    assert [(each.type, each.params) for each in found.metrics] == [
        ("lm_eval", {"tasks": ["arc_easy", "mmlu"], "limit": 10}), ("size", {}),
    ]  # fmt: skip
    notes = "\n".join(str(each) for each in loaded.notes)
    assert "batch_size" in notes
    assert "model_class" in notes
