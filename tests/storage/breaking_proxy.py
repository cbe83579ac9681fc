"""A way to a server on loopback that breaks off as it is told, and counts what comes through."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Way:
    """The way.

    Attributes:
        port: where it begins.
        breaks: after so many bytes of answers in all, each time the connection that brings them is reset.
        came: bytes of answers so far.
        broken: connections that were reset.
    """

    port: int = 0
    breaks: list[int] = field(default_factory=list)
    came: int = 0
    broken: int = 0


@contextmanager
def way_to(target: int) -> Iterator[Way]:
    """Lead to a port on loopback until the block ends."""
    way, lock = Way(), threading.Lock()

    def forward(source: socket.socket, sink: socket.socket, *, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with lock:
                    way.came += len(data) if answers else 0
                    reset = answers and bool(way.breaks) and way.came >= way.breaks[0]
                    if reset:
                        way.breaks.pop(0)
                        way.broken += 1
                if reset:
                    sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # the other thread waits at it, and would keep it open
            each.close()

    def accept(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", target))
                for arguments, answers in (((client, server), False), ((server, client), True)):
                    threading.Thread(target=forward, args=arguments, kwargs={"answers": answers}, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        way.port = listening.getsockname()[1]
        threading.Thread(target=accept, args=(listening,), daemon=True).start()
        yield way
