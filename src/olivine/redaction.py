"""The one place that knows secrets, and takes them out of everything that is shown, sent or written.

A secret is the value of an environment variable whose name tells it (``HF_TOKEN``, ``AZURE_CLIENT_SECRET``), the
token that the hub's own login stored, a value that a configuration refers to (``${env:NAME}``), and whatever has the
form of a well-known token. The last is found even where nobody told Olivine of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

HIDDEN = "[secret]"

SHORTEST = 8
"""Values shorter than this are not taken out: they would be found in every other word."""

TOKENS = re.compile(
    r"""\bhf_[A-Za-z0-9]{20,}            # Hugging Face
    | \bsk-[A-Za-z0-9_-]{20,}            # OpenAI and others
    | \bgh[pousr]_[A-Za-z0-9]{30,}       # GitHub
    | \bAKIA[0-9A-Z]{16}\b               # AWS
    | AccountKey=[A-Za-z0-9+/=]{20,}     # Azure storage
    | SharedAccessSignature=sv=[^\s;"']*
    | [?&]sig=[A-Za-z0-9%+/=]{20,}       # Azure SAS
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----
    | (?<=://)[^/\s:@"']+:[^/\s@"']+(?=@)  # a password in a URL
    """,
    re.VERBOSE,
)
"""The forms of well-known secrets."""

_TELLING_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCOUNT_?KEY|ACCESS_?KEY|SECRET_?KEY|PRIVATE_?KEY|"
    r"CONNECTION_?STRING|SAS|CREDENTIAL)S?(_|$)",
    re.IGNORECASE,
)
HUB_TOKENS = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN"})
"""Variables that give access to the Hugging Face hub."""


class _Known:
    """The values that are taken out, each with what stands in its place."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.pattern: re.Pattern[str] | None = None
        self.environment: int | None = None

    def add(self, value: str, shown: str) -> None:
        if len(value) >= SHORTEST and value not in self.values:
            self.values[value] = shown
            self.pattern = None

    def compiled(self) -> re.Pattern[str]:
        if self.environment is None:
            self.environment = 1
            for name, value in os.environ.items():
                if _TELLING_NAME.search(name):
                    self.add(value, HIDDEN)
            self.add(_stored_token(), HIDDEN)
        if self.pattern is None:
            longest_first = sorted(self.values, key=len, reverse=True)
            self.pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        return self.pattern


_known = _Known()


def remember(value: str, shown: str = HIDDEN) -> None:
    """Take ``value`` out of everything from now on; ``shown`` stands in its place."""
    _known.add(value, shown)


def redact(text: str) -> str:
    """Return ``text`` without secrets."""
    text = _known.compiled().sub(lambda match: _known.values[match.group()], text)
    return TOKENS.sub(HIDDEN, text)


def redacted(value: Any) -> Any:
    """Return a JSON value with no secrets in its texts; keys stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redacted(item) for item in value) if type(value) in (list, tuple) else value
    return value


def environment_for_child(*, hub_token: bool) -> dict[str, str]:
    """Return this process's environment without its secrets.

    Args:
        hub_token: whether the child may use the hub in the user's name; it then keeps that token, and no other.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if (hub_token and name in HUB_TOKENS) or not (_TELLING_NAME.search(name) or TOKENS.search(value))
    }
    if not hub_token:
        kept["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"  # that of `hf auth login`, which lies in a file
    return kept


def _stored_token() -> str:
    """Return the token that `hf auth login` stored, or an empty text."""
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    try:
        return Path(os.environ.get("HF_TOKEN_PATH") or os.path.join(home, "token")).read_text("utf-8").strip()
    except (OSError, ValueError):
        return ""


CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal acts on instead of showing it, and what turns the order of letters round."""


def visible(text: str) -> str:
    """Return ``text`` with what a terminal would act on written out: a name may hold whatever its author liked."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


class Redacting:
    """A text stream that takes secrets out of what is written to another one, and on a terminal also what it acts on.

    Args:
        stream: the other one.
        drawn: whether what is written moves the cursor and colours on purpose.
    """

    def __init__(self, stream: TextIO, *, drawn: bool = False) -> None:
        self._stream = stream
        self._drawn = drawn

    @property
    def for_drawing(self) -> Redacting:
        """The same stream for what draws: it sees to names itself."""
        return Redacting(self._stream, drawn=True)

    def write(self, text: str) -> int:
        """Write ``text`` without secrets."""
        shown = redact(text)
        self._stream.write(shown if self._drawn or not self._stream.isatty() else visible(shown))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class RedactedOutput:
    """While it is entered, nothing secret leaves through standard output and standard error."""

    def __enter__(self) -> None:
        import sys

        self._kept = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = Redacting(sys.stdout), Redacting(sys.stderr)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import sys

        sys.stdout, sys.stderr = self._kept
