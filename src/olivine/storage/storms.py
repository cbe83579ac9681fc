"""How long the control plane of Azure is asked again while it refuses work: too many requests, or out of order.

The SDK's own retries do it, as they know which requests may be repeated and when the service wants to be asked again;
here is only how patient they are, and what the user is told. A service that cannot be reached at all is another matter:
it is not waited for, since what is wanted may be found without it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

RETRIES = 20
LONGEST_WAIT_S = 15
"""With waits of 1.6 s that double up to this one: some four minutes; more if the service says so (``Retry-After``)."""
STORMS = frozenset({408, 429, 500, 502, 503, 504})
SILENT = 2
"""Refusals that are not worth a word."""
EVERY = 5
"""Of those that follow, one of so many is told."""


def tell(text: str) -> None:
    """Say something beside what a verb prints."""
    print(text, file=sys.stderr, flush=True)


def retries(total: int | None = None, factor: float | None = None) -> dict[str, Any]:
    """Return the SDK's options for that patience.

    Args:
        total: retries at most, if the user has said so.
        factor: the first wait, if the user has said so.
    """
    found: dict[str, Any] = {
        "retry_total": RETRIES + 4 if total is None else total,
        "retry_status": RETRIES if total is None else total,
        "retry_backoff_max": LONGEST_WAIT_S,
    }
    return found | ({"retry_backoff_factor": factor} if factor is not None else {})


class Storm:
    """Hears every answer, and tells when it is one that is waited after.

    Args:
        told: receives a sentence.
    """

    def __init__(self, told: Callable[[str], None] = tell) -> None:
        self.told = told
        self.doing = "asking Azure"
        self.refusals = 0

    def hear(self, response: Any) -> None:
        """Take an answer: the SDK's hook for responses."""
        answer = response.http_response
        status = int(answer.status_code)
        if status not in STORMS:
            if self.refusals > SILENT:
                self.told("Azure answers again")
            self.refusals = 0
            return
        self.refusals += 1
        if self.refusals > SILENT and (self.refusals - SILENT) % EVERY == 1:
            after = answer.headers.get("Retry-After")
            wanted = f", and wants to be asked again after {after} s" if after else ""
            self.told(f"{self.doing}: Azure answers {status}{wanted}; waiting, and asking again")
