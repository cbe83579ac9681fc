"""Keys of passes that nothing depends on here, and parameters that a pass does not have.

Olive dropped an unknown parameter with a line in its log. Here a parameter that some pass of Olive has, but not this
one, is named as one without effect; a parameter that no pass ever had is a mistake if Olivine runs the pass, and is
kept and named if it does not.
"""

from __future__ import annotations

from olivine.config.dialects.document import Document, Entries, Section
from olivine.config.wording import nearest
from olivine.passes import known, registry

OWN = frozenset({"type", "host", "evaluator", "disable_search"})

WITHOUT_EFFECT = {
    "clean_run_cache": "the cache knows what has changed",
    "output_name": "only the final model is put into the output folder; the others are in the cache",
}


def translate(document: Document) -> None:
    """Settle every key of every pass."""
    passes = document.root.section("passes")
    for name, value in list(passes.items()):
        if isinstance(value, Entries) and len(value) == 1 and isinstance(value[0], Section):
            passes.put(name, value[0], value.origins[0])
        elif isinstance(value, Entries) and not value:
            document.without_effect(passes, name, "it lists no alternatives")
    _name_of_the_last(document)
    for _, each in document.passes():
        for key, why in WITHOUT_EFFECT.items():
            if each.get(key) is not None and each[key] is not False:
                document.without_effect(each, key, why)
            else:
                each.take(key)
        kind = each.get("type")
        if isinstance(kind, str):
            _parameters(document, each, kind)


def _name_of_the_last(document: Document) -> None:
    """The last pass's ``output_name`` is that of the final model, where the engine has none."""
    engine = document.root.section("engine")
    passes = list(document.passes())
    if passes and engine.get("output_name") is None and isinstance(document.root.get("engine"), Section):
        passes[-1][1].move("output_name", engine)


def _parameters(document: Document, each: Section, kind: str) -> None:
    run = registry.find(kind)
    olive = known.find(kind)
    if olive is None:
        return
    fields = set(run.params_type.model_fields) if run is not None else set()
    for key in [key for key in each if key not in OWN]:
        if each[key] is None:
            each.take(key)  # as good as nothing
        elif run is not None and key not in fields:
            if key in olive.parameters:
                document.without_effect(each, key, f"{olive.name} does without it here")
            elif key in known.parameters_of_any():
                document.without_effect(
                    each, key, f"{olive.name} has no such parameter, and Olive took no notice of it"
                )
        elif run is None and key not in olive.parameters:
            near = nearest(key, olive.parameters)
            document.note(
                each.at(key),
                f"{olive.name} is not known to have it{f' (is {near} meant?)' if near else ''}; it is kept as it is",
            )
