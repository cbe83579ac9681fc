"""The tokenizer of a model folder, as transformers loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from olivine.errors import ModelError, UnavailableError


def load_tokenizer(path: Path) -> Any:
    """Load the tokenizer in ``path``: a checkpoint, an adapter that brings one, or a GenAI folder.

    Code that comes with a tokenizer never runs, also where that of the model may.

    Raises:
        ModelError: there is none, or it cannot be read.
        UnavailableError: transformers is not installed.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise UnavailableError(
            f"tokenising needs transformers: {error}", remedy="`pip install 'olivine[torch]'`"
        ) from None
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"the tokenizer in {path} cannot be loaded",
            why=" ".join(str(error).split())[:300],
            remedy="put the model's tokenizer files there (tokenizer.json, tokenizer_config.json)",
        ) from None
