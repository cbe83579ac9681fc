"""The formats that can be asked for text, and what measuring each of them needs."""

from __future__ import annotations

from olivine.passes.base import Format, Requirement

TEXT_FORMATS = frozenset({Format.HF, Format.HF_QUANTIZED, Format.GENAI, Format.ONNX})
"""A plain ONNX graph can be asked if its tokenizer lies beside it."""

_GENAI = "onnxruntime-genai|onnxruntime-genai-cuda|onnxruntime-genai-directml"
_RUNTIME = "onnxruntime|onnxruntime-gpu|onnxruntime-directml"
_CHECKPOINT = (Requirement("torch", "torch"), Requirement("transformers", "torch", ">=5,<6"))

REQUIRES: dict[Format, tuple[Requirement, ...]] = {
    Format.HF: _CHECKPOINT,
    Format.HF_QUANTIZED: (*_CHECKPOINT, Requirement("accelerate", "finetune")),
    Format.GENAI: (Requirement(_GENAI, "cpu", ">=0.16,<0.19"),),
    Format.ONNX: (Requirement(_RUNTIME, "cpu"), Requirement("transformers", "torch", ">=5,<6")),
}

SHAPED_BY = (_GENAI, _RUNTIME, "torch", "transformers")
"""Their kernels and tokenizers shape what is measured."""
