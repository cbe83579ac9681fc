"""A workspace or registry of Azure Machine Learning, as its SDK shows it, with errors that say what to do.

The SDK is used for what it knows, names and rights; bytes are moved by :mod:`olivine.storage.blobs`, because the SDK
holds each file in memory and cannot go on with one that was interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

from olivine.config.schema import AzureMLClient
from olivine.errors import ConfigError, OlivineError, PlanError, UnavailableError
from olivine.redaction import HIDDEN, redact, remember
from olivine.storage.addresses import WorkspaceName
from olivine.storage.credentials import credential
from olivine.storage.storms import Storm, retries

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

CLOUD_VARIABLE = "AZUREML_CURRENT_CLOUD"
"""Written by the SDK whenever a client is made; a process that inherits a name of its own making cannot import it."""
STORAGE_ENDPOINT = "core.windows.net"
_added_clouds: set[str] = set()


@dataclass(frozen=True)
class Container:
    """A container of blobs, and how to get in.

    Attributes:
        account_url: ``https://ACCOUNT.blob.core.windows.net``.
        name: of the container.
        credential: account key, SAS token or credential, as azure-storage-blob takes it; ``None``: in the address.
        prefix: what all names of blobs in it begin with, for something that is a folder in a container.
    """

    account_url: str
    name: str
    credential: Any = None
    prefix: str = ""


class Workspace:
    """A workspace, or a registry, which belongs to none.

    Attributes:
        settings: how it is reached.
        scope: its names; ``None`` for a registry.
        registry: name of the registry, if it is one.
        storm: hears how Azure answers.
    """

    def __init__(
        self, settings: AzureMLClient, scope: WorkspaceName | None, registry: str | None = None, who: Any = None
    ) -> None:
        self.settings = settings
        self.scope = scope
        self.registry = registry
        self.storm = Storm()
        self._who = who

    @classmethod
    def connect(cls, client: AzureMLClient, scope: WorkspaceName | None = None) -> Workspace:
        """Return the workspace that ``client`` names, or another one that is reached in the same way.

        Nothing is asked for yet.

        Args:
            scope: the workspace, where an address names it itself.

        Raises:
            ConfigError: a name is missing, or ``aml_config_path`` is no such file.
            UnavailableError: the libraries of Azure are not installed.
        """
        return cls(client, scope or scope_of(client))

    @classmethod
    def connect_registry(cls, client: AzureMLClient, name: str) -> Workspace:
        """Return a registry."""
        return cls(client, None, name)

    def at(self, scope: WorkspaceName | None) -> Workspace:
        """Return another workspace that is reached in the same way; this one if ``scope`` is ``None``."""
        if scope is None or scope == self.scope:
            return self
        made = Workspace(self.settings, scope, None, self._who)
        made.storm = self.storm
        return made

    def __str__(self) -> str:
        if self.scope is None:
            return f"registry {self.registry}"
        return f"workspace {self.scope.name}"

    def renew(self) -> None:
        """Ask for new tokens from now on."""
        self._who = None
        for name in ("credential", "ml"):
            self.__dict__.pop(name, None)

    @property
    def subscription_id(self) -> str | None:
        """The subscription."""
        return self.scope.subscription_id if self.scope else None

    @property
    def resource_group(self) -> str | None:
        """The resource group."""
        return self.scope.resource_group if self.scope else None

    @property
    def workspace_name(self) -> str | None:
        """The name."""
        return self.scope.name if self.scope else None

    @cached_property
    def credential(self) -> Any:
        """Who asks: a credential of azure-identity."""
        return self._who if self._who is not None else credential(self.settings)

    @cached_property
    def ml(self) -> MLClient:
        """The SDK's client. Call it within :meth:`calling`."""
        try:
            from azure.ai.ml import MLClient
        except ModuleNotFoundError:
            raise UnavailableError(
                "Azure Machine Learning needs azure-ai-ml, which is not installed",
                remedy="`pip install 'olivine[azure]'`",
            ) from None
        settings = self.settings
        options: dict[str, Any] = {"enable_telemetry": False, "show_progress": False}
        if settings.cloud is not None or settings.cloud_metadata is not None:
            options["cloud"] = settings.cloud or "custom"
            if settings.cloud_metadata and options["cloud"] not in _added_clouds:
                options["cloud_metadata"] = settings.cloud_metadata
        if settings.read_timeout is not None:
            options["read_timeout"] = settings.read_timeout
        options |= self.patiently()
        if self.scope is not None:
            options |= {
                "subscription_id": self.scope.subscription_id,
                "resource_group_name": self.scope.resource_group,
                "workspace_name": self.scope.name,
            }
        else:
            options["registry_name"] = self.registry
        with self.calling(f"reaching the {self}"):
            made = MLClient(self.credential, **options)
        if "cloud_metadata" in options:
            _added_clouds.add(options["cloud"])
        return made

    def patiently(self) -> dict[str, Any]:
        """Return the options of a client of the SDK that is patient with Azure and tells of it."""
        settings = self.settings
        return {
            **retries(settings.max_operation_retries, settings.operation_retry_interval),
            "raw_response_hook": self.storm.hear,
        }

    @contextlib.contextmanager
    def calling(self, doing: str) -> Iterator[None]:
        """Call the SDK within this: its errors become Olivine's, and it leaves the environment as it was.

        Args:
            doing: what for, as in "reading the datastore X".

        Raises:
            UnavailableError: nobody is signed in, the service does not answer, or says no.
            PlanError: what was asked for is not there.
        """
        self.storm.doing, self.storm.refusals = doing, 0
        before = os.environ.get(CLOUD_VARIABLE)
        if self.settings.cloud in _added_clouds:
            os.environ[CLOUD_VARIABLE] = str(self.settings.cloud)
        try:
            yield
        except OlivineError:
            raise
        except Exception as error:
            found = translated(error, f"{doing} in the {self}" if str(self) not in doing else doing)
            if found is None:
                raise
            raise found from error
        finally:
            if before is None:
                os.environ.pop(CLOUD_VARIABLE, None)
            else:
                os.environ[CLOUD_VARIABLE] = before

    # Storage --------------------------------------------------------------------------------------------------------

    def datastore(self, name: str) -> Container:
        """Return where a datastore keeps its files, with its own credential (account key, SAS) or this identity.

        Raises:
            PlanError: there is none of that name, or it is of a kind that holds no blobs.
            UnavailableError: it cannot be read.
        """
        with self.calling(f"reading the datastore {name}"):
            found = self.ml.datastores.get(name, include_secrets=True)
        container = getattr(found, "container_name", None) or getattr(found, "filesystem", None)
        account = getattr(found, "account_name", None)
        if not container or not account:
            raise PlanError(
                f"the datastore {name} is of the kind {type(found).__name__}, which holds no blobs",
                remedy="use a datastore of blobs, or of Data Lake Storage Gen2",
            )
        endpoint = getattr(found, "endpoint", None) or STORAGE_ENDPOINT
        protocol = getattr(found, "protocol", None) or "https"
        return Container(
            f"{protocol}://{account}.blob.{endpoint}", str(container), self._of_datastore(found.credentials)
        )

    def asset(self, kind: str, name: str, version: str | None) -> str:
        """Return the address of the files of a model or of data that the workspace has registered.

        Args:
            kind: ``models`` or ``data``.
            version: ``None`` for the latest.

        Raises:
            PlanError: there is none.
            UnavailableError: it cannot be asked.
        """
        return str(self._registered(kind, name, version).path)

    def _registered(self, kind: str, name: str, version: str | None) -> Any:
        operations = self.ml.models if kind == "models" else self.ml.data
        what = f"{'model' if kind == 'models' else 'data'} {name}, version {version or 'latest'}"
        with self.calling(f"looking up the {what}"):
            return operations.get(name, version) if version is not None else operations.get(name, label="latest")

    def job_output(self, job: str, output: str) -> str:
        """Return the address of what a job has left in an output.

        Raises:
            PlanError: there is no such job, or it has no such output.
            UnavailableError: it cannot be asked.
        """
        with self.calling(f"looking up the output {output} of the job {job}"):
            state = self.ml.jobs.get(job)
            known = getattr((getattr(state, "outputs", None) or {}).get(output), "path", None)
            if not known:
                known = self.ml.jobs._get_named_output_uri(job, output).get(output)
        if not known:
            raise PlanError(
                f"the job {job} has no output {output}",
                why=f"it is {state.status}",
                remedy="check the name, or wait until the job is done",
            )
        return str(known)

    def registry_asset(self, kind: str, name: str, version: str | None) -> Container:
        """Return where a registry keeps the files of a model or of data, with an address signed for reading them.

        Raises:
            PlanError: there is none.
            UnavailableError: it cannot be asked.
        """
        found = self._registered(kind, name, version)
        operations = self.ml.models if kind == "models" else self.ml.data
        with self.calling(f"asking for access to {name} {found.version}"):
            access = self._access(operations, kind, name, str(found.version), str(found.path))
        granted = access.get("credential") or {}
        signed = urlsplit(str(granted.get("sasUri") or access.get("blobUri") or found.path))
        remember(dict(parse_qsl(signed.query)).get("sig", ""))
        container = signed.path.strip("/").partition("/")[0]
        prefix = urlsplit(str(found.path)).path.strip("/").partition("/")[2]
        # A registry that is open to everybody gives an address without a signature.
        return Container(f"{signed.scheme}://{signed.netloc}", container, signed.query or None, prefix)

    def _access(self, operations: Any, kind: str, name: str, version: str, uri: str) -> dict[str, Any]:
        """Return what a registry answers when it is asked for the files of an asset.

        The SDK has this only within its download, which holds each file in memory.
        """
        from azure.core.rest import HttpRequest

        client = operations._registry_service_client
        request = HttpRequest(
            "POST",
            f"/subscriptions/{client._config.subscription_id}/resourceGroups/{operations._resource_group_name}"
            f"/providers/Microsoft.MachineLearningServices/registries/{self.registry}"
            f"/datarefs/{quote(name, safe='')}/versions/{version}",
            params={"api-version": "2021-10-01-dataplanepreview"},
            headers={"Accept": "application/json"},
            json={
                "assetId": f"azureml://registries/{self.registry}/{kind}/{name}/versions/{version}",
                "blobUri": uri,
            },
        )
        # It only looks, although it is a POST: it may be asked as often as need be.
        response = client.send_request(request, retry_on_methods=frozenset({"POST"}))
        response.raise_for_status()
        return dict(response.json()["blobReferenceForConsumption"])

    def _of_datastore(self, given: Any) -> Any:
        """Return the credential of a datastore; an account key and a SAS token are secrets from now on."""
        key = getattr(given, "account_key", None) or getattr(given, "sas_token", None)
        if key:
            remember(str(key))
            return str(key)
        if getattr(given, "client_secret", None):
            from azure.identity import ClientSecretCredential

            remember(str(given.client_secret))
            return ClientSecretCredential(given.tenant_id, given.client_id, given.client_secret)
        return self.credential

    def secret(self, vault: str, name: str, shown: str = HIDDEN) -> str:
        """Return a secret of a key vault. It is taken out of everything that is shown or written from now on.

        Args:
            vault: its name, or its address.
            shown: what stands in its place then.

        Raises:
            PlanError: there is none of that name.
            UnavailableError: the vault cannot be reached, or does not give it out.
        """
        try:
            from azure.keyvault.secrets import SecretClient
        except ModuleNotFoundError:
            raise UnavailableError(
                "key vaults need azure-keyvault-secrets, which is not installed",
                remedy="`pip install 'olivine[azure]'`",
            ) from None
        with self.calling(f"reading the secret {name} of the key vault {vault}"):
            client = SecretClient(vault_url(vault, self.settings), self.credential, **self.patiently())
            value = client.get_secret(name).value or ""
        remember(value, shown)
        return value


def vault_url(vault: str, client: AzureMLClient) -> str:
    """Return the address of a key vault, which may be given already."""
    if vault.startswith("https://"):
        return vault.rstrip("/")
    suffix = {"AzureUSGovernment": "vault.usgovcloudapi.net", "AzureChinaCloud": "vault.azure.cn"}
    return f"https://{vault}.{suffix.get(client.cloud or '', 'vault.azure.net')}"


def scope_of(client: AzureMLClient) -> WorkspaceName:
    """Return the names of the workspace, those of ``aml_config_path`` where the configuration has none.

    Raises:
        ConfigError: a name is missing, or the file cannot be read.
    """
    names: dict[str, Any] = {}
    if client.aml_config_path is not None:
        path = Path(client.aml_config_path).expanduser()
        # As Azure's own tools do it, a folder stands for the file in it.
        path = next(
            (each for each in (path / "config.json", path / ".azureml" / "config.json") if each.is_file()), path
        )
        try:
            names = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path}, azureml_client's aml_config_path, cannot be read as the description of a workspace",
                why=str(error),
                remedy="download config.json from the workspace's page in the Azure portal",
            ) from None
        names = names if isinstance(names, dict) else {}
    found = {key: getattr(client, key) or names.get(key) for key in ("subscription_id", "resource_group")}
    found["workspace_name"] = client.workspace_name or names.get("workspace_name")
    missing = [key for key, value in found.items() if not isinstance(value, str) or not value]
    if missing:
        raise ConfigError(
            f"azureml_client does not name the workspace in full: {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing",
            remedy="give subscription_id, resource_group and workspace_name, or a config.json as aml_config_path",
        )
    return WorkspaceName(str(found["subscription_id"]), str(found["resource_group"]), str(found["workspace_name"]))


def translated(error: BaseException, doing: str) -> OlivineError | None:
    """Return what an error of the libraries of Azure means to the user, or ``None`` if it is not one of theirs."""
    from azure.core import exceptions

    said = _first_line(error)
    if isinstance(error, exceptions.ClientAuthenticationError):
        return UnavailableError(
            f"{doing}: Azure does not know who asks",
            why=said,
            remedy="sign in with `az login`, or set azureml_client.auth to what this machine has",
        )
    if isinstance(error, exceptions.ResourceNotFoundError):
        return PlanError(f"{doing}: it is not there", why=said, remedy="check the name, and the workspace")
    if isinstance(error, exceptions.HttpResponseError):
        if error.status_code in (401, 403):
            return UnavailableError(
                f"{doing}: Azure does not allow it", why=said, remedy="ask for the right, or sign in as someone else"
            )
        return UnavailableError(f"{doing}: Azure answers {error.status_code}", why=said, remedy="try again later")
    if isinstance(error, exceptions.ServiceRequestError | exceptions.ServiceResponseError):
        return UnavailableError(f"{doing}: Azure cannot be reached", why=said, remedy="check the network")
    if type(error).__module__.startswith("azure."):
        return PlanError(f"{doing}: the SDK refuses it", why=said)
    return None


def _first_line(error: BaseException) -> str:
    """Return the first sentence of an error, without secrets."""
    text = getattr(error, "message", None) or str(error)
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return redact(lines[0][:300] if lines else type(error).__name__).rstrip(".")
