"""What Resource Manager, run history and registries answer. Every answer is held to its example in ``shapes``."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from standin.estate import Assets, Compute, Registry, Workspace
from standin.server import Answer, Request, error
from standin.shapes import differences, examples
from standin.storage import DATASTORE_URI
from standin.tokens import Refused

if TYPE_CHECKING:
    from standin.cloud import Cloud

CREDENTIALS = {"key": "AccountKey", "sas": "Sas", "identity": "None"}
VERSIONED = ("codes", "environments", "models", "data", "components")
SYSTEM_DATA = {"createdAt": "2026-11-24T12:00:00.000000+00:00", "createdBy": "A User", "createdByType": "User",
               "lastModifiedAt": "2026-11-24T12:00:00.000000+00:00"}  # fmt: skip


class ControlPlane:
    """The routes.

    Attributes:
        unknown: requests that have no answer here; a test that ends with one has found a gap.
        misshapen: answers that are not like their examples.
        unauthorized: how many requests were refused for their token.
    """

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.base = ""
        self.unknown: list[str] = []
        self.misshapen: list[str] = []
        self.unauthorized = 0

    def route(self, request: Request) -> Answer:
        """Answer one request."""
        path = request.segments
        if path[:3] == ("registrymanagement", "v1.0", "registries") and path[4:] == ("discovery",):
            return self._discovery(path[3])
        if path == ("discovery",):  # asked for without a token
            return self.say("discovery_urls", dict.fromkeys(("api", "history", "catalog", "mms"), self.base))
        try:
            self.cloud.tokens.claims(request.headers.get("authorization"), (self.base, "https://management.azure.com"))
        except Refused as refused:
            self.unauthorized += 1
            # As the service does when a token is taken back: a client may ask for one with these claims.
            claims = base64.b64encode(json.dumps({"access_token": {"nbf": {"essential": True, "value": "0"}}}).encode())
            headers = {
                "WWW-Authenticate": f'Bearer authorization_uri="{self.base}/", error="insufficient_claims", '
                f'claims="{claims.decode()}"'
            }
            return error(401, "ExpiredAuthenticationToken", str(refused), **headers)
        plane, rest = _plane(path)
        if len(rest) >= 6 and rest[4:6] == ("providers", "Microsoft.KeyVault"):
            return self._vault(rest)
        if len(rest) < 7 or rest[0] != "subscriptions" or rest[5] != "Microsoft.MachineLearningServices":
            return self._unknown(request)
        if rest[6] == "registries":
            registry = self.cloud.registries.get(rest[7])
            if registry is None:
                return error(404, "ResourceNotFound", f"registry {rest[7]} was not found")
            return self._assets(request, registry, registry.assets, rest[8:])
        if len(rest) == 7:
            return self.say("list", {"value": [self._workspace_body(each) for each in self.cloud.workspaces.values()]})
        workspace = self.cloud.workspaces.get(rest[7])
        if workspace is None or (rest[1], rest[3]) != (workspace.subscription, workspace.group):
            return error(404, "ResourceNotFound", f"The Resource 'workspaces/{rest[7]}' under resource group "
                         f"'{rest[3]}' was not found.")  # fmt: skip
        if plane == "history":
            return self._history(request, workspace, rest[8:])
        if plane == "data" and rest[-1:] == ("batchGetResolvedUris",):
            return self.say("resolved_uris", {"values": {
                each: {"uri": self.cloud.jobs.outputs[each], "type": "UriFolder"}
                for each in request.json()["values"] if each in self.cloud.jobs.outputs
            }})  # fmt: skip
        return self._workspace(request, workspace, rest[8:])

    def say(self, example: str, body: Any, status: int = 200) -> Answer:
        """Answer with ``body``, which must be like the example."""
        self.misshapen += [f"{example}{each}" for each in differences(body, examples()[example])]
        return Answer(status, body)

    def _unknown(self, request: Request) -> Answer:
        self.unknown.append(f"arm {request.method} {request.path}")
        return error(404, "NotFound", request.path)

    def _discovery(self, name: str) -> Answer:
        registry = self.cloud.registries.get(name)
        if registry is None:
            return error(404, "RegistryNotFound", f"registry {name} was not found")
        return self.say("registry_discovery", {
            "registryName": name, "primaryRegion": "loopback", "regions": ["loopback"],
            "subscriptionId": registry.arm.split("/")[2], "resourceGroup": "registries",
            "primaryRegionResourceProviderUri": f"{self.base}/",
        })  # fmt: skip

    def _vault(self, path: tuple[str, ...]) -> Answer:
        name = path[7]
        if name not in self.cloud.vault.secrets:
            return error(404, "ResourceNotFound", f"vault {name} was not found")
        properties = {"vaultUri": f"{self.cloud.vault.address(name)}/", "enableRbacAuthorization": True}
        return self.say("vault", {"id": "/" + "/".join(path), "name": name, "type": "Microsoft.KeyVault/vaults",
                                  "location": "loopback", "properties": properties})  # fmt: skip

    def _workspace_body(self, workspace: Workspace) -> dict[str, Any]:
        around = workspace.arm.split("/providers/")[0]
        return {
            "id": workspace.arm, "name": workspace.name, "location": "loopback",
            "type": "Microsoft.MachineLearningServices/workspaces",
            "identity": {"type": "SystemAssigned", "principalId": str(uuid.uuid5(uuid.NAMESPACE_DNS, workspace.name))},
            "properties": {
                "discoveryUrl": f"{self.base}/discovery", "mlFlowTrackingUri": f"azureml://localhost{workspace.arm}",
                "workspaceId": str(uuid.uuid5(uuid.NAMESPACE_URL, workspace.arm)), "friendlyName": workspace.name,
                "keyVault": f"{around}/providers/Microsoft.KeyVault/vaults/{workspace.vault}",
                "storageAccount": f"{around}/providers/Microsoft.Storage/storageAccounts/{workspace.account}",
                "provisioningState": "Succeeded",
            },
        }  # fmt: skip

    def _workspace(self, request: Request, workspace: Workspace, path: tuple[str, ...]) -> Answer:
        if not path and request.method == "GET":
            return self.say("workspace", self._workspace_body(workspace))
        routes: dict[str, Callable[[Request, Workspace, tuple[str, ...]], Answer]] = {
            "datastores": self._datastores, "computes": self._computes, "jobs": self._jobs,
        }  # fmt: skip
        if path and path[0] in routes:
            return routes[path[0]](request, workspace, path)
        return self._assets(request, workspace, workspace.assets, path)

    def _datastores(self, request: Request, workspace: Workspace, path: tuple[str, ...]) -> Answer:
        if len(path) == 1:
            wanted = ["workspaceblobstore"] if request.query.get("isDefault", "").lower() == "true" else None
            names = wanted or list(workspace.datastores)
            return self.say("list", {"value": [self._datastore(workspace, each) for each in names]})
        store = workspace.datastores.get(path[1])
        if store is None:
            return error(404, "UserError", f"Could not find datastore with name: {path[1]}")
        if path[2:] == ("listSecrets",):
            if store.credential == "identity":
                return error(400, "UserError", f"datastore {path[1]} has no credentials")
            # Asked for a secret that expires the service may answer with a SAS for a key too; older ones give the key.
            if store.credential == "sas":
                token = self.cloud.storage.sas(workspace.account, store.container)
                return self.say("secrets_sas", {"secretsType": "Sas", "sasToken": token})
            key = self.cloud.storage.keys[workspace.account]
            return self.say("secrets_key", {"secretsType": "AccountKey", "key": key})
        return self.say("datastore", self._datastore(workspace, path[1])) if len(path) == 2 else self._unknown(request)

    def _datastore(self, workspace: Workspace, name: str) -> dict[str, Any]:
        store = workspace.datastores[name]
        return {
            "id": f"{workspace.arm}/datastores/{name}", "name": name, "systemData": SYSTEM_DATA,
            "type": "Microsoft.MachineLearningServices/workspaces/datastores",
            "properties": {
                "datastoreType": "AzureBlob", "accountName": workspace.account, "containerName": store.container,
                "endpoint": f"core.localhost:{self.cloud.storage.port}", "protocol": "https",
                "isDefault": name == "workspaceblobstore", "serviceDataAccessAuthIdentity": "None", "tags": {},
                "credentials": {"credentialsType": CREDENTIALS[store.credential]}, "properties": {},
                "description": None, "subscriptionId": workspace.subscription, "resourceGroup": workspace.group,
            },
        }  # fmt: skip

    def _computes(self, request: Request, workspace: Workspace, path: tuple[str, ...]) -> Answer:
        if len(path) == 1:
            return self.say("list", {"value": [self._compute(workspace, each) for each in workspace.computes]})
        name = path[1]
        if request.method == "PUT":
            existed = name in workspace.computes
            body = request.json()
            workspace.computes[name] = Compute("AmlCompute", body=body)
            return self.say("compute", self._compute(workspace, name), 200 if existed else 201)
        if name not in workspace.computes:
            return error(404, "ResourceNotFound", f"Compute {name} was not found.")
        if request.method == "DELETE":
            del workspace.computes[name]
            return Answer(200)
        return self.say("compute", self._compute(workspace, name)) if len(path) == 2 else self._unknown(request)

    def _compute(self, workspace: Workspace, name: str) -> dict[str, Any]:
        compute = workspace.computes[name]
        if compute.kind == "Kubernetes":
            kinds = {each: {"resources": {"limits": {"cpu": "2"}}} for each in compute.instance_types}
            inner: dict[str, Any] = {
                "namespace": "default", "defaultInstanceType": compute.instance_types[0], "instanceTypes": kinds,
            }  # fmt: skip
        else:
            inner = {
                "vmSize": "STANDARD_D2_V2", "vmPriority": "Dedicated", "osType": "Linux",
                "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 2, "nodeIdleTimeBeforeScaleDown": "PT2M"},
            } | compute.body.get("properties", {}).get("properties", {})  # fmt: skip
        identity = "SystemAssigned" if compute.identity == "managed" else "None"
        return {
            "id": f"{workspace.arm}/computes/{name}", "name": name, "location": "loopback",
            "type": "Microsoft.MachineLearningServices/workspaces/computes",
            "identity": {"type": identity},
            "properties": {
                "computeType": compute.kind, "provisioningState": "Succeeded", "isAttachedCompute": not compute.body,
                "description": None, "properties": inner,
            },
        }  # fmt: skip

    def _jobs(self, request: Request, workspace: Workspace, path: tuple[str, ...]) -> Answer:
        jobs = self.cloud.jobs
        if len(path) == 1:
            return self.say("list", {"value": [each.body for each in jobs.all(workspace)]})
        if request.method == "PUT":
            found = jobs.submit(workspace, path[1], request.json(), request.headers)
            return found if found.status >= 300 else self.say("job", found.body, found.status)
        job = jobs.find(workspace, path[1])
        if job is None:
            return error(404, "UserError", f"Job {path[1]} was not found in workspace {workspace.name}.")
        if path[2:] == ("cancel",):
            job.cancelled.set()
            return Answer(202, None, {"location": f"{self.base}{workspace.arm}/jobs/{path[1]}"})
        return self.say("job", job.body) if len(path) == 2 and request.method == "GET" else self._unknown(request)

    def _history(self, request: Request, workspace: Workspace, path: tuple[str, ...]) -> Answer:
        jobs = self.cloud.jobs
        name = request.json()["runId"] if path == ("rundata",) else path[1] if len(path) > 1 else ""
        job = jobs.find(workspace, name)
        if job is None:
            return error(404, "UserError", f"Run {name} was not found.")
        if path == ("rundata",):
            outputs = {key: {"assetId": asset, "type": "UriFolder"} for key, asset in job.output_assets.items()}
            return self.say("rundata", {
                "runMetadata": {"runId": name, "status": job.status, "outputs": outputs, "tags": {}, "properties": {}},
            })  # fmt: skip
        if path[0] == "runs" and path[2:] == ("details",):
            details = {"runId": name, "status": job.status, "logFiles": jobs.log_files(job), "warnings": []}
            return self.say("run_details", details | ({"error": job.error} if job.error else {}))
        return self._unknown(request)

    def _assets(self, request: Request, owner: Workspace | Registry, assets: Assets, path: tuple[str, ...]) -> Answer:
        if path and path[0] in ("datarefs", "tempdatarefs") and isinstance(owner, Registry):
            uri = f"{self.cloud.storage.endpoint(owner.account)}/{owner.container}"
            credential = {
                "credentialType": "SAS",
                "sasUri": self.cloud.storage.sas_uri(owner.account, owner.container, write=False),
            }
            reference = {"blobUri": uri, "storageAccountArmId": owner.arm, "credential": credential}
            return self.say("data_reference", {"blobReferenceForConsumption": reference})
        if not path or path[0] not in VERSIONED or len(path) not in (1, 2, 3, 4, 5):
            return self._unknown(request)
        if len(path) == 1:
            names = [{"name": name, "id": f"{owner.arm}/{kind}/{name}", "properties": {}} for kind, name in assets
                     if kind == path[0]]  # fmt: skip
            return self.say("list", {"value": names})
        kind, name = path[0], path[1]
        versions = assets.get((kind, name), {})
        if path[4:] == ("startPendingUpload",) and isinstance(owner, Workspace):
            container = f"upload-{uuid.uuid4().hex[:20]}"
            self.cloud.storage.container(owner.account, container)
            uri = self.cloud.storage.sas_uri(owner.account, container)
            reference = {"blobUri": uri.partition("?")[0], "storageAccountArmId": owner.arm,
                         "credential": {"credentialType": "SAS", "sasUri": uri}}  # fmt: skip
            return self.say("pending_upload", {"pendingUploadId": uuid.uuid4().hex, "blobReferenceForConsumption":
                            reference, "pendingUploadType": "TemporaryBlobReference"})  # fmt: skip
        if len(path) == 4 and request.method == "PUT":
            return self._put_asset(request, owner, assets, path)
        if len(path) == 4:
            if path[3] in versions:
                return self.say("asset", versions[path[3]])
            return error(404, "UserError", f"{kind} {name}:{path[3]} was not found in {owner.name}.")
        if len(path) == 3:
            found = [each for each in reversed(versions.values()) if _same_hash(request, each)]
            return self.say("list", {"value": found[: int(request.query.get("$top", 1000))]})
        if len(path) == 2 and versions:
            latest = list(versions)[-1]
            following = str(int(latest) + 1) if latest.isdigit() else "1"
            return self.say("container", {"id": f"{owner.arm}/{kind}/{name}", "name": name, "properties": {
                "latestVersion": latest, "nextVersion": following, "isArchived": False}})  # fmt: skip
        return error(404, "UserError", f"{kind} {name} was not found in {owner.name}.")

    def _put_asset(
        self, request: Request, owner: Workspace | Registry, assets: Assets, path: tuple[str, ...]
    ) -> Answer:
        kind, name, _, version = path
        versions = assets.setdefault((kind, name), {})
        properties = request.json()["properties"]
        if version in versions and kind in ("models", "data"):
            return error(409, "UserError", f"{kind} {name}:{version} exists and cannot be changed.")
        if isinstance(owner, Workspace):
            for key in ("modelUri", "dataUri"):
                where = DATASTORE_URI.match(properties.get(key) or "")
                if where and where["datastore"] not in owner.datastores:
                    return error(400, "UserError", f"there is no datastore {where['datastore']}")
        existed = version in versions
        versions[version] = self.asset(owner, kind, name, version, properties)
        return self.say("asset", versions[version], 200 if existed else 201)

    @staticmethod
    def asset(
        owner: Workspace | Registry, kind: str, name: str, version: str, properties: dict[str, Any]
    ) -> dict[str, Any]:
        """Return an asset's version as the service answers it."""
        scope = f"azureml://registries/{owner.name}" if isinstance(owner, Registry) else owner.arm
        filled = {key: properties.get(key) or {} for key in ("tags", "properties")}
        if kind == "models":
            filled["flavors"] = properties.get("flavors") or {}
        return {
            "id": f"{scope}/{kind}/{name}/versions/{version}", "name": version, "systemData": SYSTEM_DATA,
            "type": f"Microsoft.MachineLearningServices/{type(owner).__name__.lower()}s/{kind}/versions",
            "properties": {"isArchived": False, "isAnonymous": False, "provisioningState": "Succeeded"}
            | properties | filled,
        }  # fmt: skip


def _plane(path: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the service a path belongs to and the rest of it, which starts with ``subscriptions``."""
    if path[:2] == ("mferp", "managementfrontend"):
        return "arm", path[2:]
    if path and path[0] in ("history", "data"):
        return path[0], path[2:]
    return "arm", path


def _same_hash(request: Request, asset: dict[str, Any]) -> bool:
    """Whether an asset has the hash that a list is asked for."""
    wanted = request.query.get("hash")
    return not wanted or asset["properties"]["properties"].get("hash_sha256") == wanted
