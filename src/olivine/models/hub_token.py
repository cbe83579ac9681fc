"""The token that this process shows the Hugging Face hub, where a key vault holds it (``hf_token: {key_vault: ...}``).

Else the hub's own library finds one: in ``HF_TOKEN``, or where ``hf auth login`` has put it.
"""

from __future__ import annotations

from collections.abc import Callable

_source: Callable[[], str] | None = None


def take_from(source: Callable[[], str] | None) -> None:
    """Say what reads the token, at the moment when the hub is first asked; ``None``: the hub's library finds it."""
    global _source
    _source = source


def token() -> str | None:
    """Return the token, ``None`` if the hub's library is to find it.

    Raises:
        OlivineError: the key vault does not give it out.
    """
    return _source() if _source is not None else None
