"""Writing a changed copy of a checkpoint, one shard in memory at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from olivine.models.checkpoint import CONFIG, INDEX, SINGLE, Checkpoint
from olivine.passes.base import Progress

Change = Callable[[str, Any], Any]
"""Takes a tensor's name and the tensor, returns what to write in its place (the same object: unchanged)."""


def rewrite(
    base: Checkpoint,
    output: Path,
    change: Change,
    progress: Progress,
    *,
    message: str,
    dtype: Any = None,
    added: Mapping[str, Callable[[], Any]] | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write ``base`` into the empty folder ``output`` with ``change`` applied to each tensor.

    Shards, their names and the order of tensors stay; everything else that shapes the model is copied.

    Args:
        base: a checkpoint in safetensors.
        output: an existing folder.
        change: applied to every tensor.
        progress: told after every tensor.
        message: what to say there.
        dtype: torch dtype that floating-point tensors are written in; ``None``: their own.
        added: tensors that ``base`` does not have, made when their turn comes; they go into the last shard.
        config: replaces ``config.json``.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    files = sorted({tensor.file for tensor in base.tensors.values()})
    total, done, size = len(base.tensors) + len(added or {}), 0, 0
    placed: dict[str, str] = {}
    for number, name in enumerate(files):
        written: dict[str, Any] = {}
        with safe_open(base.path / name, framework="pt") as shard:
            makers = {key: _reader(shard, key, change) for key in shard.keys()}  # noqa: SIM118 (no mapping)
            if number == len(files) - 1:
                makers |= dict(added or {})
            for key, make in makers.items():
                tensor = make()
                if dtype is not None and tensor.dtype.is_floating_point:
                    tensor = tensor.to(dtype)
                written[key] = tensor.contiguous()
                placed[key] = name
                size += tensor.numel() * tensor.element_size()
                done += 1
                progress(done, total, unit="tensor", message=message)
            save_file(written, output / name, metadata={"format": "pt"})
        del written
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


def _reader(shard: Any, name: str, change: Change) -> Callable[[], Any]:
    return lambda: change(name, shard.get_tensor(name))
