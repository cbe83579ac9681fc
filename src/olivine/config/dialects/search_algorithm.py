"""0.8: ``search_algorithm`` became ``sampler``, ``exhaustive`` became ``sequential``; no pass is left out of a search.

Up to 0.7.0, ``disable_search`` kept the parameters of one pass out of the search. A sampler tried one point unless it
was told how many; from 0.8 on it tries all.
"""

from __future__ import annotations

from olivine.config.dialects.document import Document, Section
from olivine.config.dialects.nested_objects import flatten


def translate(document: Document) -> None:
    """Give the search its new names, and write out how many points it tries."""
    strategy = document.root.section("engine").get("search_strategy")
    if not isinstance(strategy, Section):
        return
    flatten(document, strategy, "search_algorithm_config")
    strategy.rename("search_algorithm", "sampler")
    strategy.rename("num_samples", "max_samples")
    if str(strategy.get("sampler")).lower() == "exhaustive":
        strategy.put("sampler", "sequential", strategy.origins.get("sampler"))
    if str(strategy.get("sampler")).lower() in ("random", "tpe"):
        strategy.fill("max_samples", 1)
    if strategy.get("sampler") == "sequential":
        # It goes through the whole space whatever it is told.
        document.without_effect(strategy, "max_samples", "the whole space is searched in order")
