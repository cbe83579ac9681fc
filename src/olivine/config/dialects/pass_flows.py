"""0.8: ``pass_flows`` went. Each flow named passes in order; without them all passes are one flow."""

from __future__ import annotations

from typing import Any

from olivine.config.dialects.document import Document, Entries, Section
from olivine.config.placeholders import is_placeholder
from olivine.config.wording import suggestion

MOST_NAMED = 20
"""Passes in no flow that are named one by one."""


def translate(document: Document) -> None:
    """Put the passes of a single flow in its order; keep several flows."""
    root = document.root
    flows = root.get("pass_flows")
    if flows is None:
        root.take("pass_flows")
        return
    path = root.at("pass_flows")
    if not isinstance(flows, Entries) or not all(isinstance(flow, Entries) for flow in flows):
        document.fault(path, "`pass_flows` must be a list of lists of names of passes")
        root.take("pass_flows")
        return
    passes = root.section("passes")
    named = [name for flow in flows for name in flow]
    if any(is_placeholder(name) for name in named):
        return  # a template: which flows it will have is not known yet
    unknown = [name for name in dict.fromkeys(str(each) for each in named) if name not in passes]
    for name in unknown:
        document.fault(path, f"{name!r} is not one of the passes", remedy=suggestion(name, list(passes), "passes"))
    if unknown or not flows:
        root.take("pass_flows")
        return
    left_out = [name for name in passes if name not in named]
    for name in left_out[:MOST_NAMED]:
        document.note(passes.at(name), "has no effect: it is in none of the pass_flows")
    if len(left_out) > MOST_NAMED:
        document.note(path, f"{len(left_out) - MOST_NAMED} more passes have no effect: they are in none of the flows")
    if len(flows) == 1 and len(set(flows[0])) == len(flows[0]):
        root.take("pass_flows")
        if list(flows[0]) != list(passes):
            _arrange(document, passes, list(flows[0]))
            document.note(path, "the passes stand in this order now")
    elif left_out:
        _arrange(document, passes, [name for name in passes if name in named])


def _arrange(document: Document, passes: Section, order: list[Any]) -> None:
    arranged = Section(passes.origin)
    for name in order:
        arranged.put(name, passes[name], passes.origins.get(name))
    document.root.put("passes", arranged, document.root.origins.get("passes"))
