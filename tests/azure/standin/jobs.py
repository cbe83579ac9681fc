"""Jobs: checked as the service checks them, then executed in processes of their own with a clean environment."""

from __future__ import annotations

import re
import shlex
import socket
import threading
import traceback
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from standin.estate import Compute, Workspace
from standin.execution import Processes
from standin.identity_service import CLIENT_ID, FEDERATED_TOKEN, MSI_SECRET
from standin.image import start_container
from standin.server import Answer, error
from standin.storage import DATASTORE_URI
from standin.tokens import TENANT

if TYPE_CHECKING:
    from pathlib import Path

    from standin.cloud import Cloud

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
PLACEHOLDER = re.compile(r"\$\{\{\s*([\w.]+)\s*\}\}")
ASSET_ID = re.compile(
    r"(?:.*/)?(?P<kind>workspaces|registries)/(?P<owner>[^/]+)/(?P<type>models|data|codes|environments)/"
    r"(?P<name>.+)/versions/(?P<version>[^/]+)$"
)
ENDED = ("Completed", "Failed", "Canceled")


class JobFailed(Exception):
    """What a job failed for, in the service's words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Job:
    """A job and what became of it.

    Attributes:
        body: what the service answers when it is asked for it.
        sent: the properties that the client sent.
        environment: what its processes were started with.
        starts: how often it was executed; more than once is a defect of the stand-in.
        uploaded: account, container and name of each blob of its outputs.
    """

    workspace: Workspace
    name: str
    body: dict[str, Any]
    sent: dict[str, Any]
    status: str = "Queued"
    error: dict[str, Any] | None = None
    output_assets: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)
    uploaded: list[tuple[str, str, str]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    processes: Processes | None = None
    starts: int = 0

    def become(self, status: str) -> None:
        """Change its status, also in what the service answers."""
        self.status = self.body["properties"]["status"] = status


class Jobs:
    """All jobs of a cloud.

    Attributes:
        outputs: where each output asset lies.
        drop_outputs: names of outputs that get lost: the job completes, and they are empty.
        submissions: names in the order in which jobs were started.
        gate: while it is closed, jobs go on running when they are done with their work.
    """

    def __init__(self, cloud: Cloud, folder: Path, image: Path) -> None:
        self.cloud = cloud
        self.folder = folder
        self.image = image
        self.outputs: dict[str, str] = {}
        self.drop_outputs: set[str] = set()
        self.submissions: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self._jobs: dict[tuple[str, str], Job] = {}
        self._lock = threading.Lock()

    def all(self, workspace: Workspace | None = None) -> list[Job]:
        """Return the jobs, of one workspace or of all."""
        with self._lock:
            return [each for each in self._jobs.values() if workspace is None or each.workspace is workspace]

    def find(self, workspace: Workspace, name: str) -> Job | None:
        """Return one job."""
        return self._jobs.get((workspace.name, name))

    def forget(self) -> None:
        """End and forget all jobs with what they have left, so that their names are free."""
        for job in self.all():
            job.cancelled.set()
        for job in self.all():
            job.ended.wait(60)
            for account, container, name in job.uploaded:
                self.cloud.storage.container(account, container).delete_blob(name)
        with self._lock:
            self._jobs.clear()
            self.submissions.clear()

    def submit(self, workspace: Workspace, name: str, body: dict[str, Any], headers: Any) -> Answer:
        """Take a job, or refuse it."""
        sent = body.get("properties") or {}
        why = self._refusal(workspace, name, sent, headers)
        if why:
            return error(400, "UserError", why)
        with self._lock:
            job = self._jobs.get((workspace.name, name))
            if job is not None:
                same = all(
                    job.sent.get(key) == sent.get(key) for key in ("command", "codeId", "inputs", "environmentId")
                )
                if same:
                    return Answer(200, job.body)
                return error(
                    409, "UserError", f"A job with the name {name} exists, and what it runs cannot be changed."
                )
            job = self._jobs[workspace.name, name] = Job(workspace, name, self._body(workspace, name, sent), sent)
            self.submissions.append(name)
        threading.Thread(target=self._run, args=(job,), daemon=True).start()
        return Answer(201, job.body)

    def _refusal(self, workspace: Workspace, name: str, sent: dict[str, Any], headers: Any) -> str:
        """Return why the service does not take a job, or an empty text."""
        if not NAME.fullmatch(name):
            return f"{name} is no valid name of a job"
        if sent.get("jobType") != "Command" or not sent.get("command"):
            return "only command jobs are executed here"
        compute = workspace.computes.get(str(sent.get("computeId", "")).rpartition("/computes/")[2])
        if compute is None:
            return f"Compute {sent.get('computeId')} was not found in workspace {workspace.name}"
        for key in ("codeId", "environmentId"):
            if sent.get(key) and self._asset(sent[key]) is None:
                return f"{key} {sent[key]} was not found"
        if not sent.get("environmentId"):
            return "environmentId is required"
        known = {f"inputs.{key}" for key in sent.get("inputs") or {}}
        known |= {f"outputs.{key}" for key in sent.get("outputs") or {}}
        for placeholder in PLACEHOLDER.findall(sent["command"]):
            if placeholder not in known:
                return f"the command names ${{{{{placeholder}}}}}, which is neither input nor output"
        for key, value in (sent.get("environmentVariables") or {}).items():
            if not isinstance(value, str):
                return f"environment variable {key} is no text"
        wanted = (sent.get("identity") or {}).get("identityType", "")
        if wanted == "UserIdentity" and compute.kind == "Kubernetes":
            return "UserIdentity is not supported on Kubernetes computes"
        if wanted == "UserIdentity" and not headers.get("x-azureml-token"):
            return "UserIdentity needs the token of the user"
        if wanted == "Managed" and compute.identity is None:
            return "the compute has no identity"
        instance_type = (sent.get("resources") or {}).get("instanceType")
        if compute.kind == "Kubernetes" and instance_type and instance_type not in compute.instance_types:
            return f"there is no instance type {instance_type}; there are {', '.join(compute.instance_types)}"
        return ""

    def _body(self, workspace: Workspace, name: str, sent: dict[str, Any]) -> dict[str, Any]:
        defaults = {"description": None, "tags": {}, "properties": {}, "experimentName": "Default", "isArchived": False}
        here = f"ExperimentRun/dcid.{name}"
        artifacts = f"azureml://datastores/workspaceartifactstore/{here}"
        default = {"description": None, "uri": artifacts, "mode": "ReadWriteMount", "jobOutputType": "uri_folder"}
        endpoints = {"Tracking": f"azureml://localhost{workspace.arm}",
                     "Studio": f"https://portal.localhost/runs/{name}?wsid={workspace.arm}"}  # fmt: skip
        services = {key: {"jobServiceType": key, "endpoint": endpoint, "status": None, "errorMessage": None}
                    for key, endpoint in endpoints.items()}  # fmt: skip
        made = {
            "services": services,
            "status": "Queued",
            "outputs": {**(sent.get("outputs") or {}), "default": default},
        }
        return {
            "id": f"{workspace.arm}/jobs/{name}", "name": name, "properties": {**defaults, **sent, **made},
            "type": "Microsoft.MachineLearningServices/workspaces/jobs",
            "systemData": {"createdAt": "2026-11-24T12:00:00.000000+00:00", "createdBy": "A User",
                           "createdByType": "User"},
        }  # fmt: skip

    def _asset(self, identifier: str) -> dict[str, Any] | None:
        """Return the asset that an id names."""
        match = ASSET_ID.match(identifier.removeprefix("azureml:/") if "azureml:/" in identifier else identifier)
        if match is None:
            return None
        owners: dict[str, Any] = self.cloud.workspaces if match["kind"] == "workspaces" else self.cloud.registries
        owner = owners.get(match["owner"])
        return owner and owner.assets.get((match["type"], match["name"]), {}).get(match["version"])

    def _run(self, job: Job) -> None:
        """Execute a job to its end."""
        job.starts += 1
        try:
            self._execute(job)
            job.become("Canceled" if job.cancelled.is_set() else "Completed")
        except JobFailed as failed:
            job.error = {"error": {"code": failed.code, "message": str(failed)}}
            job.become("Canceled" if job.cancelled.is_set() else "Failed")
        except Exception as unexpected:
            job.error = {"error": {"code": "SystemError", "message": repr(unexpected)}}
            self.cloud.failures.append("".join(traceback.format_exception(unexpected)))
            job.become("Failed")
        finally:
            job.ended.set()

    def _execute(self, job: Job) -> None:
        sent = job.sent
        compute = job.workspace.computes[sent["computeId"].rpartition("/computes/")[2]]
        folder = self.folder / job.workspace.name / f"{job.name}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        job.become("Preparing")
        self._check_environment(sent["environmentId"])
        code = self._fetch(job, sent["codeId"], folder / "code") if sent.get("codeId") else folder
        values: dict[str, str] = {}
        for key, given in (sent.get("inputs") or {}).items():
            literal = given["jobInputType"] == "literal"
            values[f"inputs.{key}"] = (
                str(given["value"]) if literal else str(self._fetch(job, given["uri"], folder / "inputs" / key))
            )
        outputs = {key: folder / "outputs" / key for key in sent.get("outputs") or {}}
        for key, output in outputs.items():
            output.mkdir(parents=True)
            values[f"outputs.{key}"] = str(output)
        command = PLACEHOLDER.sub(lambda match: shlex.quote(values[match[1]]), sent["command"])
        binaries = start_container(self.image, folder / "environment")
        job.environment = {
            "PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "AZUREML_RUN_ID": job.name,
            "OMP_NUM_THREADS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **self.cloud.network(),
            **self._identity(job, compute, folder),
            **(sent.get("environmentVariables") or {}),
        }
        if job.cancelled.is_set():
            return
        job.become("Running")
        codes = self._processes(job, command, code)
        while not self.gate.wait(0.05) and not job.cancelled.is_set():
            pass
        if job.cancelled.is_set():
            return
        job.become("Finalizing")
        failed = next((each for each in codes if each), 0)
        for key, output in outputs.items():
            described = sent["outputs"][key] or {}
            if not failed or described.get("mode", "ReadWriteMount") == "ReadWriteMount":
                self._upload(job, key, described, output)
        if failed:
            raise JobFailed("UserError", f"Execution failed. User process exited with status code {failed}. "
                            "Please check log file 'user_logs/std_log.txt' for error details.")  # fmt: skip

    def _check_environment(self, identifier: str) -> None:
        """Fail as the building of the image does, for what can be known of it here."""
        properties = (self._asset(identifier) or {})["properties"]
        if not properties.get("image") and not properties.get("build"):
            raise JobFailed("UserError", "the environment has neither an image nor a build context")
        conda = yaml.safe_load(properties.get("condaFile") or "{}") or {}
        for entry in conda.get("dependencies") or []:
            for line in entry.get("pip", []) if isinstance(entry, dict) else []:
                if line.startswith((".", "/", "-e", "file:")) or "file:" in line:
                    raise JobFailed("ImageBuildFailure", f"pip cannot find {line}: it is not where images are built")

    def _identity(self, job: Job, compute: Compute, folder: Path) -> dict[str, str]:
        """Return what lets a job get tokens, by the kind of its compute and the identity it asks for."""
        wanted = (job.sent.get("identity") or {}).get("identityType", "")
        if wanted == "UserIdentity":
            return {"OBO_ENDPOINT": f"{self.cloud.identity.base}/obo"}
        if compute.identity == "managed" and wanted in ("Managed", ""):
            return {"MSI_ENDPOINT": f"{self.cloud.identity.base}/msi/token", "MSI_SECRET": MSI_SECRET}
        if compute.identity == "workload":
            token = folder / "service-account-token"
            token.write_text(FEDERATED_TOKEN)
            return {
                "AZURE_CLIENT_ID": CLIENT_ID, "AZURE_TENANT_ID": TENANT, "AZURE_FEDERATED_TOKEN_FILE": str(token),
                "AZURE_AUTHORITY_HOST": self.cloud.identity.base,
            }  # fmt: skip
        return {}

    def _processes(self, job: Job, command: str, code: Path) -> list[int]:
        """Run the job's processes, and return their exit statuses."""
        distribution = job.sent.get("distribution") or {}
        instances = int((job.sent.get("resources") or {}).get("instanceCount") or 1)
        per_instance = int(distribution.get("processCountPerInstance") or 1)
        world = instances * per_instance if distribution else 1
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        environments = []
        for rank in range(world):
            own = dict(job.environment)
            if distribution:
                own |= {
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world), "RANK": str(rank),
                    "NODE_RANK": str(rank // per_instance), "LOCAL_RANK": str(rank % per_instance),
                    "LOCAL_WORLD_SIZE": str(per_instance),
                }  # fmt: skip
            environments.append(own)
        names = ["std_log.txt"] if world == 1 else [f"std_log_process_{rank:02}.txt" for rank in range(world)]
        job.logs = [f"user_logs/{name}" for name in names]
        storage, account = self.cloud.storage, job.workspace.account
        container = storage.container(account, job.workspace.datastores["workspaceartifactstore"].container)
        blobs = [container.get_blob_client(f"ExperimentRun/dcid.{job.name}/{name}") for name in job.logs]
        limit = (job.sent.get("limits") or {}).get("timeout")
        job.processes = Processes(command, code, environments, blobs, job.cancelled, _seconds(limit))
        codes = job.processes.run()
        if job.processes.timed_out:
            raise JobFailed("UserError", f"the job was stopped: it ran longer than {limit}")
        return codes

    def _fetch(self, job: Job, uri: str, destination: Path) -> Path:
        """Bring what an input names to the machine that runs the job."""
        storage = self.cloud.storage
        try:
            where = DATASTORE_URI.match(uri)
            if where:
                workspace = self.cloud.workspaces[where["workspace"]] if where["workspace"] else job.workspace
                store = workspace.datastores[where["datastore"]]
                url = f"{storage.endpoint(workspace.account)}/{store.container}/{where['path']}"
                return storage.fetch(url, destination)
            if uri.startswith("https://"):
                return storage.fetch(uri, destination)
            asset = self._asset(uri)
            if asset is None:
                raise FileNotFoundError(uri)
            properties = asset["properties"]
            found = properties.get("modelUri") or properties.get("dataUri") or properties.get("codeUri")
            return self._fetch(job, found, destination)
        except (FileNotFoundError, KeyError) as missing:
            raise JobFailed("UserError", f"DataAccessError(NotFound): {missing}") from missing

    def _upload(self, job: Job, key: str, described: dict[str, Any], output: Path) -> None:
        """Put an output where it belongs, and register it."""
        uri = described.get("uri") or f"azureml://datastores/workspaceblobstore/paths/azureml/{job.name}/{key}/"
        where = DATASTORE_URI.match(uri.replace("${{name}}", job.name))
        if where is None:
            raise JobFailed("UserError", f"output {key}: {uri} is no path in a datastore")
        workspace = self.cloud.workspaces[where["workspace"]] if where["workspace"] else job.workspace
        store = workspace.datastores.get(where["datastore"])
        if store is None:
            raise JobFailed("UserError", f"output {key}: there is no datastore {where['datastore']}")
        if key not in self.drop_outputs:
            names = self.cloud.storage.upload(workspace.account, store.container, where["path"], output)
            job.uploaded += [(workspace.account, store.container, name) for name in names]
        asset = f"azureml://locations/loopback/workspaces/{job.workspace.name}/data/azureml_{job.name}_{key}/versions/1"
        job.output_assets[key] = asset
        self.outputs[asset] = workspace.uri(where["datastore"], where["path"])
        job.body["properties"]["outputs"][key] = {**described, "uri": uri, "assetName": None, "assetVersion": None}

    def log_files(self, job: Job) -> dict[str, str]:
        """Return the addresses of a job's logs, as run history gives them."""
        account = job.workspace.account
        container = job.workspace.datastores["workspaceartifactstore"].container
        token = self.cloud.storage.sas(account, container, write=False)
        base = f"{self.cloud.storage.endpoint(account)}/{container}/ExperimentRun/dcid.{job.name}"
        return {name: f"{base}/{name}?{token}" for name in job.logs}


def _seconds(duration: str | None) -> float | None:
    """Return the seconds of an ISO 8601 duration of hours, minutes and seconds."""
    if not duration:
        return None
    match = re.fullmatch(r"P(?:(\d+)D)?T?(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?", duration)
    if match is None:
        return None
    days, hours, minutes, seconds = (float(each or 0) for each in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds
