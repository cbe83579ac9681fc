"""From an address to the files that it leads to, asking whoever knows. Nothing is moved."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from olivine.config.schema import AzureMLClient
from olivine.errors import ConfigError, DataError, PlanError
from olivine.redaction import remember
from olivine.storage.addresses import AZURE_STORAGE, AzureAddress, UrlAddress, parse
from olivine.storage.blobs import BlobFolder
from olivine.storage.credentials import credential
from olivine.storage.remote import MAGIC, Entry, matching, split_pattern
from olivine.storage.transfer import FIRST_S, STALL_S, Patience, persistently
from olivine.storage.workspace import STORAGE_ENDPOINT, Container, Workspace

DEEPEST = 3
"""How many addresses may lead to one another: an asset to a datastore, a job's output to an asset."""


class Origins:
    """Opens addresses, in the workspace of the configuration and in others that an address names.

    Args:
        client: how Azure is reached; ``None`` where the configuration says nothing of it.
    """

    def __init__(self, client: AzureMLClient | None = None) -> None:
        self._client = client or AzureMLClient()
        self._workspaces: dict[Any, Workspace] = {}

    @property
    def stall_s(self) -> float:
        """Seconds without a byte after which a connection counts as broken."""
        return float(self._client.read_timeout or STALL_S)

    def find(self, address: str) -> list[Entry]:
        """Return the files that an address leads to: at least one.

        Raises:
            PlanError: it is no address, or what it names is not there.
            DataError: there is no file.
            ConfigError: the workspace is not named.
            UnavailableError: a library is missing, nobody answers, or access is denied.
        """
        parsed = parse(address)
        return self._url(parsed) if isinstance(parsed, UrlAddress) else self._azure(parsed, 0)

    def folder(self, address: str) -> BlobFolder:
        """Return the folder of blobs that an ``azureml://`` address of a datastore or a job's output leads to.

        Raises:
            PlanError: it is another address.
        """
        parsed = parse(address)
        for _ in range(DEEPEST):
            if not isinstance(parsed, AzureAddress):
                break
            if parsed.kind == "datastore":
                return self._blobs(parsed, parsed.path)
            parsed = parse(self._led_to(parsed))
        raise PlanError(f"{address} is no folder of blobs")

    def workspace(self, address: AzureAddress | None = None) -> Workspace:
        """Return the workspace or registry that an address is in, or that of the configuration."""
        key = (address.registry, address.workspace) if address is not None else (None, None)
        if key not in self._workspaces:
            if key[0] is not None:
                made = Workspace.connect_registry(self._client, key[0])
            else:
                made = Workspace.connect(self._client, key[1])
            self._workspaces[key] = made
        return self._workspaces[key]

    # Azure Machine Learning -----------------------------------------------------------------------------------------

    def _azure(self, address: AzureAddress, depth: int) -> list[Entry]:
        if address.kind == "datastore":
            return self._in(self._blobs(address, ""), address.path, str(address))
        if address.registry is not None:
            return self._of_registry(address)
        led = parse(self._led_to(address))
        if depth >= DEEPEST:
            raise PlanError(f"{address} leads from one address to another without end")
        return self._url(led) if isinstance(led, UrlAddress) else self._azure(led, depth + 1)

    def _led_to(self, address: AzureAddress) -> str:
        """Return the address that an asset or a job's output is at."""
        workspace = self.workspace(address)
        if address.kind == "job":
            led = workspace.job_output(address.name, str(address.output))
        else:
            led = workspace.asset(address.kind, address.name, address.version)
        if address.path:
            led = led.rstrip("/") + "/" + address.path
        parsed = parse(led)
        if isinstance(parsed, AzureAddress) and parsed.workspace is None and address.workspace is not None:
            # What another workspace calls by a short name is there, and not here.
            names = address.workspace
            below = led.partition("://")[2]
            led = (
                f"azureml://subscriptions/{names.subscription_id}/resourcegroups/{names.resource_group}/"
                f"workspaces/{names.name}/{below}"
            )
        return led

    def _blobs(self, address: AzureAddress, prefix: str) -> BlobFolder:
        workspace = self.workspace(address)

        def again() -> Container:
            workspace.renew()
            return workspace.datastore(address.name)

        return BlobFolder(workspace.datastore(address.name), prefix, stall_s=self.stall_s, again=again)

    def _of_registry(self, address: AzureAddress) -> list[Entry]:
        registry = self.workspace(address)

        def opened() -> Container:
            return registry.registry_asset(address.kind, address.name, address.version)

        def again() -> Container:
            registry.renew()
            return opened()

        folder = BlobFolder(opened(), "", stall_s=self.stall_s, again=again)
        return self._in(folder, address.path, str(address))

    @staticmethod
    def _in(folder: BlobFolder, path: str, shown: str) -> list[Entry]:
        """Return the blobs that a path below a folder means: one, those below it, or those that match it."""
        if path and not path.endswith("/") and not MAGIC.search(path):
            facts = folder.find(path)
            if facts is not None:
                return [Entry(path.rpartition("/")[2], folder.file(path), facts)]
        fixed, pattern = split_pattern(path.strip("/"))
        entries = folder.below(fixed).entries()
        if pattern:
            wanted = matching(pattern)
            entries = [entry for entry in entries if wanted.fullmatch(entry.name)]
        if not entries:
            raise DataError(
                f"no file {'matches' if pattern else 'lies at'} {shown}",
                remedy="check the path, and the datastore or the workspace",
            )
        return entries

    def _container(self, address: UrlAddress) -> tuple[Container, str]:
        """Return the container of Azure Storage that a URL names, and the path in it.

        The key or SAS token comes from the environment, as Azure's own tools have it; else it is this identity.
        """
        parts = urlsplit(address.url)
        name, at, host = parts.netloc.rpartition("@")
        if not at:
            account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
            if not account:
                raise ConfigError(
                    f"{address} does not say which storage account",
                    remedy=f"write {address.scheme}://{host}@ACCOUNT.dfs.core.windows.net/..., or set "
                    "AZURE_STORAGE_ACCOUNT_NAME",
                )
            name, host = host, f"{account}.blob.{STORAGE_ENDPOINT}"
        given: Any = None
        for variable in ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"):
            given = given or os.environ.get(variable)
        if given:
            remember(given)
        account_url = f"https://{host.replace('.dfs.', '.blob.', 1)}"
        return Container(account_url, name, given or credential(self._client)), parts.path.lstrip("/")

    # URLs -----------------------------------------------------------------------------------------------------------

    def _url(self, address: UrlAddress) -> list[Entry]:
        if address.scheme in AZURE_STORAGE:
            container, path = self._container(address)
            return self._in(BlobFolder(container, stall_s=self.stall_s), path, str(address))
        if address.scheme not in ("http", "https"):
            from olivine.storage.filesystems import find

            return find(address)
        from olivine.storage.web import WebFile

        parts = urlsplit(address.url)
        if MAGIC.search(parts.path):
            raise DataError(f"{address} is a pattern, and a web server cannot list", remedy="name each file")
        if parts.username is not None:
            remember(parts.netloc.rpartition("@")[0])
        file = WebFile(address.url, stall_s=self.stall_s)
        facts = persistently(str(address), file.look, patience=Patience(FIRST_S), renew=file.renew)
        return [Entry(address.filename, file, facts)]
