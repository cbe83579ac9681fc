"""Latency and throughput of ONNX graphs, and that a silent fall-back to the CPU is an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from built_models import genai_of
from metric_inputs import context

from olivine.errors import ConfigError, UnavailableError
from olivine.evaluate.base import MetricContext
from olivine.evaluate.latency import TIMES, Latency, LatencyParams, Throughput
from olivine.passes.base import Accelerator, Format


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one ONNX graph: a batch of rows times a matrix, four times over."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    folder = tmp_path_factory.mktemp("graph")
    weight = numpy_helper.from_array(np.ones((256, 256), dtype=np.float32) / 256, "w")
    nodes = [helper.make_node("MatMul", ["x" if i == 0 else f"h{i}", "w"], [f"h{i + 1}"]) for i in range(4)]
    shape = ["batch_size", 256]
    made = helper.make_graph(
        nodes,
        "matmuls",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("h4", TensorProto.FLOAT, shape)],
        [weight],
    )
    save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), folder / "model.onnx")
    return folder


def of(graph: Path, provider: str = "CPUExecutionProvider") -> MetricContext:
    return MetricContext(graph, Format.ONNX, {}, Accelerator("cpu", provider), lambda *_, **__: None)


def test_latency_has_every_value_of_olive_in_order(graph: Path) -> None:
    found = Latency().measure(LatencyParams(warmup=2, repeats=9), of(graph))
    assert set(TIMES) <= set(found)
    assert 0 < found["min"] <= found["p50"] <= found["p75"] <= found["p90"] <= found["p99"] <= found["max"]
    assert found["min"] <= found["avg"] <= found["max"]
    assert found["nodes"] == {"CPUExecutionProvider": 4}


def test_throughput_counts_rows_and_a_larger_batch_does_more_of_them(graph: Path) -> None:
    one, many = (
        Throughput().measure(LatencyParams(warmup=2, repeats=9, batch_size=size), of(graph))["p50"] for size in (1, 256)
    )
    assert many > 2 * one


def test_a_genai_graph_runs_with_an_empty_past(pico_model: Path) -> None:
    model = genai_of(pico_model, "int4")
    found = Latency().measure(
        LatencyParams(warmup=0, repeats=2, dimensions={"sequence_length": 8}), replace(context(model), format="genai")
    )
    assert found["avg"] > 0
    assert list(found["nodes"]) == ["CPUExecutionProvider"]


def test_a_provider_that_takes_no_node_is_an_error(graph: Path) -> None:
    # It comes with ONNX Runtime, starts, and leaves every node of ours to the CPU.
    with pytest.raises(UnavailableError, match="no node of the model ran on AzureExecutionProvider"):
        Latency().measure(LatencyParams(warmup=0, repeats=1), of(graph, "AzureExecutionProvider"))


def test_a_provider_that_is_not_installed_is_an_error(graph: Path) -> None:
    with pytest.raises(UnavailableError, match="CUDAExecutionProvider is not in the ONNX Runtime here"):
        Latency().measure(LatencyParams(warmup=0, repeats=1), of(graph, "CUDAExecutionProvider"))


def test_settings_of_olive_are_the_parameters() -> None:
    settings = {"avg": {"warmup_num": 3, "repeat_test_num": 7}, "p90": {"sleep_num": 0}}
    found = Latency.settle(LatencyParams(), settings)
    assert (found.warmup, found.repeats, found.sleep_s) == (3, 7, 0)
    with pytest.raises(ConfigError, match="repeats_num is no setting of avg"):
        Latency.settle(LatencyParams(), {"avg": {"repeats_num": 3}})
