"""Evaluators by name: Olive takes one in place of its name, in the engine and in passes, and a metric by name too."""

from __future__ import annotations

import copy

from olivine.config.dialects.document import Document, Entries, Section


def translate(document: Document) -> None:
    """Give every evaluator a name, and put metrics that are named into the evaluators that name them."""
    _hoist(document, document.root.section("engine"), "engine_evaluator")
    for name, each in document.passes():
        _hoist(document, each, f"{name}_evaluator")
    _metrics_by_name(document)


def _hoist(document: Document, owner: Section, name: str) -> None:
    value = owner.get("evaluator")
    if not isinstance(value, Section):
        return
    root = document.root
    evaluators = root.get("evaluators")
    if not isinstance(evaluators, Section):
        evaluators = Section(owner.at("evaluator"))
        root.put("evaluators", evaluators)
    same = [key for key, each in evaluators.items() if each == value]
    made = same[0] if same else name
    while made in evaluators and not same:
        made += "_"
    origin = owner.origins.get("evaluator")
    evaluators.put(made, value, origin)
    owner.put("evaluator", made, origin)


def _metrics_by_name(document: Document) -> None:
    root = document.root
    listed = root.get("metrics")
    named: dict[str, Section] = {}
    if isinstance(listed, Section):
        named = {key: each for key, each in listed.items() if isinstance(each, Section)}
    elif isinstance(listed, Entries):
        named = {str(each.get("name")): each for each in listed if isinstance(each, Section)}
    used = set()
    for evaluator in root.section("evaluators").values():
        metrics = evaluator.get("metrics") if isinstance(evaluator, Section) else None
        if not isinstance(metrics, Entries):
            continue
        for index, each in enumerate(metrics):
            if isinstance(each, str) and each in named:
                used.add(each)
                metrics[index] = copy.deepcopy(named[each])
                metrics.origins[index] = named[each].origin
    if "metrics" in root:
        for name, each in named.items():
            if name not in used and isinstance(each.origin, tuple):
                document.note(each.origin, "has no effect: no evaluator names it")
        if named or not listed:
            root.take("metrics")
