"""Writing a changed copy of a checkpoint, one tensor in memory at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olivine.models.checkpoint import BITS, CONFIG, INDEX, SINGLE, Checkpoint, TensorInfo
from olivine.passes.base import Progress

Change = Callable[[str, Any], Any]
"""Takes a tensor's name and the tensor, returns what to write in its place, of its shape and type."""

TORCH: Mapping[str, str] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""torch's names of safetensors' types."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True)
class Added:
    """A tensor that the base does not have.

    Attributes:
        like: the tensor of the base whose shape and type it has.
        make: makes it, when its turn comes.
    """

    like: str
    make: Callable[[], Any]


def rewrite(
    base: Checkpoint,
    output: Path,
    change: Change,
    progress: Progress,
    *,
    message: str,
    dtype: Any = None,
    added: Mapping[str, Added] | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write ``base`` into the empty folder ``output`` with ``change`` applied to each tensor.

    Shards and their names stay; everything else that shapes the model is copied. Where each tensor goes is known
    beforehand, so none but the one that is being changed is in memory.

    Args:
        base: a checkpoint in safetensors.
        output: an existing folder.
        change: applied to every tensor.
        progress: told after every tensor.
        message: what to say there.
        dtype: torch dtype that floating-point tensors are written in; ``None``: their own.
        added: tensors that ``base`` does not have; they go into the last shard.
        config: replaces ``config.json``.
    """
    files = sorted({tensor.file for tensor in base.tensors.values()})
    extra = dict(added or {})
    total, done, size = len(base.tensors) + len(extra), 0, 0
    placed: dict[str, str] = {}
    to = next((key for key, name in TORCH.items() if dtype is not None and str(dtype) == f"torch.{name}"), None)
    for number, name in enumerate(files):
        own = {key: info for key, info in base.tensors.items() if info.file == name}
        if number == len(files) - 1:
            own |= {key: base.tensors[each.like] for key, each in extra.items()}
        types = {key: to if to is not None and info.dtype in FLOATS else info.dtype for key, info in own.items()}
        # Wider types first, so that every tensor begins at a multiple of its own width.
        order = sorted(own, key=lambda key: (-BITS[types[key]], key))
        with open(output / name, "wb") as stream:
            stream.write(_header(own, types, order))
            for key in order:
                tensor = extra[key].make() if key in extra else change(key, read_tensor(base, key))
                raw = _bytes(tensor, types[key])
                wanted = own[key].elements * BITS[types[key]] // 8
                if raw.nbytes != wanted:
                    raise ValueError(f"{key} became {raw.nbytes} bytes, and has to have {wanted}")
                stream.write(raw)
                placed[key] = name
                size += raw.nbytes
                done += 1
                del tensor, raw
                progress(done, total, unit="tensor", message=message)
    if files != [SINGLE]:
        index = json.loads((base.path / INDEX).read_text(encoding="utf-8"))
        index["metadata"] = dict(index.get("metadata") or {}) | {"total_size": size}
        index["weight_map"] = dict(sorted(placed.items()))
        (output / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for file in base.files:
        if file.name != INDEX and file.name not in files:
            shutil.copyfile(file, output / file.name)
    changed = dict(base.config if config is None else config)
    if dtype is not None:
        changed.pop("torch_dtype", None)
        changed["dtype"] = str(dtype).removeprefix("torch.")
    if changed != dict(base.config):
        (output / CONFIG).write_text(json.dumps(changed, indent=2) + "\n", encoding="utf-8")


def read_tensor(base: Checkpoint, name: str) -> Any:
    """Return one tensor, read and not mapped: what is mapped stays resident until memory is short."""
    import torch

    from olivine.quant.reading import TensorReader

    info = base.tensors[name]
    raw = TensorReader(base).read_bytes(name, 0, info.bytes)
    return torch.from_numpy(raw).view(getattr(torch, TORCH[info.dtype])).reshape(info.shape)


def _header(own: Mapping[str, TensorInfo], types: Mapping[str, str], order: list[str]) -> bytes:
    """Return the head of a safetensors file: eight bytes of length, then JSON, filled up to a multiple of eight."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for key in order:
        end = place + own[key].elements * BITS[types[key]] // 8
        entries[key] = {"dtype": types[key], "shape": list(own[key].shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: Any, kind: str) -> Any:
    """Return a tensor's bytes in a safetensors type, as a numpy array."""
    import torch

    tensor = tensor.detach().to(getattr(torch, TORCH[kind])).contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy()
