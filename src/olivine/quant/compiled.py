"""Functions compiled by numba. It keeps the code beside the source, or in the user's cache where that is read-only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numba

_FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be reordered, which lets them run eight at a time; NaN and infinity keep their meaning."""


def compiled(function: Callable[..., Any], *, no_nan: bool = False, inline: bool = False) -> Any:
    """Have numba compile ``function`` at its first call, and keep the result where there is a place for it.

    Args:
        function: what to compile.
        no_nan: whether the caller warrants that no operation is given NaN or makes one: least and greatest are one
            instruction then.
        inline: whether it is put into each compiled function that calls it, whose constants it sees then.
    """
    options: dict[str, Any] = {"fastmath": _FAST | {"nnan"} if no_nan else _FAST}
    if inline:
        options["inline"] = "always"
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    except RuntimeError:  # neither this folder nor the user's cache can be written
        return numba.njit(nogil=True, error_model="numpy", **options)(function)


part, whole = partial(compiled, no_nan=True, inline=True), partial(compiled, no_nan=True)
"""For functions that are compiled for certain constants: the parts, and the whole that they are put into."""
