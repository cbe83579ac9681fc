"""What an address leads to, in the Store: fetched once, and from then on there without a network.

A *record* (``shared/fetched/KEY.json``) says which artifact holds what an address led to, and what identified it there:
the names, sizes and versions (ETags) of its files. As long as the artifact is there nobody is asked again; ``refresh``
asks, and fetches anew only if one of these has changed. The artifact's own manifest has the SHA-256 of every file.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.config.schema import AzureMLClient
from olivine.config.sizes import size_in_words
from olivine.errors import DataError, StoreError
from olivine.storage.addresses import AzureAddress, parse
from olivine.storage.selection import Selection, everything
from olivine.store.artifact import Artifact
from olivine.store.digests import digest_json
from olivine.store.disk import bad_name, disk_errors, free_bytes, link_or_copy, replace_file

if TYPE_CHECKING:
    from olivine.storage.opening import Origins
    from olivine.storage.remote import Entry
    from olivine.storage.transfer import Patience, Received
    from olivine.store import Store

FORMAT = "fetched"
"""Format of such an artifact in its manifest."""
_TOLD_S = 5.0
"""Seconds between two words on the progress."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Fetched:
    """What an address led to.

    Attributes:
        address: without secrets.
        path: the folder in the Store with its files.
        names: of the files, relative to it, sorted.
        size: bytes.
        version: what identified it where it came from.
        sha256: of each file.
        digest: of the artifact.
        when: Unix time of fetching it.
        before: whether it was in the Store already.
        asked: whether it was asked now whether it has changed.
    """

    address: str
    path: Path
    names: tuple[str, ...]
    sha256: Mapping[str, str]
    size: int
    version: str
    digest: str
    when: float
    before: bool
    asked: bool = True

    def __str__(self) -> str:
        if not self.before:
            return f"{self.address}: fetched, {size_in_words(self.size)}"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.when))
        if self.asked:
            return f"{self.address} has not changed since it was fetched on {when}"
        return f"{self.address} is used as it was fetched on {when}; --refresh asks whether it has changed"


@dataclass
class Fetcher:
    """Fetches into one Store.

    Attributes:
        store: where it is kept.
        client: how Azure is reached, if the configuration says it.
        refresh: ask whether what was fetched before has changed.
        tell: receives a sentence now and then while something is fetched.
        patience: makes what decides how long to go on trying.
    """

    store: Store
    client: AzureMLClient | None = None
    refresh: bool = False
    tell: Tell = field(default=lambda text: None)
    patience: Callable[[], Patience] | None = None

    def __post_init__(self) -> None:
        self.asked: dict[str, Fetched] = {}  # by key: what this run has looked at already

    @cached_property
    def origins(self) -> Origins:
        """What opens addresses; most runs need none, and start without it."""
        from olivine.storage.opening import Origins

        return Origins(self.client)

    def known(self, text: str, select: Selection = everything) -> Fetched | None:
        """Return what was fetched before of an address, without asking anybody; ``None`` if it has to be fetched."""
        return self.recall(self._key(text, select))

    def look(self, text: str, select: Selection = everything) -> list[Entry]:
        """Return what would be fetched: asks, and moves nothing.

        Raises:
            OlivineError: as :meth:`fetch`.
        """
        return select(self.origins.find(text), str(parse(text)))

    def fetch(self, text: str, select: Selection = everything) -> Fetched:
        """Return what an address leads to, fetched if it is not in the Store.

        A transfer that breaks off is gone on with, also by another process.

        Args:
            text: the address.
            select: which of its files are wanted, and under which names.

        Raises:
            PlanError: it is no address, or what it names is not there.
            DataError, ModelError: there is nothing of what is wanted.
            ConfigError: the workspace is not named.
            UnavailableError: a library is missing, nobody answers for long, access is denied, or what comes is not
                what should.
            StoreError: the Store cannot be written.
        """
        from olivine.storage.remote import version_of

        key = self._key(text, select)
        if key in self.asked:
            return self.asked[key]
        found = self.recall(key)
        if found is not None and not (self.refresh and not parse(text).fixed):
            self.asked[key] = found
            return found
        shown = str(parse(text))
        entries = self.look(text, select)
        _check_names(entries, shown)
        version = version_of(entries)
        digest = digest_json({"fetch": 1, "key": key, "version": version})
        with self.store.lock(digest, lambda pid: self.tell(f"another run (process {pid}) is fetching {shown}")):
            artifact = self.store.find(digest)
            before = artifact is not None
            if artifact is None:
                artifact = self._make(digest, entries, shown, version)
        self.remember(key, shown, artifact, version)
        self.asked[key] = fetched(shown, artifact, version, artifact.manifest.created, before)
        return self.asked[key]

    def _key(self, text: str, select: Selection) -> str:
        """Return the key of an address: what it names, wherever and by whomever it is read."""
        address = parse(text)
        content: dict[str, Any] = {"address": str(address), "select": select.__name__}
        if isinstance(address, AzureAddress):
            if address.workspace is None and address.registry is None:
                scope = self.origins.workspace().scope
                assert scope is not None
                content["workspace"] = [scope.subscription_id, scope.resource_group, scope.name]
            if self.client is not None and self.client.cloud is not None:
                content["cloud"] = self.client.cloud
        return digest_json(content)

    def recall(self, key: str) -> Fetched | None:
        """Return what was fetched before under a key."""
        try:
            record = json.loads(self._path(key).read_text("utf-8"))
            digest, version, address, when = (record[name] for name in ("digest", "version", "address", "fetched"))
            artifact = self.store.find(digest)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # never fetched, or the record is damaged: it is fetched again
        if artifact is None:
            return None
        with contextlib.suppress(OSError):
            os.utime(self._path(key))  # what is used is not collected
        self.store.record_use([digest])
        return replace(fetched(str(address), artifact, str(version), float(when), True), asked=False)

    def _path(self, key: str) -> Path:
        return self.store.shared_dir / "fetched" / f"{key}.json"

    def remember(self, key: str, shown: str, artifact: Artifact, version: str) -> None:
        """Keep which artifact holds what was fetched under a key."""
        path = self._path(key)
        content = {
            "address": shown,
            "digest": artifact.digest,
            "version": version,
            "fetched": artifact.manifest.created,
        }
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(content, indent=1).encode())

    def _make(self, digest: str, entries: list[Entry], shown: str, version: str) -> Artifact:
        """Fetch into the Step's checkpoint folder, which outlives this process, and commit it whole."""
        started = time.monotonic()
        folder = self.store.checkpoint_dir(digest)
        _check_room(folder, entries, shown)
        received = download_all(entries, folder, shown, tell=self.tell, patience=self.patience)
        with self.store.stage(digest) as staging:
            for entry in entries:
                target = staging.path / entry.name
                target.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(folder / entry.name, target)
            artifact = staging.commit(
                format=FORMAT,
                step={"kind": "fetch", "type": "fetch", "name": shown, "params": {"address": shown}},
                inputs={"version": version},
                attributes={
                    "origin": {
                        entry.name: {
                            "version": received[entry.name].version if entry.name in received else entry.facts.version,
                            "compared": received[entry.name].compared if entry.name in received else None,
                        }
                        for entry in entries
                    }
                },
                seconds=time.monotonic() - started,
            )
        # What was overwritten while it was fetched is another version than that which was listed.
        same = [
            each for each in entries if each.name not in received or received[each.name].version == each.facts.version
        ]
        _compare(artifact, same, shown, self.store)
        return artifact


def download_all(
    entries: list[Entry],
    folder: Path,
    shown: str,
    *,
    sha256: Mapping[str, str] | None = None,
    tell: Tell | None = None,
    patience: Callable[[], Patience] | None = None,
) -> dict[str, Received]:
    """Fetch files into a folder, under their names, read-only; what is there already is left, and not in the result.

    Args:
        shown: what they are, for messages.
        sha256: digests that they have to have, by name, where a manifest says them.
        tell: receives a sentence now and then.
        patience: makes what decides how long to go on trying.

    Raises:
        DataError: a file is not there any more, or has a name that leads out of the folder.
        UnavailableError: the origin cannot be reached for long, says no, or gives other bytes than it should.
        StoreError: a file cannot be written.
    """
    from olivine.storage.transfer import Patience, download

    _check_names(entries, shown)
    told = tell or (lambda text: None)
    progress = _Progress(shown, sum(entry.facts.size or 0 for entry in entries), told)
    received: dict[str, Received] = {}
    for entry in entries:
        target = folder / entry.name
        if target.is_file():  # it came whole, and the process that fetched it was killed later
            progress.add(target.stat().st_size)
            continue
        patient = patience() if patience is not None else Patience()
        patient.told = patient.told or told
        received[entry.name] = download(
            entry.file,
            target,
            facts=entry.facts,
            sha256=(sha256 or {}).get(entry.name),
            patience=patient,
            on_bytes=progress.add,
        )
        os.chmod(target, 0o444)
    return received


class _Progress:
    """Says now and then how far a fetch is."""

    def __init__(self, what: str, total: int, tell: Tell) -> None:
        self._what = what
        self._total = total
        self._tell = tell
        self._done = 0
        self._told = time.monotonic()

    def add(self, count: int) -> None:
        """Count bytes."""
        self._done += count
        now = time.monotonic()
        if now - self._told < _TOLD_S:
            return
        self._told = now
        share = f" of {size_in_words(self._total)}" if self._total else ""
        self._tell(f"fetching {self._what}: {size_in_words(self._done)}{share}")


def fetched(shown: str, artifact: Artifact, version: str, when: float, before: bool) -> Fetched:
    """Return what an artifact holds that was fetched."""
    return Fetched(
        address=shown,
        path=artifact.path,
        names=tuple(entry.path for entry in artifact.manifest.files),
        sha256={entry.path: entry.sha256 for entry in artifact.manifest.files},
        size=artifact.manifest.size,
        version=version,
        digest=artifact.digest,
        when=when,
        before=before,
    )


def _check_names(entries: list[Entry], shown: str) -> None:
    """Refuse names that would lead out of the folder, and two files of one name."""
    seen: set[str] = set()
    for entry in entries:
        why = bad_name(entry.name) or ("another file has the same name" if entry.name in seen else "")
        if why:
            raise DataError(f"{shown} has a file that is not taken: {entry.name!r}", why=why)
        seen.add(entry.name)


def _check_room(folder: Path, entries: list[Entry], shown: str) -> None:
    total = sum(entry.facts.size or 0 for entry in entries)
    here = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = free_bytes(folder)
    if free is not None and total - here > free:
        raise StoreError(
            f"{shown} does not fit the disk",
            why=f"{len(entries)} files, {size_in_words(total)}; {size_in_words(free)} are free at {folder}",
            remedy="make room (`olivine cache gc`), or set engine.cache_dir to another place",
        )


def _compare(artifact: Artifact, entries: list[Entry], shown: str, store: Store) -> None:
    """Compare what was committed with what the origin said, also of files that an earlier process had fetched."""
    digests = {entry.path: entry.sha256 for entry in artifact.manifest.files}
    for entry in entries:
        if entry.facts.sha256 is not None and digests.get(entry.name) != entry.facts.sha256:
            store.remove(artifact.digest)
            raise StoreError(
                f"{entry.name} of {shown} was damaged on this machine's disk after it was fetched",
                remedy="run the same command again; if it happens again, check the disk",
            )
