"""A plan knows the machine that the model ships to, also when it is not this one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from olivine.api import plan, prepare
from olivine.cli.main import main
from olivine.config.profiles import kind_of, profile, profile_names
from olivine.config.schema import System
from olivine.errors import ConfigError, Location, PlanError, UnavailableError
from olivine.hardware.machine import Gpu, Machine
from olivine.hardware.placement import place
from olivine.hardware.targets import target_of
from olivine.passes.base import Format, ModelFacts
from olivine.planning.fit import cache_shape, fit_of, misfit

GIB = 2**30
HERE = Machine("a processor", 4, 16 * GIB, False)


@pytest.fixture
def workflow(tmp_path: Path, pico_model: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "input_model": {"model_path": str(pico_model)},
        "passes": {"b": {"type": "ModelBuilder", "precision": "int4"}},
        "engine": {"cache_dir": str(tmp_path / "cache"), "output_dir": str(tmp_path / "out")},
    }


def phi3_mini(weights: int = 2_200_000_000) -> ModelFacts:
    config = {
        "hidden_size": 3072, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "vocab_size": 32064, "max_position_embeddings": 4096,
    }  # fmt: skip
    return ModelFacts(Format.GENAI, config, None, {}, parameters=3_800_000_000, weights=weights)


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_a_system_with_its_memory(name: str) -> None:
    system = profile(name)
    assert system is not None
    assert system.execution_provider is not None
    found = kind_of(name)
    assert found is not None
    assert system.memory == (f"{found[1]}GiB" if found[1] else None)


@pytest.mark.parametrize("name", ["cuda-10gb", "CPU-4GB", "tensorrt-rtx-16gb"])
def test_any_memory_may_be_asked_for(name: str) -> None:
    assert profile(name) is not None


@pytest.mark.parametrize("name", ["cuda-0gb", "gpu", "cpu-4", "cpu-gb", "", "cuda-24tb", "../cpu"])
def test_other_names_are_none(name: str) -> None:
    assert profile(name) is None


def test_keys_and_values_of_the_context_are_counted() -> None:
    system = profile("cuda-24gb")
    assert system is not None
    target = target_of("cuda-24gb", system, place(system, HERE), HERE)
    fit = fit_of(phi3_mini(), target)
    assert fit is not None
    assert fit.cache == 2 * 32 * 32 * 96 * 2 * 4096  # keys and values, layers, heads, head size, float16, tokens
    assert fit.fits
    longer = fit_of(phi3_mini(), replace(target, context_length=131072))
    assert longer is not None
    assert longer.cache == 32 * fit.cache
    assert longer.fits is False


def test_a_model_that_does_not_fit_is_refused_with_what_would() -> None:
    system = profile("cpu-4gb")
    assert system is not None
    fit = fit_of(phi3_mini(), target_of("cpu-4gb", system, place(system, HERE), HERE))
    assert fit is not None
    problem = misfit(fit, Location(path="engine.target"), "")
    assert problem is not None
    assert "it takes about" in problem.what
    assert "4.3 GB is what there is" in problem.what
    shorter = f"context_length: {fit.most_tokens}"
    assert shorter in problem.remedy
    fits = fit_of(phi3_mini(), replace(fit.target, context_length=fit.most_tokens))
    assert fits is not None
    assert fits.fits


def test_memory_that_nobody_has_said_is_that_of_this_machine_if_it_has_such_a_processor() -> None:
    with_gpu = replace(HERE, gpus=(Gpu("a GPU", 24 * GIB, 8.6),))
    gpu = System(device="gpu", execution_provider="CUDAExecutionProvider")
    assert target_of(None, System(), place(System(), HERE), HERE).memory == 16 * GIB
    away = System(type="AzureML", aml_compute="cpu-cluster")
    assert target_of("aml", away, place(away, HERE), HERE).memory is None
    assert target_of("t", gpu, place(gpu, with_gpu), with_gpu).memory == 24 * GIB
    unknown = target_of("t", gpu, place(gpu, HERE), HERE)
    assert (unknown.memory, unknown.is_here) == (None, False)
    fit = fit_of(phi3_mini(), unknown)
    assert fit is not None
    assert fit.fits is None


def test_the_shape_of_the_cache_is_read_from_both_kinds_of_configuration() -> None:
    grouped = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    assert cache_shape(grouped) == (2, 2, 16)
    assert cache_shape({**grouped, "head_dim": 32}) == (2, 2, 32)
    decoder = {"num_hidden_layers": 2, "num_key_value_heads": 2, "head_size": 16}
    assert cache_shape({"model": {"decoder": decoder}}) == (2, 2, 16)
    assert cache_shape({"model_type": "something"}) is None


def test_a_plan_for_a_machine_that_is_not_here(workflow: dict[str, Any]) -> None:
    workflow["engine"]["target"] = "cuda-24gb"
    made = plan(workflow)
    assert made.target is not None
    assert made.fit is not None
    assert (made.target.name, made.target.memory) == ("cuda-24gb", 24 * GIB)
    assert made.fit.fits
    assert made.steps[-1].target.execution_provider == "CUDAExecutionProvider"


def test_a_description_in_place_and_one_under_systems_mean_the_same(workflow: dict[str, Any]) -> None:
    described = {"device": "gpu", "execution_provider": "DmlExecutionProvider", "memory": "6GB", "context_length": 300}
    workflow["engine"]["target"] = described
    in_place = plan(workflow)
    workflow |= {"systems": {"tablet": described}}
    workflow["engine"]["target"] = "tablet"
    named = plan(workflow)
    assert in_place.fit is not None
    assert named.fit is not None
    assert in_place.target is not None
    assert in_place.target.memory == 6 * 10**9
    assert in_place.fit.context == named.fit.context == 300
    assert in_place.steps[-1].digest == named.steps[-1].digest


def test_target_at_the_top_is_short_for_that_of_the_engine(workflow: dict[str, Any]) -> None:
    made = plan({**workflow, "target": "cuda-24gb"})
    assert made.target is not None
    assert made.target.name == "cuda-24gb"
    described = plan({**workflow, "target": {"device": "cpu", "memory": "2GB"}})
    assert described.target is not None
    assert described.target.memory == 2 * 10**9
    with pytest.raises(ConfigError, match="given twice"):
        plan({**workflow, "target": "cpu", "engine": {**workflow["engine"], "target": "cpu-4gb"}})


def test_too_small_a_target_is_refused_and_force_goes_on(workflow: dict[str, Any]) -> None:
    workflow["systems"] = {"watch": {"device": "cpu", "memory": "540MB"}}
    workflow["engine"]["target"] = "watch"
    with pytest.raises(UnavailableError, match=r"the model will not fit watch: .* 540 MB is what there is"):
        prepare(workflow)
    forced, _ = prepare(workflow, force=True)
    assert any("will not fit watch" in note for note in forced.notes)


def test_what_the_target_has_no_units_for_is_refused(workflow: dict[str, Any]) -> None:
    workflow["passes"]["b"]["precision"] = "bf16"
    turing = {"device": "gpu", "execution_provider": "CUDAExecutionProvider", "compute_capability": 7.5}
    workflow["systems"] = {"turing": turing}
    workflow["engine"]["target"] = "turing"
    with pytest.raises(PlanError, match="turing has no bfloat16 units"):
        plan(workflow)
    workflow["systems"]["turing"]["compute_capability"] = 8.6
    assert plan(workflow).target is not None


def test_widths_without_a_kernel_on_the_target_are_refused(workflow: dict[str, Any]) -> None:
    workflow["passes"]["b"]["lm_head_bits"] = 8
    workflow["engine"]["target"] = "directml"
    with pytest.raises(PlanError, match="for which DmlExecutionProvider has no kernel"):
        plan(workflow)
    workflow["engine"]["target"] = "cuda"
    assert plan(workflow).target is not None


def test_an_unknown_target_names_what_there_is(workflow: dict[str, Any]) -> None:
    workflow["engine"]["target"] = "cudda"
    with pytest.raises(ConfigError, match="Did you mean cuda"):
        plan(workflow)


def test_a_system_of_ones_own_goes_before_a_profile(workflow: dict[str, Any]) -> None:
    workflow["systems"] = {"cpu": {"device": "cpu", "memory": "2GB"}}
    workflow["engine"]["target"] = "cpu"
    made = plan(workflow)
    assert made.target is not None
    assert made.target.memory == 2 * 10**9


def test_a_memory_that_is_no_size_is_said_with_its_place(workflow: dict[str, Any]) -> None:
    workflow["systems"] = {"box": {"device": "cpu", "memory": "plenty"}}
    workflow["engine"]["target"] = "box"
    with pytest.raises(PlanError, match=r"systems\.box\.memory.*'PLENTY'|'plenty' is no size"):
        plan(workflow)


def test_targets_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("cpu-4gb", "cuda-24gb", "webgpu"))
    assert main(["targets", "show", "cuda-10gb", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory_gib"] == 10
    assert "bf16" in found["precisions"]
    assert main(["targets", "show", "cpu-4gb"]) == 0
    assert "CPUExecutionProvider" in capsys.readouterr().out
    assert main(["targets", "show", "cda"]) == 2
    assert "Did you mean cuda" in capsys.readouterr().err
