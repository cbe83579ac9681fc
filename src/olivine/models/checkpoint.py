"""What a model folder is, from its files alone: no torch, no safetensors library, and nothing is ever unpickled.

A safetensors file begins with eight bytes (the header's length, little-endian) and a JSON header that names every
tensor with its dtype, shape and place; that is all that is read of it.
(Format: https://huggingface.co/docs/safetensors/index#format.)
"""

from __future__ import annotations

import json
import math
import re
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from olivine.errors import Location, ModelError
from olivine.models.config_facts import check_config
from olivine.models.external_data import check_external_data
from olivine.passes.base import Format
from olivine.store.disk import bad_name

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = "adapter_model.safetensors"
GENAI_CONFIG = "genai_config.json"
MLMODEL = "MLmodel"

BITS: dict[str, int] = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64,
    "F32": 32, "I32": 32, "U32": 32,
    "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8, "BOOL": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits per element of each safetensors dtype."""

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
JSON_LIMIT = 100_000_000
"""Bytes of ``config.json`` and the like; a larger one is made to fill memory."""
TOKENIZER_LIMIT = 500_000_000
"""Bytes of a tokenizer's file, which libraries read whole; the largest known ones have a tenth of it."""
HEADER_LIMIT = 100_000_000
"""Bytes of header that the safetensors library accepts."""

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt", "merges.txt", "tekken.json",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_LIBRARY = re.compile(r"\.(so(\.\d+)*|dll|dylib)$", re.IGNORECASE)
_SHAPING = (
    CONFIG, "generation_config.json", INDEX, ADAPTER_CONFIG, "preprocessor_config.json", "processor_config.json",
    "quantize_config.json", "quantization_config.json",
)  # fmt: skip
_READ_WHOLE = frozenset({".json", ".jinja", ".txt", ".py", ".model"})
_PAPERS = frozenset({"status.json", "metrics.json", "workflow.json", "manifest.json"})
_PAPER_SUFFIXES = frozenset({".md", ".html", ".log", ".yaml", ".yml", ".png"})

_CONVERT = (
    'convert it once, where you trust its author, and give the result: python -c "from transformers import '
    "AutoModelForCausalLM as M, AutoTokenizer as T; M.from_pretrained('IN').save_pretrained('OUT'); "
    "T.from_pretrained('IN').save_pretrained('OUT')\" (or take a revision of the model that has safetensors)"
)


_CONVERT_ADAPTER = (
    'convert it once, in its folder: python -c "import torch, safetensors.torch as s; '
    "s.save_file(torch.load('adapter_model.bin', weights_only=True), 'adapter_model.safetensors')\""
)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint.

    Attributes:
        dtype: in safetensors' words (``BF16``).
        shape: its dimensions.
        file: name of the file that holds it.
        offset: place of its first byte in that file.
    """

    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int = 0

    @property
    def elements(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Return the size in bytes."""
        return self.elements * BITS[self.dtype] // 8


@dataclass(frozen=True)
class Checkpoint:
    """What a model folder holds.

    Attributes:
        path: the folder, as given.
        format: what it is.
        config: ``config.json`` (``adapter_config.json`` of an adapter, ``genai_config.json`` of a GenAI folder).
        tensors: every tensor by name; empty for ONNX.
        files: the files that shape the model, sorted: weights, configuration, tokenizer, code of its own.
    """

    path: Path
    format: Format
    config: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    @cached_property
    def modules(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the 2-D weights by module name, without ``.weight``."""
        return {
            name.removesuffix(".weight"): tensor.shape
            for name, tensor in self.tensors.items()
            if len(tensor.shape) == 2 and name.endswith(".weight")
        }

    @property
    def parameters(self) -> int:
        """Number of stored parameters; weights that are tied are stored, and counted, once. Zero for ONNX."""
        return sum(tensor.elements for tensor in self.tensors.values())

    @property
    def bytes(self) -> int:
        """Size in bytes of the files that shape the model."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def architecture(self) -> str | None:
        """The model class that ``config.json`` names first (``Phi3ForCausalLM``)."""
        names = self.config.get("architectures")
        return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None

    @property
    def needs_remote_code(self) -> bool:
        """Whether the checkpoint brings code of its own (``auto_map``). A library may know the model without it."""
        return bool(self.config.get("auto_map"))

    @property
    def tokenizer_files(self) -> tuple[Path, ...]:
        """The tokenizer's files, chat template included."""
        return tuple(file for file in self.files if file.name in TOKENIZER_FILES)


def detect_format(path: Path) -> Format:
    """Return what the folder ``path`` is, by the files in it.

    Raises:
        ModelError: there is no such folder, or nothing in it says what it is.
    """
    if not path.exists():
        raise ModelError(
            f"there is no model folder {path}", remedy="give a folder that exists, or an id on the Hugging Face hub"
        )
    if not path.is_dir():
        hint = (
            "give the folder that it lies in"
            if path.suffix in (".onnx", ".safetensors", ".json")
            else "give the folder of a checkpoint"
        )
        raise ModelError(f"{path} is a file; a model is a folder", remedy=hint)
    if (path / GENAI_CONFIG).is_file():
        return Format.GENAI
    if (path / ADAPTER_CONFIG).is_file():
        return Format.PEFT
    if (path / MLMODEL).is_file():
        return Format.MLFLOW
    graphs = any(path.glob("*.onnx"))
    weights = any(any(path.glob(each)) for each in ("*.safetensors", "pytorch_model*"))
    if (path / CONFIG).is_file() and (weights or not graphs):
        quantised = _read_config(path).get("quantization_config")
        return Format.HF_QUANTIZED if quantised else Format.HF
    if graphs:  # exporters leave the configuration of the checkpoint beside them
        return Format.ONNX
    raise ModelError(
        f"there is no config.json in {path}",
        where=Location(str(path)),
        why=_what_is_there(path),
        remedy="give the folder that holds config.json and the safetensors files"
        + (f", e.g. {inner}" if (inner := _inner_checkpoint(path)) else ""),
    )


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what the model folder ``path`` holds, having checked that its weights are whole.

    Reads the configuration and the headers of the weight files only, so it takes milliseconds whatever the size.

    Raises:
        ModelError: no such folder, no ``config.json``, broken JSON, weights only as pickles, a shard that is missing,
            or one that is shorter than its header says.
    """
    format = detect_format(path)
    if format is Format.GENAI:
        return _genai(path)
    if format is Format.ONNX:
        files = model_files(path)
        for file in files:
            if file.suffix == ".onnx":
                check_external_data(file)
        config = _read_config(path) if (path / CONFIG).is_file() else {}
        return Checkpoint(path, format, config, files=files)
    if format is Format.PEFT:
        config = _read_json(path / ADAPTER_CONFIG)
        _check_adapter(config, path)
        if not (path / ADAPTER).is_file():
            raise _no_weights(path, ADAPTER)
        return Checkpoint(path, format, config, read_safetensors(path / ADAPTER), model_files(path))
    if format is Format.MLFLOW:
        inner = _inner_checkpoint(path)
        if inner is None:
            raise ModelError(
                f"the MLflow model {path} holds no Hugging Face checkpoint",
                where=Location(str(path / MLMODEL)),
                remedy="log it with mlflow.transformers, or give the checkpoint's own folder",
            )
        found = read_checkpoint(inner)
        return Checkpoint(path, format, found.config, found.tensors, model_files(path))
    config = _read_config(path)
    return Checkpoint(path, format, config, _weights(path), model_files(path))


def model_files(path: Path) -> tuple[Path, ...]:
    """Return the files in ``path`` that shape the model, sorted; not its papers, nor weights in other formats.

    Raises:
        ModelError: see :func:`detect_format`.
    """
    format = detect_format(path)
    if format is Format.MLFLOW:
        _check_inside(path, _inner_checkpoint(path))
        every = sorted(file for file in path.rglob("*") if file.is_file())
        for file in every:
            _check_small_file(file)
        return tuple(every)
    here = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
    if format in (Format.GENAI, Format.ONNX):
        for file in here:
            _check_small_file(file)
        return tuple(
            sorted(file for file in here if file.name not in _PAPERS and file.suffix.lower() not in _PAPER_SUFFIXES)
        )
    names = {*_SHAPING, *TOKENIZER_FILES}
    if format is Format.PEFT:
        names.add(ADAPTER)
    else:
        names.update(_shards(path) or [SINGLE])
        # Code that the checkpoint brings shapes what it computes.
        names.update(file.name for file in here if file.suffix == ".py")
    found = [file for file in here if file.name in names]
    for file in found:
        _check_small_file(file)
    if format is Format.PEFT and (path / "base").is_dir():
        _check_inside(path, path / "base")
        found += model_files(path / "base")
    return tuple(sorted(found))


def read_safetensors(file: Path) -> dict[str, TensorInfo]:
    """Return the tensors of one safetensors file from its header, having checked that the file is whole.

    Raises:
        ModelError: the file is shorter (or longer) than its header says, or the header is broken.
    """
    where = Location(str(file))
    size = file.stat().st_size
    broken = "it is incomplete or damaged"
    again = "download or copy it again, and compare its size with the original"
    with open(file, "rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(HEADER_LIMIT, max(size - 8, 0)):
            raise ModelError(f"{file.name} is no whole safetensors file", where=where, why=broken, remedy=again)
        try:
            header = json.loads(stream.read(length))
        except (ValueError, RecursionError) as error:
            raise ModelError(
                f"the header of {file.name} cannot be read: {error}", where=where, why=broken, remedy=again
            ) from None
    tensors, expected = tensors_of(header, length, file.name, where)
    if size != expected:
        raise ModelError(
            f"{file.name} has {size:,} bytes and its header says {expected:,}", where=where, why=broken, remedy=again
        )
    return tensors


def tensors_of(header: Any, length: int, file: str, where: Location) -> tuple[dict[str, TensorInfo], int]:
    """Return the tensors that the header of a safetensors file names, and the bytes that the file has to have.

    Args:
        header: as JSON.
        length: its bytes.
        file: the file's name.
        where: the file's place, for errors.

    Raises:
        ModelError: it is no header.
    """
    broken = "it is incomplete or damaged"
    again = "download or copy it again, and compare its size with the original"
    if not isinstance(header, dict):
        raise ModelError(f"the header of {file} is no JSON object", where=where, why=broken, remedy=again)
    header.pop("__metadata__", None)
    tensors: dict[str, TensorInfo] = {}
    end = 0
    for name, entry in header.items():
        try:
            begin, stop = entry["data_offsets"]
            shape = tuple(int(each) for each in entry["shape"])
            tensor = TensorInfo(entry["dtype"], shape, file, 8 + length + begin)
            whole = stop - begin == tensor.bytes and begin >= 0 and min(shape, default=0) >= 0
        except (KeyError, TypeError, ValueError):
            whole = False
        if not whole:
            raise ModelError(
                f"the entry of {name!r} in the header of {file} contradicts itself or has an unknown dtype",
                where=where,
                why=broken,
                remedy=again,
            )
        tensors[name] = tensor
        end = max(end, stop)
    return tensors, 8 + length + end


def _weights(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of the checkpoint in ``path``, of one file or of all shards."""
    shards = _shards(path)
    if shards is None:
        if not (path / SINGLE).is_file():
            raise _no_weights(path, SINGLE)
        return read_safetensors(path / SINGLE)
    missing = [name for name in shards if not (path / name).is_file()]
    if missing:
        raise ModelError(
            f"{len(missing)} of {len(shards)} weight files are missing: {_some(missing)}",
            where=Location(str(path / INDEX)),
            why="the index names them, and they are not beside it",
            remedy="download or copy the model again",
        )
    tensors: dict[str, TensorInfo] = {}
    for name in shards:
        tensors |= read_safetensors(path / name)
    absent = sorted(set(_weight_map(path)) - set(tensors))
    if absent:
        raise ModelError(
            f"the weight files lack tensors that the index names: {_some(absent)}",
            where=Location(str(path / INDEX)),
            why="the index and the weight files are from different models or downloads",
            remedy="download or copy the model again",
        )
    return tensors


def _weight_map(path: Path) -> dict[str, str]:
    found = _read_json(path / INDEX).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise ModelError("the index has no weight_map", where=Location(str(path / INDEX)))
    return found


def _shards(path: Path) -> list[str] | None:
    """Return the file names that the index lists, or ``None`` if there is no index.

    A name that leads out of the folder is refused: an index is as untrusted as any download.
    """
    if not (path / INDEX).is_file():
        return None
    names = sorted(set(_weight_map(path).values()))
    for name in names:
        if PurePosixPath(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise ModelError(
                f"the index names {name!r}, which is no safetensors file beside it",
                where=Location(str(path / INDEX)),
                remedy="give a checkpoint whose index names files in its own folder",
            )
    return names


def _genai(path: Path) -> Checkpoint:
    """Read a GenAI folder: its configuration, and that the decoder it names is there."""
    config = _read_json(path / GENAI_CONFIG)
    model = config.get("model")
    decoder = model.get("decoder") if isinstance(model, dict) else None
    name = decoder.get("filename") if isinstance(decoder, dict) else None
    if isinstance(name, str) and bad_name(name):
        raise ModelError(
            f"genai_config.json names {name!r} as the decoder, which is no file beside it",
            where=Location(str(path / GENAI_CONFIG)),
            why=bad_name(name),
            remedy="use a model whose files lie in its own folder",
        )
    if isinstance(name, str) and not (path / name).is_file():
        raise ModelError(
            f"{name} is missing, the decoder that genai_config.json names",
            where=Location(str(path / GENAI_CONFIG)),
            remedy="copy the whole folder, or build the model again",
        )
    _check_genai_names(config, path)
    files = model_files(path)
    for file in files:
        if file.suffix == ".onnx":
            check_external_data(file)
    return Checkpoint(path, Format.GENAI, config, files=files)


def _check_adapter(config: Mapping[str, Any], path: Path) -> None:
    """Refuse an adapter whose configuration has peft import a module by its name, or fetch other adapters."""
    said = {
        "megatron_config": "peft imports the module that megatron_core names",
        "adapters": "peft fetches the adapters that it lists, wherever they are",
    }
    for key, why in said.items():
        if config.get(key):
            raise ModelError(
                f"adapter_config.json has {key}, which is not taken from an adapter",
                where=Location(str(path / ADAPTER_CONFIG)),
                why=why,
                remedy="merge it where it was trained, and give the merged model",
            )


def _check_genai_names(value: Any, path: Path) -> None:
    """Refuse a GenAI configuration that loads code, or files that are not the model's.

    The runtime opens every ``filename``, and loads ``custom_ops_library``: machine code that comes with the model.
    """
    for key, each in _entries(value):
        where = Location(str(path / GENAI_CONFIG))
        is_library = key == "custom_ops_library" or (
            isinstance(each, str)
            and _LIBRARY.search(each) is not None
            and ("/" in each or "\\" in each or (path / each).exists())
        )
        if is_library and each:
            raise ModelError(
                f"genai_config.json has the runtime load code: {key}: {each!r}",
                where=where,
                why="a library that comes with a model can do on this machine whatever you can",
                remedy="use a model without it, or remove the key if the model runs without",
            )
        if key.endswith("filename") and isinstance(each, str) and each and bad_name(each):
            raise ModelError(
                f"genai_config.json names {each!r} as {key}, which is no file beside it",
                where=where,
                why=bad_name(each),
                remedy="use a model whose files lie in its own folder",
            )


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of a JSON value with what it holds, at any depth."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            yield from ((str(key), item) for key, item in each.items())
            pending += each.values()
        elif isinstance(each, list):
            pending += each


def _check_small_file(file: Path) -> None:
    """Refuse a file that would fill memory, or that is a link to something of this machine's instead of the model's.

    Files of the hub's cache are links into its ``blobs``; weights may lie anywhere, for nothing but weights is read as
    weights.
    """
    if file.suffix == ".safetensors":
        return
    if file.name in TOKENIZER_FILES:
        limit = TOKENIZER_LIMIT
    else:  # what is neither is an ONNX file or its data
        limit = JSON_LIMIT if file.suffix in _READ_WHOLE else sys.maxsize
    size = file.stat().st_size
    if size > limit:
        raise ModelError(
            f"{file.name} has {size:,} bytes; no model has one of more than {limit:,}",
            where=Location(str(file)),
            why="libraries read it whole, and would fill the memory",
            remedy="download the model again from a source that you trust",
        )
    if not file.is_symlink():
        return
    folder, target = file.parent.resolve(), file.resolve()
    repository = folder.parent.parent
    in_hub_cache = folder.parent.name == "snapshots" and target.is_relative_to(repository / "blobs")
    if not in_hub_cache and not target.is_relative_to(folder):
        raise ModelError(
            f"{file.name} is a link to {target}, outside the model's folder",
            where=Location(str(file)),
            why="a model from elsewhere could so have a file of this machine copied into its result",
            remedy=f"if it is yours, put a copy there: cp --remove-destination {target} {file}",
        )


def _check_inside(path: Path, folder: Path | None) -> None:
    """Refuse a folder of a model that is a link to a folder elsewhere."""
    if folder is not None and not folder.resolve().is_relative_to(path.resolve()):
        raise ModelError(
            f"{folder.name} is a link to {folder.resolve()}, outside the model's folder",
            where=Location(str(folder)),
            why="a model from elsewhere could so have files of this machine copied into its result",
            remedy="if it is yours, put a copy there",
        )


def _read_config(path: Path) -> dict[str, Any]:
    config = _read_json(path / CONFIG)
    check_config(config, path / CONFIG)
    return config


def _read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object, or raise a ModelError that names the line."""
    _check_small_file(file)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError:
        raise ModelError(
            f"{file.name} is nested too deeply", where=Location(str(file)), remedy="download the model again"
        ) from None
    except json.JSONDecodeError as error:
        raise ModelError(
            f"{file.name} is not valid JSON: {error.msg}",
            where=Location(str(file), error.lineno),
            remedy="mend it, or download the model again",
        ) from None
    except UnicodeDecodeError:
        raise ModelError(f"{file.name} is not text", where=Location(str(file)), remedy="download it again") from None
    except ValueError as error:  # a number with more digits than Python reads
        raise ModelError(
            f"{file.name} cannot be read: {error}", where=Location(str(file)), remedy="download the model again"
        ) from None
    if not isinstance(found, dict):
        raise ModelError(f"{file.name} holds no JSON object", where=Location(str(file)), remedy="download it again")
    return found


def _no_weights(path: Path, wanted: str) -> ModelError:
    """Return the error for a folder without ``wanted``, saying what is there in its place."""
    pickles = sorted(
        file.name for pattern in PICKLES for file in path.glob(pattern) if file.name != "training_args.bin"
    )
    if pickles:
        return ModelError(
            f"the weights in {path} are pickles ({_some(pickles)}), and Olivine reads safetensors only",
            where=Location(str(path)),
            why="loading a pickle runs whatever code its author put into it",
            remedy=_CONVERT_ADAPTER if wanted == ADAPTER else _CONVERT,
        )
    parts = sorted(file.name for file in path.glob("*.safetensors"))
    if parts:
        return ModelError(
            f"there is neither {wanted} nor {INDEX} in {path}, only {_some(parts)}",
            where=Location(str(path)),
            why="without the index nobody can say whether these are all weights, and of one model",
            remedy="download or copy the model again, index included",
        )
    return ModelError(
        f"there are no weights in {path}",
        where=Location(str(path)),
        why=f"{wanted} is missing; {_what_is_there(path)}",
        remedy="download or copy the model again; of a Git repository, fetch its large files (git lfs pull)",
    )


def _inner_checkpoint(path: Path) -> Path | None:
    """Return the folder below ``path`` that holds a checkpoint, nearest first, or ``None``."""
    found = sorted(path.glob("*/config.json")) or sorted(path.glob("*/*/config.json"))
    with_weights = [file.parent for file in found if any(file.parent.glob("*.safetensors"))]
    return with_weights[0] if with_weights else (found[0].parent if found else None)


def _what_is_there(path: Path) -> str:
    names = sorted(file.name + ("/" if file.is_dir() else "") for file in path.iterdir())
    return f"it holds {_some(names)}" if names else "the folder is empty"


def _some(names: Iterable[str], limit: int = 4) -> str:
    every = list(names)
    return ", ".join(every[:limit]) + (f" and {len(every) - limit} more" if len(every) > limit else "")
