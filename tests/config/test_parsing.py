"""Text to values, and the line of every key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        ('{\n "a": 1,\n}', 3, "comma"),
        ('{\n "a": 1\n "b": 2}', 3, "delimiter"),
        ("{\n 'a': 1}", 2, "double quotes"),
        ('{"a": NaN}', None, "NaN"),
        ('{\n "a": 1,\n "a": 2}', 3, "twice"),
        ("a: 1\nb: [1,\n", 3, "YAML"),
        ("a: 1\na: 2\n", 2, "twice"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "YAML"),
        ("a: 1\n\tb: 2\n", 2, "YAML"),
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
