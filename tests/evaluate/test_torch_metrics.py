"""Classifiers: the scores of Olive's accuracy, on a checkpoint and on ONNX graphs, checked by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torchmetrics")

from metric_inputs import context

from olivine.config import load
from olivine.config.availability import unavailable
from olivine.config.schema import Component
from olivine.errors import ConfigError, DataError, UnavailableError
from olivine.evaluate.torch_metrics import CLASSES, TorchMetrics, TorchMetricsParams, scores_of
from olivine.passes.base import Accelerator

TEXTS = ["the cat sat", "on the mat", "joy and joy", "sad fear", "surprise me", "cricket is a sport", "joy", "fear"]
ALL = {name: {} for name in CLASSES}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, pico_model: Path) -> Path:
    """A random classifier of texts into three classes, with the pico model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    names = {0: "sad", 1: "joy", 2: "fear"}
    config = BertConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=0, id2label=names, label2id={name: key for key, name in names.items()},
        initializer_range=0.5,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(pico_model).save_pretrained(folder)
    return folder


def logits_of(checkpoint: Path, texts: list[str]) -> Any:
    """What the model gives for each text on its own."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    with torch.inference_mode():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_scores_of_a_checkpoint_are_those_worked_out_by_hand(checkpoint: Path, tmp_path: Path) -> None:
    chosen = logits_of(checkpoint, TEXTS).argmax(-1).tolist()
    assert len(set(chosen)) > 1
    truths = [*chosen[:6], (chosen[6] + 1) % 3, (chosen[7] + 1) % 3]
    names = ["sad", "joy", "fear"]
    rows = [{"sentence": text, "label": names[truth]} for text, truth in zip(TEXTS, truths, strict=True)]
    params = TorchMetricsParams(data_config="data", input_cols=["sentence"], batch_size=3, scores=ALL)
    found = TorchMetrics().measure(params, context(checkpoint, write(tmp_path / "rows.jsonl", rows)))
    assert found["accuracy_score"] == pytest.approx(6 / 8)
    assert found["count"] == 8
    assert set(CLASSES) <= set(found)
    right = TorchMetricsParams(data_config="data", input_cols=["sentence"], max_rows=6)
    assert TorchMetrics().measure(right, context(checkpoint, tmp_path / "rows.jsonl"))["accuracy_score"] == 1.0


def test_a_label_that_is_no_class_is_named(checkpoint: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [{"sentence": "joy", "label": "envy"}])
    params = TorchMetricsParams(data_config="data", input_cols=["sentence"])
    with pytest.raises(DataError, match=r"'envy' is no class of the model\. Its classes are sad, joy, fear"):
        TorchMetrics().measure(params, context(checkpoint, file))


def test_a_language_model_is_no_classifier(pico_model: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [{"sentence": "joy", "label": 0}])
    params = TorchMetricsParams(data_config="data", input_cols=["sentence"])
    with pytest.raises(Exception, match="is no classifier"):
        TorchMetrics().measure(params, context(pico_model, file))


def test_scores_of_two_classes() -> None:
    import torch

    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [1.0, 2.0]])  # chooses 0 1 1 1
    truths = torch.tensor([0, 1, 0, 1])
    found = scores_of(outputs, truths, ALL)
    assert found["accuracy_score"] == pytest.approx(3 / 4)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(1.0)
    assert found["f1_score"] == pytest.approx(0.8)
    # Of the four pairs of a right and a wrong one, the right one is surer in two.
    assert found["auroc"] == pytest.approx(0.5)


def test_settings_go_to_torchmetrics_and_wrong_ones_are_said() -> None:
    import torch

    outputs, truths = torch.eye(3), torch.tensor([0, 1, 1])
    average = {"f1_score": {"task": "multiclass", "num_classes": 3, "average": "macro"}}
    assert scores_of(outputs, truths, average)["f1_score"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    with pytest.raises(ConfigError, match="torchmetrics does not compute f1_score"):
        scores_of(outputs, truths, {"f1_score": {"averages": "macro"}})
    with pytest.raises(ConfigError, match="a classifier has no perplexity"):
        TorchMetrics.settle(TorchMetricsParams(data_config="d"), {"perplexity": {}})


def graph(folder: Path, inputs: list[tuple[str, int, list[Any]]], nodes: list[Any], weight: Any) -> Path:
    from onnx import TensorProto, helper, numpy_helper, save

    folder.mkdir(exist_ok=True)
    made = helper.make_graph(
        nodes, "classifier", [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)], [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), folder / "model.onnx")
    return folder


@pytest.fixture
def tabular(tmp_path: Path) -> Path:
    """A graph that chooses the larger of two columns, and always takes three rows."""
    import numpy as np
    from onnx import TensorProto, helper

    nodes = [helper.make_node("MatMul", ["x", "w"], ["logits"])]
    return graph(tmp_path / "tabular", [("x", TensorProto.FLOAT, [3, 2])], nodes, np.eye(2, dtype=np.float32))


def test_a_graph_gets_the_numbers_of_the_columns(tabular: Path, tmp_path: Path) -> None:
    pairs = [(1, 2, 1), (5, 2, 0), (1, 2, 0), (0.5, 0.75, 1)]
    file = write(tmp_path / "rows.jsonl", [{"a": a, "b": b, "label": label} for a, b, label in pairs])
    params = TorchMetricsParams(data_config="data", input_cols=["a", "b"], scores={"accuracy_score": {}, "recall": {}})
    found = TorchMetrics().measure(params, context(tabular, file))
    assert (found["accuracy_score"], found["recall"], found["count"]) == (0.75, 1.0, 4)


def test_a_graph_gets_the_tokens_of_its_tokenizer(pico_model: Path, tmp_path: Path) -> None:
    import numpy as np
    from onnx import TensorProto, helper
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pico_model)
    joy = tokenizer("joy", add_special_tokens=False)["input_ids"]
    weight = np.zeros((400, 2), dtype=np.float32)
    weight[joy, 1] = 5
    nodes = [
        helper.make_node("Gather", ["w", "input_ids"], ["rows"]),
        helper.make_node("ReduceMax", ["rows"], ["logits"], axes=[1], keepdims=0),
    ]
    shape = ["batch", "length"]
    folder = graph(tmp_path / "text", [("input_ids", TensorProto.INT64, shape)], nodes, weight)
    tokenizer.save_pretrained(folder)
    file = write(tmp_path / "rows.jsonl", [{"s": "the joy of it", "label": 1}, {"s": "a mat", "label": 0}])
    params = TorchMetricsParams(data_config="data", input_cols=["s"])
    assert TorchMetrics().measure(params, context(folder, file))["accuracy_score"] == 1.0


def test_a_graph_that_falls_back_to_the_cpu_is_an_error(tabular: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    file = write(tmp_path / "rows.jsonl", [{"a": 1, "b": 2, "label": 1}])
    there = replace(context(tabular, file), target=Accelerator("cpu", "AzureExecutionProvider"))
    with pytest.raises(UnavailableError, match="no node of the model ran on AzureExecutionProvider"):
        TorchMetrics().measure(TorchMetricsParams(data_config="data", input_cols=["a", "b"]), there)


OLIVE = {
    "input_model": {"type": "HfModel", "model_path": "classifier", "task": "text-classification"},
    "data_configs": [
        {
            "name": "tones",
            "type": "HuggingfaceContainer",
            "load_dataset_config": {"data_name": "json", "data_files": "rows.jsonl", "split": "train"},
            "pre_process_data_config": {"input_cols": ["sentence"], "label_col": "tone", "max_length": 32},
            "dataloader_config": {"batch_size": 4},
        }
    ],
    "evaluators": {
        "e": {
            "metrics": [
                {
                    "name": "tone",
                    "type": "accuracy",
                    "data_config": "tones",
                    "sub_types": [
                        {"name": "accuracy_score", "priority": 1, "goal": {"type": "threshold", "value": 0.5},
                         "metric_config": {"task": "multiclass", "num_classes": 3}},
                        {"name": "f1_score", "metric_config": {"task": "multiclass", "num_classes": 3}},
                    ],
                }
            ]
        }
    },
    "evaluator": "e",
    "output_dir": "models",
    "cache_dir": "cache",
}  # fmt: skip


def test_a_configuration_of_olive_runs_from_end_to_end(checkpoint: Path, tmp_path: Path) -> None:
    chosen = logits_of(checkpoint, TEXTS).argmax(-1).tolist()
    truths = [*chosen[:7], (chosen[7] + 1) % 3]
    write(tmp_path / "rows.jsonl", [{"sentence": t, "tone": c} for t, c in zip(TEXTS, truths, strict=True)])
    model = {**OLIVE["input_model"], "model_path": str(checkpoint)}
    (tmp_path / "olive.json").write_text(json.dumps(OLIVE | {"input_model": model}))
    done = subprocess.run(
        [sys.executable, "-m", "olivine", "run", "olive.json"], cwd=tmp_path, capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "models" / "metrics.json").read_text())
    assert metrics["input"]["tone"]["accuracy_score"] == pytest.approx(7 / 8)
    assert metrics["goals"][0]["met"]


def test_classifiers_are_measured_and_not_changed(tmp_path: Path) -> None:
    changed = load(OLIVE | {"passes": {"q": {"type": "Quantize"}}}).workflow
    assert [each.kind for each in unavailable(changed)] == ["model"]
    assert unavailable(load(OLIVE).workflow) == []


def test_columns_come_from_the_preparation() -> None:
    from olivine.config.schema import DataConfig
    from olivine.evaluate.torch_metrics import columns_of

    prepared = Component(type="huggingface_pre_process", params={"input_cols": ["a", "b"], "label_cols": ["c"]})
    config = DataConfig(name="d", data_files="x.jsonl", pre_process_data=prepared)
    assert columns_of(TorchMetricsParams(data_config="d"), config) == (["a", "b"], "c")
    with pytest.raises(ConfigError, match="which columns of d the model gets"):
        columns_of(TorchMetricsParams(data_config="d"), DataConfig(name="d", data_files="x.jsonl"))
