"""Every key that a release of Olive read is understood, alone and wherever it could stand: no "is not a key of"."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from olivine.config import Loaded, load
from olivine.config.availability import unavailable
from olivine.errors import ConfigError

IO = {"input_names": ["x"], "input_shapes": [[1, 3]], "output_names": ["y"], "output_shapes": [[1]]}
PART = {"type": "ONNXModel", "config": {"model_path": "m.onnx"}}
LOADING = {
    "torch_dtype": "float16", "device_map": "auto", "max_memory": {"0": "4GB"}, "trust_remote_code": True,
    "attn_implementation": "eager", "extra_args": {"use_cache": False, "variant": "fp16"}, "variant": "fp16",
    "subfolder": "unet", "use_safetensors": True,
}  # fmt: skip

MODELS: dict[str, dict[str, Any]] = {
    "ONNXModel": {
        "model_path": "m.onnx", "name": "n", "version": 2, "model_storage_kind": "LocalFile", "is_file": True,
        "inference_settings": {"session_options": {}}, "use_ort_extensions": True, "onnx_file_name": "a.onnx",
        "hf_config": {"model_name": "org/m", "task": "text-classification"}, "model_attributes": {"a": 1},
        "external_initializers_file_name": "e", "constant_inputs_file_name": "c", "generative": True,
    },
    "PyTorchModel": {
        "model_path": "m", "model_file_format": "PyTorch.TorchScript", "name": "n", "version": 1,
        "aml_storage_name": "a", "model_loader": "load", "model_script": "s.py", "script_dir": "d", "io_config": IO,
        "dummy_inputs_func": "f", "hf_config": {"model_name": "org/m", "task": "text-generation"},
        "adapter_path": "a", "model_attributes": {}, "mlflow_transformer_model_cache_dir": "c", "generative": False,
    },
    "HfModel": {
        "model_path": "org/m", "task": "text-generation", "load_kwargs": LOADING, "io_config": "f",
        "adapter_path": "a", "model_attributes": {}, "generative": True, "test_model_path": "t",
        "test_model_config": {"num_hidden_layers": 2},
    },
    "DistributedHfModel": {
        "model_path": "m", "model_name_pattern": "p", "num_ranks": 2, "task": "text-generation",
        "load_kwargs": LOADING, "io_config": IO, "model_attributes": {}, "generative": True,
    },
    "DistributedPyTorchModel": {
        "model_path": "m", "model_name_pattern": "p", "num_ranks": 2, "model_loader": "f", "model_script": "s",
        "script_dir": "d", "io_config": IO, "dummy_inputs_func": "g", "hf_config": {"model_name": "o/m", "task": "t"},
    },
    "DistributedOnnxModel": {
        "model_path": "m", "model_filepaths": ["a.onnx", "b.onnx"], "model_name_pattern": "p", "num_ranks": 2,
        "inference_settings": {}, "use_ort_extensions": False, "generative": False,
    },
    "CompositeModel": {"model_path": "m", "model_components": [PART], "model_component_names": ["part"]},
    "CompositeOnnxModel": {"model_components": [PART], "model_component_names": ["part"], "name": "n"},
    "CompositePyTorchModel": {"model_components": [{"name": "a", "type": "PyTorchModel",
                                                    "config": {"model_loader": "f", "model_script": "s.py"}}]},
    "OptimumModel": {"model_path": "m", "model_components": ["decoder_model.onnx"], "name": "n"},
    "DiffusersModel": {"model_path": "org/m", "model_variant": "sdxl", "load_kwargs": LOADING, "adapter_path": "a"},
    "OpenVINOModel": {"model_path": "m", "name": "n", "version": 1, "model_attributes": {}},
    "TensorFlowModel": {"model_path": "m", "model_file_format": "TensorFlow.SavedModel", "model_attributes": {}},
    "SNPEModel": {"model_path": "m", **IO, "model_attributes": {}},
    "QNNModel": {"model_path": "m", "io_config": IO, "model_file_format": "QNN.SerializedBin", "model_attributes": {}},
    "QairtModel": {"model_path": "m", "io_config": IO, "model_file_format": "x", "model_attributes": {}},
    "QairtPreparedModel": {"model_path": "m", "io_config": IO, "model_file_format": "x", "model_attributes": {}},
}  # fmt: skip

HF_CONFIG = {
    "model_class": "LlamaForCausalLM", "use_ort_implementation": True, "feature": "causal-lm-with-past",
    "config": {"a": 1}, "components": [{"name": "a", "io_config": IO, "component_func": "f", "dummy_inputs_func": "g"}],
    "dataset": {"data_name": "glue", "subset": "mrpc", "split": "validation", "input_cols": ["a"], "label_cols": ["b"],
                "batch_size": 4, "component_kwargs": {"pre_process_data": {"align_labels": True}}},
    "model_loading_args": LOADING, "from_pretrained_args": LOADING,
}  # fmt: skip

CLIENT = {
    "subscription_id": "s", "resource_group": "r", "workspace_name": "w", "aml_config_path": "c", "read_timeout": 60,
    "max_operation_retries": 3, "operation_retry_interval": 5, "default_auth_params": {"a": True}, "keyvault_name": "k",
}  # fmt: skip

ENGINE = {
    "search_strategy": False, "host": "s", "target": "s", "evaluator": "e", "azureml_client_config": CLIENT,
    "packaging_config": {"type": "Zipfile", "name": "x"}, "cache_dir": "c", "clean_cache": True,
    "clean_evaluation_cache": True, "plot_pareto_frontier": True, "no_artifacts": True,
    "execution_providers": ["CPUExecutionProvider"], "evaluation_only": False, "output_dir": "o", "output_name": "n",
    "log_severity_level": 0, "ort_log_severity_level": 1, "ort_py_log_severity_level": 2, "log_to_file": True,
    "evaluate_input_model": False, "enable_shared_cache": True,
    "cache_config": {"cache_dir": "x", "clean_cache": True, "clean_evaluation_cache": True, "account_name": "a",
                     "container_name": "b", "enable_shared_cache": True, "update_shared_cache": False},
    "cloud_cache_config": {"enable_cloud_cache": True},
}  # fmt: skip

TOP = {
    "verbose": True, "azureml_client": CLIENT, "data_root": "/data", "workflow_id": "w", "workflow_host": "s",
    "data_config": {"type": "HuggingfaceContainer", "name": "n"}, "pass_flows": [["p"]],
    "auto_optimizer_config": {"opt_level": 0, "disable_auto_optimizer": False, "precisions": ["fp16"],
                              "excluded_passes": ["X"]},
    "$schema": "https://microsoft.github.io/Olive/schema.json", "max_concurrent_builds": 2,
    "builds": {"_default": {"host": "s"}, "one": {"pipeline": ["p"], "output_dir": "x", "components": ["a"]}},
}  # fmt: skip

SYSTEMS: dict[str, dict[str, Any]] = {
    "LocalSystem": {"device": "cpu", "accelerators": ["cpu"], "hf_token": True},
    "PythonEnvironment": {
        "device": "cpu", "python_environment_path": "p", "environment_variables": {"A": "b"}, "prepend_to_path": ["x"],
        "olive_managed_env": True, "requirements_file": "r", "hf_token": False, "accelerators": ["GPU"],
    },
    "IsolatedORT": {"python_environment_path": "p", "environment_variables": {}, "prepend_to_path": ["x"]},
    "Docker": {
        "local_docker_config": {"image_name": "x", "base_image": "b", "requirements_file_path": "r", "dockerfile": "D",
                                "build_context_path": "c", "build_args": {}, "run_params": {}},
        "is_dev": True, "olive_managed_env": True, "requirements_file": "r", "dockerfile": "D",
        "build_context_path": "c", "image_name": "i", "work_dir": "/w", "build_args": {}, "run_params": {},
        "clean_image": True,
    },
    "AzureML": {
        "azureml_client_config": CLIENT, "aml_compute": "c", "instance_count": 2, "is_dev": True,
        "aml_docker_config": {"base_image": "b", "dockerfile": "d", "build_context_path": "x", "conda_file_path": "c",
                              "name": "n", "version": 1},
        "aml_environment_config": {"name": "a", "version": "1", "label": "latest"}, "resources": {}, "tags": {"a": "b"},
        "olive_managed_env": True, "requirements_file": "r", "datastores": "d", "hf_token": True,
        "accelerators": [{"device": "gpu", "execution_providers": ["CUDAExecutionProvider"], "memory": "4GB"}],
    },
}  # fmt: skip

SEARCH = {
    "execution_order": "pass-by-pass", "search_algorithm": "tpe", "output_model_num": 3, "stop_when_goals_met": True,
    "search_algorithm_config": {"num_samples": 3, "seed": 0, "multivariate": True, "group": False}, "max_iter": 3,
    "max_time": 5, "sampler": "random", "sampler_config": {"max_samples": 3, "seed": 1, "with_replacement": False},
    "include_pass_params": False,
}  # fmt: skip

PACKAGING: list[dict[str, Any]] = [
    {"type": "Zipfile", "name": "x", "export_in_mlflow_format": True, "include_runtime_packages": False,
     "include_sample_code": True, "generative": True},
    {"type": "Dockerfile", "name": "x", "config": {"base_image": "b", "requirements_file": "r"}},
    {"type": "AzureMLModels", "name": "x", "config": {"version": 1, "description": "d"}},
    {"type": "AzureMLData", "name": "x", "config": {"version": "1", "description": "d", "export_in_mlflow_format": 0}},
    {"type": "AzureMLDeployment", "name": "x", "config": {
        "model_name": "a", "model_version": 1, "model_description": "d",
        "model_package": {"target_environment": "e", "inferencing_server": {"type": "AzureMLBatch"}},
        "deployment_config": {"endpoint_name": "e", "instance_count": 1}}},
]  # fmt: skip

USER_CONFIG = {
    "script_dir": "a", "user_script": "b.py", "inference_settings": {"onnx": {}}, "data_dir": "d",
    "dataloader_func": "f", "func_kwargs": {"dataloader_func": {"a": 1}}, "batch_size": 2, "input_names": ["a"],
    "input_shapes": [[1]], "input_types": ["int64"], "shared_kv_buffer": True, "io_bind": True,
    "post_processing_func": "p", "evaluate_func": "e", "metric_func": "m", "run_kwargs": {"a": 1},
    "evaluate_func_kwargs": {}, "metric_func_kwargs": {},
}  # fmt: skip

LOADED_BY = {
    "huggingface_dataset": {"data_name": "glue", "subset": "mrpc", "split": "train", "data_files": "a.json",
                            "data_dir": "d", "col_filters": {"a": 1}, "field": "data", "streaming": True,
                            "delimiter": ";", "num_proc": 4, "max_samples": 10},
    "raw_dataset": {"data_dir": "d", "input_names": ["a"], "input_shapes": [[1]], "input_types": ["int8"],
                    "input_dirs": ["d"], "input_suffix": ".raw", "input_order_file": "o", "annotations_file": "a"},
    "transformers_prompt_dummy_dataset": {"seq_len": 8, "past_seq_len": 0, "max_seq_len": 32, "use_fp16": True,
                                          "model_framework": "Onnx", "shared_kv": True, "generative": True,
                                          "use_step": True, "ignore_input_fields": ["position_ids"]},
    "function_of_mine": {"anything": 1},
}  # fmt: skip

BASE: dict[str, Any] = {
    "input_model": {"type": "HfModel", "model_path": "org/m"},
    "systems": {"s": {"type": "LocalSystem"}},
    "evaluators": {"e": {"metrics": [{"name": "n", "type": "latency", "sub_types": [{"name": "avg"}]}]}},
    "passes": {"p": {"type": "OnnxConversion"}},
}


def _cases() -> Iterator[Any]:
    def case(name: str, **sections: Any) -> Any:
        return pytest.param(copy.deepcopy(BASE) | copy.deepcopy(sections), id=name)

    for kind, keys in MODELS.items():
        needed = {key: keys[key] for key in ("model_path", "model_components", "input_names") if key in keys}
        if kind == "PyTorchModel":
            needed = {"model_path": "m"}
        for key, value in keys.items():
            yield case(f"{kind}.{key}", input_model={"type": kind, "config": needed | {key: value}})
            if key != "version":  # it had gone before models were flat
                yield case(f"{kind}.{key}-flat", input_model={"type": kind, **needed, key: value}, output_dir="o")
    for key, value in HF_CONFIG.items():
        hf = {"model_name": "org/m", "task": "text-generation", key: value}
        yield case(f"hf_config.{key}", input_model={"type": "PyTorchModel", "config": {"hf_config": hf}})
        code = {"model_path": "m", "model_loader": "f", "model_script": "s.py"}
        yield case(f"hf_config.{key}-code", input_model={"type": "PyTorchModel", "config": {**code, "hf_config": hf}})
    for key, value in ENGINE.items():
        yield case(f"engine.{key}", engine={key: value})
        yield case(f"{key}", **{key: value})
    for key, value in TOP.items():
        yield case(key, **{key: value})
    for kind, keys in SYSTEMS.items():
        for key, value in keys.items():
            yield case(f"{kind}.{key}", systems={"s": {"type": kind, "config": {key: value}}})
            yield case(f"{kind}.{key}-flat", systems={"s": {"type": kind, key: value}})
    for key, value in SEARCH.items():
        yield case(f"search_strategy.{key}", engine={"evaluator": "e", "search_strategy": {key: value}})
    for each in PACKAGING:
        yield case(f"packaging-{each['type']}", engine={"packaging_config": each})
        yield case(f"packaging-{each['type']}-list", engine={"packaging_config": [each]})
    for key, value in USER_CONFIG.items():
        for kind in ("latency", "custom"):
            metric = {"name": "n", "type": kind, "sub_types": [{"name": "avg", "priority": -1}]}
            yield case(
                f"{kind}.user_config.{key}", evaluators={"e": {"metrics": [metric | {"user_config": {key: value}}]}}
            )
            yield case(f"{kind}.{key}", evaluators={"e": {"metrics": [metric | {key: value}]}}, log_severity_level=0)
    for kind, keys in LOADED_BY.items():
        for key, value in keys.items():
            config = {"name": "d", "type": "HuggingfaceContainer"}
            new = config | {"load_dataset_config": {"type": kind, key: value}}
            yield case(f"{kind}.{key}", data_configs=[new])
            old = config | {"components": {"load_dataset": {"type": kind, "params": {key: value}}}}
            yield case(f"{kind}.{key}-components", data_configs={"d": old})


@pytest.mark.parametrize("raw", _cases())
def test_a_key_that_olive_read_is_understood(raw: dict[str, Any]) -> None:
    loaded = load(raw)
    assert loaded.dialect != "olivine-1", "nothing tells that it is Olive's"
    assert loaded.evidence


def found(loaded: Loaded) -> list[str]:
    return [each.path for each in unavailable(loaded.workflow)]


def test_other_arguments_of_from_pretrained_are_kept_wherever_they_stand() -> None:
    loading = {"variant": "fp16", "extra_args": {"subfolder": "unet"}}
    model = {"type": "HfModel", "config": {"model_path": "org/m", "load_kwargs": loading}}
    loaded = load({"input_model": model})
    assert loaded.workflow.input_model.load_kwargs.extra_args == {"subfolder": "unet", "variant": "fp16"}
    assert {note.path.rpartition(".")[2] for note in loaded.notes} == {"subfolder", "variant"}
    with pytest.raises(ConfigError, match="Did you mean trust_remote_code"):
        load({"input_model": {**model, "config": {"model_path": "org/m", "load_kwargs": {"trust_remote_cod": True}}}})


def test_other_arguments_of_load_dataset_are_kept_and_not_available() -> None:
    data = {"name": "d", "type": "HuggingfaceContainer", "load_dataset_config": {"data_name": "json", "field": "rows"}}
    loaded = load(BASE | {"data_configs": [data], "passes": {"p": {"type": "LoRA", "train_data_config": "d"}}})
    assert found(loaded) == ["data_configs.d.load_dataset"]
    assert loaded.workflow.data_configs[0].data_name == "json"
    with pytest.raises(ConfigError, match="Did you mean data_files"):
        load(BASE | {"data_configs": [data | {"load_dataset_config": {"data_file": "a.json"}}]})


def test_an_snpe_models_inputs_are_its_io_config() -> None:
    loaded = load({"input_model": {"type": "SNPEModel", "config": {"model_path": "m", **IO}}})
    assert loaded.workflow.input_model.io_config == IO


def test_the_data_config_of_0_2_is_an_object_of_data_configs_or_a_single_one() -> None:
    one = {"type": "HuggingfaceContainer", "params_config": {"data_name": "glue"}}
    passes = {"p": {"type": "OnnxStaticQuantization", "config": {"data_config": "calibration"}}}
    named = load(BASE | {"data_config": {"calibration": one}, "passes": passes})
    assert [each.name for each in named.workflow.data_configs] == ["calibration"]
    single = load(BASE | {"data_config": one})
    assert [each.name for each in single.workflow.data_configs] == ["data_config"]


def test_up_to_0_6_1_the_preparation_of_text_took_most_parameters_from_component_kwargs_only() -> None:
    model = {"type": "PyTorchModel", "config": {"hf_config": {"model_name": "org/m", "task": "text-generation"}}}

    def data(**params: Any) -> Loaded:
        given = {"data_name": "json", "data_files": "a.json", "source_max_len": 64, **params}
        config = {"name": "d", "type": "HuggingfaceContainer", "params_config": given}
        return load({"input_model": model, "data_configs": [config]})

    loaded = data(corpus_strategy="join", component_kwargs={"pre_process_data": {"text_cols": ["a"]}})
    assert loaded.workflow.data_configs[0].strategy == "line-by-line"
    assert "component_kwargs only" in str(loaded.notes)
    # Olive stopped where no text was left; then what stands there is meant.
    assert data(text_template="{a}").workflow.data_configs[0].text_template == "{a}"


def test_the_one_way_of_0_3_1_joins_everything() -> None:
    model = {"type": "PyTorchModel", "config": {"hf_config": {"model_name": "org/m", "task": "text-generation"}}}
    params = {"data_name": "wikitext", "split": "test", "input_cols": ["text"], "seqlen": 2048, "max_samples": 8}
    config = {"name": "d", "type": "HuggingfaceContainer", "params_config": params}
    read = load({"input_model": model, "data_configs": {"d": config}}).workflow.data_configs[0]
    assert (read.strategy, read.joiner, read.max_seq_len, read.add_special_tokens) == ("join", " ", 2048, False)
    assert read.text_cols == ["text"]


@pytest.mark.parametrize(
    ("container", "task", "part", "expected"),
    [
        ("DummyDataContainer", None, "load_dataset", "dummy_dataset"),
        ("TransformersTokenDummyDataContainer", None, "dataloader", "dataloader_with_ignored_batch_fields"),
        ("HuggingfaceContainer", "feature-extraction", "pre_process_data", "tokenizer_pre_process"),
        ("HuggingfaceContainer", "vision-ocr", "dataloader", "vision_vqa_dataloader"),
        ("HuggingfaceContainer", "text-classification", "post_process_data", "text_classification_post_process"),
        ("HuggingfaceContainer", "token-classification", "pre_process_data", "huggingface_pre_process"),
        ("ImageDataContainer", None, "pre_process_data", "image_lora_preprocess"),
    ],
)
def test_a_component_without_a_type_is_the_containers_own(
    container: str, task: str | None, part: str, expected: str
) -> None:
    model = {"type": "HfModel", "model_path": "org/m", **({"task": task} if task else {})}
    config = {"name": "d", "type": container, f"{part}_config": {"anything": 1} if part != "load_dataset" else {"a": 1}}
    read = load({"input_model": model, "data_configs": [config]}).workflow.data_configs[0]
    assert getattr(read, part).type == expected


def test_a_model_of_the_hub_needs_no_organisation(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw = {"input_model": {"type": "HfModel", "config": {"model_path": "gpt2"}}}
    assert load(raw).workflow.input_model.model_path == "gpt2"
    (tmp_path / "gpt2").mkdir()
    assert load(raw).workflow.input_model.model_path == str(tmp_path / "gpt2")


@pytest.mark.parametrize("release", ["0.5.2", "0.6.0", "0.6.2", "0.10"])
def test_a_data_config_in_place_of_its_name_gets_one(release: str) -> None:
    place = {"name": "made up", "type": "DummyDataContainer"}
    metric = {"name": "n", "type": "latency", "sub_types": [{"name": "avg"}], "data_config": place}
    passes = {"p": {"type": "OnnxStaticQuantization", "config": {"data_config": place}}}
    workflow = load(BASE | {"evaluators": {"e": {"metrics": [metric]}}, "passes": passes}, dialect=release).workflow
    names = {each.name for each in workflow.data_configs}
    assert workflow.single_pass("p").params["data_config"] in names
    assert workflow.evaluators["e"].metrics[0].params["data_config"] in names


def test_a_name_that_no_data_config_may_have_is_changed_everywhere() -> None:
    passes = {"p": {"type": "OnnxStaticQuantization", "config": {"data_config": "wiki text.2"}}}
    loaded = load(
        BASE | {"data_configs": {"wiki text.2": {"name": "w", "type": "DummyDataContainer"}}, "passes": passes}
    )
    assert loaded.workflow.data_configs[0].name == loaded.workflow.single_pass("p").params["data_config"]
    assert "wiki_text_2" in str(loaded.notes)


def test_the_path_of_a_pass_is_its_last_name() -> None:
    loaded = load(BASE | {"passes": {"p": {"type": "olive.passes.onnx.conversion.OnnxConversion", "config": {}}}})
    assert loaded.workflow.single_pass("p").type == "OnnxConversion"


def test_very_many_notes_of_one_kind_are_told_by_their_number() -> None:
    strange = {f"strange_{n}": n for n in range(500)}
    loaded = load(BASE | {"passes": {"p": {"type": "AutoClip", "config": strange}}})
    assert len(loaded.notes) < 60
    assert "450 more keys" in str(loaded.notes[-1])
    assert set(loaded.workflow.single_pass("p").params) == set(strange)


def test_what_has_no_effect_is_said_even_if_it_follows_from_the_rest() -> None:
    model = {"type": "PyTorchModel", "config": {"hf_config": {"model_name": "org/m", "task": "text-generation"}}}
    prepared = {"text_cols": ["a"], "source_max_len": 8, "corpus_strategy": "join", "use_attention_mask": False,
                "pad_to_max_len": True, "model_name": "org/other", "processing_batch_size": 4}  # fmt: skip
    params = {"data_name": "x", "component_kwargs": {"pre_process_data": prepared}}
    data = {"train": {"name": "another", "type": "HuggingfaceContainer", "params_config": params}}
    systems = {"s": {"type": "LocalSystem", "config": {"accelerators": ["cpu"]}}}
    engine = {"execution_providers": ["CPUExecutionProvider", "CUDAExecutionProvider"], "host": "s"}
    loaded = load({"input_model": model, "data_configs": data, "systems": systems, "engine": engine})
    told = {note.path.rpartition(".")[2] for note in loaded.notes}
    assert told == {
        "use_attention_mask", "pad_to_max_len", "model_name", "processing_batch_size", "name", "execution_providers",
        "train",
    }  # fmt: skip


def test_the_name_of_the_output_is_kept_for_the_old_layout() -> None:
    named = load(BASE | {"engine": {"output_name": "tuned"}})
    assert named.workflow.engine.output_name == "tuned"
    assert "--layout" in str(named.notes)
    by_pass = load(BASE | {"passes": {"p": {"type": "OnnxConversion", "output_name": "last"}}, "engine": {}})
    assert by_pass.workflow.engine.output_name == "last"


def test_what_belongs_to_a_value_has_no_effect_beside_the_values() -> None:
    metric = {
        "name": "n",
        "type": "size_on_disk",
        "sub_types": [{"name": "bytes"}],
        "priority": 1,
        "goal": {"type": "x"},
    }
    loaded = load(BASE | {"evaluators": {"e": {"metrics": [metric]}}})
    assert {note.path.rpartition(".")[2] for note in loaded.notes} == {"priority", "goal"}


def test_a_name_longer_than_a_path_may_be_is_a_name() -> None:
    data = {"name": "d", "type": "HuggingfaceContainer", "load_dataset_config": {"data_name": "a" * 5000}}
    assert load(BASE | {"data_configs": [data]}).workflow.data_configs[0].data_name == "a" * 5000


@pytest.mark.parametrize("field", ["{{ model }}", "$MODEL", "$(MODEL)", "%MODEL%", "__MODEL__", "<<str: model>>"])
def test_a_field_of_any_template_is_not_filled_in(field: str) -> None:
    loaded = load(BASE | {"input_model": {"type": "HfModel", "model_path": field}, "output_dir": "o"})
    assert [(each.kind, each.name) for each in unavailable(loaded.workflow) if each.kind == "placeholder"] == [
        ("placeholder", field)
    ]
    assert loaded.workflow.input_model.model_path == field


@pytest.mark.parametrize("priority", [-1, 0])
def test_a_priority_below_one_is_none(priority: int) -> None:
    metric = {"name": "n", "type": "latency", "sub_types": [{"name": "avg", "priority": priority}]}
    values = load(BASE | {"evaluators": {"e": {"metrics": [metric]}}}).workflow.evaluators["e"].metrics[0].sub_types
    assert values is not None
    assert values[0].priority is None


def test_a_flat_model_is_not_older_than_0_7() -> None:
    """Nested parameters of data are a habit that outlived the rule."""
    data = {"name": "d", "type": "HuggingfaceContainer", "load_dataset_config": {"params": {"data_name": "x"}}}
    loaded = load({"input_model": {"type": "ONNXModel", "model_path": "m"}, "data_configs": [data]})
    assert loaded.dialect == "0.10"
