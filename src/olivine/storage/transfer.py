"""Fetching one file so that nothing goes wrong unseen: streamed, taken up where it broke off, compared at the end.

What a file lies on (a blob, a web server, any file system of fsspec) is a :class:`RemoteFile`; everything that makes a
transfer reliable is here, once for all of them:

- blocks go to ``NAME.part``, so memory does not grow with the file; ``NAME.part.json`` says of which version they are,
  so that another process can go on where this one was killed;
- every read asks for that version, and a file that is changed meanwhile is begun anew;
- a connection that breaks, stalls, or ends too early is made again, waiting longer each time, until nothing has come
  for :data:`GIVE_UP_S`;
- the SHA-256 is computed on the way and compared with what the origin, or a manifest of our own, says; where neither
  knows one, with its MD5; where there is none either, the number of bytes has to be right.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from olivine.errors import DataError, UnavailableError
from olivine.store.disk import disk_errors, replace_file, sync_folder

BLOCK = 4 << 20
"""Bytes that are asked for, and in memory, at once."""
FIRST_S = 15.0
"""Seconds of waiting for an origin that has not answered yet: a wrong name should not take long to find out."""
GIVE_UP_S = 600.0
"""Seconds of waiting, after it has answered once, without a single byte."""
STALL_S = 60.0
"""Seconds without a byte after which a connection counts as broken."""
LONGEST_WAIT_S = 15.0
ATTEMPTS = 3
"""How often a file is fetched anew that was changed meanwhile, or did not have the digest that it should."""

T = TypeVar("T")


class Interrupted(Exception):
    """The connection broke, or the origin was busy: trying again may help.

    Attributes:
        retry_after: seconds that the origin asked to wait.
    """

    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class Changed(Exception):
    """The file is no longer the version that was asked for."""


class Absent(Exception):
    """There is no such file."""


class Denied(Exception):
    """The origin does not give it to who asks; with new credentials it may."""


@dataclass(frozen=True)
class Facts:
    """What an origin says of a file without giving it.

    Attributes:
        size: bytes; ``None`` if it does not say.
        version: what changes with the content (an ETag); ``None``: it cannot be told, so a broken transfer begins anew.
        sha256: of the content, 64 hexadecimal digits, if it knows.
        md5: of the content, 16 bytes, if it knows.
    """

    size: int | None
    version: str | None = None
    sha256: str | None = None
    md5: bytes | None = None


class RemoteFile(Protocol):
    """A file elsewhere. Its methods raise the four exceptions above, and no other for what goes wrong on the way."""

    @property
    def name(self) -> str:
        """How it is called in messages: no secrets in it."""

    def look(self) -> Facts:
        """Ask what it is now."""

    def read(self, start: int, facts: Facts) -> Iterator[bytes]:
        """Yield its bytes from ``start`` to the end, in blocks of at most :data:`BLOCK`, if it still is as ``facts``
        say."""

    def renew(self) -> bool:
        """Get new credentials, if they can run out; return whether there are some."""


@dataclass(frozen=True)
class Received:
    """A file that has come whole.

    Attributes:
        path: where it is now.
        size: bytes.
        sha256: of what was received.
        version: of the origin.
        compared: ``sha256``, ``md5`` or ``size``: what of it was compared with what the origin says.
    """

    path: Path
    size: int
    sha256: str
    version: str | None
    compared: str


@dataclass
class Patience:
    """How long to go on trying. Only waiting counts, so a process that was stopped for a while does not give up.

    Attributes:
        limit_s: seconds of waiting without progress.
        told: receives a sentence when a transfer has to wait.
    """

    limit_s: float = GIVE_UP_S
    told: Callable[[str], None] | None = None
    sleep: Callable[[float], None] = time.sleep
    spent_s: float = field(default=0.0, init=False)
    failures: int = field(default=0, init=False)

    def progress(self) -> None:
        """Something has come: begin to count anew."""
        self.spent_s, self.failures = 0.0, 0

    def wait(self, name: str, error: Interrupted) -> None:
        """Wait before the next attempt.

        Raises:
            UnavailableError: it has taken too long.
        """
        if self.spent_s >= self.limit_s:
            raise UnavailableError(
                f"{name} cannot be fetched",
                why=f"{error}; tried {self.failures + 1} times",
                remedy="check the network, and run the same command again: it goes on where it was",
            ) from None
        pause = min(0.5 * 2**self.failures, LONGEST_WAIT_S)
        # Many clients that lost the same server should not all come back in the same moment.
        pause = max(error.retry_after or 0.0, pause * random.uniform(0.75, 1.25))
        pause = min(pause, 4 * LONGEST_WAIT_S, max(self.limit_s - self.spent_s, 0.1))
        self.failures += 1
        self.spent_s += pause
        if self.told is not None and self.failures == 3:
            self.told(f"{name}: {error}; trying again")
        self.sleep(pause)


def persistently(name: str, ask: Callable[[], T], *, patience: Patience, renew: Callable[[], bool]) -> T:
    """Return what ``ask`` gives, asking again while that may help.

    Raises:
        UnavailableError: the origin cannot be reached, or does not give it to who asks.
        DataError: there is no such file.
    """
    renewed = False
    while True:
        try:
            return ask()
        except Interrupted as error:
            patience.wait(name, error)
        except Changed as error:
            raise UnavailableError(f"{name} was changed meanwhile", why=str(error), remedy="try again") from None
        except Absent as error:
            raise _absent(name, error) from None
        except Denied as error:
            if renewed or not renew():
                raise _denied(name, error) from None
            renewed = True


def download(
    file: RemoteFile,
    target: Path,
    *,
    facts: Facts | None = None,
    sha256: str | None = None,
    patience: Patience | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Received:
    """Fetch ``file`` to ``target``, which appears whole or not at all.

    Args:
        facts: what is known of it (from a listing); else the origin is asked.
        sha256: what its digest has to be, where a manifest says it.
        on_bytes: told the number of bytes as they come; negative if some have to be fetched again.

    Raises:
        UnavailableError: the origin cannot be reached for long, says no, or gives other bytes than it should.
        DataError: there is no such file.
        StoreError: it cannot be written.
    """
    patience = patience or Patience()
    said = on_bytes or (lambda count: None)
    if facts is None:
        first = Patience(min(FIRST_S, patience.limit_s), patience.told, patience.sleep)
        facts = persistently(file.name, file.look, patience=first, renew=file.renew)
    with disk_errors(target, needed=facts.size), _Part(target) as part:
        part.begin(facts, said)
        faults = 0
        while True:
            try:
                part.receive(file, facts, patience, said)
            except Changed:
                faults += 1
                if faults >= ATTEMPTS:
                    raise UnavailableError(
                        f"{file.name} was changed {faults} times while it was fetched",
                        remedy="try again when whatever writes it is done",
                    ) from None
                facts = persistently(file.name, file.look, patience=patience, renew=file.renew)
                part.begin(facts, said)
                continue
            fault, compared = part.compare(facts, sha256)
            if not fault:
                return part.finish(facts, compared)
            faults += 1
            part.begin(facts, said, anew=True)
            if faults >= ATTEMPTS:
                raise UnavailableError(
                    f"{file.name} does not arrive as it should: {fault}",
                    why=f"fetched {faults} times",
                    remedy="what lies there may be damaged: upload it again, or look for a proxy that changes it",
                )


class _Part:
    """The part of a file that is here, and the digests of it."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)

    def __enter__(self) -> _Part:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.stream = open(self.path, "ab")
        return self

    def __exit__(self, *_: Any) -> None:
        self.stream.close()

    def begin(self, facts: Facts, said: Callable[[int], None], *, anew: bool = False) -> None:
        """Keep what is here of that version; else begin at the first byte."""
        note = {"version": facts.version, "size": facts.size}
        keep = facts.version is not None and not anew and self._note() == note
        size = os.path.getsize(self.path)
        if not keep or (facts.size is not None and size > facts.size):
            self._empty(said)
            replace_file(self.note, json.dumps(note).encode())
        elif self.size == 0 and size:
            with open(self.path, "rb", buffering=0) as stream:
                while block := stream.read(BLOCK):
                    self._count(block)
            said(self.size)

    def receive(self, file: RemoteFile, facts: Facts, patience: Patience, said: Callable[[int], None]) -> None:
        """Write what is missing.

        Raises:
            Changed: it is another version by now.
        """
        renewed = False
        while facts.size is None or self.size < facts.size:
            before = self.size
            try:
                # Closed at once when it breaks, so that the connection goes too.
                with contextlib.closing(_generator(file.read(self.size, facts))) as blocks:
                    for block in blocks:
                        self.stream.write(block)
                        self._count(block)
                        said(len(block))
                        patience.progress()
                if facts.size is None:
                    return
                if self.size < facts.size:
                    raise Interrupted(f"it ended after {self.size} of {facts.size} bytes")
            except Interrupted as error:
                self.stream.flush()
                if facts.version is None:
                    self._empty(said)
                patience.wait(file.name, error)
            except Absent as error:
                raise _absent(file.name, error) from None
            except Denied as error:
                if (renewed and self.size == before) or not file.renew():
                    raise _denied(file.name, error) from None
                renewed = True

    def compare(self, facts: Facts, sha256: str | None) -> tuple[str, str]:
        """Return what is wrong with what has come, or an empty text; and what it was compared with."""
        if facts.size is not None and self.size != facts.size:
            return f"it has {self.size} bytes in place of {facts.size}", "size"
        expected = sha256 or facts.sha256
        if expected is not None:
            found = self.sha256.hexdigest()
            return ("" if found == expected.lower() else f"its SHA-256 is {found} in place of {expected}"), "sha256"
        if facts.md5 is not None:
            same = self.md5.digest() == facts.md5
            return ("" if same else f"its MD5 is {self.md5.hexdigest()} in place of {facts.md5.hex()}"), "md5"
        return "", "size"

    def finish(self, facts: Facts, compared: str) -> Received:
        """Put it in its place."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        os.replace(self.path, self.target)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.note)
        sync_folder(self.target.parent)
        return Received(self.target, self.size, self.sha256.hexdigest(), facts.version, compared)

    def _count(self, block: bytes) -> None:
        self.size += len(block)
        self.sha256.update(block)
        self.md5.update(block)

    def _empty(self, said: Callable[[int], None]) -> None:
        if self.size:
            said(-self.size)
        self.stream.flush()
        if os.path.getsize(self.path):
            self.stream.truncate(0)
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)

    def _note(self) -> Any:
        try:
            return json.loads(self.note.read_text("utf-8"))
        except (OSError, ValueError):
            return None


def _generator(blocks: Iterator[bytes]) -> Any:
    """Return an iterator that can be closed."""
    return blocks if hasattr(blocks, "close") else (block for block in blocks)


def _absent(name: str, error: Absent) -> DataError:
    return DataError(f"there is no {name}", why=str(error), remedy="check the address")


def _denied(name: str, error: Denied) -> UnavailableError:
    return UnavailableError(
        f"{name} is not given to who asks",
        why=str(error),
        remedy="sign in, renew the key, or ask for the right to read",
    )
