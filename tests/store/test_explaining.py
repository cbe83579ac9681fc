"""Why a Step misses."""

from __future__ import annotations

import copy

import pytest

from olivine.store.explaining import NOT_SET, compare, explain_miss

STEP = {
    "kind": "pass",
    "type": "LoRA",
    "version": 1,
    "params": {"r": 8, "target_modules": ["qkv_proj"], "training": {"seed": 1}},
    "inputs": {"model": "files:aa"},
    "data": {"train_data_config": {"content": ["11", "22"], "config": {"max_seq_len": 64}}},
    "libraries": {"peft": "0.20"},
}


def changed(path: str, value: object) -> dict[str, object]:
    step = copy.deepcopy(STEP)
    place: dict[str, object] = step
    *folders, name = path.split(".")
    for folder in folders:
        place = place[folder]  # type: ignore[assignment]
    place[name] = value
    return step


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("params.r", 16, "r: 8 -> 16"),
        ("params.target_modules", ["o_proj"], 'target_modules: ["qkv_proj"] -> ["o_proj"]'),
        ("params.training.seed", 2, "training.seed: 1 -> 2"),
        ("params.alpha", 4, "alpha: (not set) -> 4"),
        ("inputs.model", "files:bb", "another model goes in (files:aa -> files:bb)"),
        ("data.train_data_config.content", ["11", "33"], "train_data_config: the content of the data has changed"),
        ("data.train_data_config.config.max_seq_len", 32, "train_data_config: max_seq_len: 64 -> 32"),
        ("libraries.peft", "0.21", "peft 0.20 -> 0.21"),
        ("version", 2, "this version of Olivine computes it differently (version 1 -> 2)"),
    ],
)
def test_the_part_that_changed_is_named(path: str, value: object, said: str) -> None:
    (difference,) = compare(STEP, changed(path, value))
    assert difference.path == path
    assert difference.now == value
    assert str(difference) == said


def test_the_name_in_the_file_is_no_difference() -> None:
    assert compare(STEP | {"name": "lora"}, STEP | {"name": "other"}) == ()


def test_the_most_similar_of_the_same_type_is_compared(store, put) -> None:
    put("aa" * 16, step=changed("params", {"r": 64}))
    put("bb" * 16, step=changed("params.r", 4))
    put("cc" * 16, step=STEP | {"type": "DoRA"})
    miss = explain_miss(STEP, store)
    assert miss.nearest is not None
    assert miss.nearest.digest == "bb" * 16
    assert [(each.path, each.before, each.now) for each in miss.differences] == [("params.r", 4, 8)]


def test_of_equally_similar_ones_the_newest_is_compared(store, put) -> None:
    put("aa" * 16, step=changed("params.r", 4))
    put("bb" * 16, step=changed("params.r", 5))
    assert explain_miss(STEP, store).differences[0].before == 5


def test_a_type_that_was_never_made_has_nothing_to_compare(store, put) -> None:
    put(step=STEP | {"type": "DoRA"})
    assert explain_miss(STEP, store).nearest is None


def test_a_key_that_is_gone_is_a_difference() -> None:
    (difference,) = compare(changed("params.alpha", 4), STEP)
    assert (difference.before, difference.now) == (4, NOT_SET)
