"""Modules that a quantiser stores otherwise: Olive's ``overrides`` by name and GPTQModel's ``dynamic`` by pattern."""

from __future__ import annotations

import re
from typing import Any

from olivine.config.dialects.document import Document, Entries, Section

HEAD = "lm_head"
EMBEDDING = "embed"
JOINED = re.compile(r"([\w.]*)[qkv]_proj")
"""Projections of one attention, which the runtime multiplies with at once."""

OLIVE = {"bits": "bits", "group_size": "group_size", "symmetric": "sym"}
"""Parts of a scheme, and what the passes call them."""

PLAIN = re.compile(r"\^?(?:\.\*|\\?\.|\w)+\*?\$?")
"""A regular expression that is a name with ``*`` in it."""


def why_not(each: Section) -> tuple[str, str] | None:
    """Return the parameter that cannot be translated and why, or ``None``."""
    for key in ("overrides", "dynamic"):
        value = each.get(key)
        if value is None:
            continue
        if not isinstance(value, Section) or not all(isinstance(item, Section) or not item for item in value.values()):
            return key, f"{key} has to be an object of objects"
    for name in each.section("dynamic"):
        if not PLAIN.fullmatch(_bare(name)):
            return "dynamic", f"{name!r} is more than a name with * in it"
    return None


def translate(document: Document, each: Section, *, all_alike: bool) -> None:
    """Write ``overrides`` or ``dynamic`` as a list of patterns.

    Args:
        document: the document.
        each: the pass, under Olive's names, but with ``lm_head_bits``.
        all_alike: whether q, k and v of an attention must be stored in one way; then all have the most accurate of
            their three, as with Olive.
    """
    key = "overrides" if "overrides" in each else "dynamic"
    given, origin = each.take(key)
    if not isinstance(given, Section):
        return
    overrides, excluded = Entries(origin), Entries(origin)
    for name, value in given.items():
        pattern = _glob(name) if key == "dynamic" else name
        if EMBEDDING in pattern:
            document.note(given.at(name), "has no effect: Quantize leaves the embedding as it is")
        elif HEAD in pattern and "lm_head_bits" not in each:
            document.note(given.at(name), "has no effect: lm_head is not quantised")
        elif key == "dynamic" and name.startswith("-:"):
            excluded.add(pattern, given.origins.get(name))
        elif value:
            overrides.add(_override(document, given, name, pattern), given.origins.get(name))
    if all_alike:
        _join(document, each, overrides)
    if overrides:
        each.put("overrides", overrides, origin)
    if excluded:
        each.put("modules_to_exclude", excluded, origin)


def add_head(before: Section, after: Section) -> None:
    """Store the output layer of ``before`` as ``after`` has it; both are passes of Olivine already."""
    scheme = {"bits": before["lm_head_bits"], "group_size": after["group_size"], "symmetric": after["symmetric"]}
    for override in after.get("overrides") or ():
        if override["pattern"] == HEAD:
            scheme |= {key: override[key] for key in scheme if key in override}
    before["lm_head_bits"] = scheme.pop("bits")
    if all(before[key] == value for key, value in scheme.items()):
        return
    made = Section(after.origin)
    made.put("pattern", HEAD, after.origin)
    for key, value in scheme.items():
        made.put(key, value, after.origins.get(key))
    listed = before.get("overrides")
    if not isinstance(listed, Entries):
        listed = Entries(after.origin)
        before.put("overrides", listed, after.origin)
    listed.add(made, after.origin)


def _bare(name: str) -> str:
    return name[2:] if name[:2] in ("+:", "-:") else name


def _glob(name: str) -> str:
    """Return a plain regular expression, which GPTQModel matches from the beginning of a name, as a pattern.

    One that ends with a letter and ``*`` is meant as a name that begins so.
    """
    body = _bare(name).removeprefix("^")
    pattern = body.removesuffix("$").replace("\\.", ".").replace(".*", "*")
    return pattern if body.endswith(("*", "$")) else f"{pattern}*"


def _override(document: Document, given: Section, name: str, pattern: str) -> Section:
    """Return one entry of the list."""
    value = given[name]
    made = Section(value.origin)
    made.put("pattern", pattern, value.origin)
    for key, item in value.items():
        if key == "desc_act":
            document.note(
                value.at(key), "has no effect: act_order is one for all matrices, and groups keep their places"
            )
        elif item is not None:
            made.put("symmetric" if key == "sym" else key, item, value.origins.get(key))
    return made


def _join(document: Document, each: Section, overrides: Entries) -> None:
    """Give q, k and v of each attention the most accurate of the ways that their three are stored in."""
    named: dict[str, Section] = {override["pattern"]: override for override in overrides}
    parents = dict.fromkeys(match[1] for name in named if (match := JOINED.fullmatch(name)))
    for parent in parents:
        members = [f"{parent}{letter}_proj" for letter in "qkv"]
        schemes = [{key: named.get(name, each).get(key, each[old]) for key, old in OLIVE.items()} for name in members]
        numbers = all(isinstance(scheme[key], int) for scheme in schemes for key in scheme)
        if not numbers or all(scheme == schemes[0] for scheme in schemes):
            continue
        best = max(schemes, key=_accuracy)
        told = named[next(name for name in members if name in named)]
        document.note(
            told.origin if isinstance(told.origin, tuple) else each.at("overrides"),
            f"q_proj, k_proj and v_proj have {best['bits']} bits alike, as with Olive: they are one product",
        )
        for name in members:
            made = named.get(name)
            if made is None:
                made = Section(told.origin)
                made.put("pattern", name)
                overrides.add(made)
            for key, item in best.items():
                if made.get(key) != item:
                    made.put(key, item)


def _accuracy(scheme: dict[str, Any]) -> tuple[int, bool, int]:
    """Return what orders schemes by accuracy: more bits, then smaller groups, whole rows last."""
    return scheme["bits"], scheme["group_size"] > 0, -scheme["group_size"]
