"""Which strings in a workflow are paths, and what they are relative to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from olivine.config.placeholders import is_placeholder
from olivine.config.references import in_vault
from olivine.config.schema import AzureMLClient, DataConfig, InputModel, System, Workflow

FILE_FORMATS = frozenset({"json", "jsonl", "csv", "parquet", "text"})
_SHORT_ID = re.compile(r"^[A-Za-z0-9][\w.-]*$")
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def make_absolute(workflow: Workflow, base: Path, *, olive: bool) -> Workflow:
    """Return the workflow with absolute paths.

    Relative paths are meant from the configuration's folder. In a configuration written for Olive, inputs that are not
    there are looked for in the working directory too, and the cache and the output lie in the working directory.
    """
    here = Path.cwd()
    engine = workflow.engine
    out = here if olive else base

    def input_path(text: str) -> str:
        if is_placeholder(text) or "://" in text or in_vault(text):
            return text
        path = _expanded(text)
        if not olive or _exists(base / path) or not _exists(here / path):
            return str(_normal(base / path))
        return str(_normal(here / path))

    model = workflow.input_model
    model_path = model.model_path
    if not _is_model_id(model, [base, here] if olive else [base]):
        model_path = input_path(model_path)
    return workflow.model_copy(
        update={
            "input_model": model.model_copy(
                update={
                    "model_path": model_path,
                    "adapter_path": input_path(model.adapter_path) if model.adapter_path is not None else None,
                }
            ),
            "azureml_client": _client_absolute(workflow.azureml_client, input_path),
            "systems": {name: _system_absolute(system, input_path) for name, system in workflow.systems.items()},
            "data_configs": [_data_absolute(config, input_path, [base, here]) for config in workflow.data_configs],
            "engine": engine.model_copy(
                update={
                    "cache_dir": str(_normal(out / _expanded(engine.cache_dir))),
                    "output_dir": str(_normal(out / _expanded(engine.output_dir))),
                    "shared_cache": engine.shared_cache
                    and engine.shared_cache.model_copy(update={"url": input_path(engine.shared_cache.url)}),
                }
            ),
        }
    )


def is_hub_id(text: str, folders: list[Path]) -> bool:
    """Return whether a model's or data set's name is a hub id: of the form ``org/name``, and no folder of that name."""
    return bool(_HUB_ID.match(text)) and not any(os.path.exists(folder / text) for folder in folders)


def _is_model_id(model: InputModel, folders: list[Path]) -> bool:
    """Return whether a model is named by its id on the hub; the oldest there have no organisation (``gpt2``)."""
    name = model.model_path
    if is_hub_id(name, folders):
        return True
    return (
        model.type == "HfModel"
        and bool(_SHORT_ID.match(name))
        and not any(os.path.exists(folder / name) for folder in folders)
    )


def _system_absolute(system: System, input_path: Callable[[str], str]) -> System:
    update: dict[str, object] = {}
    docker = system.aml_docker_config
    if docker is not None:
        keys = [key for key in ("conda_file_path", "build_context_path") if isinstance(docker.get(key), str)]
        update["aml_docker_config"] = docker | {key: input_path(docker[key]) for key in keys}
    if system.azureml_client_config is not None:
        update["azureml_client_config"] = _client_absolute(system.azureml_client_config, input_path)
    return system.model_copy(update=update) if update else system


def _client_absolute(client: AzureMLClient | None, input_path: Callable[[str], str]) -> AzureMLClient | None:
    if client is None or client.aml_config_path is None:
        return client
    return client.model_copy(update={"aml_config_path": input_path(client.aml_config_path)})


def _data_absolute(config: DataConfig, input_path, folders: list[Path]) -> DataConfig:  # type: ignore[no-untyped-def]
    update: dict[str, object] = {}
    if isinstance(config.data_files, str):
        update["data_files"] = _file(config.data_files, input_path)
    elif config.data_files is not None:
        update["data_files"] = [_file(each, input_path) for each in config.data_files]
    name = config.data_name
    if name is not None and name not in FILE_FORMATS and not is_hub_id(name, folders):
        local = input_path(name)
        if os.path.exists(local) or "/" in name or name.startswith("."):
            update["data_name"] = local
    return config.model_copy(update=update) if update else config


def _file(text: str, input_path) -> str:  # type: ignore[no-untyped-def]
    return text if "://" in text else str(input_path(text))


def _exists(path: Path) -> bool:
    """Return whether a path is there, or the folder that a glob searches."""
    fixed = re.split(r"[*?\[]", str(path))[0]
    # Not path.exists(): that raises if a name is longer than the file system takes.
    return os.path.exists(path) or (fixed != str(path) and os.path.exists(Path(fixed).parent))


def _expanded(text: str) -> Path:
    return Path(os.path.expanduser(text))


def _normal(path: Path) -> Path:
    """Return the path without ``.`` and ``..``, symbolic links left as they are."""
    return Path(os.path.normpath(path))
