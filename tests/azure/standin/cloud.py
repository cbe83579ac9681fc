"""The whole cloud: started once, with two workspaces, a registry, a vault, and a way out that leads nowhere else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from standin.azurite import Azurite
from standin.blob_front import BlobHandler, attributes
from standin.certificates import make_certificates
from standin.control_plane import ControlPlane
from standin.egress import Egress
from standin.estate import Compute, Datastore, Registry, Workspace
from standin.faults import Faults
from standin.hub import Hub
from standin.identity_service import CLIENT_ID, CLIENT_SECRET, Identity, Vault
from standin.image import build_image
from standin.jobs import Jobs
from standin.server import Server
from standin.storage import Storage
from standin.tokens import TENANT, Tokens

ACCOUNTS = ("olivineone", "olivinetwo")
VAULT = "olivine-vault"


class Cloud:
    """Everything, running.

    Attributes:
        workspaces: ``one`` (computes ``cpu-cluster`` and ``arc``, vault) and ``two``, each with its own storage account
            and the datastores ``workspaceblobstore``, ``workspaceartifactstore`` and ``training``.
        registries: ``olivine-models``.
        faults: what is to go wrong.
        failures: tracebacks of the stand-in's own errors.
    """

    def __init__(self, folder: Path, azurite: list[str]) -> None:
        self.folder = folder
        self.failures: list[str] = []
        self.faults = Faults()
        self.tokens = Tokens()
        self.certificates = make_certificates(folder / "certificates")
        self.azurite = Azurite(azurite, self.certificates, list(ACCOUNTS), folder)
        self.storage = Storage(self.azurite.port, self.azurite.keys, self.certificates.authority)
        self.identity = Identity(self.tokens)
        self.vault = Vault(self.tokens)
        self.hub = Hub()
        self.egress = Egress()
        self.arm = ControlPlane(self)
        front = attributes(("127.0.0.1", self.azurite.port), self.certificates.for_client(), self.tokens)
        self.received: dict[str, int] = front["received"]
        self.servers = {
            "arm": Server("arm", self.certificates, self.faults, self.arm.route),
            "identity": Server("identity", self.certificates, self.faults, self.identity.route),
            "vault": Server("vault", self.certificates, self.faults, self.vault.route),
            "hub": Server("hub", self.certificates, self.faults, self.hub.route),
            "blob": Server("blob", self.certificates, self.faults, handler=BlobHandler, **front),
        }
        self.arm.base, self.identity.base = (
            f"https://127.0.0.1:{self.servers[each].port}" for each in ("arm", "identity")
        )
        self.vault.port, self.storage.port = self.servers["vault"].port, self.servers["blob"].port
        self.vault.secrets[VAULT] = {}
        self.workspaces = {
            name: self._workspace(number, name, account)
            for number, (name, account) in enumerate(zip(("one", "two"), ACCOUNTS, strict=True), 1)
        }
        self.workspaces["one"].computes |= {
            "cpu-cluster": Compute("AmlCompute", "managed"),
            "arc": Compute("Kubernetes", "workload", ("defaultinstancetype", "large")),
            "no-identity": Compute("AmlCompute", None),
        }
        self.workspaces["two"].computes |= {"cpu-cluster": Compute("AmlCompute", "managed")}
        self.registries = {"olivine-models": Registry("olivine-models", ACCOUNTS[0], "registry")}
        self.jobs = Jobs(self, folder / "jobs", build_image(folder / "image"))

    def _workspace(self, number: int, name: str, account: str) -> Workspace:
        stores = {
            "workspaceblobstore": Datastore("blobstore"),
            "workspaceartifactstore": Datastore("azureml"),
            "training": Datastore("training"),
        }
        for store in stores.values():
            self.storage.container(account, store.container)
        made = Workspace(f"00000000-0000-0000-0000-{number:012}", f"group-{name}", name, account, VAULT, stores, {})
        image = {"image": "mcr.microsoft.com/azureml/base:latest", "osType": "Linux"}
        made.assets["environments", "prepared"] = {"3": self.arm.asset(made, "environments", "prepared", "3", image)}
        return made

    def close(self) -> None:
        """End everything that was started."""
        self.faults.clear()
        self.jobs.forget()
        for server in self.servers.values():
            server.close()
        self.egress.close()
        self.azurite.close()

    def client(self, workspace: str = "one", **keys: Any) -> dict[str, Any]:
        """Return the ``azureml_client`` section of a configuration for a workspace."""
        found = self.workspaces[workspace]
        return {
            "subscription_id": found.subscription, "resource_group": found.group, "workspace_name": found.name,
            "cloud": "loopback", "cloud_metadata": self.metadata(), **keys,
        }  # fmt: skip

    def metadata(self) -> dict[str, str]:
        """Return the addresses of this cloud, as the SDK takes them."""
        return {
            "azure_portal": "https://portal.localhost/",
            "resource_manager": f"{self.arm.base}/",
            "active_directory": f"{self.identity.base}/",
            "aml_resource_id": self.arm.base,
            "storage_endpoint": f"core.localhost:{self.storage.port}",
            "registry_discovery_endpoint": f"{self.arm.base}/",
        }

    def network(self) -> dict[str, str]:
        """Return the variables that lead a process's traffic through the audited way out, and its trust."""
        proxy, trusted = f"http://127.0.0.1:{self.egress.port}", str(self.certificates.authority)
        return {
            "HTTPS_PROXY": proxy, "https_proxy": proxy, "HTTP_PROXY": proxy, "http_proxy": proxy,
            "NO_PROXY": "", "no_proxy": "",
            "HF_ENDPOINT": f"https://127.0.0.1:{self.servers['hub'].port}",
            "REQUESTS_CA_BUNDLE": trusted, "SSL_CERT_FILE": trusted, "CURL_CA_BUNDLE": trusted, "SSL_CERT_DIR": "",
        }  # fmt: skip

    def principal(self) -> dict[str, str]:
        """Return the variables of a service principal, which ``auth: default`` and ``service_principal`` take."""
        return {
            "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT_ID, "AZURE_CLIENT_SECRET": CLIENT_SECRET,
            "AZURE_AUTHORITY_HOST": self.identity.base,
        }  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Return all variables of a user of this cloud who is a service principal."""
        return self.network() | self.principal()

    def process_environment(self, **changes: str) -> dict[str, str]:
        """Return a whole environment for a process of that user."""
        return {**os.environ, **self.environment(), **changes}

    def add_model(
        self, owner: str, name: str, version: str, folder: Path, kind: str = "mlflow_model", *, registry: bool = False
    ) -> None:
        """Put a model into a workspace or a registry."""
        where: Workspace | Registry = (self.registries if registry else self.workspaces)[owner]  # type: ignore[assignment]
        prefix = f"models/{name}/{version}"
        container = where.container if isinstance(where, Registry) else where.datastores["workspaceblobstore"].container
        self.storage.upload(where.account, container, f"{prefix}/{folder.name}", folder)
        if isinstance(where, Registry):
            uri = f"{self.storage.endpoint(where.account)}/{container}/{prefix}/{folder.name}"
        else:
            uri = where.uri("workspaceblobstore", f"{prefix}/{folder.name}")
        properties = {"modelType": kind, "modelUri": uri, "description": None, "jobName": None}
        where.assets.setdefault(("models", name), {})[version] = self.arm.asset(
            where, "models", name, version, properties
        )

    def put_data(self, workspace: str, datastore: str, path: str, content: bytes) -> str:
        """Put a file into a datastore and return its long address."""
        where = self.workspaces[workspace]
        self.storage.put(where.account, where.datastores[datastore].container, path, content)
        return where.uri(datastore, path)

    def credential(self, kind: str, workspace: str | None = None) -> None:
        """Let the datastores of a workspace, or of all, be reached by ``key``, ``sas`` or ``identity``."""
        for each in [self.workspaces[workspace]] if workspace else self.workspaces.values():
            for store in each.datastores.values():
                store.credential = kind  # type: ignore[assignment]

    def seen(self, *servers: str) -> list[str]:
        """Return the requests so far, of all servers or of some."""
        return [each for name, server in self.servers.items() if not servers or name in servers for each in server.seen]

    def gaps(self) -> dict[str, list[str]]:
        """Return what no test may leave behind; all lists are empty if all is well."""
        return {
            "unknown routes": self.arm.unknown + self.identity.unknown + self.vault.unknown + self.hub.unknown,
            "answers unlike their examples": self.arm.misshapen,
            "denied egress": self.egress.denied,
            "errors of the stand-in": self.failures,
        }

    def settle(self) -> None:
        """Undo what a test has set: faults, credentials, lifetimes, lost outputs, gaps."""
        self.faults.clear()
        self.credential("key")
        self.tokens.lifetime = self.storage.sas_lifetime = 3600.0
        self.jobs.drop_outputs.clear()
        self.jobs.gate.set()
        self.identity.refuse(0)
        for found in self.gaps().values():
            found.clear()
        for each in (self.arm.unknown, self.identity.unknown, self.vault.unknown, self.hub.unknown):
            each.clear()

    def where_found(self, text: str) -> list[str]:
        """Return every blob, job body, job environment and asset in which ``text`` is."""
        wanted = text.encode()
        found = [name for name, content in self.storage.everything() if wanted in content]
        for job in self.jobs.all():
            found += [f"body of {job.name}"] if text in json.dumps(job.body) else []
            found += [f"environment of {job.name}"] if text in json.dumps(job.environment) else []
        for owner in (*self.workspaces.values(), *self.registries.values()):
            found += [f"asset {key}" for key, versions in owner.assets.items() if text in json.dumps(versions)]
        return found
