"""A web server that fails as it is told, and content to fetch from it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from faulty_server import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture(scope="session")
def content() -> bytes:
    """Five megabytes and a bit."""
    return random.Random(7).randbytes(5 * (1 << 20) + 12345)
