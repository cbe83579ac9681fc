"""File systems of fsspec: ``s3://``, ``gs://``, ``hf://``. Credentials are those that each library finds."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from olivine.errors import UnavailableError
from olivine.models import hub_token
from olivine.redaction import redact
from olivine.storage.addresses import UrlAddress
from olivine.storage.remote import Entry, matching, split_pattern
from olivine.storage.transfer import (
    BLOCK,
    FIRST_S,
    Absent,
    Changed,
    Denied,
    Facts,
    Interrupted,
    Patience,
    persistently,
)

READ = 1 << 20
"""Bytes that are read at once."""
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
"""What has to be installed for a scheme; extras of the same name bring it."""
_FOREIGN = (
    "aiohttp", "botocore", "aiobotocore", "azure", "httpx", "httpx2", "huggingface_hub", "gcsfs", "s3fs", "requests"
)  # fmt: skip
"""Libraries whose errors are those of a connection or of a service, whatever they derive from."""
_DENIED = re.compile(
    r"\b(401|403)\b|Forbidden|AccessDenied|Unauthorized|AuthenticationFailed|NoCredentials", re.IGNORECASE
)


def open_filesystem(address: UrlAddress, **options: Any) -> Any:
    """Return the file system of fsspec that an address is on.

    Args:
        options: storage options of the library, beside those that it finds itself.

    Raises:
        UnavailableError: its library is not installed, or cannot be set up.
    """
    scheme = address.scheme
    if scheme == "hf" and (token := hub_token.token()) is not None:
        options = {"token": token} | options
    try:
        import fsspec
    except ModuleNotFoundError:
        raise _not_installed(scheme, "fsspec") from None
    try:
        system, _ = fsspec.core.url_to_fs(address.url, **options)
    except (ImportError, ModuleNotFoundError):
        raise _not_installed(scheme, PACKAGES.get(scheme, "huggingface_hub")) from None
    except Exception as error:
        raise UnavailableError(f"{address} cannot be opened", why=_said(error)) from error
    return system


def find(address: UrlAddress, **options: Any) -> list[Entry]:
    """Return the files that an address leads to: itself, those below it, or those that match it.

    Args:
        options: as of :func:`open_filesystem`.

    Raises:
        UnavailableError: the origin cannot be reached, or says no.
        DataError: there is nothing.
    """
    system = open_filesystem(address, **options)
    path = str(system._strip_protocol(address.url))
    folder, pattern = split_pattern(path)

    def ask() -> list[Entry]:
        with translated():
            system.invalidate_cache()
            if not pattern:
                known = system.info(folder)
                if known.get("type") == "file":
                    facts = facts_of({**known, **digests_of(system, folder, address)})
                    return [Entry(folder.rpartition("/")[2], SystemFile(system, folder, address), facts)]
            listed: Mapping[str, Any] = system.find(folder, detail=True)
            wanted = matching(pattern) if pattern else None
            entries = []
            for full, known in sorted(listed.items()):
                name = full[len(folder.rstrip("/")) :].lstrip("/")
                if name and (wanted is None or wanted.fullmatch(name)):
                    facts = facts_of({**known, **digests_of(system, full, address)})
                    entries.append(Entry(name, SystemFile(system, full, address), facts))
        if not entries:
            raise Absent("no file lies there" if not pattern else "no file there matches it")
        return entries

    return persistently(str(address), ask, patience=Patience(FIRST_S), renew=lambda: False)


class SystemFile:
    """A file of a file system of fsspec, as :mod:`olivine.storage.transfer` wants it."""

    def __init__(self, system: Any, path: str, address: UrlAddress) -> None:
        self._system = system
        self._path = path
        self._scheme = address.scheme

    @property
    def name(self) -> str:
        """Its URL."""
        return f"{self._scheme}://{self._path.lstrip('/')}"

    def look(self) -> Facts:
        """Ask for what is known of it, passing by what was remembered."""
        with translated():
            self._system.invalidate_cache()
            return facts_of(self._system.info(self._path))

    def read(self, start: int, facts: Facts) -> Iterator[bytes]:
        """Yield its bytes from ``start``.

        Not every file system can ask for a version, so the file is looked at before the first byte and after the last.
        """
        self._same(facts)
        with translated(), self._open() as stream:
            if start:
                stream.seek(start)
            while block := stream.read(READ):
                yield bytes(block)
        self._same(facts)

    def renew(self) -> bool:
        """The library renews its own credentials."""
        return False

    def _open(self) -> Any:
        try:
            return self._system.open(self._path, "rb", block_size=BLOCK, cache_type="readahead")
        except TypeError:
            return self._system.open(self._path, "rb")

    def _same(self, facts: Facts) -> None:
        if facts.version is not None and self.look().version != facts.version:
            raise Changed("it was changed meanwhile")


def digests_of(system: Any, path: str, address: UrlAddress) -> dict[str, Any]:
    """Return the digests that an origin knows of a file and a listing does not show, in the words of Google's storage.

    S3 has a SHA-256 where whoever uploaded asked for it, or has put it into the metadata. Its ETag is the MD5 of an
    object that came in one piece, unless a key of the user's encrypts it.
    """
    if address.scheme not in ("s3", "s3a"):
        return {}
    bucket, key, _ = system.split_path(path)
    known = system.call_s3("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    found: dict[str, Any] = {"metadata": known.get("Metadata") or {}}
    if known.get("ChecksumType") == "FULL_OBJECT" and known.get("ChecksumSHA256"):
        found["metadata"] = {"sha256": base64.b64decode(known["ChecksumSHA256"]).hex()}
    tag = str(known.get("ETag", "")).strip('"')
    keyed = known.get("SSECustomerAlgorithm") or known.get("ServerSideEncryption") not in (None, "AES256")
    if not keyed and re.fullmatch(r"[0-9a-f]{32}", tag):
        found["md5Hash"] = base64.b64encode(bytes.fromhex(tag)).decode()
    return found


def facts_of(known: Mapping[str, Any]) -> Facts:
    """Return what an entry of fsspec says; each file system has words of its own for it."""
    size = known.get("size")
    version: Any = None
    for key in ("etag", "ETag", "generation", "blob_id", "last_modified", "LastModified", "mtime", "created"):
        if known.get(key) not in (None, "", False):
            version = known[key]
            if isinstance(version, datetime):  # some list seconds, and tell a date of a single file
                version = version.timestamp()
            break
    metadata = known.get("metadata") or {}
    lfs = known.get("lfs") or {}
    digest = None
    for candidate in (
        lfs.get("sha256") if isinstance(lfs, Mapping) else getattr(lfs, "sha256", None),
        metadata.get("sha256") if isinstance(metadata, Mapping) else None,
    ):
        if isinstance(candidate, str) and re.fullmatch(r"[0-9a-f]{64}", candidate):
            digest = candidate
    settings = known.get("content_settings") or {}
    md5 = settings.get("content_md5") if isinstance(settings, Mapping) else getattr(settings, "content_md5", None)
    if md5 is None and isinstance(known.get("md5Hash"), str):
        with contextlib.suppress(ValueError):
            md5 = base64.b64decode(known["md5Hash"])
    return Facts(
        int(size) if isinstance(size, int | float) else None,
        str(version) if version is not None else None,
        digest,
        bytes(md5) if md5 is not None and len(md5) == 16 else None,
    )


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what a file system raises into the errors of a transfer.

    Raises:
        Absent, Denied, Interrupted: as :class:`olivine.storage.transfer.RemoteFile` says.
    """
    try:
        yield
    except (Absent, Changed, Denied, Interrupted):
        raise
    except FileNotFoundError as error:
        raise Absent("no file lies there") from error
    except PermissionError as error:
        raise Denied(_said(error)) from error
    except (TimeoutError, OSError, EOFError) as error:
        raise Interrupted(_said(error)) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _FOREIGN:
            raise
        said = _said(error)
        raise (Denied(said) if _DENIED.search(said) else Interrupted(said)) from error


def _not_installed(scheme: str, package: str) -> UnavailableError:
    extra = {"s3fs": "s3", "gcsfs": "gs"}.get(package, "torch")
    return UnavailableError(
        f"{scheme}:// needs {package}, which is not installed", remedy=f"`pip install 'olivine[{extra}]'`"
    )


def _said(error: BaseException) -> str:
    return redact(" ".join(str(error).split())[:200] or type(error).__name__)
