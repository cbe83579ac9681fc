"""What pydantic finds wrong, in plain sentences with the nearest valid key."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

FORMER: dict[str, str] = {
    "lora_r": "r",
    "lora_alpha": "alpha",
    "source_max_len": "max_seq_len",
    "corpus_strategy": "strategy",
    "hf_config": "model_path",
    "from_pretrained_args": "load_kwargs",
    "model_loading_args": "load_kwargs",
    "accelerators": "device",
    "execution_providers": "execution_provider",
}
"""Keys of older dialects and what they are called in the canonical schema."""

MOST_MISTAKES = 100
"""Mistakes of one part of a configuration that are told one by one."""

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
    "tuple": "a list",
}


def nearest(given: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``given`` most likely means."""
    known = list(known)
    if FORMER.get(given) in known:
        return FORMER[given]
    if len(given) > 100:  # no slip of the finger
        return None
    import difflib  # only after a mistake

    pairs = _pairs(given.lower())
    overlap = sorted(
        ((2 * len(pairs & each) / (len(pairs) + len(each)), name) for name, each in _index(tuple(known))), reverse=True
    )
    # difflib is thorough and slow: it judges only those that share pairs of letters.
    folded = {name.lower(): name for shared, name in overlap[:5] if shared > 0.1}
    found = difflib.get_close_matches(given.lower(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def slip(given: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``given`` is a slip of the finger for; what merely resembles one is none."""
    if len(given) > 100:
        return None
    import difflib  # only for a key that is not known

    found = difflib.get_close_matches(given.lower(), sorted(known), n=1, cutoff=0.87)
    return found[0] if found else None


@lru_cache(maxsize=64)
def _index(known: tuple[str, ...]) -> list[tuple[str, frozenset[str]]]:
    return [(name, _pairs(name.lower())) for name in known]


def _pairs(text: str) -> frozenset[str]:
    """Return the pairs of neighbouring letters, the ends marked."""
    marked = f"^{text}$"
    return frozenset(marked[at : at + 2] for at in range(len(marked) - 1))


def suggestion(given: str, known: Iterable[str], what: str = "keys") -> str:
    """Return a remedy: the nearest name, or what names there are."""
    known = list(known)
    near = nearest(given, known)
    if near is not None:
        return f"did you mean {near}?"
    return f"the {what} here are {', '.join(known)}" if known else ""


def sentences(
    error: ValidationError, model: type[BaseModel], subject: str
) -> list[tuple[tuple[str | int, ...], str, str]]:
    """Return one (path, sentence, remedy) per mistake, alternatives of a union folded into one.

    Args:
        error: what pydantic raised when it validated against ``model``.
        subject: what ``model`` is, for sentences about its keys (``LoRA``).
    """
    found: dict[tuple[str | int, ...], list[tuple[str, str]]] = {}
    branches: set[tuple[str | int, ...]] = set()
    errors = error.errors(include_url=False)
    for each in errors[:MOST_MISTAKES]:
        path, inner = _real_path(each["loc"], model)
        found.setdefault(path, []).append(_sentence(each, path, inner, subject))
        if each["type"].endswith("_type") or each["type"] == "literal_error":
            branches.add(path)  # perhaps only that the value is of another branch of a union
    # What is wrong inside of an object is not that it is no list, too.
    for path in branches:
        if any(len(other) > len(path) and other[: len(path)] == path for other in found):
            found.pop(path, None)
    merged = []
    for path, told in found.items():
        wanted = list(dict.fromkeys(text for text, _ in told))
        remedies = [remedy for _, remedy in told if remedy]
        if len(wanted) > 1:
            head = wanted[0].split("; it must be ")[0]
            kinds = list(dict.fromkeys(text.split("; it must be ")[1] for text in wanted if "; it must be " in text))
            text = f"{head}; it must be {' or '.join(kinds)}" if kinds else wanted[0]
        else:
            text = wanted[0]
        merged.append((path, text, remedies[0] if remedies else ""))
    if len(errors) > MOST_MISTAKES:
        merged.append(((), f"there are {len(errors) - MOST_MISTAKES} more mistakes in {subject}", ""))
    return merged


def _sentence(each: Any, path: tuple[str | int, ...], inner: type[BaseModel] | None, subject: str) -> tuple[str, str]:
    key = str(path[-1]) if path else subject
    kind, given, context = each["type"], each.get("input"), each.get("ctx", {})
    if kind == "extra_forbidden":
        keys = list(inner.model_fields) if inner is not None else []
        # An item of a list is called by the list too: `data_configs.0`.
        owner = [str(part) for part in path[-3 if len(path) > 2 and isinstance(path[-2], int) else -2 : -1]]
        return f"`{key}` is not a key of {'.'.join(owner) or subject}", suggestion(key, keys)
    if kind == "key_missing":
        return f"`{context['key']}` is missing", f"add {context['key']}"
    if kind == "missing":
        return f"`{key}` is missing", f"add {key}"
    shown = f"`{key}` is {_shown(given)}"
    if kind in ("literal_error", "enum"):
        choices = [
            text.strip().strip("'") if text.strip() not in ("True", "False") else text.strip().lower()
            for text in str(context.get("expected", "")).replace(" or ", ", ").split(",")
        ]
        near = nearest(given, choices) if isinstance(given, str) else None
        return f"{shown}; it must be {' or '.join(choices)}", f"did you mean {near}?" if near else ""
    if kind == "string_pattern_mismatch":
        return f"{shown}; it must match {context.get('pattern')}", "use letters, digits and underscores"
    for prefix, words in _KINDS.items():
        if kind.startswith(prefix + "_") and ("type" in kind or "parsing" in kind or "from_float" in kind):
            return f"{shown}; it must be {words}", ""
    limits = {"greater_than": ("more than", "gt"), "greater_than_equal": ("at least", "ge"),
              "less_than": ("less than", "lt"), "less_than_equal": ("at most", "le")}  # fmt: skip
    if kind in limits:
        word, name = limits[kind]
        return f"{shown}; it must be {word} {context[name]}", ""
    if kind == "too_short":
        return f"`{key}` is empty", "give at least one"
    if kind == "value_error":
        return f"{shown}: {context.get('error', each['msg'])}", ""
    return f"{shown}: {each['msg'][0].lower()}{each['msg'][1:]}", ""


def _shown(value: Any) -> str:
    """Return a value with its kind, shortened."""
    if value is None:
        return "null"
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    if isinstance(value, str):
        return f"{text}, a text"
    if isinstance(value, bool):
        return text.lower()
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return text


def _real_path(
    location: tuple[str | int, ...], model: type[BaseModel]
) -> tuple[tuple[str | int, ...], type[BaseModel] | None]:
    """Return the keys in pydantic's location (which also names union branches), and the model that the last is in."""
    path: list[str | int] = []
    inner: type[BaseModel] | None = model
    annotation: Any = model
    for part in location:
        if get_origin(annotation) in (typing.Union, types.UnionType) and isinstance(part, str):
            branch = next((each for each in get_args(annotation) if _is_label(part, _label(each))), None)
            if branch is not None:
                annotation = branch
                continue
        owner = _model_in(annotation)
        if owner is not None and isinstance(part, str):
            inner = owner
            path.append(part)
            annotation = owner.model_fields[part].annotation if part in owner.model_fields else None
            continue
        origin = get_origin(annotation)
        arguments = get_args(annotation)
        if origin in (typing.Union, types.UnionType):
            containers = [each for each in arguments if get_origin(each) in (list, dict, tuple)]
            if isinstance(part, int) or (containers and get_origin(containers[0]) is dict and "[" not in str(part)):
                annotation = containers[0] if containers else None
                origin, arguments = get_origin(annotation), get_args(annotation)
            else:
                continue  # the name of a branch
        if origin in (list, tuple) and isinstance(part, int):
            path.append(part)
            annotation = arguments[0] if arguments else None
        elif origin is dict:
            path.append(part)
            annotation = arguments[1] if len(arguments) > 1 else None
        elif part not in ("int", "float", "str", "bool") and not str(part).startswith(
            ("list[", "dict[", "literal[", "function-")
        ):
            path.append(part)
            annotation = None
    return tuple(path), inner


def _label(annotation: Any) -> str | None:
    """Return what pydantic calls a branch of a union that has a model in it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.__name__
    if get_origin(annotation) is list:
        return f"list[{_label(get_args(annotation)[0])}]"
    if get_origin(annotation) is typing.Literal:
        return f"literal[{','.join(repr(each) for each in get_args(annotation))}]"
    return annotation.__name__ if annotation in (str, int, float, bool) else None


def _is_label(part: str, label: str | None) -> bool:
    """Return whether pydantic means a branch of a union; it names the validators of a model along with it."""
    return label is not None and (part == label or (part.startswith("function-") and part.endswith(f" {label}]")))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation is or may be."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return next((found for each in get_args(annotation) if (found := _model_in(each)) is not None), None)
    return None
