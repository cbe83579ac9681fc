"""Which passes a verb takes for which kind of model, and what a target means. The whole choice stands in two tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from olivine.config.profiles import kind_of
from olivine.config.wording import nearest
from olivine.errors import ConfigError


@dataclass(frozen=True)
class Target:
    """Where a model ships to.

    Attributes:
        device: kind of processor.
        execution_provider: ONNX Runtime's name.
        small: precision of ModelBuilder that is smallest and fastest there.
        full: precision that loses nothing worth naming.
        memory: its processor's memory, if the name says it.
        name: what it was asked for as.
    """

    device: str
    execution_provider: str
    small: str
    full: str
    memory: str | None = None
    name: str = "target"


TARGETS: dict[str, Target] = {
    #                  device  execution provider       small   full
    "cpu": Target(     "cpu", "CPUExecutionProvider",    "int4", "fp32"),
    "cuda": Target(    "gpu", "CUDAExecutionProvider",   "int4", "fp16"),
    "directml": Target("gpu", "DmlExecutionProvider",    "int4", "fp16"),
    "webgpu": Target(  "gpu", "WebGpuExecutionProvider", "int4", "fp16"),
    "tensorrt-rtx": Target("gpu", "NvTensorRTRTXExecutionProvider", "int4", "fp16"),
}  # fmt: skip

FINETUNE = "finetune"
"""Stands in the table for the adapter method that was asked for."""

PASSES: dict[tuple[str, str], tuple[str, ...]] = {
    # verb, format of the model       passes
    ("optimize", "hf"):              ("ModelBuilder",),
    ("optimize", "hf-quantized"):    ("ModelBuilder",),
    ("optimize", "peft"):            ("MergeAdapterWeights", "ModelBuilder"),
    ("convert", "hf"):               ("ModelBuilder",),
    ("convert", "hf-quantized"):     ("ModelBuilder",),
    ("convert", "peft"):             ("MergeAdapterWeights", "ModelBuilder"),
    ("quantize", "hf"):              ("Quantize",),
    ("quantize", "peft"):            ("MergeAdapterWeights", "Quantize"),
    ("finetune", "hf"):              (FINETUNE, "MergeAdapterWeights"),
    ("benchmark", "hf"):             (),
    ("benchmark", "hf-quantized"):   (),
    ("benchmark", "genai"):          (),
}  # fmt: skip

NAMES: Mapping[str, str] = {
    "LoRA": "finetune",
    "QLoRA": "finetune",
    "DoRA": "finetune",
    "LoftQ": "finetune",
    "MergeAdapterWeights": "merge",
    "Quantize": "quantize",
    "ModelBuilder": "build",
}
"""What a pass is called in the workflow."""

INSTEAD: Mapping[str, str] = {
    "genai": "it is ready to ship: `olivine benchmark` measures it, `olivine generate` asks it",
    "peft": "merge it first: `olivine optimize` merges an adapter and builds a model of it",
    "hf-quantized": "start from the checkpoint that it was quantised from, or `olivine convert` it",
    "onnx": "Olivine starts from checkpoints: give the one that it was exported from",
    "mlflow": "give the checkpoint folder inside it",
}
"""What to do with a model that a verb has no passes for."""


def target(name: str) -> Target:
    """Return the target called ``name``.

    Raises:
        ConfigError: there is none.
    """
    known = kind_of(name)
    kind = name.lower().removesuffix(f"-{known[1]}gb") if known is not None else ""
    if known is None or kind not in TARGETS:
        near = nearest(name, TARGETS)
        raise ConfigError(
            f"there is no target {name!r}" + (f"; the nearest is {near}" if near else ""),
            remedy=f"choose among {', '.join(TARGETS)}, with a memory if you like: cpu-4gb, cuda-24gb "
            "(`olivine targets` lists them)",
        )
    return replace(TARGETS[kind], name=name.lower(), memory=f"{known[1]}GiB" if known[1] is not None else None)


def passes(verb: str, format: str, model: str) -> tuple[str, ...]:
    """Return the passes that ``verb`` takes for a model of ``format``.

    Raises:
        ConfigError: there are none.
    """
    found = PASSES.get((verb, format))
    if found is None:
        takes = ", ".join(known for each, known in PASSES if each == verb)
        raise ConfigError(
            f"`olivine {verb}` takes models of the formats {takes}, and {model} is {format}",
            remedy=INSTEAD.get(format, "give a checkpoint folder"),
        )
    return found
