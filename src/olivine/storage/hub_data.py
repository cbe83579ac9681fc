"""Data sets of the Hugging Face hub, in the Store: fetched once, at a commit, and from then on there without a network.

What is kept is the split as ``datasets`` reads it (its ``save_to_disk``), so a plan can look at the rows.
"""

from __future__ import annotations

import time
from typing import Any

from olivine.config.schema import DataConfig
from olivine.data.hub import COMMIT, commit_of, data_is_offline, load_hub_data, quiet
from olivine.data.sources import parse_split
from olivine.storage.fetching import FORMAT, Fetched, Fetcher, fetched
from olivine.store.artifact import Artifact
from olivine.store.digests import digest_json

_SHAPE = ("data_name", "subset", "data_dir", "data_files", "revision")
"""Keys of a data config that, with the split, say which rows are meant."""


def known_data_set(config: DataConfig, fetcher: Fetcher) -> Fetched | None:
    """Return what was fetched before of a hub data set, without asking anybody; ``None`` if it has to be fetched."""
    return fetcher.recall(_key(config))


def fetch_data_set(config: DataConfig, fetcher: Fetcher) -> Fetched:
    """Return a hub data set's split in the Store, fetched if it is not there. ``version`` is its commit.

    Raises:
        OlivineError: as :func:`olivine.data.hub.load_hub_data`; or the Store cannot be written.
    """
    key = _key(config)
    if key in fetcher.asked:
        return fetcher.asked[key]
    found = fetcher.recall(key)
    fixed = COMMIT.fullmatch(config.revision or "") is not None
    if found is None or (fetcher.refresh and not fixed and not data_is_offline()):
        found = _fetch(config, fetcher, key)
    fetcher.asked[key] = found
    return found


def _fetch(config: DataConfig, fetcher: Fetcher, key: str) -> Fetched:
    name, store = str(config.data_name), fetcher.store
    if data_is_offline():
        commit = load_hub_data(config, parse_split(config.split).name).commit
    else:
        commit = commit_of(config)
    shown = f"{name} ({parse_split(config.split).name}) of the hub, commit {commit[:12]}"
    digest = digest_json({"fetch": 1, "key": key, "version": commit})
    with store.lock(digest, lambda pid: fetcher.tell(f"another run (process {pid}) is fetching {shown}")):
        artifact = store.find(digest)
        before = artifact is not None
        if artifact is None:
            fetcher.tell(f"fetching {shown}")
            artifact = _make(config, fetcher, digest, commit, shown)
    fetcher.remember(key, shown, artifact, commit)
    return fetched(shown, artifact, commit, artifact.manifest.created, before)


def _make(config: DataConfig, fetcher: Fetcher, digest: str, commit: str, shown: str) -> Artifact:
    """Load the whole split and commit it to the Store."""
    started, split = time.monotonic(), parse_split(config.split).name
    loaded = load_hub_data(config, split, commit=None if data_is_offline() else commit)
    import datasets

    with fetcher.store.stage(digest) as staging, quiet():
        datasets.DatasetDict({split: loaded.dataset}).save_to_disk(staging.path)
        return staging.commit(
            format=FORMAT,
            step={"kind": "fetch", "type": "fetch", "name": shown, "params": _named(config)},
            inputs={"version": commit},
            attributes={"origin": {"data set": str(config.data_name), "commit": commit}},
            seconds=time.monotonic() - started,
        )


def _key(config: DataConfig) -> str:
    """Return the key of a data set's split: what it names, whoever reads it."""
    return digest_json({"hub data": _named(config), "split": parse_split(config.split).name})


def _named(config: DataConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", include=set(_SHAPE))
