"""0.8: ``lora_r`` and ``lora_alpha`` of the adapters became ``r`` and ``alpha``."""

from __future__ import annotations

from olivine.config.dialects.adapter_defaults import is_adapter
from olivine.config.dialects.document import Document


def translate(document: Document) -> None:
    """Rename rank and scale."""
    for _, each in document.passes():
        if is_adapter(each):
            each.rename("lora_r", "r")
            each.rename("lora_alpha", "alpha")
