"""Sections at the top level that the canonical form keeps as they are, and what they were when nobody wrote them."""

from __future__ import annotations

from olivine.config.dialects.document import Document, Section
from olivine.config.dialects.releases import age


def translate(document: Document) -> None:
    """Keep what asks for something; say what has no effect."""
    root = document.root
    if "auto_optimizer_config" in root:
        if root.get("passes"):
            document.without_effect(root, "auto_optimizer_config", "passes are given")
    elif not root.get("passes") and age("0.5") <= age(document.dialect) < age("0.9"):
        # Without passes, these releases chose some themselves.
        chosen = Section(root.origin)
        chosen.fill("opt_level", 0)
        chosen.fill("disable_auto_optimizer", False)
        root.fill("auto_optimizer_config", chosen)
    if isinstance(root.get("azureml_client"), str):
        client = Section(root.at("azureml_client"))
        client.put("aml_config_path", root["azureml_client"], root.origins.get("azureml_client"))
        root.put("azureml_client", client, root.origins.get("azureml_client"))
