"""The contract with onnxruntime-genai's model builder: fails when an installed version is not as it was seen."""

from __future__ import annotations

import inspect
from importlib.metadata import version

from packaging.specifiers import SpecifierSet

from olivine.models.genai import PROVIDERS
from olivine.passes.convert.builder_arguments import OPTION_OF_PARAMETER, RESERVED
from olivine.passes.convert.builder_checks import VALID
from olivine.passes.convert.builder_facts import SEEN_WITH, builder_facts, builder_options


def test_installed_version_is_in_the_range_that_was_seen() -> None:
    assert SpecifierSet(SEEN_WITH).contains(version("onnxruntime-genai"))


def test_builder_has_its_two_public_functions() -> None:
    from onnxruntime_genai.models import builder

    place = ["model_name", "input_path", "output_dir", "precision", "execution_provider", "cache_dir"]
    assert list(inspect.signature(builder.create_model).parameters) == [*place, "extra_options"]
    assert list(inspect.signature(builder.parse_extra_options).parameters)[:7] == [*place, "extra_options"]


def test_architectures_read_from_the_source_are_those_it_dispatches_on() -> None:
    facts = builder_facts()
    assert facts is not None
    assert {"Phi3ForCausalLM", "LlamaForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM"} <= set(facts.architectures)
    assert len(facts.architectures) >= 30


def test_execution_providers_are_those_we_know() -> None:
    facts = builder_facts()
    assert facts is not None
    assert set(facts.execution_providers) == set(VALID) == set(PROVIDERS.values())


def test_precisions_are_those_we_offer() -> None:
    facts = builder_facts()
    assert facts is not None
    assert set(facts.precisions) == {precision for valid in VALID.values() for precision in valid}


def test_every_option_that_we_pass_is_read_by_the_builder() -> None:
    assert set(OPTION_OF_PARAMETER.values()) | set(RESERVED) <= builder_options()
