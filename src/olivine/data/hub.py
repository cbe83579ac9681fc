"""Data sets of the Hugging Face hub, read through ``datasets``: at one commit, every file of it compared, no other."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olivine.config.schema import DataConfig
from olivine.errors import DataError, Location, UnavailableError
from olivine.models import hub_token
from olivine.models.hub import cache_folder, is_offline, patiently, remove_damaged
from olivine.telemetry import switch_off_telemetry

COMMIT = re.compile(r"[0-9a-f]{40}")
_TRIES = 3
"""How often files that came damaged are asked for in all."""
_IN_NAME = Location(path="data_name")
_OFF = "the hub is switched off (HF_HUB_OFFLINE or HF_DATASETS_OFFLINE)"


@dataclass(frozen=True)
class HubData:
    """A data set of the hub.

    Attributes:
        dataset: a ``datasets.Dataset`` of the split, or of the slice of it.
        commit: the commit that it is of.
    """

    dataset: Any
    commit: str


def data_is_offline() -> bool:
    """Return whether the hub is switched off for data sets by an environment variable."""
    return is_offline() or os.environ.get("HF_DATASETS_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def check_hub(config: DataConfig) -> None:
    """Say now what would fail later: the hub is switched off, and the data set is not in this machine's cache.

    Raises:
        UnavailableError: it is so.
    """
    if not data_is_offline():
        return
    name = str(config.data_name)
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"))
    built = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser() / name.replace("/", "___")
    fetched = cache_folder() / f"datasets--{name.replace('/', '--')}"
    if not built.is_dir() and not fetched.is_dir():
        raise _unreachable(name, _OFF)


def commit_of(config: DataConfig) -> str:
    """Return the commit that a data set's revision is now, as the hub says. A commit is not asked for.

    Raises:
        UnavailableError: the hub cannot be reached, has no such data set or revision, or does not give it out.
    """
    if COMMIT.fullmatch(config.revision or ""):
        return str(config.revision)
    name = str(config.data_name)
    try:
        from huggingface_hub import HfApi, errors
    except ModuleNotFoundError:
        raise _not_installed() from None
    from olivine.models.hub_facts import http_error

    unreachable = http_error()
    try:
        return patiently(
            lambda: str(HfApi(token=hub_token.token()).dataset_info(name, revision=config.revision, timeout=30).sha),
            passing=(unreachable, OSError),
            final=(errors.RepositoryNotFoundError, errors.RevisionNotFoundError),
        )
    except errors.RevisionNotFoundError:
        raise UnavailableError(
            f"the hub has {name}, but no revision {config.revision!r} of it",
            where=Location(path="revision"),
            remedy="give a commit, branch or tag of it",
        ) from None
    except (errors.OfflineModeIsEnabled, errors.HfHubHTTPError, unreachable, OSError) as error:
        raise _unreachable(name, _line(error)) from None


def load_hub_data(config: DataConfig, split: str, *, commit: str | None = None) -> HubData:
    """Load a split, or a slice of one, downloading what is not on this machine.

    Only files of the data set's own repository are read: a repository's README may name any others, of this machine
    or elsewhere. What came damaged is removed and asked for again. With the hub switched off, what ``datasets`` has
    built before is taken, if it is of the commit that is asked for.

    Args:
        commit: what :func:`commit_of` said; default: it is asked.

    Raises:
        UnavailableError: it cannot be had, or a package is missing.
        DataError: there is no such subset, split or file in it, or it names files elsewhere.
    """
    switch_off_telemetry()
    try:
        import datasets
        from datasets.exceptions import DatasetNotFoundError, DatasetsError
    except ModuleNotFoundError as error:
        raise _not_installed() from error
    from olivine.models.hub_facts import http_error

    name, unreachable = str(config.data_name), http_error()
    if commit is None and not data_is_offline():
        commit = commit_of(config)

    def prepared() -> Any:
        builder = datasets.load_dataset_builder(
            name,
            config.subset,
            data_dir=config.data_dir,
            data_files=config.data_files,
            revision=commit,
            token=hub_token.token(),
        )
        if commit is not None and builder.hash != commit:  # datasets takes what it has built of another one
            raise ConnectionError(f"the hub does not answer, and this machine has only the commit {builder.hash}")
        _refuse_elsewhere(builder, name)
        builder.download_and_prepare()
        return builder

    with quiet():
        try:
            for _ in range(_TRIES):
                failed, builder = None, None
                try:
                    builder = patiently(
                        prepared, passing=(unreachable, ConnectionError, TimeoutError), final=(DatasetsError,)
                    )
                except Exception as error:
                    failed = error
                damaged = _damaged(name, commit)
                if not damaged:
                    break
                if builder is not None:
                    _forget(builder)
            else:
                raise UnavailableError(
                    f"{', '.join(damaged)} of the data set {name} came damaged from the hub",
                    where=_IN_NAME,
                    why="its digest is not the one that the hub gives; what came was removed",
                    remedy="check the network and HF_ENDPOINT, or use local files: data_files: train.jsonl",
                )
            if failed is not None:
                raise failed
            assert builder is not None
            dataset = builder.as_dataset(split=split)
        except (DatasetNotFoundError, unreachable, OSError) as error:
            raise _unreachable(name, _line(error)) from error
        except (DatasetsError, ValueError, RuntimeError, KeyError) as error:
            raise DataError(
                f"the hub data set {name} cannot be read: {_line(error)}",
                where=_IN_NAME,
                remedy="check subset, split and data_files against the data set's page",
            ) from error
    if commit is None:
        commit = _as_asked(config, str(builder.hash))
    return HubData(dataset, commit)


def _refuse_elsewhere(builder: Any, name: str) -> None:
    """Refuse files that do not lie in the data set's own repository."""
    own = f"hf://datasets/{name}@"
    listed = getattr(builder.config, "data_files", None) or {}
    foreign = sorted({str(file) for files in listed.values() for file in files if not str(file).startswith(own)})
    if foreign:
        raise DataError(
            f"the hub data set {name} takes its rows from elsewhere: {', '.join(foreign[:3])}",
            where=_IN_NAME,
            why="its README names files of this machine or of another place, which may be anything",
            remedy="name files of the data set itself in data_files, or use another data set",
        )


def _damaged(name: str, commit: str | None) -> list[str]:
    """Remove what came damaged of a commit; return the names."""
    snapshot = cache_folder() / f"datasets--{name.replace('/', '--')}" / "snapshots" / str(commit)
    return remove_damaged(snapshot) if snapshot.is_dir() else []


def _forget(builder: Any) -> None:
    """Remove what was built of damaged files."""
    import shutil

    shutil.rmtree(builder.cache_dir, ignore_errors=True)


def _as_asked(config: DataConfig, built: str) -> str:
    """Return the commit of what ``datasets`` had built before, if it is what the configuration asks for."""
    asked = config.revision or "main"
    if not COMMIT.fullmatch(asked):
        folder = cache_folder() / f"datasets--{str(config.data_name).replace('/', '--')}" / "refs"
        known = folder / asked if re.fullmatch(r"[\w.-]+", asked) else folder
        if known.is_file():
            asked = known.read_text("utf-8", errors="replace").strip()
        elif config.revision is None:
            return built
    if asked != built:
        raise _unreachable(str(config.data_name), f"{_OFF}, and this machine has the commit {built}, not {asked}")
    return built


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the bars and warnings of ``datasets`` off the terminal, which is another's."""
    import datasets

    shown, level = datasets.is_progress_bar_enabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _not_installed() -> UnavailableError:
    return UnavailableError(
        "data sets from the hub need the package datasets, which is not installed",
        remedy="`pip install 'olivine[finetune]'`",
    )


def _unreachable(name: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"the data set {name} is not on this machine, and the hub does not give it out",
        where=_IN_NAME,
        why=why,
        remedy="check the name and the network, log in if it is gated, or use local files: data_files: train.jsonl",
    )
