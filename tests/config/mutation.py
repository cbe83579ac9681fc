"""Configurations as accidents and malice make them: mutations of sound ones, from a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import yaml

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10**30, 1.5, -0.0, 1e308, "", " ", "0", "none", "auto", "é", "\u202e", "a" * 5000,
    "\ud800", "\0",
    "<place_holder>", "{NAME}", "{0.__class__}", "%s", "../../../etc", "~", "/", "https://x/y", "azureml://x", "hf://a",
    "DEFAULT_VALUE", "SEARCHABLE_VALUES", [], {}, [[]], [{}], [None], {"": None}, {"type": None}, {"type": []},
    {"type": "x", "config": None}, {"config": []}, {"config": {"config": {}}}, [1, "a", None, {}], {"name": {}},
    {"search_type": "categorical"}, {"params": 3}, {"type": {}, "params": []},
)  # fmt: skip
"""Values that stand where others are meant."""

NAMES = (
    "type", "config", "name", "params", "passes", "engine", "systems", "data_configs", "evaluators", "input_model",
    "hf_config", "model_path", "accelerators", "device", "execution_providers", "params_config", "component_kwargs",
    "components", "load_dataset_config", "pre_process_data_config", "metrics", "sub_types", "goal", "user_config",
    "search_strategy", "training_args", "data_config", "dataset", "azureml_client", "pass_flows", "evaluator", "host",
    "target", "version", "$schema", "data_root", "auto_optimizer_config", "packaging_config", "search_algorithm",
    "cache_config", "resource_path", "io_config", "script_dir", "user_script", "workflow_host", "builds", "",
    "x" * 3000, "passes.a.b", "0", "_", "__class__", "model_config", "params\n", "true", "<<",
)  # fmt: skip
"""Keys to rename others to, and to add."""


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every container with a key or an index of it."""
    found: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        node = stack.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            found.append((node, key))
            if isinstance(node[key], dict | list):
                stack.append(node[key])
    return found


def _drop(rng: random.Random, node: Any, key: Any, root: Any) -> None:
    del node[key]


def _rename(rng: random.Random, node: Any, key: Any, root: Any) -> None:
    if isinstance(node, dict):
        spelled = list(key) or ["x"]
        at = rng.randrange(len(spelled))
        typo = "".join([*spelled[:at], rng.choice("abcxyz_"), *spelled[at + rng.randrange(2) :]])
        node[rng.choice([typo, key.upper(), rng.choice(NAMES)])] = node.pop(key)


def _retype(rng: random.Random, node: Any, key: Any, root: Any) -> None:
    node[key] = copy.deepcopy(rng.choice(ODD))


def _add(rng: random.Random, node: Any, key: Any, root: Any) -> None:
    value = copy.deepcopy(rng.choice(ODD))
    if isinstance(node, dict):
        node[rng.choice(NAMES)] = value
    else:
        node.insert(key, value)


def _nest(rng: random.Random, node: Any, key: Any, root: Any) -> None:
    inner = node[key]
    node[key] = rng.choice(
        [{"config": inner}, [inner], {"type": "x", "config": inner}, {"params": inner}, {str(key): inner}, [[inner]]]
    )


def _bury(rng: random.Random, node: Any, key: Any, root: Any) -> None:
    inner: Any = node[key]
    for _ in range(rng.choice([5, 60, 99, 300])):
        inner = {"config": inner} if rng.random() < 0.5 else [inner]
    node[key] = inner


def _flatten(rng: random.Random, node: Any, key: Any, root: Any) -> None:
    inner = node[key]
    if isinstance(node, dict) and isinstance(inner, dict):
        del node[key]
        node.update(inner)


def _graft(rng: random.Random, node: Any, key: Any, root: Any) -> None:
    other, at = rng.choice(places(root))
    node[key] = copy.deepcopy(other[at])


def _turn(rng: random.Random, node: Any, key: Any, root: Any) -> None:
    """A list where an object is meant, and the other way round."""
    inner = node[key]
    if isinstance(inner, dict):
        node[key] = list(inner.values()) if rng.random() < 0.5 else list(inner)
    elif isinstance(inner, list):
        node[key] = {str(index): item for index, item in enumerate(inner)}
    else:
        node[key] = [inner] * rng.randrange(4)


def _crowd(rng: random.Random, node: Any, key: Any, root: Any) -> None:
    """Very many keys that are none."""
    if isinstance(node, dict):
        node.update({f"{key}{n}": n for n in range(rng.choice([50, 2000]))})


TREE: tuple[Callable[[random.Random, Any, Any, Any], None], ...] = (
    _drop, _drop, _rename, _rename, _retype, _retype, _retype, _add, _add, _nest, _bury, _flatten, _graft, _turn,
    _crowd,
)  # fmt: skip


def mutated_tree(rng: random.Random, value: Any) -> Any:
    """Return a copy with one to six accidents."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 6)):
        found = places(value)
        if not found:
            break
        node, key = rng.choice(found)
        rng.choice(TREE)(rng, node, key, value)
    return value


def _text(rng: random.Random, value: Any) -> str:
    """Return a tree as some text that means it."""
    style = rng.randrange(4)
    if style < 3:
        return json.dumps(value, indent=rng.choice([None, 1, 4]), ensure_ascii=style == 0)
    return yaml.safe_dump(value, sort_keys=False, default_flow_style=rng.choice([None, True, False]))


def _spoilt(rng: random.Random, text: str) -> bytes:
    """Return a text as bytes, often spoilt."""
    content = text.encode("utf-8", "surrogatepass")
    at = rng.randrange(len(content) + 1)
    return rng.choice(
        [
            lambda: content[:at],
            lambda: content[:at] + bytes([rng.randrange(256) for _ in range(rng.randint(1, 4))]) + content[at:],
            lambda: content[:at] + content[at + rng.randint(1, 30) :],
            lambda: content[:at] + b"\xff\xfe\xed\xa0\x80" + content[at:],
            lambda: b"\xef\xbb\xbf" + content,
            lambda: text.encode("utf-16", "surrogatepass"),
            lambda: text.encode("utf-16-be", "surrogatepass"),
            lambda: content.replace(b"\n", b"\r\n"),
            lambda: content.replace(b",", b", // why\n", 3),
            lambda: content.replace(b"}", b",}", 3),
            lambda: content.replace(b'"', b"'"),
            lambda: content.replace(b": ", b": &a ", 2).replace(b": ", b": *a ", 1),
            lambda: b"<<: [*a, *a]\n" + content,
            lambda: content + content,
            lambda: b"{" * rng.choice([50, 5000]) + content,
            lambda: content[: at // 2] + content[: len(content) // 2] + content[at // 2 :],
            lambda: laughs(rng).encode(),
            lambda: b"",
            lambda: b"[" * 10**5,
        ]
    )()


def laughs(rng: random.Random) -> str:
    """Return anchors of anchors, of lists, objects or merges."""
    width, depth = rng.choice([(2, 60), (9, 12), (50, 5)])
    kind = rng.choice(["[{}]", "{{<<: [{}]}}", "{{k: [{}]}}"])
    lines = ["a0: &a0 " + ("{x: 1}" if "<<" in kind else "lol")]
    lines += [
        f"a{n}: &a{n} " + kind.format(", ".join([f"*a{n - 1}"] * width)).replace("{<<", f"{{k{n}: 1, <<")
        for n in range(1, depth)
    ]
    return "\n".join(lines) + "\n"


def mutations(sources: list[Any], seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield file names and contents without end: two in three are sound texts of unsound trees."""
    rng = random.Random(seed)
    while True:
        tree = mutated_tree(rng, rng.choice(sources))
        try:
            text = _text(rng, tree)
        except (ValueError, RecursionError, yaml.YAMLError):  # what cannot be written cannot be read
            continue
        content = text.encode("utf-8", "surrogatepass") if rng.random() < 0.67 else _spoilt(rng, text)
        yield rng.choice(["a.json", "a.json", "a.yaml"]), content
