"""One workflow as people wrote it for each release of Olive: what hypothesis draws, in the words of a dialect."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

RELEASES = ("0.2.1", "0.3.1", "0.4.0", "0.5.0", "0.5.2", "0.6.0", "0.6.2", "0.7.0", "0.8.0", "0.9.3", "0.10.0")

_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,7}", fullmatch=True)
_RATES = st.sampled_from([1e-5, 0.0002, 0.001, 3])

SPECS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["base", "./base", "org/model"]),
        "task": st.sampled_from([None, "text-generation"]),
        "trust": st.sampled_from([None, True, False]),
        "device": st.sampled_from(["cpu", "gpu"]),
        "data": st.fixed_dictionaries(
            {
                "name": _NAMES,
                "split": st.sampled_from([None, "train", "train[:70%]"]),
                "files": st.sampled_from(["train.jsonl", ["train.jsonl", "more.jsonl"], "*.jsonl"]),
                "source": st.sampled_from(
                    [{"text_cols": ["a", "b"]}, {"text_cols": "a"}, {"text_template": "# {a}:\n'{b}' \"é\""}]
                ),
                "strategy": st.sampled_from([None, "join", "line-by-line"]),
                "length": st.integers(8, 4096),
            },
            optional={"pad": st.booleans(), "joiner": st.sampled_from(["", "\n\n", " | "]), "special": st.booleans()},
        ),
        "lora": st.fixed_dictionaries(
            {"type": st.sampled_from(["LoRA", "lora", "QLoRA"])},
            optional={
                "r": st.integers(1, 128),
                "alpha": st.integers(1, 128),
                "dropout": st.sampled_from([0, 0.05, 0.5]),
                "targets": st.lists(st.sampled_from(["q_proj", "o_proj", "lm head"]), min_size=1, unique=True),
                "evaluated": st.sampled_from([0.3, 16]),
                "arguments": st.fixed_dictionaries(
                    {},
                    optional={
                        "max_steps": st.integers(1, 20000),
                        "learning_rate": _RATES,
                        "seed": st.integers(0, 99),
                        "per_device_train_batch_size": st.integers(1, 8),
                        "gradient_checkpointing": st.booleans(),
                    },
                ),
            },
        ),
        "precision": st.sampled_from(["int4", "fp16", "fp32"]),
        "engine": st.fixed_dictionaries(
            {},
            optional={
                "cache_dir": st.sampled_from(["cache", "../cache", "deep/er"]),
                "output_dir": st.sampled_from(["models", "./models/x", "a b"]),
                "evaluate_input_model": st.booleans(),
                "log_severity_level": st.integers(0, 4),
                "clean_cache": st.booleans(),
            },
        ),
        "hosted": st.booleans(),
        "gathered": st.booleans(),
        "unsearched": st.booleans(),
        "in_components": st.booleans(),
        "onnx": st.lists(st.sampled_from(["conversion", "quantization", "tuning"]), unique=True, max_size=3),
        "measured": st.sampled_from([None, "latency", "accuracy", "perplexity", "custom"]),
        "goal": st.sampled_from([None, ("threshold", 0.5), ("max-degradation", 0.01), ("percent-min-improvement", 20)]),
        "searched": st.sampled_from([None, "exhaustive", "random", "tpe"]),
        "flows": st.sampled_from([None, "one", "two"]),
        "packaged": st.sampled_from([None, "Zipfile", "AzureMLModels"]),
        "cloud": st.booleans(),
        "rooted": st.booleans(),
    }
)  # fmt: skip
"""What a workflow says, in nobody's words."""


def render(spec: dict[str, Any], release: str) -> dict[str, Any]:
    """Return a workflow as it was written for a release."""
    version = tuple(int(part) for part in release.split("."))
    nested = version < (0, 7) or spec["gathered"]

    def node(kind: str, config: dict[str, Any], **beside: Any) -> dict[str, Any]:
        return {"type": kind, **beside, **({"config": config} if nested else config)}

    engine = _engine(spec, version)
    systems = {"local_system": node("LocalSystem", {"accelerators": _accelerators(spec, version)})}
    written: dict[str, Any] = {
        "input_model": _model(spec, version, node),
        "systems": systems,
        ("data_config" if version < (0, 3) else "data_configs"): _data(spec, version),
        "passes": _passes(spec, version, node),
    }
    if spec["measured"] is not None:
        written["evaluators"] = {"own": {"metrics": [_metric(spec, version)]}}
    if spec["cloud"] and version < (0, 9, 3):
        client = {"subscription_id": "s", "resource_group": "r", "workspace_name": "w"}
        written["azureml_client"] = client
        systems["cloud"] = node(
            "AzureML",
            {"aml_compute": "gpus", "aml_docker_config": {"base_image": "ubuntu", "conda_file_path": "conda.yaml"}},
        )
    if spec["flows"] is not None and (0, 3) <= version < (0, 8):
        names = list(written["passes"])
        written["pass_flows"] = [names] if spec["flows"] == "one" else [names, names[:1]]
    if spec["rooted"] and (0, 3) <= version < (0, 7):
        written["data_root"] = "elsewhere"
    return written | ({"engine": engine} if nested else engine)


def _metric(spec: dict[str, Any], version: tuple[int, ...]) -> dict[str, Any]:
    kind = spec["measured"]
    value: dict[str, Any] = {"name": {"latency": "avg", "accuracy": "accuracy_score"}.get(kind, kind), "priority": 1}
    value["higher_is_better"] = kind != "latency"
    if spec["goal"] is not None:
        value["goal"] = {"type": spec["goal"][0], "value": spec["goal"][1]}
    metric: dict[str, Any] = {
        "name": "measured",
        "type": "accuracy" if kind == "perplexity" else kind,
        "sub_types": [value],
    }
    if kind == "custom":
        return metric | {"user_config": {"user_script": "score.py", "evaluate_func": "score"}}
    metric["data_config"] = spec["data"]["name"]
    if version < (0, 7):
        metric["user_config"] = {"batch_size": 2, "io_bind": True}
    return metric


def _model(spec: dict[str, Any], version: tuple[int, ...], node: Any) -> Any:
    loading = {} if spec["trust"] is None else {"trust_remote_code": spec["trust"]}
    task = {} if spec["task"] is None else {"task": spec["task"]}
    if version >= (0, 7):
        return node("HfModel", {"model_path": spec["model"], **task, **({"load_kwargs": loading} if loading else {})})
    key = "model_loading_args" if version < (0, 5) else "from_pretrained_args"
    hf_config = {"model_name": spec["model"], "task": "text-generation", **({key: loading} if loading else {})}
    return node("PyTorchModel", {"hf_config": hf_config})


def _accelerators(spec: dict[str, Any], version: tuple[int, ...]) -> list[Any]:
    if version < (0, 5, 1):
        return [spec["device"]]
    return [{"device": spec["device"], "execution_providers": [_provider(spec)]}]


def _provider(spec: dict[str, Any]) -> str:
    return "CPUExecutionProvider" if spec["device"] == "cpu" else "CUDAExecutionProvider"


def _data(spec: dict[str, Any], version: tuple[int, ...]) -> Any:
    data = spec["data"]
    load = {"data_name": "json", "data_files": data["files"]}
    if data["split"] is not None:
        load["split"] = data["split"]
    old = version < (0, 7)
    text = {
        ("source_max_len" if old else "max_seq_len"): data["length"],
        **({"dataset_type": "corpus"} if old else {}),
        **({("corpus_strategy" if old else "strategy"): data["strategy"]} if data["strategy"] else {}),
        **data["source"],
        **{key: data[word] for key, word in
           (("pad_to_max_len", "pad"), ("joiner", "joiner"), ("add_special_tokens", "special")) if word in data},
    }  # fmt: skip
    config: dict[str, Any] = {"name": data["name"], "type": "HuggingfaceContainer"}
    if version < (0, 6, 2) and spec["in_components"]:
        config["components"] = {
            "load_dataset": {"name": "huggingface_dataset", "type": "huggingface_dataset", "params": load},
            "pre_process_data": {"type": "text_generation_huggingface_pre_process", "params": text},
        }
    elif version < (0, 6, 2):
        config["params_config"] = {**load, "task": "text-generation", "component_kwargs": {"pre_process_data": text}}
    elif old or spec["gathered"]:
        config |= {"load_dataset_config": {"params": load}, "pre_process_data_config": {"params": text}}
    else:
        config |= {"load_dataset_config": load, "pre_process_data_config": text}
    return {data["name"]: config} if version < (0, 6) else [config]


def _passes(spec: dict[str, Any], version: tuple[int, ...], node: Any) -> dict[str, Any]:
    lora = spec["lora"]
    rank, alpha = ("r", "alpha") if version >= (0, 8) else ("lora_r", "lora_alpha")
    config = {
        **{key: lora[word] for key, word in
           ((rank, "r"), (alpha, "alpha"), ("lora_dropout", "dropout"), ("target_modules", "targets"))
           if word in lora},
        "train_data_config": spec["data"]["name"],
        **({"training_args": lora["arguments"]} if "arguments" in lora else {}),
    }  # fmt: skip
    if version < (0, 7) and "evaluated" in lora:
        config["eval_dataset_size"] = lora["evaluated"]
    unsearched = {"disable_search": True} if spec["unsearched"] and version < (0, 8) else {}
    passes = {"lora": node(lora["type"], config, **unsearched)}
    if version >= (0, 6):
        passes["merge"] = {"type": "MergeAdapterWeights"}
        passes["builder"] = node("ModelBuilder", {"precision": spec["precision"]}, **unsearched)
    tuning = "OrtPerfTuning" if version < (0, 7) else "OrtSessionParamsTuning"
    known = {
        "conversion": node("OnnxConversion", {"target_opset": 17}),
        "quantization": node("OnnxStaticQuantization", {"data_config": spec["data"]["name"], "quant_format": "QDQ"}),
        "tuning": node(tuning, {"providers_list": [_provider(spec)], "io_bind": True}),
    }
    return passes | {name: known[name] for name in spec["onnx"]}


def _engine(spec: dict[str, Any], version: tuple[int, ...]) -> dict[str, Any]:
    engine: dict[str, Any] = dict(spec["engine"])
    if version < (0, 5, 1):
        engine["execution_providers"] = [_provider(spec)]
    if spec["hosted"]:
        engine |= {"host": "local_system", "target": "local_system"}
    if spec["measured"] is not None:
        engine["evaluator"] = "own"
    if spec["cloud"] and version < (0, 9, 3):
        engine["host"] = "cloud"
    if spec["packaged"] is not None:
        settings = {"export_in_mlflow_format": True}
        engine["packaging_config"] = {
            "type": spec["packaged"],
            "name": "packed",
            **(settings if version < (0, 5, 1) else {"config": settings}),
        }
    if spec["searched"] is not None and spec["measured"] is not None:
        sampler = {"exhaustive": "sequential"}.get(spec["searched"], spec["searched"])
        engine["search_strategy"] = {"execution_order": "joint"} | (
            {"sampler": sampler, "seed": 3}
            if version >= (0, 8)
            else {"search_algorithm": spec["searched"], "search_algorithm_config": {"seed": 3}}
        )
    elif version < (0, 7):
        engine["search_strategy"] = False
    return engine
