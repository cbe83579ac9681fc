"""Passes, metrics and searches in the canonical form: what is accepted, what is refused, and how it is said."""

from __future__ import annotations

from typing import Any

import pytest

from olivine.config import load
from olivine.config.availability import unavailable
from olivine.errors import ConfigError

BASE: dict[str, Any] = {"version": 1, "input_model": {"model_path": "org/model"}}


def refused(**sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(BASE | sections)
    return str(caught.value)


def found(**sections: Any) -> dict[str, str]:
    """What is not available, by path."""
    return {each.path: each.kind for each in unavailable(load(BASE | sections).workflow)}


def test_a_pass_that_is_only_known_is_kept_with_its_parameters_and_named() -> None:
    sections = {"passes": {"c": {"type": "onnxconversion", "target_opset": 17, "strange": [1]}}}
    config = load(BASE | sections).workflow.single_pass("c")
    assert config.type == "OnnxConversion"
    assert config.params == {"target_opset": 17, "strange": [1]}
    assert found(**sections) == {"passes.c": "pass"}


def test_a_parameter_of_a_known_pass_has_its_kind_checked() -> None:
    said = refused(passes={"c": {"type": "OnnxConversion", "target_opset": {"a": 1}}})
    assert "passes.c.target_opset: `target_opset` is an object; it must be a whole number" in said


def test_a_name_that_no_pass_ever_had_gets_the_nearest() -> None:
    assert "Did you mean OnnxConversion?" in refused(passes={"c": {"type": "OnnxConvertion"}})


def test_choices_of_a_pass_that_is_run_are_checked_one_by_one() -> None:
    said = refused(passes={"b": {"type": "ModelBuilder", "precision": ["int4", "int5"]}})
    assert "passes.b.precision" in said


def test_choices_are_kept_and_are_not_available_without_a_search() -> None:
    passes = {"b": {"type": "ModelBuilder", "precision": ["int4", "fp16"], "int4_block_size": "SEARCHABLE_VALUES"}}
    assert load(BASE | {"passes": passes}).workflow.single_pass("b").params["precision"] == ["int4", "fp16"]
    assert found(passes=passes) == {"passes.b.precision": "search", "passes.b.int4_block_size": "search"}


def test_a_list_that_is_a_value_is_no_list_of_choices() -> None:
    builder = {"type": "ModelBuilder", "precision": "int4", "int4_nodes_to_exclude": ["/lm_head/MatMul"]}
    assert found(passes={"b": builder}) == {}


def test_alternatives_and_flows_are_kept_and_not_available() -> None:
    passes = {
        "b": [{"type": "ModelBuilder", "precision": "int4"}, {"type": "ModelBuilder", "precision": "fp32"}],
        "m": {"type": "MergeAdapterWeights"},
    }
    assert found(passes=passes, pass_flows=[["m", "b"], ["b"]]) == {"passes.b": "search", "pass_flows": "search"}


def test_a_mistake_in_an_alternative_is_told_once_and_in_its_place() -> None:
    said = refused(passes={"b": [{"type": "OnnxConversion", "host": 3}]})
    assert said == "passes.b.0.host: `host` is 3; it must be text."


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"passes": {"b": 3}}, "passes.b: `b` is 3; it must be an object or a list."),
        ({"passes": {"b": {"host": "h"}}}, "passes.b.type: `type` is missing. Add type."),
        (
            {"engine": {"search_strategy": True}},
            "engine.search_strategy: `search_strategy` is true; it must be an object or false.",
        ),
        (
            {"engine": {"search_strategy": {"sampler": "tpee"}}},
            "engine.search_strategy.sampler: `sampler` is 'tpee', a text; it must be sequential or random or gp or "
            "tpe or nsga2. Did you mean tpe?",
        ),
        ({"pass_flows": [["nobody"]]}, "'nobody' is not one of the passes"),
    ],
)
def test_a_mistake_beside_alternatives_is_said_plainly(sections: dict[str, Any], expected: str) -> None:
    assert expected in refused(**sections)


def metric(**keys: Any) -> dict[str, Any]:
    return {"evaluators": {"e": {"metrics": [keys]}}, "engine": {"evaluator": "e"}}


def test_a_metric_that_is_only_known_is_kept_and_named() -> None:
    goal = {"type": "percent-min-improvement", "value": 20}
    sections = metric(type="huggingface_metrics", sub_types=[{"name": "avg", "priority": 1, "goal": goal}])
    assert found(**sections) == {"evaluators.e.metrics.0": "metric"}
    values = load(BASE | sections).workflow.evaluators["e"].metrics[0].sub_types
    assert values is not None
    assert values[0].goal is not None
    assert values[0].goal.value == 20


def test_a_distance_is_not_negative_and_a_threshold_may_be() -> None:
    goals = [{"name": "avg", "goal": {"type": kind, "value": -1}} for kind in ("threshold", "max-degradation")]
    said = refused(**metric(type="latency", sub_types=goals))
    assert "sub_types.1.goal" in said
    assert "sub_types.0" not in said


def test_functions_of_a_script_are_recorded_and_not_run() -> None:
    sections = metric(type="custom", user_config={"user_script": "does_not_exist.py", "evaluate_func": "f"})
    read = load(BASE | sections).workflow.evaluators["e"].metrics[0]
    assert "does_not_exist.py" in str(read.params)


def test_an_evaluator_measures_something() -> None:
    assert "`metrics` is missing" in refused(evaluators={"e": {}})
    assert "metricss" in refused(evaluators={"e": {"metricss": []}})


def test_an_evaluator_of_its_own_keeps_its_parameters_and_is_named() -> None:
    sections = {"evaluators": {"e": {"type": "LMEvaluator", "tasks": ["mmlu"]}}, "engine": {"evaluator": "e"}}
    assert load(BASE | sections).workflow.evaluators["e"].params == {"tasks": ["mmlu"]}
    assert found(**sections) == {"evaluators.e": "evaluator"}
