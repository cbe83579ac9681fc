"""Where a job's inputs and results are: folders of datastores, and assets, by reference wherever that is possible."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.errors import PlanError
from olivine.storage.addresses import AzureAddress, UrlAddress, parse
from olivine.storage.workspace import Workspace
from olivine.systems.azureml.in_job import ANSWER
from olivine.systems.azureml.records import Records
from olivine.systems.azureml.references import JobInput

if TYPE_CHECKING:
    from olivine.storage.blobs import BlobFolder

UPLOADS = "olivine/files"
"""Folder in a datastore for what came from a user's machine, by digest: it is uploaded once."""
READ_BY_SERVICE = frozenset({"https", "abfss", "wasbs"})
"""Schemes of URLs that a job can read by itself."""


class Places:
    """Finds what a job reads, and opens folders of datastores.

    Args:
        workspace: the job's; ``None`` while nobody may be asked: then nothing is uploaded either.
        datastore: where uploads and results go.
        cache: the Store's folder.
        told: receives a sentence for each upload.
    """

    def __init__(
        self, workspace: Workspace | None, datastore: str, cache: Path, told: Callable[[str], None] | None = None
    ) -> None:
        self.workspace = workspace
        self.datastore = datastore
        self.cache = cache
        self.records = Records(cache)
        self.told = told or (lambda text: None)

    # What a job reads -----------------------------------------------------------------------------------------------

    def input(self, place: str, data: bool) -> JobInput:
        """Return the input for a place; what is only here is uploaded.

        Raises:
            OlivineError: it is not there, or cannot be uploaded.
        """
        if place.startswith("step:"):
            return self._step(place.removeprefix("step:"))
        if "://" in place:
            return self._address(place, data)
        return self._local(Path(place))

    def _step(self, digest: str) -> JobInput:
        from olivine.store import Store

        left = self.left_by_job(digest)
        if left is not None:
            return JobInput(left)
        found = Store(self.cache).find(digest)
        if found is None:
            raise PlanError(f"the result of the Step {digest} is gone", remedy="run the same command again")
        if found.away:
            return JobInput(found.away)  # of a job in another workspace, or of records that are gone
        return self._local(found.path)

    def left_by_job(self, digest: str) -> str | None:
        """Return the address of a Step's files that a job has left in the workspace, if they are there."""
        record = self.records.of_step(digest)
        if self.workspace is None or record is None or record.workspace != names_of(self.workspace):
            return None
        left = self.folder(f"{record.results}steps/{digest}/").find(ANSWER) is not None
        return record.step_address(digest) + "/" if left else None

    def _local(self, path: Path) -> JobInput:
        kind = "uri_folder" if path.is_dir() else "uri_file"
        if self.workspace is None:
            return JobInput(str(path), kind)
        return JobInput(self.upload(path), kind)

    def upload(self, path: Path) -> str:
        """Put a file or folder into the datastore, unless it is there, and return its address."""
        from olivine.store import Store
        from olivine.store.disk import tree_files

        store = Store(self.cache)
        digest = store.digest_tree(path) if path.is_dir() else store.digest_file(path)
        home = f"azureml://datastores/{self.datastore}/paths/{UPLOADS}/{digest}/"
        folder = self.folder(home)
        if path.is_dir():
            files = {name: path / name for name, _ in sorted(tree_files(path.resolve()))}
        else:
            files = {path.name: path}
        there = {entry.name: entry.facts.size for entry in folder.entries()}
        missing = [name for name, file in files.items() if there.get(name) != os.path.getsize(file)]
        if missing:
            size = sum(os.path.getsize(files[name]) for name in missing)
            self.told(f"uploading {path} ({size / 1e6:.1f} MB) to the datastore {self.datastore}")
        for name in missing:
            folder.upload(files[name], name)
        return home if path.is_dir() else home + path.name

    def _address(self, place: str, data: bool) -> JobInput:
        address = parse(place)
        if isinstance(address, UrlAddress):
            if address.scheme not in READ_BY_SERVICE:
                raise PlanError(
                    f"a job cannot read {address}",
                    why=f"Azure Machine Learning reads {', '.join(sorted(READ_BY_SERVICE))} and azureml",
                    remedy="copy it into a datastore of the workspace",
                )
            return JobInput(address.url, "uri_file" if data else "uri_folder")
        if address.kind == "datastore":
            # A file of rows is named; a model is a folder.
            kind = "uri_file" if data and not place.endswith("/") else "uri_folder"
            return JobInput(str(self._nearest(address)), kind)
        if address.kind == "job":
            return self._output(address, data)
        return self._asset(address)

    def _nearest(self, address: AzureAddress) -> AzureAddress:
        """Return an address without the workspace, if it is the job's own."""
        own = self.workspace.scope if self.workspace is not None else None
        return replace(address, workspace=None) if address.workspace == own else address

    def _asset(self, address: AzureAddress) -> JobInput:
        kinds = {"models": "custom_model", "data": "uri_folder"}
        below = f"/paths/{address.path}" if address.path else ""
        if address.registry is not None:
            path = f"azureml://registries/{address.registry}/{address.kind}/{address.name}/versions/{address.version}"
        else:
            path = f"azureml:{address.name}:{address.version}"
        if self.workspace is None:
            if address.version is None:
                path = f"azureml:{address.name}@latest"
            return JobInput(path + below, kinds[address.kind])
        if address.registry is not None:
            owner = Workspace.connect_registry(self.workspace.settings, address.registry)
        else:
            owner = self.workspace.at(address.workspace)
        found = asset(owner, address)
        kind = str(getattr(found, "type", None) or kinds[address.kind])
        if address.registry is not None:
            path = f"azureml://registries/{address.registry}/{address.kind}/{found.name}/versions/{found.version}"
            return JobInput(path, kind)
        if owner is self.workspace:
            return JobInput(f"azureml:{found.name}:{found.version}", kind)
        # A job reads assets of its own workspace only, but datastores of any.
        return JobInput(long_address(str(found.path), owner), "uri_folder" if kind.endswith("model") else kind)

    def _output(self, address: AzureAddress, data: bool) -> JobInput:
        below = address.path
        home = f"azureml/{address.name}/{address.output}/{below}"
        kind = "uri_file" if data and below and not below.endswith("/") else "uri_folder"
        if self.workspace is not None:
            owner = self.workspace.at(address.workspace)
            with owner.calling(f"looking for the job {address.name}"):
                job = owner.ml.jobs.get(address.name)
            output = (getattr(job, "outputs", None) or {}).get(address.output)
            path = getattr(output, "path", None)
            if path and "${{" not in str(path):
                return JobInput(long_address(str(path).rstrip("/") + "/" + below, owner), kind)
            if owner is not self.workspace:
                return JobInput(long_address(f"azureml://datastores/workspaceblobstore/paths/{home}", owner), kind)
        return JobInput(f"azureml://datastores/workspaceblobstore/paths/{home}", kind)

    def look(self, place: str, *, data: bool) -> str:
        """Look whether an address leads to something, by reading only; return what it is in a few words.

        Raises:
            PlanError: it leads to nothing.
            UnavailableError: it cannot be asked for.
        """
        address = parse(place)
        if isinstance(address, UrlAddress):
            self._address(place, data)
            return "not looked at"
        assert self.workspace is not None
        if address.kind in ("models", "data"):
            found = self._asset(address)
            return found.type.replace("_", " ")
        found = self._output(address, data) if address.kind == "job" else self._address(place, data)
        folder = self.folder(found.path.rpartition("/")[0] + "/" if found.type == "uri_file" else found.path)
        name = found.path.rpartition("/")[2] if found.type == "uri_file" else ""
        pattern = any(mark in name for mark in "*?[")
        entries = [each for each in folder.entries() if pattern or not name or each.name == name]
        if not entries:
            raise PlanError(f"there is nothing at {place}", remedy="check the datastore's name and the path")
        size = sum(each.facts.size or 0 for each in entries)
        return f"{len(entries)} file{'s' if len(entries) > 1 else ''}, {in_words(size)}"

    # Folders --------------------------------------------------------------------------------------------------------

    def folder(self, address: str) -> BlobFolder:
        """Open a folder of a datastore by its address."""
        from olivine.storage.blobs import BlobFolder

        assert self.workspace is not None
        found = parse(address)
        assert isinstance(found, AzureAddress)
        workspace = self.workspace.at(found.workspace)
        return BlobFolder(workspace.datastore(found.name), found.path, again=lambda: workspace.datastore(found.name))


def asset(owner: Workspace, address: AzureAddress) -> Any:
    """Return a model or data asset as the SDK shows it; of no version, the latest.

    Raises:
        PlanError: there is none.
        UnavailableError: it cannot be asked for.
    """
    which = {"version": address.version} if address.version is not None else {"label": "latest"}
    with owner.calling(f"looking for {address.name} (version {address.version or 'latest'})"):
        operations = owner.ml.models if address.kind == "models" else owner.ml.data
        return operations.get(address.name, **which)


def size_of(path: Path) -> str:
    """Return the size of a file or folder in words."""
    from olivine.store.disk import tree_size

    if path.is_dir():
        return in_words(tree_size(path)[0])
    return in_words(os.path.getsize(path)) if path.is_file() else "a pattern"


def in_words(count: int) -> str:
    """Return bytes as people read them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count} bytes"


def names_of(workspace: Workspace) -> tuple[str, str, str]:
    """Return subscription, resource group and name."""
    scope = workspace.scope
    assert scope is not None
    return scope.subscription_id, scope.resource_group, scope.name


def long_address(address: str, owner: Workspace) -> str:
    """Return the address of something in a datastore with its workspace."""
    found = parse(address)
    if isinstance(found, AzureAddress) and found.kind == "datastore" and found.workspace is None:
        return str(replace(found, workspace=owner.scope))
    return address
