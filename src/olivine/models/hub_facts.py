"""What the hub says of a model that is not on this machine: its configuration and the headers of its weight files.

A few kilobytes are asked for, and no more is read than that, whatever a server sends. (A safetensors file's header is
at its beginning: https://huggingface.co/docs/safetensors/metadata_parsing.)
"""

from __future__ import annotations

import contextlib
import importlib
import json
import struct
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olivine.errors import Location, ModelError
from olivine.models import hub_token
from olivine.models.checkpoint import CONFIG, HEADER_LIMIT, INDEX, SINGLE, Checkpoint, TensorInfo, tensors_of
from olivine.models.config_facts import check_config
from olivine.passes.base import Format

PATIENCE_S = 4.0
"""Seconds that one answer may take."""
IN_ALL_S = 15.0
"""Seconds that all of them may take."""
FIRST = 200_000
"""Bytes that are asked for first: nearly every header is shorter."""
SMALL_FILE = 20_000_000
"""Bytes of a configuration or an index; a larger one is none."""
MOST_FILES = 200


class Unknown(Exception):
    """The hub does not say; the text is why."""


@dataclass(frozen=True)
class HubFacts:
    """What the hub says of a model.

    Attributes:
        config: its ``config.json``.
        tensors: its weights by name.
        commit: what the revision is now; empty if the server does not say.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    commit: str

    @property
    def modules(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the 2-D weights by module name."""
        return Checkpoint(Path(), Format.HF, self.config, self.tensors).modules

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.elements for tensor in self.tensors.values())

    @property
    def bytes(self) -> int:
        """Bytes of the weights."""
        return sum(tensor.bytes for tensor in self.tensors.values())


def ask_hub(model_id: str, revision: str) -> HubFacts:
    """Return what the hub says of a model.

    Raises:
        Unknown: it cannot be reached, does not give the model out, has no safetensors of it, or takes too long.
    """
    try:
        from huggingface_hub import errors
    except ImportError:
        raise Unknown("huggingface_hub is not installed") from None
    unreachable = http_error()
    try:
        return _Asking(model_id, revision).facts()
    except errors.GatedRepoError:
        raise Unknown("the hub gives it only to those who accepted its licence") from None
    except errors.RepositoryNotFoundError:
        raise Unknown("the hub has no such model, or does not show it to you") from None
    except errors.RevisionNotFoundError:
        raise Unknown(f"the hub has no revision {revision!r} of it") from None
    except (errors.EntryNotFoundError, errors.HfHubHTTPError, unreachable, OSError) as error:
        said = " ".join(str(error).split())[:120]
        raise Unknown(f"the hub did not answer ({said or type(error).__name__})") from None
    except (ValueError, RecursionError, ModelError):
        raise Unknown("what the hub sent is no model") from None


def http_error() -> type[Exception]:
    """Return what the library that huggingface_hub asks with raises: httpx, which its releases of 2026 call httpx2."""
    for name in ("httpx2", "httpx"):
        with contextlib.suppress(ImportError):
            found: type[Exception] = importlib.import_module(name).HTTPError
            return found
    raise Unknown("huggingface_hub is not installed as a whole")


class _Asking:
    """Asks for parts of a repository's files, with one deadline for all."""

    def __init__(self, model_id: str, revision: str) -> None:
        self.model_id, self.revision = model_id, revision
        self.until = time.monotonic() + IN_ALL_S
        self.commit = ""

    def facts(self) -> HubFacts:
        """Ask for the configuration, then for the header of each weight file."""
        config = json.loads(self.get(CONFIG, SMALL_FILE) or b"")
        index = self.get(INDEX, SMALL_FILE, absent=True)
        names = sorted(set(json.loads(index)["weight_map"].values())) if index else [SINGLE]
        if not isinstance(config, dict) or len(names) > MOST_FILES:
            raise ValueError
        check_config(config, Path(CONFIG))
        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(self.header, names))
        tensors = {name: tensor for part in parts for name, tensor in part.items()}
        return HubFacts(config, tensors, self.commit)

    def header(self, name: str) -> dict[str, TensorInfo]:
        """Return the tensors of one weight file."""
        head = self.get(name, FIRST, absent=name == SINGLE)
        if head is None:
            raise Unknown("the hub has no safetensors of it")
        (length,) = struct.unpack("<Q", head[:8])
        if not 2 <= length <= HEADER_LIMIT:
            raise ValueError
        text = head[8 : 8 + length]
        if len(text) < length:
            text += self.get(name, length - len(text), start=8 + len(text)) or b""
        return tensors_of(json.loads(text), length, name, Location(name))[0]

    def get(self, name: str, size: int, *, start: int = 0, absent: bool = False) -> bytes | None:
        """Return at most ``size`` bytes of a file; ``None`` if there is none and it may be ``absent``."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        url = hf_hub_url(self.model_id, name, revision=self.revision)
        headers = build_hf_headers(token=hub_token.token()) | {"range": f"bytes={start}-{start + size - 1}"}
        left = self.until - time.monotonic()
        if left <= 0:
            raise Unknown("the hub takes too long")
        request = get_session().stream(
            "GET", url, headers=headers, timeout=min(PATIENCE_S, left), follow_redirects=True
        )
        with request as response:
            if response.status_code == 404 and absent:
                return None
            hf_raise_for_status(response)
            self.commit = self.commit or _commit_of(response)
            skip = start if response.status_code == 200 else 0  # a server that knows no ranges sends all of it
            found = bytearray()
            for chunk in response.iter_bytes():
                found += chunk
                if time.monotonic() > self.until:
                    raise Unknown("the hub takes too long")
                if len(found) >= skip + size:
                    break
            return bytes(found[skip : skip + size])


def _commit_of(response: Any) -> str:
    for each in (*response.history, response):
        commit = each.headers.get("x-repo-commit")
        if commit:
            return str(commit)
    return ""
