"""Spaces and samplers: which points there are, and that those asked for come again with the same seed."""

from __future__ import annotations

import math
from typing import Any

import pytest

from olivine.config.schema import SearchStrategy, Workflow
from olivine.errors import ConfigError
from olivine.search.asking import asker
from olivine.search.pareto import Objective, dominates, front
from olivine.search.planning import different_prefixes
from olivine.search.space import LEFT_OUT, Space, space_of

LOSS = [Objective("loss", "loss", higher_is_better=False, priority=1)]


def space(passes: dict[str, Any], **strategy: Any) -> Space:
    return space_of(
        Workflow.model_validate(
            {
                "input_model": {"model_path": "org/model"},
                "passes": passes,
                "engine": {"search_strategy": {"sampler": "sequential"} | strategy},
            }
        )
    )


GRID = {"q": {"type": "Quantize", "bits": [4, 8], "group_size": [32, 64, 128], "method": ["rtn", "search", "hqq"]}}


def test_lists_are_choices_and_lists_that_are_values_are_not() -> None:
    found = space({"q": {"type": "Quantize", "bits": [4, 8], "modules_to_exclude": ["*.a", "*.b"]}})
    assert [each.name for each in found.dimensions] == ["q.bits"]
    assert found.at({"q.bits": 8}).single_pass("q").params == {"bits": 8, "modules_to_exclude": ["*.a", "*.b"]}


def test_ranges_choices_of_the_pass_and_defaults() -> None:
    found = space(
        {
            "lora": {
                "type": "LoRA",
                "r": {"low": 4, "high": 64, "log": True},
                "alpha": {"low": 8, "high": 16, "step": 4},
            },
            "q": {"type": "Quantize", "bits": "SEARCHABLE_VALUES", "group_size": "DEFAULT_VALUE"},
        }
    )
    assert [each.as_json() for each in found.dimensions] == [
        {"name": "lora.r", "low": 4, "high": 64, "log": True},
        {"name": "lora.alpha", "choices": [8, 12, 16]},
        {"name": "q.bits", "choices": [4, 8]},
    ]
    assert found.size is None
    assert "group_size" not in found.at(found.first()).single_pass("q").params
    with pytest.raises(ConfigError, match=r"range of lora.r cannot be gone through in order"):
        next(found.points())


def test_parameters_that_are_not_given_are_searched_only_if_asked_for() -> None:
    assert space({"lora": {"type": "LoRA"}}).dimensions == ()
    assert [each.name for each in space({"lora": {"type": "LoRA"}}, include_pass_params=True).dimensions] == ["lora.r"]


def test_alternatives_and_optional_passes_have_parameters_of_their_own() -> None:
    found = space(
        {
            "tune": [{"type": "LoRA", "r": [4, 8]}, {"type": "DoRA", "alpha": [1, 2, 3]}],
            "q": {"type": "Quantize", "optional": True, "bits": [4, 8]},
        }
    )
    points = list(found.points())
    assert found.size == len(points) == (2 + 3) * (2 + 1)
    assert {"tune": "DoRA", "tune.1.alpha": 3, "q": LEFT_OUT} in points
    assert list(found.at({"tune": "DoRA", "tune.1.alpha": 3, "q": LEFT_OUT}).passes) == ["tune"]
    chosen = found.at({"tune": "LoRA", "tune.0.r": 8, "q": "Quantize", "q.bits": 4})
    assert (chosen.single_pass("tune").type, chosen.single_pass("tune").params["r"]) == ("LoRA", 8)


def test_wrong_spaces_are_refused_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        space({"q": {"type": "Quantize", "bits": {"low": 8, "high": 4}, "lm_head_bits": "SEARCHABLE_VALUES"}})
    assert len(caught.value.problems) == 2


def bowl(point: dict[str, Any]) -> float:
    return (point["q.bits"] - 4) + abs(point["q.group_size"] - 64) / 32 + (point["q.method"] != "search")


@pytest.mark.parametrize("sampler", ["random", "gp", "tpe", "nsga2"])
def test_a_sampler_asks_for_every_point_once_and_the_same_with_the_same_seed(sampler: str) -> None:
    runs = []
    for _ in range(2):
        found = space(GRID)
        asking = asker(found, SearchStrategy(sampler=sampler, seed=5), LOSS)  # type: ignore[arg-type]
        points = []
        while (point := asking.ask()) is not None:
            points.append(point)
            failed = point["q.method"] == "hqq"
            asking.tell(point, [None if failed else bowl(point)], {"failed": 1e6 if failed else 0.0})
        runs.append(points)
    assert runs[0] == runs[1]
    assert len(runs[0]) == len({str(sorted(each.items())) for each in runs[0]}) == 18


def test_tpe_needs_fewer_than_random() -> None:
    def asked(sampler: str, seed: int) -> int:
        found = space(GRID | {"lora": {"type": "LoRA", "r": [2, 4, 8, 16]}})
        asking = asker(found, SearchStrategy(sampler=sampler, seed=seed, max_samples=40), LOSS)  # type: ignore[arg-type]
        for count in range(1, 73):
            point = asking.ask()
            assert point is not None
            value = bowl(point) + abs(point["lora.r"] - 8) / 8
            if value == 0:
                return count
            asking.tell(point, [value], {})
        raise AssertionError("the best point was not asked for")

    gp, tpe, random = (sum(asked(sampler, seed) for seed in range(6)) for sampler in ("gp", "tpe", "random"))
    assert gp < tpe < random


def ask(sampler: str, found: Space, objectives: list[Objective], value: Any, most: int = 40) -> list[dict[str, Any]]:
    """Ask for points, and answer with ``value(point)``: values and violations."""
    asking = asker(found, SearchStrategy(sampler=sampler, seed=2), objectives)  # type: ignore[arg-type]
    points: list[dict[str, Any]] = []
    while len(points) < most and (point := asking.ask()) is not None:
        points.append(point)
        asking.tell(point, *value(point))
    return points


def test_a_gaussian_process_leaves_alone_what_cannot_meet_the_goals() -> None:
    def value(point: dict[str, Any]) -> tuple[list[float | None], dict[str, float]]:
        large = point["q.bits"] == 8
        return [None if large else bowl(point)], {"size": 0.1 if large else 0.0}

    points = ask("gp", space(GRID), LOSS, value, most=11)
    assert sum(point["q.bits"] == 8 for point in points) <= 3
    assert len([point for point in points if point["q.bits"] == 4]) >= 8


def test_a_gaussian_process_goes_through_ranges() -> None:
    rates = {"lora": {"type": "LoRA", "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}, "r": [2, 4, 8]}}

    def value(point: dict[str, Any]) -> tuple[list[float | None], dict[str, float]]:
        return [abs(math.log10(point["lora.learning_rate"]) + 3) + abs(point["lora.r"] - 4) / 4], {}

    points = ask("gp", space(rates), LOSS, value, most=18)
    assert min(value(point)[0][0] for point in points) < 0.1  # type: ignore[type-var]
    assert all(1e-5 <= point["lora.learning_rate"] <= 1e-1 for point in points)


def test_a_gaussian_process_looks_along_the_front_of_two_objectives() -> None:
    two = [*LOSS, Objective("size", "size", higher_is_better=False, priority=2)]
    widths = {"q": {"type": "Quantize", "bits": [2, 4, 8], "group_size": [16, 32, 64, 128, 256]}}

    def value(point: dict[str, Any]) -> tuple[list[float | None], dict[str, float]]:
        loss = 8.0 - point["q.bits"] + point["q.group_size"] / 256
        return [loss, point["q.bits"] + 16 / point["q.group_size"]], {}

    tried = {(point["q.bits"], point["q.group_size"]) for point in ask("gp", space(widths), two, value, most=8)}
    assert (8, 16) in tried, "the best by the first objective"
    assert (2, 256) in tried, "the other end of the front"


def test_a_gaussian_process_asked_for_several_at_once_gives_others() -> None:
    asking = asker(space(GRID), SearchStrategy(sampler="gp", seed=1), LOSS)
    points = []
    for _ in range(6):
        batch = [point for point in (asking.ask(), asking.ask(), asking.ask()) if point is not None]
        for point in batch:
            asking.tell(point, [bowl(point)], {})
        points += batch
    assert len({str(sorted(each.items())) for each in points}) == 18


def test_the_front_is_what_nothing_dominates() -> None:
    two = [*LOSS, Objective("size", "size", higher_is_better=False, priority=2)]
    found = front({"a": [1, 9], "b": [2, 5], "c": [2, 6], "d": [3, 5], "e": [1, 9]}, two)
    assert found == ["a", "e", "b"]
    assert dominates([1, 1], [1, 2], two)
    assert not dominates([1, 1], [1, 1], two)


def categorical(*support: Any) -> dict[str, Any]:
    return {"olive_parameter_type": "SearchParameter", "type": "Categorical", "support": list(support)}


def conditional(parents: list[str], support: dict[Any, Any], default: Any = None) -> dict[str, Any]:
    found = {"olive_parameter_type": "SearchParameter", "type": "Conditional", "parents": parents, "support": support}
    return found | ({"default": default} if default is not None else {})


def test_candidates_share_what_has_the_same_choices_before() -> None:
    lora = {"type": "LoRA", "r": [8, 16]}
    found = space({"lora": lora, "merge": {"type": "MergeAdapterWeights"}} | GRID)
    assert different_prefixes(found, 36) == {"lora": 2, "merge": 2, "q": 36}
    assert different_prefixes(found, 4)["q"] == 4
    ranged = space(
        {"merge": {"type": "MergeAdapterWeights"}, "lora": lora | {"alpha": {"low": 8, "high": 16, "log": True}}} | GRID
    )
    assert different_prefixes(ranged, 10) == {"merge": 1, "lora": 10, "q": 10}


IGNORED, INVALID = "OLIVE_IGNORED_PARAM_VALUE", "OLIVE_INVALID_PARAM_VALUE"


@pytest.fixture
def depending() -> Space:
    """Group sizes hang on the width: two for 4 bits, the default for 8, and 2 bits are none."""
    size = conditional(["bits"], {"4": categorical(32, 64), "8": categorical(IGNORED)}, categorical(INVALID))
    return space({"q": {"type": "Quantize", "group_size": size, "bits": [8, 4, 2], "method": ["rtn", "search"]}})


def test_a_parameter_that_depends_on_others_has_their_choices(depending: Space) -> None:
    chosen = [
        {key: value for key, value in depending.at(point).single_pass("q").params.items() if key != "method"}
        for point in depending.points()
    ]
    expected: list[dict[str, Any]] = [{"bits": 8}, {"bits": 4, "group_size": 32}, {"bits": 4, "group_size": 64}]
    assert depending.size == len(chosen) == 2 * 3
    assert all(each in expected for each in chosen)
    assert depending.first()["q.bits"] == 8
    assert {"name": "q.group_size", "choices": [32, 64], "when": "q.bits=4"} in [
        each.as_json() for each in depending.dimensions
    ]


@pytest.mark.parametrize("sampler", ["random", "gp", "tpe", "nsga2"])
def test_a_sampler_asks_for_no_combination_that_is_none(depending: Space, sampler: str) -> None:
    asking = asker(depending, SearchStrategy(sampler=sampler, seed=3), LOSS)  # type: ignore[arg-type]
    points = []
    while (point := asking.ask()) is not None:
        points.append(point)
        asking.tell(point, [float(point["q.bits"])], {})
    assert len(points) == 6
    assert all(point["q.bits"] != 2 for point in points)


def test_a_default_may_depend_on_several_parents_one_of_which_is_settled() -> None:
    default = conditional(
        ["bits", "symmetric"], {"4": {"true": categorical("search")}, "8": {"false": categorical("hqq")}},
        categorical("rtn"),
    ) | {"type": "ConditionalDefault"}  # fmt: skip
    found = space({"q": {"type": "Quantize", "bits": [4, 8], "symmetric": True, "method": default}})
    assert [(each["q.bits"], each["q.method"]) for each in found.points()] == [(4, "search"), (8, "rtn")]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (conditional(["width"], {"4": categorical(1)}), "depends on width"),
        (conditional([], {}), "depends on nothing"),
        (conditional(["bits"], {"4": [1, 2]}), "has no choices for 4"),
        ({"olive_parameter_type": "SearchParameter", "type": "Normal"}, "unknown kind, 'Normal'"),
    ],
)
def test_wrong_dependencies_are_refused(value: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        space({"q": {"type": "Quantize", "bits": [4, 8], "group_size": value}})


def test_parameters_that_depend_on_each_other_are_refused() -> None:
    one = conditional(["group_size"], {"32": categorical(4)}, categorical(8))
    other = conditional(["bits"], {"4": categorical(32)}, categorical(64))
    with pytest.raises(ConfigError, match="depend on each other"):
        space({"q": {"type": "Quantize", "bits": one, "group_size": other}})
