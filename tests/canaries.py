"""Secrets that a test puts around a run, and the look at every byte that was written afterwards."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

CANARIES = {
    "HF_TOKEN": "hf_CANARYaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "AZURE_CLIENT_SECRET": "canary~azure~client~secret",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountName=x;AccountKey=canaryKEYcanaryKEYcanary==",
    "WANDB_API_KEY": "canary0wandb0key0000000000000000",
    "MLFLOW_TRACKING_TOKEN": "canary1mlflow1token1111111111111",
    "SAS_URL": "https://x.blob.core.windows.net/c/t.jsonl?sv=2024&sig=canarySIGcanarySIGcanarySIG%3D",
    "PLAIN_NAME": "canary-under-a-plain-name",
}
"""By the variable that holds them; ``PLAIN_NAME`` is a secret only where a configuration refers to it."""
MARKS = ("CANARYaaa", "canary~azure", "canaryKEY", "canary0wandb", "canary1mlflow", "canarySIG", "canary-under")


def assert_no_canary(folders: Iterable[Path], texts: Iterable[str] = (), *, more: Iterable[str] = ()) -> int:
    """Fail if a secret stands in a file below ``folders``, its name, or a member of an archive, or in ``texts``.

    Args:
        more: further secrets.

    Returns:
        The number of files that were read.
    """
    marks = [*MARKS, *more]
    for text in texts:
        assert [mark for mark in marks if mark in text] == [], text[-2000:]
    count = 0
    for folder in folders:
        for file in folder.rglob("*"):
            assert [mark for mark in marks if mark in file.name] == [], file
            if not file.is_file() or file.is_symlink():
                continue
            count += 1
            content = file.read_bytes()
            assert [mark for mark in marks if mark.encode() in content] == [], file
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    for name in archive.namelist():
                        inner = archive.read(name)
                        assert [mark for mark in marks if mark.encode() in inner] == [], f"{name} in {file}"
    return count
