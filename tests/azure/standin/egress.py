"""The way out: a CONNECT proxy that leads loopback names to loopback, refuses all others, and remembers both."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

from standin.server import reset

LOCAL = ("localhost", "127.0.0.1")


class Egress:
    """A proxy for everything that leaves a process under test.

    Attributes:
        port: where it listens.
        denied: ``host:port`` of everything that was refused; a test that ends with one in it has failed.
        allowed: ``host:port`` of everything that was let through.
    """

    def __init__(self) -> None:
        self.denied: list[str] = []
        self.allowed: set[str] = set()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        with contextlib.suppress(OSError, ValueError):
            while b"\r\n\r\n" not in head:
                piece = client.recv(4096)
                if not piece:
                    client.close()
                    return
                head += piece
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split()
            host, _, port = target.rpartition(":")
            if method != "CONNECT" or not (host in LOCAL or host.endswith(".localhost")):
                self.denied.append(target if method == "CONNECT" else f"{method} {target}")
                client.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                client.close()
                return
            self.allowed.add(target)
            try:
                server = socket.create_connection(("127.0.0.1", int(port)))
            except OSError:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                client.close()
                return
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _relay(client, server)


def _relay(client: socket.socket, server: socket.socket) -> None:
    """Carry bytes both ways until one side ends; a reset is passed on as one."""
    other = {client: server, server: client}
    try:
        while True:
            for ready in select.select([client, server], [], [])[0]:
                piece = ready.recv(1 << 16)
                if not piece:
                    return
                other[ready].sendall(piece)
    except ConnectionError:
        reset(client)
        reset(server)
    except (OSError, ValueError):
        pass
    finally:
        client.close()
        server.close()
