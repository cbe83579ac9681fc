"""The formats that can be asked for text, and what measuring each of them needs."""

from __future__ import annotations

from olivine.passes.base import Format, Requirement

TEXT_FORMATS = frozenset({Format.HF, Format.HF_QUANTIZED, Format.GENAI})

_GENAI = "onnxruntime-genai|onnxruntime-genai-cuda|onnxruntime-genai-directml"
_CHECKPOINT = (Requirement("torch", "torch"), Requirement("transformers", "torch", ">=5,<6"))

REQUIRES: dict[Format, tuple[Requirement, ...]] = {
    Format.HF: _CHECKPOINT,
    Format.HF_QUANTIZED: (*_CHECKPOINT, Requirement("accelerate", "finetune")),
    Format.GENAI: (Requirement(_GENAI, "cpu", ">=0.16,<0.19"),),
}

SHAPED_BY = (_GENAI, "onnxruntime|onnxruntime-gpu|onnxruntime-directml", "torch", "transformers")
"""Their kernels and tokenizers shape what is measured."""
