"""Which of the files that an address leads to are wanted, and what they are called in the Store."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

from olivine.errors import ModelError
from olivine.models.hub import CODE_PATTERNS, PATTERNS
from olivine.models.mlflow import LARGEST, MLMODEL, PICKLES, no_safetensors, read_layout
from olivine.storage.remote import Entry
from olivine.storage.transfer import Patience, persistently

Selection = Callable[[list[Entry], str], list[Entry]]
"""Takes files and the address that led to them. Its name is part of the key in the Store."""

_SIGNS = (MLMODEL, "genai_config.json", "config.json")
"""Files that tell the folder of a model, the first that is found."""


def everything(entries: list[Entry], shown: str) -> list[Entry]:
    """Take all files."""
    return entries


def model_files(entries: list[Entry], shown: str) -> list[Entry]:
    """Take what makes a model: configuration, safetensors and tokenizer, or a folder with ONNX files; no code.

    An MLflow folder becomes the checkpoint that it holds. A model may lie in a folder of its own below the address.

    Raises:
        ModelError: there is no model, more than one, or none with safetensors.
    """
    return _model(entries, shown, code=False)


def model_files_with_code(entries: list[Entry], shown: str) -> list[Entry]:
    """Take the same, and the Python files beside a checkpoint, for models whose code may run."""
    return _model(entries, shown, code=True)


def adapter_files(entries: list[Entry], shown: str) -> list[Entry]:
    """Take the configuration and the safetensors of a PEFT adapter.

    Raises:
        ModelError: there is no adapter.
    """
    taken = [entry for entry in entries if entry.name in ("adapter_config.json", "adapter_model.safetensors")]
    if len(taken) < 2:
        raise ModelError(
            f"{shown} leads to no adapter",
            why="an adapter folder holds adapter_config.json and adapter_model.safetensors",
            remedy="give the folder that holds them",
        )
    return taken


def _model(entries: list[Entry], shown: str, *, code: bool) -> list[Entry]:
    files = {entry.name: entry for entry in entries}
    onnx = [name for name in files if name.endswith(".onnx")]
    base = _base(files, onnx, shown)
    inside = {name[len(base) :]: entry for name, entry in files.items() if name.startswith(base)}
    if MLMODEL in inside:
        layout = read_layout(_text(inside[MLMODEL]), inside, shown)
        return [Entry(name, inside[path].file, inside[path].facts) for name, path in sorted(layout.files.items())]
    if onnx:
        taken = [name for name in inside if not name.endswith((".py", *PICKLES)) or ".onnx" in name]
        return [Entry(name, inside[name].file, inside[name].facts) for name in sorted(taken)]
    patterns = (*PATTERNS, *(CODE_PATTERNS if code else ()))
    taken = [name for name in inside if "/" not in name and any(fnmatchcase(name, each) for each in patterns)]
    if not any(name.endswith(".safetensors") for name in taken):
        raise no_safetensors(shown, inside)
    return [Entry(name, inside[name].file, inside[name].facts) for name in sorted(taken)]


def _base(files: dict[str, Entry], onnx: list[str], shown: str) -> str:
    """Return the folder of the model below the address: empty, or with ``/`` at its end."""
    for sign in _SIGNS:
        folders = {name[: -len(sign)] for name in files if name == sign or name.endswith("/" + sign)}
        if not folders:
            continue
        depth = min(folder.count("/") for folder in folders)
        highest = sorted(folder for folder in folders if folder.count("/") == depth)
        if len(highest) > 1:
            raise ModelError(
                f"{shown} leads to several models",
                why=f"there are {', '.join(folder.rstrip('/') for folder in highest[:5])}",
                remedy="name one of these folders",
            )
        return highest[0]
    if onnx:
        return ""
    raise ModelError(
        f"{shown} leads to no model",
        why=f"neither config.json nor MLmodel is among its {len(files)} files",
        remedy="give the folder of a checkpoint, of an MLflow model, or of an ONNX model",
    )


def _text(entry: Entry) -> str:
    """Return a small text file."""
    if (entry.facts.size or 0) > LARGEST:
        raise ModelError(f"{entry.file.name} is larger than {LARGEST} bytes")

    def ask() -> bytes:
        return b"".join(entry.file.read(0, entry.facts))

    return persistently(entry.file.name, ask, patience=Patience(), renew=entry.file.renew).decode("utf-8", "replace")
