"""The search, flat: ``sampler_config`` stands beside ``sampler``, and ``true`` says in which order."""

from __future__ import annotations

from olivine.config.dialects.document import Document, Entries, Section
from olivine.config.dialects.nested_objects import flatten
from olivine.config.dialects.releases import age


def translate(document: Document) -> None:
    """Make the search flat, and settle what passes say about it."""
    engine = document.root.get("engine")
    if isinstance(engine, Section) and "search_strategy" in engine:
        _strategy(document, engine)
    searched = isinstance(engine, Section) and bool(engine.get("search_strategy"))
    for _, each in document.passes():
        _pass(document, each, searched)
    if searched:
        _rank_the_only_value(document)


def _strategy(document: Document, engine: Section) -> None:
    value = engine["search_strategy"]
    path = engine.at("search_strategy")
    if value is True:
        made = Section(path)
        made.put("execution_order", "joint", path)
        made.put("sampler", "sequential", path)
        made.put("include_pass_params", True, path)
        engine.put("search_strategy", made, engine.origins.get("search_strategy"))
        document.note(path, "true is a joint search through the whole space; recent releases of Olive refuse it")
        return
    if value == {}:
        engine.put("search_strategy", False, engine.origins.get("search_strategy"))
        return
    if not isinstance(value, Section):
        return
    flatten(document, value, "sampler_config")
    for key in ("execution_order", "sampler"):
        if isinstance(value.get(key), str):
            value.put(key, value[key].lower(), value.origins.get(key))
    if value.get("max_samples") == 0:
        value.take("max_samples")  # all, which is the default
    for key in [key for key, item in value.items() if item is None]:
        value.take(key)
    value.fill("include_pass_params", True)
    if str(value.get("execution_order", "joint")) != "joint":
        for key in ("stop_when_goals_met", "max_iter", "max_time"):
            document.without_effect(value, key, "it is for a joint search")


def _pass(document: Document, each: Section, searched: bool) -> None:
    if "disable_search" in each:
        if not searched:
            document.without_effect(each, "disable_search", "nothing is searched")
        elif age(document.dialect) >= age("0.8"):
            document.without_effect(each, "disable_search", "Olive takes no notice of it since 0.7.1")
        elif not each["disable_search"]:
            each.take("disable_search")  # the default
    for key, value in list(each.items()):
        if isinstance(value, Section) and value.get("olive_parameter_type") == "SearchParameter":
            _parameter(each, key, value)
        elif value == "DEFAULT_VALUE" and not searched:
            document.note(each.at(key), "DEFAULT_VALUE: it is left to its default")
            each.take(key)


def _parameter(each: Section, key: str, value: Section) -> None:
    """Write a search parameter that only lists its choices as a list; one that depends on others stays."""
    kind = str(value.get("type", "")).lower()
    if kind == "boolean":
        choices = Entries(value.origin)
        for index, choice in enumerate((True, False)):
            choices.add(choice, value.origin)
            choices.origins[index] = value.origin
        each.put(key, choices, each.origins.get(key))
    elif kind == "categorical" and isinstance(value.get("support"), Entries):
        each.put(key, value["support"], each.origins.get(key))


def _rank_the_only_value(document: Document) -> None:
    """Olive searches by the one value there is, if none has a priority."""
    for evaluator in document.root.section("evaluators").values():
        metrics = evaluator.get("metrics") if isinstance(evaluator, Section) else None
        values = [
            value
            for metric in (metrics if isinstance(metrics, Entries) else ())
            if isinstance(metric, Section) and isinstance(metric.get("sub_types"), Entries)
            for value in metric["sub_types"]
            if isinstance(value, Section)
        ]
        if len(values) == 1:
            values[0].fill("priority", 1)
