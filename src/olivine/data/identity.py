"""What of a data config decides the sequences: two that say the same in other words have one cache key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from olivine.config.schema import DataConfig
from olivine.data.sources import find_source


def identity(config: DataConfig, digest_file: Callable[[Path], str], digest_tree: Callable[[Path], str]) -> Any:
    """Return a JSON value that changes whenever the content of the data, or what is made of it, may change.

    Left out are the name, where the files are, and keys without effect: a format that the suffix tells anyway, the
    hub's keys beside files, ``text_cols`` beside a template. A hub data set is identified by its name and revision.

    Args:
        config: the data config.
        digest_file: gives the digest of a file's content.
        digest_tree: gives the digest of a folder.

    Raises:
        DataError: something that it names is not there.
    """
    how = config.model_dump(mode="json", exclude={"name", "data_files"})
    source = find_source(config)
    content: Any = None
    if source.kind == "files":
        content = [[form, digest_file(file)] for file, form in source.files]
        for key in ("data_name", "subset", "data_dir", "revision"):
            how.pop(key)
    elif source.kind == "hub":
        content = config.data_files
    elif config.data_name is not None and Path(config.data_name).expanduser().is_dir():
        content = digest_tree(Path(config.data_name).expanduser())
        how.pop("data_name")
    if config.chat_template or config.text_template is not None or config.dataset_type == "pair":
        how.pop("text_cols")
    return {"content": content, "config": how}
