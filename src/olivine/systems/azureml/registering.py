"""The final model as an asset of a workspace: a model (AzureMLModels) or a data asset (AzureMLData).

A model that a job has made lies in the workspace already: the asset refers to it, and nothing is uploaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olivine.config.schema import AzureMLClient, Packaging
from olivine.errors import PlanError
from olivine.storage.workspace import Workspace
from olivine.systems.azureml.jobs import DATASTORE
from olivine.systems.azureml.places import Places

KINDS = frozenset({"AzureMLModels", "AzureMLData"})
_TAG = "olivine"
"""Tag of an asset that says which artifact it is."""


def register(
    packaging: Packaging,
    client: AzureMLClient,
    cache: Path,
    digest: str,
    model: Path,
    facts: Mapping[str, str],
) -> tuple[str, bool]:
    """Make the asset, unless this very model is one of that name already.

    Args:
        packaging: its kind, name, version and description.
        client: how the workspace is reached.
        cache: the Store's folder.
        digest: of the artifact.
        model: its folder.
        facts: tags of the asset.

    Returns:
        ``NAME:VERSION``, and whether it was made now.

    Raises:
        PlanError: that version is something else.
        UnavailableError: the workspace cannot be asked, or does not take it.
    """
    workspace = Workspace.connect(client)
    operations = workspace.ml.models if packaging.type == "AzureMLModels" else workspace.ml.data
    wanted = str(packaging.version) if packaging.version is not None else None
    with workspace.calling(f"looking for versions of {packaging.name}"):
        known = _versions(operations, packaging.name)
    for version, tags in known.items():
        if tags.get(_TAG) == digest and wanted in (None, version):
            return f"{packaging.name}:{version}", False
    if wanted in known:
        raise PlanError(
            f"version {wanted} of {packaging.name} is there already, and is another model",
            remedy="give another version in engine.packaging_config, or none: then it is the next",
        )
    version = wanted or str(max((int(each) for each in known if each.isdigit()), default=0) + 1)
    path = _address(workspace, cache, digest, model)
    with workspace.calling(f"registering {packaging.name}:{version}"):
        from azure.ai.ml.entities import Data, Model

        made: Any = Model if packaging.type == "AzureMLModels" else Data
        kind = "custom_model" if packaging.type == "AzureMLModels" else "uri_folder"
        operations.create_or_update(
            made(
                name=packaging.name,
                version=version,
                description=packaging.description,
                path=path,
                type=kind,
                tags={**facts, _TAG: digest},
            )
        )
    return f"{packaging.name}:{version}", True


def _versions(operations: Any, name: str) -> dict[str, dict[str, str]]:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return {str(each.version): dict(each.tags or {}) for each in operations.list(name=name)}
    except ResourceNotFoundError:
        return {}


def _address(workspace: Workspace, cache: Path, digest: str, model: Path) -> str:
    """Return where the model is in the workspace, having uploaded it if it is not there."""
    places = Places(workspace, DATASTORE, cache)
    return places.left_by_job(digest) or places.upload(model)
