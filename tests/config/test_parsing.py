"""Text to values, and the line of every key."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olivine.config import load
from olivine.config.parsing import lines_of, parse, read
from olivine.errors import ConfigError

KEYS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path in a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*path, key), *places(item, (*path, key)))]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_every_place_in_json_has_its_line(value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    found = lines_of(text)
    assert set(found) == set(places(value))
    lines = text.split("\n")
    for path, line in found.items():
        if isinstance(path[-1], str):
            assert lines[line - 1].lstrip().startswith(json.dumps(path[-1], ensure_ascii=False))


def test_every_key_in_yaml_has_its_line() -> None:
    text = "a: 1\nb:\n  c: [1, 2]\n  d:\n    - e: 3\n"
    assert lines_of(text) == {
        ("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "c", 0): 3, ("b", "c", 1): 3, ("b", "d"): 4, ("b", "d", 0): 5,
        ("b", "d", 0, "e"): 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('{\n "a": 1,\n,}', 2, "two commas"),
        ('{\n "a": 1\n "b": 2}', 3, "delimiter"),
        ("{\n 'a': 1}", 2, "double quotes"),
        ('{"a": NaN}', None, "NaN"),
        ('{\n "a": 1,\n "a": 2}', 3, "twice"),
        ("a: 1\nb: [1,\n", 3, "YAML"),
        ("a: 1\na: 2\n", 2, "twice"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "YAML"),
        ("a: 1\n\tb: 2\n", 2, "YAML"),
        ("a: 1\n? [b]\n: 2\n", 2, "plain value"),
        ("a: &a\n  b: *a\n", 2, "holds itself"),
        ("a: 1\nb: .inf\n", 2, "no number"),
        ('{"a": 1e999}', None, "no number"),
        ("a: !!binary aGk=\n", 1, "YAML"),
        ('{\n "a": {rank},\n "b": <path>\n}', 2, "{rank}, <path> are not filled in"),
        ("a: 1\n<<: 2\n", 2, "must name an object"),
    ],
)
def test_what_is_not_valid_is_named_with_its_line(text: str, line: int | None, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    (problem,) = caught.value.problems
    assert said in str(problem)
    if line is not None:
        assert problem.where is not None
        assert problem.where.line == line


def test_comments_and_trailing_commas_are_read_over_and_lines_stay() -> None:
    text = '// what\n{ # why\n "a": "//no /*comment*/ , }", /* how\n so */\n "b": [1, 2, // end\n ],\n}\n'
    assert parse(text, "f.json") == {"a": "//no /*comment*/ , }", "b": [1, 2]}
    assert lines_of(text) == {("a",): 3, ("b",): 5, ("b", 0): 5, ("b", 1): 5}


def test_braces_in_a_yaml_file_are_yaml() -> None:
    text = "{a: 1,\n b: [x, y]}"
    assert parse(text, "f.yaml") == {"a": 1, "b": ["x", "y"]}
    assert lines_of(text)[("b", 1)] == 2
    with pytest.raises(ConfigError, match="JSON"):
        parse(text, "f.json")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2024-01-01", "2024-01-01"),
        ("a: 1e-4", 1e-4),
        ("a: 3e5", "3e5"),
        ("on: 1\nnull: 2\n1: 3", {"on": 1, "null": 2, "1": 3}),
        ("b: &b {x: 1, y: 2}\nc: {<<: *b, y: 3}", {"b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}}),
        ("c: {<<: [{x: 1}, {x: 2, y: 2}]}", {"c": {"x": 1, "y": 2}}),
    ],
)
def test_yaml_means_what_people_mean(text: str, value: Any) -> None:
    assert parse(text, "f.yaml") == (value if isinstance(value, dict) else {"a": value})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    file.write_bytes('{"a": "é"}'.encode(encoding))
    assert read(file)[0] == {"a": "é"}


def test_utf_16_without_a_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    file.write_bytes('{"a": 1}'.encode("utf-16-le"))
    with pytest.raises(ConfigError, match="zero bytes"):
        read(file)


def test_merges_that_multiply_are_refused_before_they_are_made(tmp_path: Path) -> None:
    levels = ["a0: &a0 {x0: 1, y0: 2}"]
    levels += [f"a{n}: &a{n} {{x{n}: 1, <<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 60)]
    file = tmp_path / "merges.yaml"
    file.write_text("\n".join(levels))
    with pytest.raises(ConfigError, match="too large"):
        read(file)


@pytest.mark.parametrize(
    "text",
    [
        "{" + ", " * 10**6,
        "{" + " " * 2 * 10**6,
        "{" + "/*" * 10**6,
        "{" + ",/*" * 7 * 10**5,
        "{" + '"' * 2 * 10**6,
        "{" + "\\" * 2 * 10**6,
        '{"a": [' + "1," * 10**6 + "]}",
        "[" * 2 * 10**6,
        "- " * 10**6,
        "a: " * 5 * 10**5,
        "? " * 10**6,
        "&a " * 5 * 10**5,
        "a:\n" + "".join(f" - &a{n} x\n" for n in range(10**5)),
        "#" * 2 * 10**6,
        "{" + '"a":{' * 3 * 10**5,
    ],
    ids=lambda text: text[:8].replace("\n", " "),
)
def test_what_is_made_to_be_slow_is_answered_in_time(text: str, tmp_path: Path) -> None:
    file = tmp_path / "slow.yaml"
    file.write_text(text)
    began = time.process_time()
    with pytest.raises(ConfigError):
        load(file)
    assert time.process_time() - began < 2


def test_a_file_of_megabytes_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    with file.open("wb") as stream:
        stream.truncate(100 * 2**20)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="larger than"):
            read(file)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_anchors_that_expand_beyond_reason_are_refused(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    file = tmp_path / "laughs.yaml"
    file.write_text("\n".join(levels))
    with pytest.raises(ConfigError, match="too large"):
        read(file)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    for text in ('{"a":' * 5000 + "1" + "}" * 5000, "[" * 5000 + "]" * 5000):
        file = tmp_path / "deep.json"
        file.write_text(text)
        with pytest.raises(ConfigError, match="deep"):
            read(file)


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(b'{"a":\n "\xff\xfe"}')
    with pytest.raises(ConfigError, match="UTF-8") as caught:
        read(file)
    assert caught.value.problems[0].where.line == 2


def test_a_missing_file_is_answered_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "workflow.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match=r"workflow\.yaml"):
        read(tmp_path / "workflw.yaml")
