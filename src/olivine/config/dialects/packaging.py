"""Packaging: flat, and a list, since Olive takes one or several."""

from __future__ import annotations

from olivine.config.dialects.document import Document, Entries, Section
from olivine.config.dialects.nested_objects import flatten

TYPES = {each.lower(): each for each in ("Zipfile", "Dockerfile", "AzureMLModels", "AzureMLData", "AzureMLDeployment")}


def translate(document: Document) -> None:
    """Make a list of flat objects."""
    engine = document.root.section("engine")
    value, origin = engine.take("packaging_config")
    if not value:
        return
    listed = value
    if not isinstance(value, Entries):
        listed = Entries(origin)
        listed.add(value, origin)
    for each in listed:
        if not isinstance(each, Section):
            continue
        flatten(document, each, "config")
        for key in [key for key, item in each.items() if item is None]:
            each.take(key)
        document.without_effect(each, "generative", "the model tells whether it generates")
        kind = each.get("type")
        if isinstance(kind, str) and kind.lower() in TYPES:
            each.put("type", TYPES[kind.lower()], each.origins.get("type"))
    engine.put("packaging_config", listed, origin)
