"""Addresses of what lies elsewhere: ``azureml://...`` and URLs. Reading one asks nobody anything."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from olivine.errors import PlanError
from olivine.redaction import remember

AZUREML = "azureml://"
AZURE_STORAGE = ("abfs", "abfss", "az", "wasb", "wasbs")
"""Schemes of containers of Azure Storage."""
SCHEMES = ("http", "https", *AZURE_STORAGE, "s3", "s3a", "gs", "gcs", "hf", "memory")
"""Schemes that are taken. What else fsspec can open is either on this machine or not safe to take from a file."""

_WORKSPACE = re.compile(
    r"subscriptions/(?P<subscription>[^/]+)/resourcegroups/(?P<group>[^/]+)/"
    r"(?:providers/Microsoft\.MachineLearningServices/)?workspaces/(?P<workspace>[^/]+)/",
    re.IGNORECASE,
)
_REGISTRY = re.compile(r"registries/(?P<registry>[^/]+)/", re.IGNORECASE)
_DATASTORE = re.compile(r"datastores/(?P<name>[^/]+)/paths/(?P<path>.*)", re.IGNORECASE)
_ASSET = re.compile(
    r"(?P<kind>models|data)/(?P<name>.+?)(?:/(?:versions|labels)/(?P<version>[^/]+))?(?:/paths/(?P<path>.*))?/?",
    re.IGNORECASE,
)
_OUTPUT = re.compile(r"jobs/(?P<name>[^/]+)/outputs/(?P<output>[^/]+)(?:/paths/(?P<path>.*))?/?", re.IGNORECASE)

_SIGNED_BY = {
    "sig": re.compile(r"s(v|s|e|p|r|rt|t|pr|ip|ig|dd)|sk(oid|tid|t|e|s|v)|saoid|suoid|scid", re.IGNORECASE),
    "x-amz-signature": re.compile(r"x-amz-.*", re.IGNORECASE),
    "x-goog-signature": re.compile(r"x-goog-.*", re.IGNORECASE),
    "signature": re.compile(r"signature|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid", re.IGNORECASE),
}
"""Of each way to sign a URL the parameter that holds the signature, and all that belong to it: they say who may read
until when, and nothing of what is read. Without a signature the same names may mean anything."""
_SECRET = re.compile(r"(.*[_-])?(token|secret|password|passwd|api_?key|access_?key)", re.IGNORECASE)
"""Parameters that hold a secret; they may also say what is read."""


@dataclass(frozen=True)
class WorkspaceName:
    """The three names of a workspace."""

    subscription_id: str
    resource_group: str
    name: str


@dataclass(frozen=True)
class AzureAddress:
    """Something in Azure Machine Learning.

    Attributes:
        kind: ``datastore``, ``models``, ``data`` or ``job``.
        name: of the datastore, of the asset, or of the job.
        path: below it; may be empty for all of it, and a pattern.
        version: of an asset; ``None`` is the latest.
        output: of a job.
        workspace: where it says one; else the workspace of the configuration.
        registry: the registry of an asset that is in one.
    """

    kind: Literal["datastore", "models", "data", "job"]
    name: str
    path: str = ""
    version: str | None = None
    output: str | None = None
    workspace: WorkspaceName | None = None
    registry: str | None = None

    def __str__(self) -> str:
        if self.registry is not None:
            where = f"registries/{self.registry}/"
        elif self.workspace is not None:
            names = self.workspace
            where = f"subscriptions/{names.subscription_id}/resourcegroups/{names.resource_group}/"
            where += f"workspaces/{names.name}/"
        else:
            where = ""
        if self.kind == "datastore":
            return f"{AZUREML}{where}datastores/{self.name}/paths/{self.path}"
        below = f"/paths/{self.path}" if self.path else ""
        if self.kind == "job":
            return f"{AZUREML}{where}jobs/{self.name}/outputs/{self.output}{below}"
        version = f"/versions/{self.version}" if self.version is not None else "/labels/latest"
        return f"{AZUREML}{where}{self.kind}/{self.name}{version}{below}"

    @property
    def fixed(self) -> bool:
        """Whether it will always be the same: a version of an asset, or what a job has left."""
        return self.kind == "job" or (self.kind in ("models", "data") and self.version is not None)

    @property
    def filename(self) -> str:
        """The last part of its path."""
        return self.path.rstrip("/").rpartition("/")[2] or self.name


@dataclass(frozen=True)
class UrlAddress:
    """A file, folder or pattern that a URL names.

    Attributes:
        url: as it is opened; may hold a signature.
        scheme: in lower case.
    """

    url: str
    scheme: str

    def __str__(self) -> str:
        """The URL without what signs it: this may be shown, and names what is read."""
        return unsigned(self.url)

    fixed = False

    @property
    def filename(self) -> str:
        """The last part of its path."""
        parts = urlsplit(self.url)
        return unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.netloc


Address = AzureAddress | UrlAddress


def is_address(text: str | None) -> bool:
    """Return whether a text of the configuration names something elsewhere, and not a path or a hub id."""
    return text is not None and "://" in text and "${" not in text


def parse(text: str) -> Address:
    """Return what an address means. A signature in it is a secret from now on.

    Raises:
        PlanError: it is none, or of a kind that is not taken.
    """
    if text.lower().startswith(AZUREML):
        return _azure(text)
    scheme = text.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise PlanError(
            f"addresses that begin with {scheme}:// are not taken",
            remedy=f"known are azureml, {', '.join(each for each in SCHEMES if each != 'memory')}; or give a path",
        )
    parts = urlsplit(text)
    for name, value in parse_qsl(parts.query):
        if name.lower() in _SIGNED_BY or _SECRET.fullmatch(name):
            remember(value)
            remember(quote(value, safe=""))
    if parts.password:
        remember(unquote(parts.password))
    if not parts.netloc:
        raise PlanError(f"{unsigned(text)} names no host or container")
    return UrlAddress(text, scheme)


def called(text: str) -> str:
    """Return a short name for what an address leads to: that of the asset, or the last part of the path."""
    try:
        address = parse(text)
    except PlanError:
        return re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    if isinstance(address, AzureAddress) and address.kind in ("models", "data") and not address.path:
        return address.name.rpartition("/")[2]
    return address.filename


def unsigned(url: str) -> str:
    """Return a URL without credentials, and without the parameters that sign it.

    Two URLs with different secrets, which may lead to different things, stay different.
    """
    parts = urlsplit(url)
    # `container@account` of Azure is no credential; `user:password@host` is one.
    host = parts.netloc.rpartition("@")[2] if parts.password is not None else parts.netloc
    given = [each.partition("=") for each in parts.query.split("&") if each]
    signing = [_SIGNED_BY[name.lower()] for name, _, _ in given if name.lower() in _SIGNED_BY]
    kept = []
    for name, equals, value in given:
        if any(pattern.fullmatch(name) for pattern in signing):
            continue
        hidden = hashlib.sha256(value.encode()).hexdigest()[:8] if _SECRET.fullmatch(name) else value
        kept.append(f"{name}{equals}{hidden}")
    return urlunsplit((parts.scheme, host, parts.path, "&".join(kept), ""))


def _azure(text: str) -> AzureAddress:
    rest = text[len(AZUREML) :]
    workspace = registry = None
    if (match := _WORKSPACE.match(rest)) is not None:
        workspace = WorkspaceName(match["subscription"], match["group"], match["workspace"])
        rest = rest[match.end() :]
    elif (match := _REGISTRY.match(rest)) is not None:
        registry = match["registry"]
        rest = rest[match.end() :]
    if registry is None and (match := _DATASTORE.fullmatch(rest)) is not None:
        return AzureAddress("datastore", match["name"], match["path"].lstrip("/"), workspace=workspace)
    if registry is None and (match := _OUTPUT.fullmatch(rest)) is not None:
        return AzureAddress("job", match["name"], match["path"] or "", output=match["output"], workspace=workspace)
    if (match := _ASSET.fullmatch(rest)) is not None:
        kind: Literal["models", "data"] = "models" if match["kind"].lower() == "models" else "data"
        version = None if match["version"] in (None, "latest", "None") else match["version"]
        return AzureAddress(kind, match["name"], match["path"] or "", version, None, workspace, registry)
    raise PlanError(
        f"{text} is no address of Azure Machine Learning that is known",
        remedy="known are azureml://datastores/NAME/paths/PATH, models/NAME/versions/N, jobs/NAME/outputs/NAME, with "
        "subscriptions/.../workspaces/NAME/ before it for another workspace, and azureml://registries/NAME/models/...",
    )
