"""A checkpoint's skeleton: everything that shapes its ONNX graph, and nothing of its size.

The model builder needs a checkpoint to build a graph, and copies every weight of it several times over. A skeleton has
the same configuration, norms, biases and tokenizer; but each row of each matrix is sixteen bytes that say which row it
stands for. The builder takes them for 8-bit weights of one group, and carries them wherever the weights belong: joined,
split, reordered. Read back from its result, they say exactly which rows of the real checkpoint go where.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from olivine.models.checkpoint import CONFIG, INDEX, SINGLE, Checkpoint, TensorInfo
from olivine.models.decoder import EMBEDDING, HEAD, is_used, parts
from olivine.quant.reading import TensorReader
from olivine.quant.streaming import Slice

MARK = 16
"""Bytes that stand for a row: two little-endian int64, the number of the tensor and the row in it."""


@dataclass(frozen=True)
class Skeleton:
    """What :func:`write_skeleton` wrote.

    Attributes:
        sources: the tensors whose rows the marks name, by number.
    """

    sources: tuple[str, ...]

    def slices(self, marks: NDArray[np.uint8]) -> tuple[Slice, ...]:
        """Return the rows that ``marks`` stand for, shape ``(N, ..., MARK)``, as few slices as possible.

        Raises:
            ValueError: they are not marks: the builder has done something else with the rows than move them.
        """
        pairs = np.ascontiguousarray(marks).reshape(-1, MARK).view("<i8")
        tensors, rows = pairs[:, 0], pairs[:, 1]
        if not ((tensors >= 0) & (tensors < len(self.sources)) & (rows >= 0)).all():
            raise ValueError("the rows are no longer those of the skeleton")
        breaks = np.flatnonzero((np.diff(tensors) != 0) | (np.diff(rows) != 1)) + 1
        bounds = [0, *breaks.tolist(), len(pairs)]
        return tuple(
            Slice(self.sources[int(tensors[start])], int(rows[start]), int(rows[stop - 1]) + 1)
            for start, stop in itertools.pairwise(bounds)
        )


def write_skeleton(reader: TensorReader, tensors: Mapping[str, TensorInfo], folder: Path) -> Skeleton:
    """Write the skeleton of a checkpoint, a plain decoder, into ``folder``.

    Args:
        reader: the checkpoint.
        tensors: its tensors, as they would be if it were not quantised.
        folder: where to.

    Raises:
        ModelError: a norm or a bias cannot be read, or is not finite.
    """
    from safetensors.numpy import save_file

    checkpoint = reader.checkpoint
    folder.mkdir(parents=True, exist_ok=True)
    _copy_papers(checkpoint, folder)
    config = dict(checkpoint.config) | _rotations(checkpoint.config)
    config["quantization_config"] = {"quant_method": "olive", "bits": 8, "group_size": MARK, "symmetric": False}
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    sources: list[str] = []
    written: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        if not is_used(name):
            continue
        if name == EMBEDDING:
            written[name] = np.zeros((tensor.shape[0], 1), np.float32)
        elif len(tensor.shape) == 2:
            sources.append(name)
            for module, start, stop in parts(name, tensor.shape[0], checkpoint.config):
                _mark(written, module, len(sources) - 1, start, stop)
        else:
            values = reader.read(name)
            for module, start, stop in parts(name, tensor.shape[0], checkpoint.config):
                written[f"{module}.{name.rsplit('.', 1)[1]}"] = np.ascontiguousarray(values[start:stop])
    if HEAD not in tensors:  # the embedding serves as the output layer too
        sources.append(EMBEDDING)
        _mark(written, "lm_head", len(sources) - 1, 0, tensors[EMBEDDING].shape[0])
    save_file(written, folder / SINGLE, metadata={"format": "pt"})
    return Skeleton(tuple(sources))


def _rotations(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rotary parameters of a Gemma 3 in the words that the builder looks for too.

    transformers 5 keeps one set for each kind of layer; onnxruntime-genai 0.18 looks for one set, and for the base
    frequency of sliding layers in a key of its own.
    """
    if not str(config.get("model_type", "")).startswith("gemma3"):
        return {}
    kinds = config.get("rope_parameters")
    if not isinstance(kinds, dict) or not {"full_attention", "sliding_attention"} <= kinds.keys():
        scaling = config.get("rope_scaling") or {}
        full = {"rope_type": "default", "rope_theta": config.get("rope_theta", 1e6)} | scaling
        local = {"rope_type": "default", "rope_theta": config.get("rope_local_base_freq", 1e4)}
        kinds = {"full_attention": full, "sliding_attention": local}
    own = kinds["full_attention"] | kinds | {"rope_local_base_freq": kinds["sliding_attention"]["rope_theta"]}
    return {"rope_parameters": own}


def _mark(written: dict[str, NDArray[Any]], module: str, number: int, start: int, stop: int) -> None:
    """Add the matrix ``module``, whose rows are ``start`` to ``stop`` of tensor ``number``."""
    marks = np.empty((stop - start, 2), "<i8")
    marks[:, 0] = number
    marks[:, 1] = np.arange(start, stop)
    written[f"{module}.qweight"] = marks.view(np.uint8)
    written[f"{module}.scales"] = np.ones((stop - start, 1), np.float32)
    # The builder joins the zero points of q, k and v, and fails where there are none.
    written[f"{module}.qzeros"] = np.zeros((stop - start, 1), np.uint8)


def _copy_papers(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy everything but the weights: tokenizer, generation configuration, code of its own."""
    weights = {tensor.file for tensor in checkpoint.tensors.values()} | {INDEX, CONFIG}
    for file in checkpoint.files:
        if file.name not in weights:
            shutil.copyfile(file, folder / file.name)
