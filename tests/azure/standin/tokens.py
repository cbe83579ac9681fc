"""Access tokens: issued for an audience and a subject, signed, with an end."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import Any

TENANT = "11111111-1111-1111-1111-111111111111"


class Refused(Exception):
    """A token that is not accepted; the text says why."""


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Tokens:
    """Issues tokens and checks them.

    Attributes:
        lifetime: seconds that a token issued from now on is good for; negative makes it expired at birth.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._generation = 0
        self.lifetime = 3600.0
        self.issued: list[tuple[str, str]] = []

    def issue(self, audience: str, subject: str) -> tuple[str, int]:
        """Return a token and the Unix time at which it ends."""
        now = int(time.time())
        ends = int(now + self.lifetime)
        claims = {
            "aud": audience, "sub": subject, "oid": subject, "tid": TENANT, "iss": f"https://sts.windows.net/{TENANT}/",
            "nbf": now - 60, "iat": now - 60, "exp": ends, "generation": self._generation,
        }  # fmt: skip
        body = ".".join(_encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        self.issued.append((audience, subject))
        return f"{body}.{self._signature(body)}", ends

    def revoke_all(self) -> None:
        """Let no token issued before be accepted."""
        self._generation += 1

    def claims(self, authorization: str | None, audiences: tuple[str, ...]) -> dict[str, Any]:
        """Return the claims of an ``Authorization`` header, or raise :class:`Refused`."""
        if not authorization or not authorization.startswith("Bearer "):
            raise Refused("no bearer token")
        body, _, signature = authorization[7:].rpartition(".")
        if not hmac.compare_digest(signature, self._signature(body)):
            raise Refused("the signature is wrong")
        claims: dict[str, Any] = json.loads(_decode(body.split(".")[1]))
        if claims["exp"] <= time.time() or claims["generation"] != self._generation:
            raise Refused("the access token expired")
        if claims["aud"].rstrip("/") not in {each.rstrip("/") for each in audiences}:
            raise Refused(f"the audience is {claims['aud']}, not {' or '.join(audiences)}")
        return claims

    def _signature(self, body: str) -> str:
        return _encode(hmac.new(self._key, body.encode(), hashlib.sha256).digest())
