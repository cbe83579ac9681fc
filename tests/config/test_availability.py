"""What is understood and not available is found before anything starts, and said with what to do instead."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from olivine.config import load
from olivine.config.availability import Finding, refuse_unavailable, unavailable
from olivine.errors import UnavailableError

RUNNABLE: dict[str, Any] = {
    "version": 1,
    "input_model": {"model_path": "org/model"},
    "data_configs": [{"name": "train", "data_name": "org/rows"}],
    "systems": {"here": {"device": "cpu"}},
    "passes": {
        "lora": {"type": "LoRA", "train_data_config": "train"},
        "b": {"type": "ModelBuilder", "precision": "int4"},
    },
    "evaluators": {"e": {"metrics": [{"type": "size"}]}},
    "engine": {"host": "here", "evaluator": "e"},
}  # fmt: skip


def findings(**sections: Any) -> list[Finding]:
    return unavailable(load(copy.deepcopy(RUNNABLE) | sections).workflow)


def test_what_runs_has_no_findings() -> None:
    assert findings() == []


@pytest.mark.parametrize(
    ("sections", "path", "kind", "name"),
    [
        ({"passes": {"c": {"type": "OnnxConversion"}}}, "passes.c", "pass", "OnnxConversion"),
        ({"passes": {"b": [{"type": "ModelBuilder", "precision": "int4"}, {"type": "MergeAdapterWeights"}]}},
         "passes.b", "search", "b"),
        ({"passes": {"b": {"type": "ModelBuilder", "precision": ["int4", "fp16"]}}}, "passes.b.precision", "search",
         "precision"),
        ({"input_model": {"type": "PyTorchModel", "model_script": "x.py", "model_loader": "f"}}, "input_model.type",
         "model", "PyTorchModel"),
        ({"evaluators": {"e": {"metrics": [{"type": "huggingface_metrics"}]}}}, "evaluators.e.metrics.0", "metric",
         "huggingface_metrics"),
        ({"input_model": {"model_path": "org/model", "task": "text-classification"}}, "input_model.task", "model",
         "text-classification"),
        ({"input_model": {"model_path": "ftp://host/m"}}, "input_model.model_path", "model", "ftp://host/m"),
        ({"systems": {"here": {"type": "Docker", "image_name": "c"}}}, "systems.here", "system", "Docker"),
        ({"evaluators": {"e": {"type": "LMEvaluator", "tasks": ["x"]}}}, "evaluators.e", "evaluator", "LMEvaluator"),
        ({"data_configs": [{"name": "train", "type": "DummyDataContainer"}]}, "data_configs.train.type", "data",
         "DummyDataContainer"),
        ({"data_configs": [{"name": "train", "data_name": "x", "pre_process_data": {"type": "own"}}]},
         "data_configs.train.pre_process_data", "data", "own"),
        ({"engine": {"packaging_config": [{"type": "Zipfile"}]}}, "engine.packaging_config.0", "packaging", "Zipfile"),
        ({"builds": {"one": {"output_dir": "x"}}}, "builds", "engine", "builds"),
        ({"input_model": {"model_path": "<path>"}}, "input_model.model_path", "placeholder", "<path>"),
    ],
)  # fmt: skip
def test_each_is_found_with_its_path_and_a_remedy(sections: dict[str, Any], path: str, kind: str, name: str) -> None:
    found = [each for each in findings(**sections) if each.path == path]
    assert [(each.kind, each.name) for each in found] == [(kind, name)]
    assert found[0].remedy


def test_a_type_that_is_not_filled_in_is_only_that() -> None:
    found = findings(systems={"here": {"type": "{SYSTEM}"}})
    assert [(each.kind, each.path) for each in found] == [("placeholder", "systems.here.type")]


def test_what_nothing_refers_to_is_not_asked_for() -> None:
    assert findings(
        systems={"here": {}, "cloud": {"type": "AzureML"}},
        data_configs=[{"name": "train", "data_name": "x"}, {"name": "d", "type": "DummyDataContainer"}],
        evaluators={"e": {"metrics": [{"type": "size"}]}, "lm": {"type": "LMEvaluator"}},
    ) == []  # fmt: skip


def test_all_are_refused_at_once() -> None:
    loaded = load(copy.deepcopy(RUNNABLE) | {"passes": {"a": {"type": "OnnxConversion"}, "b": {"type": "Gptq"}}})
    with pytest.raises(UnavailableError) as caught:
        refuse_unavailable(loaded)
    assert [problem.where.path for problem in caught.value.problems if problem.where] == ["passes.a", "passes.b"]
    assert caught.value.exit_code == 3
