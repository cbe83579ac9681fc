"""The checkpoint in an MLflow folder, found from ``MLmodel`` and names alone: nothing of MLflow is imported or run.

Two layouts are known, those that hold language models:

- ``transformers``, as ``mlflow.transformers.save_model`` writes it: ``model/`` with weights and configuration,
  ``components/tokenizer/`` beside it;
- ``hftransformersv2`` (and ``hftransformers``), as models of Azure Machine Learning have it: ``data/model/``,
  ``data/tokenizer/``, ``data/config/``; the last two may be missing, then ``data/model/`` holds everything.

MLflow's own loader, and Azure's, import classes that ``MLmodel`` names and run code that lies in the folder. Here a
name in ``MLmodel`` chooses a folder below it and can do nothing else; Python files and pickles are not touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olivine.errors import ModelError
from olivine.store.disk import bad_name, tree_files

MLMODEL = "MLmodel"
LARGEST = 1 << 20
"""Bytes that an ``MLmodel`` may have."""
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".h5", ".msgpack")
"""Endings of weights that are no safetensors; most of them run code when they are loaded."""
_AZURE = ("hftransformersv2", "hftransformers")


@dataclass(frozen=True)
class MlflowLayout:
    """Which files of an MLflow folder make the checkpoint.

    Attributes:
        files: path in the MLflow folder by name in the checkpoint's folder.
        notes: what the user may not expect.
    """

    files: dict[str, str]
    notes: tuple[str, ...] = ()


def read_layout(text: str, names: Collection[str], where: str) -> MlflowLayout:
    """Return which files make the checkpoint.

    Args:
        text: content of ``MLmodel``.
        names: relative paths of all files in its folder, with ``/``.
        where: the folder, for messages.

    Raises:
        ModelError: it holds no language model, has no safetensors, or a path in it leaves the folder.
    """
    flavours = _flavours(text, where)
    azure = next((name for name in _AZURE if name in flavours), None)
    if "transformers" in flavours:
        flavour = flavours["transformers"]
        model = _inside(flavour.get("model_binary") or "model", where)
        tokenizer, config = "components/tokenizer", ""
    elif azure is not None:
        flavour = flavours[azure]
        data = _inside(flavour.get("model_data") or "data", where)
        model, tokenizer, config = f"{data}/model", f"{data}/tokenizer", f"{data}/config"
    else:
        raise ModelError(
            f"{where} is an MLflow folder without a language model",
            why=f"its flavours are {', '.join(sorted(flavours)) or 'none'}",
            remedy="Olivine reads the flavours transformers and hftransformersv2",
        )
    # What is beside the weights goes first: the loaders of both layouts take the tokenizer and the configuration there.
    files = _directly_in(model, names)
    for folder in (tokenizer, config):
        if folder:
            files |= {name: path for name, path in _directly_in(folder, names).items() if not _is_weights(name)}
    notes = []
    code = flavour.get("code") or flavours.get("python_function", {}).get("code")
    if code or any(name.endswith(".py") for name in files):
        notes.append(f"{where} carries Python code; it is neither fetched nor run")
    kept = {name: path for name, path in files.items() if not name.endswith((".py", *PICKLES))}
    if not any(name.endswith(".safetensors") for name in kept):
        raise no_safetensors(where, files, flavour.get("source_model_name") or flavour.get("huggingface_id"))
    return MlflowLayout(kept, tuple(notes))


def no_safetensors(where: str, names: Iterable[str], hub_id: Any = None) -> ModelError:
    """Return what to say of a model without safetensors."""
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    hint = f", e.g. {hub_id} on the hub" if isinstance(hub_id, str) and hub_id else ""
    if not pickles:
        return ModelError(
            f"{where} holds no weights",
            why="a model is read from safetensors, and there are none",
            remedy=f"give the folder that holds them{hint}",
        )
    return ModelError(
        f"{where} holds its weights as {', '.join(pickles[:3])}{' ...' if len(pickles) > 3 else ''} only",
        why="Olivine reads safetensors: loading a pickle runs whatever code its author put into it",
        remedy=f"take a copy of the model that has safetensors{hint}, or convert it once where you trust it: "
        "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)",
    )


def checkpoint_in(folder: Path, shared: Path) -> tuple[Path, tuple[str, ...]]:
    """Return a folder with the checkpoint of an MLflow folder on this machine: links to weights, copies; and notes.

    Args:
        folder: holds ``MLmodel``.
        shared: where that folder is put.

    Raises:
        ModelError: as :func:`read_layout`; or a link in it leads out of it.
    """
    from olivine.store.digests import digest_json

    root = folder.resolve()
    names = [name for name, _ in tree_files(root)]
    layout = read_layout((root / MLMODEL).read_text("utf-8", "replace")[: LARGEST + 1], names, str(folder))
    for path in layout.files.values():
        if not (root / path).resolve().is_relative_to(root):
            raise ModelError(
                f"{folder / path} is a link that leads out of the model's folder", remedy="copy what it leads to there"
            )
    stats = {name: os.stat(root / path) for name, path in layout.files.items()}
    seen = [[name, layout.files[name], each.st_size, each.st_mtime_ns] for name, each in sorted(stats.items())]
    made = shared / "mlflow" / digest_json([str(root), seen])
    if not made.is_dir():
        new = made.with_name(f"{made.name}.{os.getpid()}")
        new.mkdir(parents=True, exist_ok=True)
        for name, path in layout.files.items():
            (new / name).unlink(missing_ok=True)
            if name.endswith(".safetensors"):
                (new / name).symlink_to(root / path)
            else:
                shutil.copyfile(root / path, new / name)
        try:
            new.rename(made)
        except OSError:
            if not made.is_dir():  # else another process was faster
                raise
    return made, layout.notes


def _flavours(text: str, where: str) -> dict[str, dict[str, Any]]:
    import yaml

    if len(text) > LARGEST:
        raise ModelError(f"{MLMODEL} of {where} is larger than {LARGEST} bytes")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ModelError(f"{MLMODEL} of {where} cannot be read", why=" ".join(str(error).split())[:200]) from None
    found = content.get("flavors") if isinstance(content, dict) else None
    if not isinstance(found, dict):
        raise ModelError(f"{MLMODEL} of {where} names no flavours")
    return {str(name): value if isinstance(value, dict) else {} for name, value in found.items()}


def _inside(path: Any, where: str) -> str:
    """Return a folder that ``MLmodel`` names, which has to be below it."""
    text = str(path).rstrip("/")
    if bad_name(text):
        raise ModelError(f"{MLMODEL} of {where} names the folder {text!r}", why=bad_name(text))
    return text


def _directly_in(folder: str, names: Iterable[str]) -> dict[str, str]:
    below = f"{folder}/"
    return {name[len(below) :]: name for name in names if name.startswith(below) and "/" not in name[len(below) :]}


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json", *PICKLES))
