"""Digests of values, files and folders."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olivine.errors import StoreError
from olivine.store import Store, digest_file, digest_json, digest_tree
from olivine.store import digests as module
from olivine.store.digests import DigestCache

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value, chance: random.Random):
    """Return an equal value whose keys were inserted in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(item, chance)) for key, item in value.items()]
        chance.shuffle(items)
        return dict(items)
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


@given(VALUES, st.integers())
def test_the_order_of_keys_does_not_matter(value, seed: int) -> None:
    assert digest_json(shuffled(value, random.Random(seed))) == digest_json(value)


@given(VALUES)
def test_a_value_keeps_its_digest_through_a_file(value) -> None:
    assert digest_json(json.loads(json.dumps(value))) == digest_json(value)


@given(VALUES, VALUES)
def test_different_values_have_different_digests(first, second) -> None:
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (digest_json(first) == digest_json(second)) is same


def test_the_digest_is_the_same_in_every_version() -> None:
    assert digest_json({"b": [1, 2.5, None, True], "a": "né"}) == "383113c8813d2d3b369851b9b0e998f5"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_a_number_that_is_not_finite_has_no_digest(value) -> None:
    with pytest.raises(ValueError):
        digest_json(value)


def write(path: Path, content: bytes, age_s: float = 10.0) -> Path:
    """Write a file that is ``age_s`` old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content was read, in order."""
    seen: list[str] = []

    def counting(path) -> str:
        seen.append(os.path.basename(path))
        return digest_file(path)

    monkeypatch.setattr(module, "digest_file", counting)
    # A new file's ctime cannot be set back, so what counts as too young to be trusted is made shorter instead.
    monkeypatch.setattr(module, "RACY_NS", 50_000_000)
    return seen


def settle() -> None:
    time.sleep(0.06)


def test_an_unchanged_file_is_read_once_by_any_number_of_processes(store, reads, tmp_path: Path) -> None:
    path = write(tmp_path / "weights", b"abc")
    settle()
    expected = hashlib.sha256(b"abc").hexdigest()
    assert store.digest_file(path) == expected
    assert store.digest_file(path) == expected
    assert Store(store.root).digest_file(path) == expected
    assert reads == ["weights"]


def test_a_change_that_keeps_the_size_is_seen(store, reads, tmp_path: Path) -> None:
    path = write(tmp_path / "weights", b"abc")
    settle()
    store.digest_file(path)
    path.write_bytes(b"abd")
    assert store.digest_file(path) == hashlib.sha256(b"abd").hexdigest()


def test_a_change_that_keeps_size_and_time_is_seen(store, reads, tmp_path: Path) -> None:
    path = write(tmp_path / "weights", b"abc")
    settle()
    store.digest_file(path)
    status = path.stat()
    path.write_bytes(b"abd")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.digest_file(path) == hashlib.sha256(b"abd").hexdigest()


def test_a_file_that_took_another_ones_place_is_seen(store, reads, tmp_path: Path) -> None:
    path = write(tmp_path / "weights", b"abc")
    other = write(tmp_path / "other", b"abd")
    settle()
    store.digest_file(path)
    os.replace(other, path)
    assert store.digest_file(path) == hashlib.sha256(b"abd").hexdigest()


def test_a_file_that_was_written_just_now_is_read_again(store, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    store.digest_file(path)
    assert not (store.root / "digests").exists()


def test_a_damaged_cache_of_digests_costs_reading_and_nothing_else(store, reads, tmp_path: Path) -> None:
    path = write(tmp_path / "weights", b"abc")
    settle()
    store.digest_file(path)
    for damage in (b"", b"{", b"[]", b'{"folder": "x"}', b"\xff"):
        for file in (store.root / "digests").iterdir():
            file.write_bytes(damage)
        assert Store(store.root).digest_file(path) == hashlib.sha256(b"abc").hexdigest()
    assert len(reads) == 6


def test_a_file_that_keeps_changing_is_an_error(store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write(tmp_path / "weights", b"abc")

    def while_written_to(name) -> str:
        with open(path, "ab") as file:
            file.write(b"more")
        return digest_file(name)

    monkeypatch.setattr(module, "digest_file", while_written_to)
    with pytest.raises(StoreError, match="keeps changing"):
        store.digest_file(path)


@pytest.mark.parametrize("missing", ["digest_file", "digest_tree"])
def test_what_is_not_there_is_an_error(store, tmp_path: Path, missing: str) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        getattr(store, missing)(tmp_path / "absent")


def test_a_folder_is_its_names_and_contents(store, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        write(folder / "config.json", b"{}")
        write(folder / "sub/weights", b"abc", age_s=random.randint(10, 1000))
    assert digest_tree(first) == digest_tree(second) == store.digest_tree(first)
    os.rename(second / "sub/weights", second / "sub/other")
    assert digest_tree(first) != digest_tree(second)
    os.rename(second / "sub/other", second / "sub/weights")
    (second / "sub/weights").write_bytes(b"abd")
    assert store.digest_tree(first) != store.digest_tree(second)


def test_names_with_a_dot_do_not_count_and_links_do(tmp_path: Path) -> None:
    plain, linked = tmp_path / "plain", tmp_path / "linked"
    write(plain / "weights", b"abc")
    write(linked / ".cache/huggingface/x", b"1")
    write(linked / ".gitattributes", b"1")
    (linked / "weights").symlink_to(plain / "weights")
    assert digest_tree(plain) == digest_tree(linked)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    write(tmp_path / "model/weights", b"abc")
    (tmp_path / "model/again").symlink_to(tmp_path / "model")
    assert digest_tree(tmp_path / "model")


def test_patterns_choose_files_at_any_depth(tmp_path: Path) -> None:
    write(tmp_path / "a/weights.safetensors", b"abc")
    before = digest_tree(tmp_path, ["*.safetensors"])
    write(tmp_path / "a/README.md", b"text")
    assert digest_tree(tmp_path, ["*.safetensors"]) == before
    write(tmp_path / "b/more.safetensors", b"abc")
    assert digest_tree(tmp_path, ["*.safetensors"]) != before


def test_only_the_changed_file_of_a_folder_is_read_again(store, reads, tmp_path: Path) -> None:
    for name in ("a", "b", "sub/c"):
        write(tmp_path / "model" / name, b"abc")
    settle()
    store.digest_tree(tmp_path / "model")
    write(tmp_path / "model/b", b"abd")
    reads.clear()
    Store(store.root).digest_tree(tmp_path / "model")
    assert reads == ["b"]


def test_several_files_are_digested_at_a_time_and_remembered(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.bin" for number in range(5)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 1000)
        os.utime(file, (1, 1))
    cache = DigestCache(str(tmp_path / "digests"))
    expected = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert cache.digest_files(files) == expected
    assert cache.digest_files([files[3], files[0]]) == [expected[3], expected[0]]
    with pytest.raises(StoreError, match=r"absent\.bin"):
        DigestCache(str(tmp_path / "others")).digest_files([*files, tmp_path / "absent.bin"])
