"""A path that is an object (``{"type": "azureml_datastore", ...}``) is one text in the canonical form.

Files and folders become their paths; what lies in Azure Machine Learning becomes its ``azureml://`` address, with the
workspace in it if the object names one.
"""

from __future__ import annotations

from typing import Any

from olivine.config.dialects.document import Document, Entries, Section

PLAIN = {
    "file": "path",
    "folder": "path",
    "local_file": "path",
    "local_folder": "path",
    "localfile": "path",
    "localfolder": "path",
    "string_name": "name",
    "stringname": "name",
}
"""Types whose text stands below one key."""

AZURE = frozenset(
    {"azureml_model", "azureml_registry_model", "azureml_datastore", "azureml_job_output", "azuremlmodel",
     "azuremlregistrymodel", "azuremldatastore", "azuremljoboutput"}
)  # fmt: skip
KEYS = frozenset(
    {"type", "path", "name", "azureml_client", "version", "registry_name", "datastore_name", "relative_path",
     "datastore_url", "job_name", "output_name", "max_operation_retries", "operation_retry_interval"}
)  # fmt: skip


def translate(document: Document) -> None:
    """Replace every such object, wherever it stands."""
    for key in ("input_model", "data_configs", "passes", "evaluators"):
        _walk(document, document.root.get(key), 0)


def _walk(document: Document, value: Any, depth: int) -> None:
    if isinstance(value, Section):
        for key, item in list(value.items()):
            if _is_resource(item):
                value.put(key, _text(document, item), value.origins.get(key))
            else:
                _walk(document, item, depth + 1)
    elif isinstance(value, Entries):
        for index, item in enumerate(value):
            if _is_resource(item):
                value[index] = _text(document, item)
            else:
                _walk(document, item, depth + 1)


def _is_resource(value: Any) -> bool:
    if not isinstance(value, Section):
        return False
    kind = str(value.get("type", "")).lower()
    return (kind in PLAIN and set(value) <= {"type", "path", "name", "config"}) or kind in AZURE


def _text(document: Document, value: Section) -> Any:
    from olivine.config.dialects.nested_objects import flatten

    flatten(document, value, "config")
    kind = str(value["type"]).lower()
    if kind in PLAIN:
        return value.get(PLAIN[kind])
    for key in value:
        if key not in KEYS:
            document.fault(value.at(key), f"`{key}` is not a key of {value['type']}")
    return _address(document, value, kind.replace("_", ""))


def _address(document: Document, value: Section, kind: str) -> Any:
    for key in ("max_operation_retries", "operation_retry_interval"):
        document.without_effect(value, key, "azureml_client says it for all")
    version = value.get("version")
    name = str(value.get("name"))
    if "/" in name and kind in ("azuremlmodel", "azuremlregistrymodel"):
        # Written so in configurations that went around; the service has no such names, and the SDK refuses them.
        last = name.rpartition("/")[2]
        document.note(
            value.at("name"), f"assets of Azure Machine Learning have no slash in their names: {last} is meant"
        )
        name = last
    model = f"models/{name}/versions/{version}" if version is not None else f"models/{name}"
    if kind == "azuremlregistrymodel":
        document.without_effect(value, "azureml_client", "a registry is reached without a workspace")
        return f"azureml://registries/{value.get('registry_name')}/{model}"
    workspace = _workspace(document, value)
    if kind == "azuremlmodel":
        return f"azureml://{workspace}{model}"
    if kind == "azuremldatastore":
        if value.get("datastore_url") is not None:
            return value["datastore_url"]
        path = str(value.get("relative_path", "")).lstrip("/")
        return f"azureml://{workspace}datastores/{value.get('datastore_name')}/paths/{path}"
    path = str(value.get("relative_path", "")).lstrip("/")
    return f"azureml://{workspace}jobs/{value.get('job_name')}/outputs/{value.get('output_name')}/paths/{path}"


def _workspace(document: Document, value: Section) -> str:
    """Return the workspace of an object that names one, as the beginning of an address; else nothing."""
    path = value.at("azureml_client")
    client, origin = value.take("azureml_client")
    if not isinstance(client, Section):
        return ""
    names = [client.get(key) for key in ("subscription_id", "resource_group", "workspace_name")]
    if all(isinstance(each, str) for each in names):
        for key in client:
            if key not in ("subscription_id", "resource_group", "workspace_name"):
                document.note(client.at(key), "has no effect: azureml_client at the top level says it")
        return f"subscriptions/{names[0]}/resourcegroups/{names[1]}/workspaces/{names[2]}/"
    if "azureml_client" not in document.root:
        document.root.put("azureml_client", client, origin)
    elif document.root["azureml_client"] != client:
        document.fault(path, "names a workspace by a file", "an address can hold its three names only", "give those")
    return ""
