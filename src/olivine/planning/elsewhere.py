"""What a workflow names by an address: in the Store, so that everything behind here works on files of this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.config.schema import DataConfig, InputModel
from olivine.config.sizes import size_in_words
from olivine.storage.addresses import is_address

if TYPE_CHECKING:
    from olivine.storage.fetching import Fetched, Fetcher


@dataclass(frozen=True)
class Absent:
    """A model that is there, and not fetched yet.

    Attributes:
        address: as the configuration has it.
        identity: what goes into the digest of a Step.
        note: what to tell.
    """

    address: str
    identity: str
    note: str


@dataclass(frozen=True)
class HubDataHere:
    """A data config that names a data set of the hub.

    Attributes:
        here: with the folder in the Store; as it was given if it is not there.
        pinned: with the commit.
    """

    here: DataConfig
    pinned: DataConfig


def data_here(config: DataConfig, fetcher: Fetcher, note: Callable[[str], None]) -> DataConfig:
    """Return a data config with the paths, in the Store, of what its ``data_files`` name by addresses.

    Files are fetched that are not there: a plan looks at rows.

    Raises:
        OlivineError: as :meth:`olivine.storage.fetching.Fetcher.fetch`.
    """
    given = [config.data_files] if isinstance(config.data_files, str) else config.data_files or []
    if not any(map(is_address, given)):
        return config
    files: list[str] = []
    for each in given:
        if not is_address(each):
            files.append(each)
            continue
        fetched = fetcher.fetch(each)
        note(str(fetched))
        files += [str(fetched.path / name) for name in fetched.names]
    return config.model_copy(update={"data_files": files})


def hub_data_here(config: DataConfig, fetcher: Fetcher, note: Callable[[str], None], *, fetch: bool) -> HubDataHere:
    """Return a data config that names a data set of the hub: as it is in the Store, and as it is to be kept.

    Args:
        fetch: fetch it if it is not in the Store; else it is left for the run.

    Raises:
        OlivineError: as :func:`olivine.storage.hub_data.fetch_data_set`.
    """
    from olivine.storage.hub_data import fetch_data_set, known_data_set

    found = fetch_data_set(config, fetcher) if fetch else known_data_set(config, fetcher)
    if found is None:
        return HubDataHere(config, config)
    note(str(found))
    nowhere = dict.fromkeys(("subset", "data_dir", "data_files", "revision"))
    return HubDataHere(
        config.model_copy(update={"data_name": str(found.path), **nowhere}),
        config.model_copy(update={"revision": found.version}),
    )


def model_here(
    given: InputModel, fetcher: Fetcher, note: Callable[[str], None], *, code: bool, fetch: bool
) -> Fetched | Absent:
    """Return the model that ``model_path`` names by an address.

    Args:
        code: whether Python files beside the checkpoint are wanted.
        fetch: fetch it if it is not in the Store; else it is only looked at.

    Raises:
        OlivineError: as :meth:`olivine.storage.fetching.Fetcher.fetch`.
    """
    from olivine.storage.addresses import parse
    from olivine.storage.remote import version_of
    from olivine.storage.selection import model_files, model_files_with_code

    select = model_files_with_code if code else model_files
    found = fetcher.fetch(given.model_path, select) if fetch else fetcher.known(given.model_path, select)
    if found is not None:
        note(str(found))
        return found
    entries = fetcher.look(given.model_path, select)
    shown = str(parse(given.model_path))
    total = sum(entry.facts.size or 0 for entry in entries)
    return Absent(
        given.model_path,
        f"elsewhere:{shown}@{version_of(entries)}",
        f"{shown} is not on this machine yet: {len(entries)} files, {size_in_words(total)}, will be fetched first",
    )


def adapter_here(path: str, fetcher: Fetcher, note: Callable[[str], None]) -> Path:
    """Return the folder of an adapter that an address names, fetched if it is not in the Store.

    Raises:
        OlivineError: as :meth:`olivine.storage.fetching.Fetcher.fetch`.
    """
    from olivine.storage.selection import adapter_files

    found = fetcher.fetch(path, adapter_files)
    note(str(found))
    return found.path
