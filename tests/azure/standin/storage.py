"""The service's own hand on the blobs: what it writes and reads in Azurite when it runs jobs and gives out secrets."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


class Storage:
    """Accounts in Azurite.

    Attributes:
        keys: by account.
        port: of the front that clients reach.
        sas_lifetime: seconds that a SAS given out from now on is good for.
    """

    def __init__(self, azurite_port: int, keys: dict[str, str], authority: Path) -> None:
        from azure.storage.blob import BlobServiceClient

        self.keys = keys
        self.port = 0
        self.sas_lifetime = 3600.0
        # Past the front and its faults, and past the proxy.
        self._services = {
            account: BlobServiceClient(
                f"https://127.0.0.1:{azurite_port}/{account}",
                credential=key,
                connection_verify=str(authority),
                use_env_settings=False,
            )
            for account, key in keys.items()
        }

    def endpoint(self, account: str) -> str:
        """Return the address of an account as clients know it."""
        return f"https://{account}.blob.core.localhost:{self.port}"

    def container(self, account: str, name: str) -> ContainerClient:
        """Return a container, made if it is not there."""
        from azure.core.exceptions import ResourceExistsError

        client = self._services[account].get_container_client(name)
        with contextlib.suppress(ResourceExistsError):
            client.create_container()
        return client

    def sas(self, account: str, container: str, *, write: bool = True) -> str:
        """Return a shared access signature for a container."""
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        rights = ContainerSasPermissions(read=True, list=True, write=write, create=write, add=write, delete=write)
        return generate_container_sas(
            account,
            container,
            self.keys[account],
            permission=rights,
            start=datetime.now(UTC) - timedelta(minutes=5),
            expiry=datetime.now(UTC) + timedelta(seconds=self.sas_lifetime),
        )

    def sas_uri(self, account: str, container: str, *, write: bool = True) -> str:
        """Return the address of a container with a signature."""
        return f"{self.endpoint(account)}/{container}?{self.sas(account, container, write=write)}"

    def split(self, url: str) -> tuple[str, str, str]:
        """Return account, container and path of a blob's address."""
        parts = urlsplit(url)
        container, _, path = parts.path.lstrip("/").partition("/")
        return parts.netloc.split(".")[0], container, path

    def put(self, account: str, container: str, name: str, content: bytes, **options: Any) -> None:
        """Write one blob."""
        self.container(account, container).upload_blob(name, content, overwrite=True, **options)

    def upload(self, account: str, container: str, prefix: str, folder: Path) -> list[str]:
        """Write the files of a folder below ``prefix`` and return their names."""
        client = self.container(account, container)
        names = []
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = str(PurePosixPath(prefix, path.relative_to(folder).as_posix()))
                with path.open("rb") as file:
                    client.upload_blob(name, file, overwrite=True)
                names.append(name)
        return names

    def names(self, account: str, container: str, prefix: str = "") -> list[str]:
        """Return the names of blobs."""
        return [each.name for each in self.container(account, container).list_blobs(name_starts_with=prefix)]

    def read(self, account: str, container: str, name: str) -> bytes:
        """Return one blob."""
        return self.container(account, container).download_blob(name).readall()

    def everything(self) -> Iterable[tuple[str, bytes]]:
        """Yield every blob of every account, with its address."""
        for account, service in self._services.items():
            for each in service.list_containers():
                for name in self.names(account, each.name):
                    yield f"{account}/{each.name}/{name}", self.read(account, each.name, name)

    def fetch(self, url: str, destination: Path) -> Path:
        """Write what lies at a blob's address (one blob, or all below it) to ``destination``; return file or folder."""
        account, container, path = self.split(url)
        path = path.rstrip("/")
        client = self.container(account, container)
        result = destination
        found = False
        for blob in client.list_blobs(name_starts_with=path):
            if blob.name == path:
                target = result = destination / PurePosixPath(path).name
            elif not path or blob.name.startswith(path + "/"):
                target = destination / blob.name[len(path) :].lstrip("/")
            else:
                continue
            found = True
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                client.download_blob(blob.name).readinto(file)
        if not found:
            raise FileNotFoundError(url)
        return result


DATASTORE_URI = re.compile(
    r"azureml://(?:subscriptions/(?P<subscription>[^/]+)/resource[gG]roups/(?P<group>[^/]+)/"
    r"(?:providers/Microsoft\.MachineLearningServices/)?workspaces/(?P<workspace>[^/]+)/)?"
    r"datastores/(?P<datastore>[^/]+)/paths/(?P<path>.*)"
)
"""The address of a path in a datastore, with or without its workspace."""
