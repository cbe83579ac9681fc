"""Blobs of Azure Storage: listing, streaming and uploading, in blocks of a few megabytes whatever a blob's size.

Ranges are asked for with their MD5, so a byte that flips on the way is found in its block and that block fetched again.
What is uploaded gets the SHA-256 of its content as metadata (``sha256``), since the service keeps no digest of blobs
that came in blocks.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from olivine.errors import UnavailableError
from olivine.redaction import redact
from olivine.storage.credentials import keep_quiet
from olivine.storage.remote import Entry
from olivine.storage.transfer import (
    BLOCK,
    FIRST_S,
    STALL_S,
    Absent,
    Changed,
    Denied,
    Facts,
    Interrupted,
    Patience,
    Received,
    persistently,
)
from olivine.storage.workspace import Container

DIGEST = "sha256"
"""Name of the metadata that holds the digest of a blob's content."""
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_FOLDER = "hdi_isfolder"
"""Metadata of the empty blob that stands for a folder in a hierarchical namespace."""
_LARGEST_NUMBER_OF_BLOCKS = 50_000


class BlobFolder:
    """The blobs below a prefix of a container.

    Attributes:
        prefix: what all their names begin with; empty for the whole container, else it ends with ``/``.
    """

    def __init__(
        self,
        container: Container,
        prefix: str = "",
        *,
        stall_s: float = STALL_S,
        again: Callable[[], Container] | None = None,
    ) -> None:
        """Open a folder; nothing is asked for yet.

        Args:
            stall_s: seconds without a byte after which a connection counts as broken.
            again: gives the container with new credentials, where those in it run out.

        Raises:
            UnavailableError: azure-storage-blob is not installed.
        """
        self._own = below = prefix.strip("/")
        base = container.prefix.strip("/")
        joined = "/".join(part for part in (base, below) if part)
        self.prefix = joined + "/" if joined else ""
        self._container = container
        self._stall_s = stall_s
        self._again = again
        self._client = self._connect(container)

    def __str__(self) -> str:
        return f"{self._container.account_url}/{self._container.name}/{self.prefix}"

    def _connect(self, container: Container) -> Any:
        try:
            from azure.storage.blob import ContainerClient, ExponentialRetry
        except ModuleNotFoundError:
            raise UnavailableError(
                "blobs of Azure need azure-storage-blob, which is not installed",
                remedy="`pip install 'olivine[azure]'`",
            ) from None
        keep_quiet()
        return ContainerClient(
            container.account_url,
            container.name,
            container.credential,
            max_single_get_size=BLOCK,
            max_chunk_get_size=BLOCK,
            # Not tried again in there: the outer loop waits, tells, and goes on where it was.
            retry_policy=ExponentialRetry(retry_total=0),
            read_timeout=self._stall_s,
            connection_timeout=min(20.0, self._stall_s),
        )

    def renew(self) -> bool:
        """Get new credentials, if there is a way."""
        if self._again is None:
            return False
        self._client = self._connect(self._again())
        return True

    def below(self, path: str) -> BlobFolder:
        """Return a folder in this one."""
        path = path.strip("/")
        return (
            self
            if not path
            else BlobFolder(self._container, self._own + "/" + path, stall_s=self._stall_s, again=self._again)
        )

    def client(self, name: str) -> Any:
        """Return the client of a blob, by its name below the prefix."""
        return self._client.get_blob_client(self.prefix + name)

    def file(self, name: str) -> BlobFile:
        """Return a blob by its name below the prefix."""
        return BlobFile(self, name)

    def entries(self) -> list[Entry]:
        """Return every blob below the prefix, sorted by name. Those that stand for folders are left out.

        Raises:
            UnavailableError: it cannot be listed.
            DataError: there is no such container.
        """

        def ask() -> list[Entry]:
            found = []
            with translated():
                for blob in self._client.list_blobs(name_starts_with=self.prefix or None, include=["metadata"]):
                    name = blob.name[len(self.prefix) :]
                    if name and not (blob.metadata or {}).get(_FOLDER):
                        found.append(Entry(name, self.file(name), facts_of(blob)))
            return sorted(found, key=lambda entry: entry.name)

        return persistently(str(self), ask, patience=Patience(FIRST_S), renew=self.renew)

    def find(self, name: str) -> Facts | None:
        """Return what is known of a blob, ``None`` if there is none of that name.

        Raises:
            UnavailableError: it may not be read, or nobody answers.
        """
        file = self.file(name)

        def ask() -> Facts | None:
            try:
                return file.look()
            except Absent:
                return None

        return persistently(file.name, ask, patience=Patience(FIRST_S), renew=self.renew)

    def read_from(self, name: str, start: int) -> bytes:
        """Return what a blob has from byte ``start`` on: nothing if it is no longer than that, or not there yet.

        For what grows while it is read, as a log does. At most :data:`BLOCK` bytes come at once.

        Raises:
            UnavailableError: it may not be read, or nobody answers.
        """

        def ask() -> bytes:
            with translated():
                try:
                    content = self.client(name).download_blob(offset=start, length=BLOCK).readall()
                except Exception as error:
                    if getattr(error, "status_code", None) in (404, 416):
                        return b""
                    raise
            return bytes(content)

        return persistently(f"{self}{name}", ask, patience=Patience(FIRST_S), renew=self.renew)

    def upload(
        self,
        source: Path,
        name: str,
        *,
        patience: Patience | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Received:
        """Put a file there; its blob appears whole or not at all.

        Blocks are named for their content, so that an upload that broke off goes on where it was, from any process;
        a blob that has this digest already is left as it is.

        Raises:
            UnavailableError: it cannot be written, or nobody answers for long.
            OSError: the file cannot be read.
        """
        from olivine.store.digests import digest_file

        said = on_bytes or (lambda count: None)
        patience = patience or Patience()
        file = self.file(name)
        digest, size = digest_file(source), os.path.getsize(source)
        known = self.find(name)
        if known is not None and known.sha256 == digest and known.size == size:
            said(size)
            return Received(source, size, digest, known.version, "sha256")
        length = max(BLOCK, -(-size // _LARGEST_NUMBER_OF_BLOCKS))

        def ask(action: Callable[[], Any]) -> Any:
            def act() -> Any:
                with translated():
                    return action()

            return persistently(file.name, act, patience=patience, renew=self.renew)

        staged = {block.id for block in self._staged(name, patience)}
        blocks: list[str] = []
        with open(source, "rb", buffering=0) as stream:
            while content := stream.read(length):
                label = f"{len(blocks):05d}-{hashlib.sha256(content).hexdigest()[:32]}"
                if label not in staged and base64.b64encode(label.encode()).decode() not in staged:
                    ask(
                        lambda content=content, label=label: self.client(name).stage_block(  # type: ignore[misc]
                            label, content, validate_content=True
                        )
                    )
                    patience.progress()
                blocks.append(label)
                said(len(content))
        made = ask(lambda: self._commit(name, blocks, digest))
        return Received(source, size, digest, made.get("etag"), "sha256")

    def _commit(self, name: str, blocks: list[str], digest: str) -> Any:
        from azure.storage.blob import BlobBlock

        client = self.client(name)
        if not blocks:
            return client.upload_blob(b"", overwrite=True, metadata={DIGEST: digest})
        return client.commit_block_list([BlobBlock(label) for label in blocks], metadata={DIGEST: digest})

    def _staged(self, name: str, patience: Patience) -> list[Any]:
        """Return the blocks of an upload that broke off."""

        def ask() -> list[Any]:
            with translated():
                return list(self.client(name).get_block_list("uncommitted")[1])

        try:
            return persistently(f"{self}{name}", _or_nothing(ask), patience=patience, renew=self.renew)
        except UnavailableError:
            return []  # who may write need not be allowed to read


class BlobFile:
    """A blob, as :mod:`olivine.storage.transfer` wants a file."""

    def __init__(self, folder: BlobFolder, name: str) -> None:
        self._folder = folder
        self._blob = name

    @property
    def name(self) -> str:
        """Its address, without a signature."""
        return f"{self._folder}{self._blob}"

    def look(self) -> Facts:
        """Ask for its properties."""
        with translated():
            return facts_of(self._folder.client(self._blob).get_blob_properties())

    def read(self, start: int, facts: Facts) -> Iterator[bytes]:
        """Yield its bytes, each block compared with its MD5 by the library."""
        from azure.core import MatchConditions

        if facts.size == 0:
            return
        options: dict[str, Any] = {"offset": start}
        if facts.size is not None:
            options["length"] = facts.size - start
        if facts.version is not None:
            options |= {"etag": facts.version, "match_condition": MatchConditions.IfNotModified}
        with translated():
            yield from self._folder.client(self._blob).download_blob(validate_content=True, **options).chunks()

    def renew(self) -> bool:
        """Get new credentials, if there is a way."""
        return self._folder.renew()


def facts_of(properties: Any) -> Facts:
    """Return what the properties of a blob say."""
    metadata = {str(key).lower(): str(value) for key, value in (properties.metadata or {}).items()}
    digest = metadata.get(DIGEST, "")
    md5 = getattr(properties.content_settings, "content_md5", None)
    return Facts(
        properties.size,
        properties.etag,
        digest if len(digest) == 64 else None,
        bytes(md5) if md5 else None,
    )


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn errors of azure-storage-blob into those of a transfer.

    Raises:
        Absent, Changed, Denied, Interrupted: as :class:`olivine.storage.transfer.RemoteFile` says.
        UnavailableError: the service refuses in another way.
    """
    from azure.core import exceptions

    try:
        yield
    except exceptions.ResourceModifiedError as error:
        raise Changed(_said(error)) from error
    except exceptions.ResourceNotFoundError as error:
        raise Absent(_said(error)) from error
    except exceptions.ClientAuthenticationError as error:
        raise Denied(_said(error)) from error
    except exceptions.HttpResponseError as error:
        if error.status_code == 412:
            raise Changed(_said(error)) from error
        if error.status_code in (401, 403):
            raise Denied(_said(error)) from error
        if error.status_code is None or error.status_code in _BUSY or error.status_code == 200:
            raise Interrupted(_said(error), _retry_after(error)) from error
        if error.status_code == 206:
            raise Interrupted(_said(error)) from error
        raise UnavailableError("Azure Storage refuses it", why=_said(error)) from error
    except exceptions.AzureError as error:
        raise Interrupted(_said(error)) from error
    except OSError as error:  # of the connection: files of this machine are written outside
        raise Interrupted(_said(error)) from error


def _or_nothing(ask: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
    def asked() -> list[Any]:
        try:
            return ask()
        except Absent:
            return []

    return asked


def _retry_after(error: Any) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    with contextlib.suppress(KeyError, ValueError):
        return float(headers["Retry-After"])
    return None


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in str(getattr(error, "message", None) or error).splitlines() if line.strip()]
    code = getattr(error, "error_code", None)
    text = lines[0][:200].rstrip(".") if lines else type(error).__name__
    return redact(f"{text} ({getattr(code, 'value', code)})" if code else text)
