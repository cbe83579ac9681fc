"""0.3: how a model is stored is told by its path, which can be a resource; before, by keys beside it.

``model_storage_kind`` (``file``, ``folder``, ``azureml``), ``is_file``, ``aml_storage_name`` with ``version``; and a
``name`` that only named files.
"""

from __future__ import annotations

from olivine.config.dialects.document import Document


def translate(document: Document) -> None:
    """Make the path of a model in Azure ML a resource, and remove what the path tells."""
    model = document.root.section("input_model")
    kind = str(model.get("model_storage_kind", "")).lower()
    if kind in ("azureml", "azuremlmodel", "azureml_model") or "aml_storage_name" in model:
        key = "aml_storage_name" if "aml_storage_name" in model else "name"
        name, origin = model.take(key)
        version, _ = model.take("version")
        if name is not None and "model_path" not in model:
            model.put("model_path", f"azureml://models/{name}/versions/{version or 'latest'}", origin)
        model.take("model_storage_kind")
    elif kind in ("", "file", "folder", "localfile", "localfolder", "local_file", "local_folder"):
        model.take("model_storage_kind")
    document.without_effect(model, "is_file", "the path tells whether it is a file")
    document.without_effect(model, "name", "it only named files")
    document.without_effect(model, "version", "only models in Azure ML have one")
