"""The table of Olive's passes is complete in itself, and its checks are as loose as Olive's and no looser."""

from __future__ import annotations

from typing import Any

import pytest

from olivine.passes import known, registry
from olivine.passes.known_parameters import PARAMETERS


def test_every_pass_is_run_or_replaced_by_a_known_one_or_says_why_not_and_what_to_do() -> None:
    for each in known.table():
        if each.status is known.Status.REPLACED:
            assert known.find(str(each.replacement)) is not None, each.name
        elif each.status in (known.Status.NOT_AVAILABLE, known.Status.TRANSLATED):
            assert each.why, each.name
            assert each.instead, each.name
        else:
            assert registry.find(each.name) is not None


def test_every_pass_of_the_registry_is_known_but_those_that_olive_never_had() -> None:
    assert [name for name in registry.BUILTIN if known.find(name) is None] == ["Quantize"]


def test_names_are_matched_in_any_case_and_are_unique() -> None:
    found = known.find("onnxCONVERSION")
    assert found is not None
    assert found.name == "OnnxConversion"
    assert len({name.lower() for name in known.names()}) == len(known.names())


def test_every_pass_with_parameters_is_in_the_table_and_every_kind_is_a_kind() -> None:
    assert [name for name in PARAMETERS if known.find(name) is None] == []
    kinds = {kind for name in PARAMETERS for each in known.find(name).parameters.values() for kind in each}  # type: ignore[union-attr]
    assert kinds <= {*known.KIND_WORDS, "any"}


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("TrtMatMulToConvTransform", "save_as_external_data", True),
        ("OpenVINOWeightCompression", "ignored_scope", "lm_head"),
        ("QuarkQuantization", "exclude", {"lm_head": True}),
        ("QNNConversion", "use_olive_env", True),
        ("OnnxConversion", "input_tensor_func", "make_inputs"),
        ("SelectiveMixedPrecision", "keep_tied_word_embeddings", False),
    ],
)
def test_parameters_of_single_releases_are_known_too(name: str, key: str, value: Any) -> None:
    found = known.find(name)
    assert found is not None
    assert known.fits(value, found.parameters[key])


def test_groups_are_opened() -> None:
    found = known.find("OnnxConversion")
    assert found is not None
    assert {"save_as_external_data", "convert_attribute", "user_script", "target_opset"} <= set(found.parameters)


@pytest.mark.parametrize(
    ("value", "kinds", "expected"),
    [
        (13, {"int"}, True),
        ("13", {"int"}, True),
        ("thirteen", {"int"}, False),
        (1.5, {"int"}, False),
        (1, {"float"}, True),
        ("true", {"bool"}, True),
        ("maybe", {"bool"}, False),
        ([1, 2], {"int"}, True),
        ([1, "two"], {"int"}, False),
        ({"a": 1}, {"list"}, False),
        ({"name": "calibration"}, {"data"}, True),
        ("SEARCHABLE_VALUES", {"bool"}, True),
        ({"olive_parameter_type": "SearchParameter", "type": "Categorical", "support": [1]}, {"int"}, True),
        ("<place_holder>", {"bool"}, True),
    ],
)
def test_values_are_taken_as_loosely_as_olive_takes_them(value: Any, kinds: set[str], expected: bool) -> None:
    assert known.fits(value, frozenset(kinds)) is expected
