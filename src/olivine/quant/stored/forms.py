"""The stored forms by name, and which modules of a checkpoint they quantise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olivine.models.decoder import EMBEDDING, HEAD, parts
from olivine.quant.stored.compressed import CompressedTensorsForm
from olivine.quant.stored.form import FormName, StoredForm
from olivine.quant.stored.gptq import GptqForm
from olivine.quant.stored.olive import OliveForm

FORMS: Mapping[str, StoredForm] = {form.name: form for form in (OliveForm(), GptqForm(), CompressedTensorsForm())}

__all__ = ["FORMS", "FormName", "Source", "linear_modules"]


@dataclass(frozen=True)
class Source:
    """Where the weight of a module is: rows ``start`` to ``stop`` of ``tensor``, each of ``width`` input features."""

    tensor: str
    start: int
    stop: int
    width: int

    @property
    def rows(self) -> int:
        """Output features."""
        return self.stop - self.start

    @property
    def module(self) -> str:
        """The module as the model itself has it: several may share a fused one."""
        return self.tensor.removesuffix(".weight")


def linear_modules(
    config: Mapping[str, Any], modules: Mapping[str, Sequence[int]], form: StoredForm
) -> dict[str, Source]:
    """Return the linear modules of a plain decoder as ``form`` names them, ``lm_head`` last.

    Args:
        config: the checkpoint's ``config.json``.
        modules: shapes of its matrices by module name, in the order of the checkpoint.
        form: the form; one that unfuses has q, k and v where the model has them in one.

    Returns:
        Where the weight of each is. That of a tied ``lm_head`` is the embedding.
    """
    embedding, head = EMBEDDING.removesuffix(".weight"), HEAD.removesuffix(".weight")
    found: dict[str, Source] = {}
    for module, (rows, width) in modules.items():
        if module in (embedding, head):
            continue
        tensor = f"{module}.weight"
        for name, start, stop in parts(tensor, rows, config) if form.unfuses else [(module, 0, rows)]:
            found[name] = Source(tensor, start, stop, width)
    shared = head if head in modules else embedding
    if shared in modules:
        rows, width = modules[shared]
        found[head] = Source(f"{shared}.weight", 0, rows, width)
    return found
