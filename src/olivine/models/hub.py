"""Where a model is: a local folder, the Hugging Face cache of this machine, or still on the hub.

:func:`locate` reads directories only, so that planning works offline; :func:`fetch` is the one place that downloads.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from olivine.errors import ModelError, UnavailableError
from olivine.models import hub_token
from olivine.store.disk import bad_name

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")

PATTERNS = ("*.safetensors", "*.json", "tokenizer*", "*.model", "*.txt", "*.jinja")
"""What is downloaded: weights as safetensors, configuration, tokenizer, chat template. No pickles, no other formats."""
CODE_PATTERNS = ("*.py",)
"""What is downloaded beside that when code of the model's own is allowed to run."""
_DOWNLOADS = 3
"""How often files that came damaged are asked for in all."""
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Between one try and the next, while the hub is busy or breaks off."""
_LEFT_OUT = ("onnx/*", "original/*", "*/*.safetensors")


T = TypeVar("T")


@dataclass(frozen=True)
class Located:
    """Where a model is.

    Attributes:
        path: its folder on this machine; ``None`` if it has to be downloaded.
        revision: for a hub model on this machine its commit; for one to be downloaded what was asked for.
    """

    path: Path | None
    revision: str | None


def locate(model_path: str, revision: str | None = None, *, used_here: bool = True) -> Located:
    """Return where ``model_path`` is, without using the network.

    A folder that exists wins. Then an id (``org/name``) is looked up in this machine's Hugging Face cache, at
    ``revision`` (a commit, branch or tag; ``main`` if ``None``) as it was when it was last downloaded.

    Args:
        used_here: whether it would be downloaded to this machine, where the hub may be switched off.

    Raises:
        ModelError: it is neither a folder that exists nor an id.
        UnavailableError: it is not on this machine, and the hub is switched off (``HF_HUB_OFFLINE``).
    """
    folder = Path(model_path).expanduser()
    if folder.exists():
        return Located(folder, None)
    if folder.is_absolute() or model_path.startswith((".", "~")) or not _ID.fullmatch(model_path):
        raise ModelError(
            f"there is no model folder {model_path}",
            remedy="give a folder that exists, or an id on the Hugging Face hub (microsoft/Phi-3-mini-4k-instruct)",
        )
    snapshot = _cached(model_path, revision or "main")
    if snapshot is not None:
        return Located(snapshot, snapshot.name)
    if used_here and is_offline():
        raise _switched_off(model_path, revision)
    return Located(None, revision)


def fetch(model_path: str, revision: str | None = None, *, code: bool = False) -> Path:
    """Download a model from the Hugging Face hub into this machine's cache and return its folder.

    Only safetensors, configuration and tokenizer files are asked for (:data:`PATTERNS`). What an earlier, interrupted
    download left is not asked for again. Every file is compared with the digest under which the hub keeps it.

    Args:
        code: whether the Python files that come with the model are wanted too.

    Raises:
        UnavailableError: the hub cannot be reached, is switched off (``HF_HUB_OFFLINE``), or does not give it out.
        ModelError: the hub has no safetensors of it.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ModuleNotFoundError:
        raise UnavailableError(
            f"downloading {model_path} needs huggingface_hub, which is not installed",
            remedy="`pip install 'olivine[torch]'`, or give a folder on this machine",
        ) from None
    from olivine.models.hub_facts import http_error

    asked, local = _asked(model_path, revision), _otherwise(model_path)
    token = hub_token.token()

    def download() -> str:
        return huggingface_hub.snapshot_download(  # type: ignore[no-any-return]
            model_path,
            revision=revision,
            allow_patterns=[*PATTERNS, *(CODE_PATTERNS if code else ())],
            ignore_patterns=list(_LEFT_OUT),
            token=token,
        )

    unreachable = http_error()
    try:
        for _ in range(_DOWNLOADS):
            folder = patiently(download, passing=(unreachable, OSError), final=errors.RepositoryNotFoundError)
            damaged = remove_damaged(Path(folder))
            if not damaged:
                break
        else:
            raise UnavailableError(
                f"{', '.join(damaged)} of {asked} came damaged from the hub",
                why="its digest is not the one that the hub gives; what came was removed",
                remedy=f"check the network and HF_ENDPOINT, {local}",
            )
    except errors.GatedRepoError:
        raise UnavailableError(
            f"the hub gives {asked} only to those who accepted its licence",
            remedy=f"accept it on the model's page, log in with `hf auth login`, {local}",
        ) from None
    except errors.RevisionNotFoundError:
        raise UnavailableError(
            f"the hub has {model_path}, but no revision {revision!r} of it", remedy="give a commit, branch or tag of it"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UnavailableError(
            f"the hub has no model {model_path}, or does not show it to you",
            remedy=f"check the id; if it is private, log in with `hf auth login`, {local}",
        ) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, unreachable, OSError) as error:
        if _is_full(error):
            raise
        if is_offline():
            raise _switched_off(model_path, revision) from None
        raise UnavailableError(
            f"{asked} is not on this machine, and the hub cannot be reached",
            why=_cause(error),
            remedy=f"check the network and HF_ENDPOINT, {local}",
        ) from None
    except errors.HfHubHTTPError as error:
        raise UnavailableError(
            f"the hub did not give out {asked}", why=_cause(error), remedy=f"try again later, {local}"
        ) from None
    found = Path(folder)
    if not any(found.glob("*.safetensors")):
        raise ModelError(
            f"the hub has no safetensors of {asked}",
            why="Olivine reads safetensors only: loading a pickle runs whatever code its author put into it",
            remedy="take a revision or a copy of the model that has safetensors, or convert it once where you trust it",
        )
    return found


def patiently(
    download: Callable[[], T],
    *,
    passing: tuple[type[Exception], ...],
    final: type[Exception] | tuple[type[Exception], ...],
) -> T:
    """Return what ``download`` does, which is tried again after a fault that may pass.

    What it has brought is not asked for again. Where nobody answers at all, waiting would only delay saying so.

    Args:
        passing: faults that may pass.
        final: those among them that do not.
    """
    for pause in _PAUSES_S:
        try:
            return download()
        except final:
            raise
        except passing as error:
            if is_offline() or _is_full(error) or _nobody_answers(error):
                raise
        time.sleep(pause)
    return download()


def _nobody_answers(error: BaseException) -> bool:
    """Return whether no connection came about: no such host, no route, nothing listens."""
    chain: BaseException | None = error
    while chain is not None:
        if type(chain).__name__ in ("ConnectError", "ConnectionRefusedError", "gaierror", "OfflineModeIsEnabled"):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def remove_damaged(snapshot: Path) -> list[str]:
    """Remove from the hub's cache what has not the digest that it is named for; return the names, sorted.

    The cache names a file's content for the hub's ETag: large files by their SHA-256, others by the SHA-1 of their Git
    blob. A name of another form, and a copy where the system has no links, tells no digest.
    """
    damaged = []
    for file in sorted(snapshot.rglob("*")):
        if not file.is_symlink() or not file.is_file():
            continue
        blob = file.resolve()
        size = blob.stat().st_size
        if re.fullmatch(r"[0-9a-f]{64}", blob.name):
            digest = hashlib.sha256()
        elif re.fullmatch(r"[0-9a-f]{40}", blob.name):
            digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        else:
            continue
        with open(blob, "rb") as content:
            while block := content.read(2**20):
                digest.update(block)
        if digest.hexdigest() != blob.name:
            damaged.append(str(file.relative_to(snapshot)))
            file.unlink()
            blob.unlink()
    return damaged


def _cached(model_id: str, revision: str) -> Path | None:
    """Return the snapshot of ``model_id`` in the cache that was downloaded whole, or ``None``."""
    from olivine.models.checkpoint import read_checkpoint

    repository = cache_folder() / f"models--{model_id.replace('/', '--')}"
    commit = revision
    if bad_name(revision):
        return None
    if not _COMMIT.fullmatch(revision):
        reference = repository / "refs" / revision
        if not reference.is_file():
            return None
        commit = reference.read_text(encoding="utf-8", errors="replace").strip()
        if not _COMMIT.fullmatch(commit):
            return None
    snapshot = repository / "snapshots" / commit
    if not snapshot.is_dir():
        return None
    try:
        read_checkpoint(snapshot)
    except ModelError:
        return None  # an interrupted download: fetch goes on with it, or says what is wrong
    return None if _lacks_files(snapshot, repository / "trees" / f"{commit}.json") else snapshot


def _lacks_files(snapshot: Path, listing: Path) -> bool:
    """Return whether the hub's listing of a commit, where its library has kept it, has files that are not here."""
    try:
        names = list(json.loads(listing.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # an older library keeps none
    wanted = [name for name in names if _matches(name, PATTERNS) and not _matches(name, _LEFT_OUT)]
    return any(not bad_name(name) and not (snapshot / name).is_file() for name in wanted)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def cache_folder() -> Path:
    """Return the folder of this machine's Hugging Face cache, as the hub's own library finds it."""
    for name, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if os.environ.get(name):
            return Path(os.path.expandvars(os.environ[name])).expanduser() / below
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return home / "huggingface" / "hub"


def is_offline() -> bool:
    """Return whether the hub is switched off by an environment variable."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)


def _switched_off(model_path: str, revision: str | None) -> UnavailableError:
    return UnavailableError(
        f"{_asked(model_path, revision)} is neither a folder nor in this machine's Hugging Face cache, and the hub is "
        "switched off (HF_HUB_OFFLINE)",
        remedy=f"unset HF_HUB_OFFLINE, {_otherwise(model_path)}",
    )


def _asked(model_path: str, revision: str | None) -> str:
    return f"{model_path} ({revision})" if revision else model_path


def _otherwise(model_path: str) -> str:
    return (
        "or give a folder on this machine, or put the model into its cache where there is a network: "
        f"hf download {model_path}"
    )


def _is_full(error: BaseException) -> bool:
    """Return whether a disk is at fault, and not the network (network errors are OSErrors too)."""
    import errno

    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def _cause(error: BaseException) -> str:
    """Return the innermost cause of ``error`` in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
