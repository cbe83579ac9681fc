"""Every pass that Olive ever had: whether Olivine runs it, what replaced it, or why it is not available and what to do.

A name is matched without regard to case, as Olive does. What Olivine runs is asked of the registry of passes, so a pass
that is added there is run here too. ``docs/olive-compatibility.md`` is generated from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from olivine.config.placeholders import is_placeholder
from olivine.passes.known_parameters import GROUPS, PARAMETERS

DEFAULT_VALUE = "DEFAULT_VALUE"
SEARCHABLE_VALUES = "SEARCHABLE_VALUES"


class Status(StrEnum):
    """What becomes of a pass."""

    RUN = "run"
    TRANSLATED = "translated"
    REPLACED = "replaced"
    NOT_AVAILABLE = "not available"


@dataclass(frozen=True)
class KnownPass:
    """One pass of Olive.

    Attributes:
        name: as Olive writes it.
        kind: what it is for, in one or two words.
        until: the last release that had it, or ``None`` if the newest has it.
        replacement: the pass that took its place.
        why: why it is not available.
        instead: what to do.
    """

    name: str
    kind: str
    until: str | None
    replacement: str | None
    why: str
    instead: str

    @property
    def status(self) -> Status:
        """What becomes of it: a pass of the registry is run, one with a replacement is replaced.

        A translated one is not available in a configuration in Olivine's own form.
        """
        from olivine.passes import registry

        if self.name.lower() in {each.lower() for each in registry.BUILTIN}:
            return Status.RUN
        if self.name in TRANSLATED:
            return Status.TRANSLATED
        return Status.REPLACED if self.replacement else Status.NOT_AVAILABLE

    @property
    def parameters(self) -> Mapping[str, frozenset[str]]:
        """Its parameters in all releases together, each with the kinds of value it takes."""
        return _parameters(self.name)


_SDK_QUALCOMM = "it needs Qualcomm's SDK"
_SDK_AMD = "it needs AMD's tools"
_OPENVINO = "it needs OpenVINO's tools"
_INC = "it needs Intel Neural Compressor"
_NVIDIA = "it needs NVIDIA's Model Optimizer"
_YET = "Olivine does not have it yet"
_GONE = "Olive itself has removed it"

_LLM = "for a language model, ModelBuilder makes an ONNX model from the checkpoint"
_LLM_INT4 = "for a language model, ModelBuilder with precision: int4"
_QUANTIZE = "here it is Quantize"
_MIXED = (
    "ModelBuilder with precision: auto, or Quantize with bits: auto (k_quant_last before Rtn, KQuant or Gptq is "
    "translated: lm_head_bits of Quantize)"
)
_GPTQ = "Quantize with method: gptq (or calibrated, which is more accurate)"
_BUILDER_DOES = "ModelBuilder does it while it builds; for other models, run the pass with Olive"
_WITH_OLIVE = "run this step with Olive"
_VENDOR = "run this step with the vendor's tool, on what Olivine makes"
_ADAPTER = "use LoRA, DoRA, QLoRA or LoftQ"
_SPEED = "the metric speed measures a model on the machine it runs on"

_TABLE: dict[str, tuple[tuple[str, str | None, str | None, str, str], ...]] = {
    "fine-tune": (
        ("LoRA", None, None, "", ""),
        ("DoRA", None, None, "", ""),
        ("QLoRA", None, None, "", ""),
        ("LoftQ", None, None, "", ""),
        ("LoHa", None, None, _YET, _ADAPTER),
        ("LoKr", None, None, _YET, _ADAPTER),
        ("SDLoRA", None, None, "Olivine does not train image models", _WITH_OLIVE),
        ("MergeAdapterWeights", None, None, "", ""),
        ("ExtractAdapters", None, None, _YET, "MergeAdapterWeights puts the adapter into the model"),
        ("QuantizationAwareTraining", "0.8", None, f"{_GONE}: it runs code of yours", "QLoRA or LoftQ for adapters"),
        ("PyTorchTensorParallel", "0.11", None, _GONE, "one process with device_map: auto"),
        ("LlamaPyTorchTensorParallel", "0.4", None, _GONE, "one process with device_map: auto"),
        ("TorchTRTConversion", "0.11", None, _GONE, f"export to ONNX: {_LLM}"),
        ("MoEExpertsDistributor", "0.11", None, _GONE, _WITH_OLIVE),
    ),
    "quantise a checkpoint": (
        ("Rtn", None, None, _QUANTIZE, "Quantize with method: rtn_half and form: olive"),
        ("KQuant", None, None, _QUANTIZE, "Quantize with method: k_quant and form: olive"),
        ("Gptq", None, None, _QUANTIZE, f"{_GPTQ} and form: olive"),
        ("AutoClip", None, None, _YET, _LLM_INT4),
        ("SelectiveMixedPrecision", None, None, _YET, _MIXED),
        ("QuaRot", None, None, _YET, _LLM_INT4),
        ("SpinQuant", None, None, _YET, _LLM_INT4),
        ("GptqQuantizer", None, None, _QUANTIZE, f"{_GPTQ} and form: gptq; without dataloader_func"),
        ("GptqModel", None, None, _QUANTIZE, f"{_GPTQ} and form: gptq; without rotation"),
        ("AutoAWQQuantizer", None, None, "autoawq is no longer maintained", "Quantize with method: calibrated"),
        ("SparseGPT", None, None, _YET, _LLM_INT4),
        ("SliceGPT", None, None, _YET, _LLM_INT4),
        ("QuarkQuantization", None, None, _SDK_AMD, _VENDOR),
        ("QuarkQuantizationVitisAI", None, None, _SDK_AMD, _VENDOR),
    ),
    "convert": (
        ("ModelBuilder", None, None, "", ""),
        ("GenAIModelExporter", "0.5", "ModelBuilder", "", ""),
        ("OnnxConversion", None, None, _YET, _LLM),
        ("DeviceSpecificOnnxConversion", "0.3", "OnnxConversion", "", ""),
        ("OnnxOpVersionConversion", None, None, _YET, _WITH_OLIVE),
        ("MobiusBuilder", None, None, "it needs mobius-onnx", _LLM),
        ("OptimumConversion", None, None, "it needs optimum", _LLM),
        ("OptimumMerging", None, None, "it needs optimum", _BUILDER_DOES),
        ("ConvertHfToGGUF", None, None, "it needs llama.cpp", "run llama.cpp's converter on the merged checkpoint"),
        ("SaveTestModelConfig", None, None, "it belongs to Olive's own tests", "remove the pass"),
        ("InsertBeamSearch", "0.8", None, _GONE, "ModelBuilder; num_beams stands in its parameter search"),
        ("AppendPrePostProcessingOps", "0.8", None, _GONE, "do it in the app"),
    ),
    "OpenVINO": (
        ("OpenVINOConversion", None, None, _OPENVINO, _VENDOR),
        ("OpenVINOOptimumConversion", None, None, _OPENVINO, _VENDOR),
        ("OpenVINOIoUpdate", None, None, _OPENVINO, _VENDOR),
        ("OpenVINOEncapsulation", None, None, _OPENVINO, _VENDOR),
        ("OpenVINOQuantization", None, None, _OPENVINO, _VENDOR),
        ("OpenVINOQuantizationWithAccuracy", None, None, _OPENVINO, _VENDOR),
        ("OpenVINOWeightCompression", None, None, _OPENVINO, _VENDOR),
    ),
    "Qualcomm": (
        ("QNNPreprocess", None, None, _YET, _WITH_OLIVE),
        ("QNNConversion", None, None, _SDK_QUALCOMM, _VENDOR),
        ("QNNModelLibGenerator", None, None, _SDK_QUALCOMM, _VENDOR),
        ("QNNContextBinaryGenerator", None, None, _SDK_QUALCOMM, _VENDOR),
        ("EPContextBinaryGenerator", None, None, "it needs the target's execution provider", _VENDOR),
        ("QairtPreparation", None, None, _SDK_QUALCOMM, _VENDOR),
        ("QairtGenAIBuilder", None, None, _SDK_QUALCOMM, _VENDOR),
        ("QairtEncapsulation", None, None, _SDK_QUALCOMM, _VENDOR),
        ("QairtPipelinePass", None, None, _SDK_QUALCOMM, _VENDOR),
        ("QairtMHA2SHA", None, None, _SDK_QUALCOMM, _VENDOR),
        ("AimetQuantization", None, None, "it needs Qualcomm's AIMET", _VENDOR),
        ("SNPEConversion", "0.9.2", None, f"{_SDK_QUALCOMM}, and {_GONE}", _VENDOR),
        ("SNPEQuantization", "0.9.2", None, f"{_SDK_QUALCOMM}, and {_GONE}", _VENDOR),
        ("SNPEtoONNXConversion", "0.9.2", None, f"{_SDK_QUALCOMM}, and {_GONE}", _VENDOR),
    ),
    "AMD": (
        ("VitisGenerateModelLLM", None, None, _SDK_AMD, _VENDOR),
        ("RyzenGenerateModelLLM", None, None, _SDK_AMD, _VENDOR),
        ("VitisGenerateModelSD", None, None, _SDK_AMD, _VENDOR),
        ("VitisAIAddMetaData", None, None, _SDK_AMD, _VENDOR),
        ("VitisAIQuantization", "0.9.2", None, f"{_SDK_AMD}, and {_GONE}", _VENDOR),
        ("VitisQDQQuantizer", "0.9.2", None, "it is a part of VitisAIQuantization", _VENDOR),
        ("VitisQOpQuantizer", "0.9.2", None, "it is a part of VitisAIQuantization", _VENDOR),
        ("PowerOfTwoMethod", "0.9.2", None, "it is a part of VitisAIQuantization", _VENDOR),
        ("quantize_static", "0.6", None, "it is a part of VitisAIQuantization", _VENDOR),
    ),
    "quantise ONNX": (
        ("OnnxQuantization", None, None, _YET, _LLM_INT4),
        ("OnnxStaticQuantization", None, None, _YET, _LLM_INT4),
        ("OnnxDynamicQuantization", None, None, _YET, _LLM_INT4),
        ("OnnxQuantizationPreprocess", None, None, _YET, _LLM_INT4),
        ("OnnxBlockWiseRtnQuantization", None, None, _YET, _LLM_INT4),
        ("OnnxMatMul4Quantizer", "0.9.2", "OnnxBlockWiseRtnQuantization", "", ""),
        ("OnnxHqqQuantization", None, None, _YET, _LLM_INT4),
        ("OnnxKQuantQuantization", None, None, _YET, f"{_LLM_INT4} and int4_algo_config: k_quant"),
        ("MatMulNBitsToQDQ", None, None, _YET, "ModelBuilder with use_qdq: true"),
        ("OnnxBnb4Quantization", None, None, _YET, _LLM_INT4),
        ("IncQuantization", None, None, _INC, _LLM_INT4),
        ("IncStaticQuantization", None, None, _INC, _LLM_INT4),
        ("IncDynamicQuantization", None, None, _INC, _LLM_INT4),
        ("NVModelOptQuantization", None, None, _NVIDIA, _LLM_INT4),
        ("MixedPrecisionOverrides", None, None, _YET, "ModelBuilder with precision: auto and max_size"),
        ("OrtMixedPrecision", None, None, _YET, "for a language model, ModelBuilder with precision: fp16"),
        ("OnnxFloatToFloat16", None, None, _YET, "for a language model, ModelBuilder with precision: fp16"),
    ),
    "change the graph": (
        ("OrtTransformersOptimization", None, None, _YET, _BUILDER_DOES),
        ("OnnxPeepholeOptimizer", None, None, _YET, _BUILDER_DOES),
        ("OnnxModelOptimizer", "0.7.0", "OnnxPeepholeOptimizer", "", ""),
        ("OnnxScriptFusion", None, None, _YET, _BUILDER_DOES),
        ("GraphSurgeries", None, None, _YET, _WITH_OLIVE),
        ("NVModelOptGraphSurgery", None, None, _NVIDIA, _VENDOR),
        ("OnnxIODataTypeConverter", None, None, _YET, _WITH_OLIVE),
        ("OnnxIOFloat16ToFloat32", "0.7", "OnnxIODataTypeConverter", "", ""),
        ("DynamicToFixedShape", None, None, _YET, _WITH_OLIVE),
        ("TrtMatMulToConvTransform", "0.9.2", None, _GONE, _WITH_OLIVE),
        ("InputNCHWtoNHWC", None, None, _YET, _WITH_OLIVE),
        ("StaticLLM", None, None, _YET, _WITH_OLIVE),
        ("ComposeOnnxModels", None, None, _YET, _WITH_OLIVE),
        ("SplitModel", None, None, _YET, _WITH_OLIVE),
        ("CaptureSplitInfo", None, None, _YET, _WITH_OLIVE),
        ("CaptureLayerAnnotations", None, None, _YET, _WITH_OLIVE),
    ),
    "tune and check": (
        ("OrtSessionParamsTuning", None, None, _YET, _SPEED),
        ("OrtPerfTuning", "0.6", "OrtSessionParamsTuning", "", ""),
        ("OnnxDiscrepancyCheck", None, None, _YET, "measure both models with perplexity or accuracy"),
        ("AddOliveMetadata", None, None, _YET, "Olivine writes what made a model into its run folder"),
        ("AitkPython", None, None, "it is no pass: the AI Toolkit runs a Python file for it", "run that file yourself"),
    ),
}


TRANSLATED = frozenset({"Rtn", "KQuant", "Gptq", "GptqQuantizer", "GptqModel"})
"""Passes that a configuration of Olive may have, and that are run as another one with other parameters."""

SPLIT = {"OnnxMatMul4Quantizer": ("OnnxHqqQuantization",)}
"""Passes that have another successor beside the replacement, depending on their parameters."""


@cache
def table() -> tuple[KnownPass, ...]:
    """Return every pass, grouped by what it is for."""
    return tuple(KnownPass(row[0], kind, *row[1:]) for kind, rows in _TABLE.items() for row in rows)


def names() -> list[str]:
    """Return the names of all passes, as Olive writes them."""
    return [each.name for each in table()]


def find(name: str) -> KnownPass | None:
    """Return the pass called ``name``, in any case, or ``None``."""
    return _by_folded_name().get(name.lower())


@cache
def _by_folded_name() -> dict[str, KnownPass]:
    return {each.name.lower(): each for each in table()}


@cache
def _parameters(name: str) -> Mapping[str, frozenset[str]]:
    """Return the parameters of a pass and of those that it replaced, groups opened."""
    replaced = [each.name for each in table() if name in (each.replacement, *SPLIT.get(each.name, ()))]
    words = " ".join(["+script", *(PARAMETERS.get(each, "") for each in (name, *replaced))]).split()
    opened = [each for word in words for each in (GROUPS[word[1:]].split() if word.startswith("+") else [word])]
    found: dict[str, frozenset[str]] = {}
    for each in opened:
        key, _, kinds = each.rpartition(":")
        found[key] = found.get(key, frozenset()) | frozenset(kinds.split("|"))
    return found


@cache
def parameters_of_any() -> frozenset[str]:
    """Return the names of all parameters of all passes."""
    return frozenset(key for name in PARAMETERS for key in _parameters(name))


def fits(value: Any, kinds: frozenset[str]) -> bool:
    """Return whether a value is of one of these kinds, taken as loosely as Olive does, or something to search over.

    Olive takes ``"4"`` for 4 and ``"true"`` for true. In place of a value there may be ``DEFAULT_VALUE``,
    ``SEARCHABLE_VALUES``, a search parameter, or a list of choices.
    """
    if value is None or is_placeholder(value) or value in (DEFAULT_VALUE, SEARCHABLE_VALUES):
        return True
    if is_search_parameter(value):
        return True
    if isinstance(value, list) and "list" not in kinds:
        return all(_is(each, kinds) for each in value)
    return _is(value, kinds)


def is_search_parameter(value: Any) -> bool:
    """Return whether a value is a search parameter written out (``olive_parameter_type``)."""
    return isinstance(value, dict) and value.get("olive_parameter_type") == "SearchParameter"


def _is(value: Any, kinds: frozenset[str]) -> bool:
    if "any" in kinds or value is None:
        return True
    if isinstance(value, bool):
        return bool(kinds & {"bool", "int", "float"})
    if isinstance(value, int):
        return bool(kinds & {"int", "float"}) or ("bool" in kinds and value in (0, 1))
    if isinstance(value, float):
        return "float" in kinds or ("int" in kinds and value.is_integer())
    if isinstance(value, str):
        return bool(kinds & {"str", "data"}) or _reads_as(value, kinds)
    if isinstance(value, list):
        return "list" in kinds
    return isinstance(value, dict) and bool(kinds & {"object", "data"})


def _reads_as(text: str, kinds: frozenset[str]) -> bool:
    """Return whether a text is a number or a truth value written as a text."""
    if "bool" in kinds and text.lower() in ("true", "false", "0", "1", "yes", "no", "on", "off"):
        return True
    if not kinds & {"int", "float"}:
        return False
    try:
        number = float(text)
    except ValueError:
        return False
    return "float" in kinds or number.is_integer()


KIND_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "list": "a list",
    "object": "an object",
    "data": "the name of a data config",
}
"""The kinds in words, for messages."""
