"""0.5: ``hf_config.model_loading_args`` is called ``from_pretrained_args``."""

from __future__ import annotations

from olivine.config.dialects.document import Document


def translate(document: Document) -> None:
    """Rename it."""
    document.root.section("input_model").section("hf_config").rename("model_loading_args", "from_pretrained_args")
