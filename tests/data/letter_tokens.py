"""A tokenizer of letters, so that every expectation can be computed by hand."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from olivine.config.schema import DataConfig
from olivine.data.formats import Row

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>"]
PAD, BOS, EOS = 0, 1, 2


def letter_tokenizer(merged: Sequence[str] = (), **special: str | None) -> Any:
    """Return a fast tokenizer with a token for each printable character and for each pair of them in ``merged``."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.decoders import Fuse
    from transformers import PreTrainedTokenizerFast

    names = [*SPECIAL, *string.printable, *merged]
    core = Tokenizer(
        models.BPE(
            vocab={name: index for index, name in enumerate(names)},
            merges=[(m[0], m[1]) for m in merged],
            unk_token="<unk>",
        )
    )
    core.decoder = Fuse()
    core.pre_tokenizer = pre_tokenizers.Split("\x00", "isolated")
    given = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"} | special
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        additional_special_tokens=SPECIAL[4:],
        **{name: token for name, token in given.items() if token is not None},
    )


def ids(text: str) -> list[int]:
    """Return the ids that the letter tokenizer gives ``text``."""
    return [len(SPECIAL) + string.printable.index(letter) for letter in text]


def rows(*texts: str) -> list[Row]:
    """Return rows with these texts in the column ``text``."""
    return [Row({"text": text}, "rows.jsonl", line) for line, text in enumerate(texts, 1)]


def config(**values: Any) -> DataConfig:
    """Return a data config; plain text without special tokens or joiner unless said otherwise."""
    plain = {"name": "train", "data_files": "rows.jsonl", "add_special_tokens": False, "joiner": None}
    return DataConfig.model_validate(plain | values)
