"""Where identities get tokens, and the vault that gives secrets to them.

Answers for the token endpoint of Entra (client secrets and the tokens of workload identity), for the endpoint of
managed identities in Azure ML jobs, for the one of jobs that run as their user, and for Key Vault with its challenge.
"""

from __future__ import annotations

import time
from urllib.parse import parse_qsl

from standin.server import Answer, Request, error
from standin.tokens import TENANT, Refused, Tokens

CLIENT_ID = "22222222-2222-2222-2222-222222222222"
CLIENT_SECRET = "client-secret-of-the-service-principal"
MSI_SECRET = "secret-of-the-managed-identity-endpoint"
FEDERATED_TOKEN = "federated-token-of-the-service-account"


class Identity:
    """The token endpoints.

    Attributes:
        base: its address.
        unknown: requests it has no answer for.
        refusals: how often a principal was refused by :meth:`refuse`.
    """

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.base = ""
        self.refusals = 0
        self._refusing_until = 0.0
        self.unknown: list[str] = []

    def refuse(self, seconds: float) -> None:
        """Take no token for good from now on, and let no principal sign in for so long; 0 ends it."""
        if seconds:
            self.tokens.revoke_all()
        self._refusing_until = time.monotonic() + seconds

    def route(self, request: Request) -> Answer:
        """Answer one request."""
        path = request.segments
        if path == ("msi", "token"):
            return self._managed(request)
        if path == ("obo",):
            return self._on_behalf(request)
        if path[1:] == ("v2.0", ".well-known", "openid-configuration"):
            tenant = f"{self.base}/{path[0]}"
            return Answer(200, {
                "token_endpoint": f"{tenant}/oauth2/v2.0/token", "issuer": f"{tenant}/v2.0",
                "authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize", "tenant_region_scope": "NA",
            })  # fmt: skip
        if path[1:] == ("oauth2", "v2.0", "token"):
            return self._entra(request, path[0])
        self.unknown.append(f"identity {request.method} {request.path}")
        return error(404, "NotFound", request.path)

    def _managed(self, request: Request) -> Answer:
        if request.headers.get("secret") != MSI_SECRET:
            return Answer(401, {"error": "invalid_client", "error_description": "the secret is wrong"})
        token, ends = self.tokens.issue(request.query["resource"], "managed")
        return Answer(200, {
            "access_token": token, "expires_on": str(ends), "resource": request.query["resource"],
            "token_type": "Bearer",
        })  # fmt: skip

    def _on_behalf(self, request: Request) -> Answer:
        resource = request.query.get("resource") or request.json().get("resource", "")
        token, ends = self.tokens.issue(resource, "user")
        return Answer(200, {"token": token, "access_token": token, "expires_on": ends, "token_type": "Bearer"})

    def _entra(self, request: Request, tenant: str) -> Answer:
        form = dict(parse_qsl(request.body.decode("latin-1")))
        if tenant != TENANT:
            return Answer(400, {"error": "invalid_request", "error_description": f"AADSTS90002: no tenant {tenant}"})
        if time.monotonic() < self._refusing_until:
            self.refusals += 1
            said = "AADSTS7000222: The provided client secret keys for app are expired."
            return Answer(401, {"error": "invalid_client", "error_description": said})
        if form.get("client_secret") == CLIENT_SECRET and form.get("client_id") == CLIENT_ID:
            subject = "principal"
        elif form.get("client_assertion") == FEDERATED_TOKEN and form.get("client_id") == CLIENT_ID:
            subject = "workload"
        else:
            said = "AADSTS7000215: Invalid client secret provided."
            return Answer(401, {"error": "invalid_client", "error_description": said})
        audience = form["scope"].split(" ")[0].removesuffix("/.default")
        token, _ = self.tokens.issue(audience, subject)
        lifetime = max(int(self.tokens.lifetime), 1)
        return Answer(200, {"access_token": token, "expires_in": lifetime, "token_type": "Bearer"})


class Vault:
    """Key Vault: its name is the first label of the host.

    Attributes:
        secrets: by vault and name.
        allowed: subjects that may read.
        read: which subject read which secret.
    """

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.port = 0
        self.secrets: dict[str, dict[str, str]] = {}
        self.allowed = {"managed", "workload", "principal", "user"}
        self.read: list[tuple[str, str]] = []
        self.unknown: list[str] = []

    def address(self, name: str) -> str:
        """Return the address of a vault."""
        return f"https://{name}.vault.localhost:{self.port}"

    def route(self, request: Request) -> Answer:
        """Answer one request."""
        resource = f"https://vault.localhost:{self.port}"
        name = request.headers.get("host", "").split(".")[0]
        if request.method != "GET" or len(request.segments) not in (2, 3) or request.segments[0] != "secrets":
            self.unknown.append(f"vault {request.method} {request.path}")
            return error(404, "NotFound", request.path)
        try:
            claims = self.tokens.claims(request.headers.get("authorization"), (resource,))
        except Refused as refused:
            challenge = f'Bearer authorization="https://localhost/{TENANT}", resource="{resource}"'
            return error(401, "Unauthorized", f"AKV10000: {refused}", **{"WWW-Authenticate": challenge})
        if claims["sub"] not in self.allowed:
            return error(403, "Forbidden", f"{claims['sub']} does not have secrets get permission on {name}")
        secret = request.segments[1]
        if secret not in self.secrets.get(name, {}):
            return error(404, "SecretNotFound", f"A secret with (name/id) {secret} was not found in this key vault.")
        self.read.append((claims["sub"], secret))
        return Answer(200, {
            "value": self.secrets[name][secret], "id": f"{self.address(name)}/secrets/{secret}/{'0' * 32}",
            "attributes": {"enabled": True, "created": 1, "updated": 1, "recoveryLevel": "Recoverable"},
        })  # fmt: skip
