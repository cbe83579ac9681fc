"""Keys of the engine that became others, or that nothing depends on here."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from olivine.config.dialects.document import Document, Entries, Section

WITHOUT_EFFECT: dict[str, tuple[Any, str]] = {
    "clean_cache": (False, "the cache knows what has changed (`olivine cache gc` empties it)"),
    "clean_evaluation_cache": (False, "the cache knows what has changed (`olivine cache gc` empties it)"),
    "update_shared_cache": (True, "runs share results by having one cache_dir"),
    "enable_shared_cache": (False, "runs share results by having one cache_dir"),
    "cloud_cache_config": (None, "runs share results by having one cache_dir"),
    "account_name": (None, "runs share results by having one cache_dir"),
    "container_name": (None, "runs share results by having one cache_dir"),
    "no_artifacts": (False, "the record of a run is always written"),
    "log_to_file": (False, "the log of a run is always in a file"),
    "ort_log_severity_level": (3, "log_severity_level is for all libraries"),
    "ort_py_log_severity_level": (3, "log_severity_level is for all libraries"),
}
"""Keys that have no effect, with Olive's default, which needs no word."""


def translate(document: Document) -> None:
    """Translate the engine; make one if there is none, for its old defaults."""
    root = document.root
    engine = root.get("engine")
    if engine is None:
        engine = Section(root.origin)
        root.put("engine", engine)
    if not isinstance(engine, Section):
        return
    _cache(document, engine)
    for key, (default, why) in WITHOUT_EFFECT.items():
        if engine.get(key) == default or engine.get(key) is None:
            engine.take(key)
        else:
            document.without_effect(engine, key, why)
    if root.get("verbose"):
        document.without_effect(root, "verbose", "log_severity_level says it")
    root.take("verbose")
    if "azureml_client_config" in engine and root.get("azureml_client") is None:
        value, origin = engine.take("azureml_client_config")
        root.put("azureml_client", value, origin)
    document.without_effect(engine, "azureml_client_config", "azureml_client is given")
    if engine.get("output_name") is not None:
        document.note(engine.at("output_name"), "is for --layout olive-0.6; else names in the output folder are plain")
    engine.fill("output_dir", ".")
    _output_file(document, engine)


def _cache(document: Document, engine: Section) -> None:
    config = engine.get("cache_config")
    if isinstance(config, Section):
        # As in Olive: where there is a cache_config, the keys beside it say nothing.
        for key in config:
            if key in engine:
                document.without_effect(engine, key, "cache_config is given")
        engine.take("cache_config")
        for key in list(config):
            config.move(key, engine)
    elif "cache_config" in engine and config is None:
        engine.take("cache_config")
    folders = engine.get("cache_dir")
    if isinstance(folders, Entries):
        local = [each for each in folders if not str(each).startswith("https://")]
        if len(folders) > 1 or not local:
            document.note(engine.at("cache_dir"), "one folder on this machine is the cache; runs share it by its path")
        if local:
            engine.put("cache_dir", local[0], engine.origins.get("cache_dir"))
        else:
            engine.take("cache_dir")
    elif isinstance(folders, str) and folders.startswith("https://"):
        document.without_effect(engine, "cache_dir", "a cache is a folder on this machine")


def _output_file(document: Document, engine: Section) -> None:
    """From 0.10 on ``output_dir`` may name a file; the folder that it is in is meant."""
    value = engine["output_dir"]
    if isinstance(value, str) and value.lower().endswith(".onnx"):
        path = PurePosixPath(value.replace("\\", "/"))
        document.note(
            engine.at("output_dir"),
            f"is the folder {path.parent}; the last pass names the files in it, not {path.name}",
        )
        engine.put("output_dir", str(path.parent), engine.origins.get("output_dir"))
