"""A text model that can be asked: the one face of GenAI folders, plain ONNX graphs and Hugging Face checkpoints.

Metrics, ``olivine generate`` and ``olivine chat`` know only :class:`TextModel`, so that every format is measured and
used with the same prompts, token for token.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.errors import ModelError
from olivine.models.checkpoint import detect_format
from olivine.passes.base import Accelerator, Format

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Message = Mapping[str, str]
"""One turn of a conversation: ``{"role": "user", "content": "..."}``."""

CHUNK = 256
"""Tokens whose logits are held at once: 256 tokens of a vocabulary of 128,000 are 125 MiB."""

TURN_ENDS = frozenset({"<|end|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "</s>"})
"""Tokens that close a turn in the chat templates of common model families."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the most likely token (greedy); otherwise logits are divided by it.
        top_k: only the ``top_k`` most likely tokens are considered; 0: all.
        top_p: only the most likely tokens that together reach this probability are considered.
        seed: makes sampling repeatable.
    """

    temperature: float = 0.0
    top_k: int = 50
    top_p: float = 1.0
    seed: int | None = None


GREEDY = Sampling()


class TextModel(ABC):
    """A loaded model with its tokenizer. Not thread-safe.

    Attributes:
        path: its folder.
        context_length: most tokens it can hold, prompt and answer together.
        eos_ids: tokens that end an answer.
        bos_id: the token that texts begin with in training, ``None`` if the tokenizer has none.
    """

    path: Path
    context_length: int
    eos_ids: frozenset[int]
    bos_id: int | None

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``, special tokens in it recognised, none added."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids`` without special tokens."""

    @abstractmethod
    def pieces(self, ids: Iterator[int]) -> Iterator[str]:
        """Yield the text of ``ids`` as they come, whole characters only."""

    @abstractmethod
    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling = GREEDY, *, ignore_eos: bool = False
    ) -> Iterator[int]:
        """Yield up to ``max_new_tokens`` tokens that follow ``prompt``; the one that ends the answer is not yielded.

        The first ``next`` processes the prompt.

        Raises:
            ModelError: prompt and answer do not fit into ``context_length``.
        """

    @abstractmethod
    def generate_batch(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Return the greedy answers to ``prompts``, all of which have the same length, without their last EOS."""

    @abstractmethod
    def logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits after each of ``ids``: ``(tokens, vocabulary)``, at most :data:`CHUNK` tokens a time."""

    @abstractmethod
    def _render(self, messages: Sequence[Message]) -> str:
        """Return the conversation in the model's chat template, ready for the assistant's turn."""

    def encode_prompt(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of a prompt as in training: BOS first if the tokenizer has one, and never EOS."""
        ids = self.encode(text)
        if add_special_tokens and self.bos_id is not None and ids[:1] != [self.bos_id]:
            return [self.bos_id, *ids]
        return ids

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of a conversation in the model's chat template, ready for the assistant's turn.

        Special tokens that someone writes into a message stay plain text: such a word is cut inside, and the parts are
        encoded one by one, so that nobody can end their own turn or open the system's.

        Raises:
            ModelError: the model has no chat template.
        """
        if not has_chat_template(self.path):
            raise ModelError(
                f"the model in {self.path} has no chat template",
                why="it was not trained on conversations, or its chat_template.jinja was lost",
                remedy="use `olivine generate` with the prompt it was trained on, or add its chat_template.jinja",
            )
        cut = _unused_character("".join(message["content"] for message in messages))
        special = special_tokens(self.path)
        guarded = [dict(message, content=_cut_inside(message["content"], special, cut)) for message in messages]
        return [token for part in self._render(guarded).split(cut) for token in self.encode(part)]

    def end_of_turn_ids(self) -> frozenset[int]:
        """Return the tokens that end a turn: EOS, and what chat templates close a turn with, if the tokenizer has it.

        A model's own list of EOS tokens often lacks the latter when it was made by hand or fine-tuned.
        """
        known = [token for token in special_tokens(self.path) if token in TURN_ENDS]
        ids = [self.encode(token) for token in known]
        return self.eos_ids | {each[0] for each in ids if len(each) == 1}

    def check_fits(self, prompt_tokens: int, new_tokens: int) -> None:
        """Raise a ModelError unless prompt and answer fit into the context."""
        if prompt_tokens == 0:
            raise ModelError("the prompt has no tokens", remedy="give a prompt that is not empty")
        if prompt_tokens + new_tokens > self.context_length:
            raise ModelError(
                f"a prompt of {prompt_tokens} tokens and {new_tokens} new ones do not fit into the model's context of "
                f"{self.context_length}",
                remedy="shorten the prompt, or ask for fewer new tokens",
            )


def open_text_model(
    path: Path, target: Accelerator | None = None, *, format: Format | None = None, trust_remote_code: bool = False
) -> TextModel:
    """Load the model in ``path``.

    Args:
        target: where it runs; the CPU if ``None``.
        format: what it is, if known.
        trust_remote_code: whether code that comes with the model may run.

    Raises:
        ModelError: it is no model that can be asked, or its files are damaged.
        UnavailableError: ``target`` is not on this machine, or a package is missing.
    """
    target = target or Accelerator()
    format = format or detect_format(path)
    if format is Format.GENAI:
        from olivine.models.genai import GenaiModel

        return GenaiModel(path, target)
    if format in (Format.HF, Format.HF_QUANTIZED):
        from olivine.models.huggingface import HfModel

        return HfModel(path, target, trust_remote_code=trust_remote_code)
    if format is Format.ONNX:
        from olivine.models.onnx_text import OnnxTextModel

        return OnnxTextModel(path, target)
    remedy = (
        "merge the adapter into its base first (MergeAdapterWeights)"
        if format is Format.PEFT
        else "give a checkpoint, an ONNX Runtime GenAI folder or a graph with its tokenizer"
    )
    raise ModelError(f"a model of format {format} cannot generate text on its own: {path}", remedy=remedy)


def bos_token(path: Path) -> str | None:
    """Return the BOS token that the tokenizer in ``path`` declares, ``None`` if it has none.

    Its id in ``genai_config.json`` or ``config.json`` does not tell: those carry one even for tokenizers without.
    """
    token = _tokenizer_config(path).get("bos_token")
    if token is None and (path / "special_tokens_map.json").is_file():
        token = json.loads((path / "special_tokens_map.json").read_text(encoding="utf-8")).get("bos_token")
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def special_tokens(path: Path) -> tuple[str, ...]:
    """Return the special tokens that the tokenizer in ``path`` recognises in text, longest first."""
    found = set()
    if (path / "tokenizer.json").is_file():
        added = json.loads((path / "tokenizer.json").read_text(encoding="utf-8")).get("added_tokens", [])
        found |= {token["content"] for token in added if token.get("special")}
    decoder = _tokenizer_config(path).get("added_tokens_decoder", {})
    found |= {token["content"] for token in decoder.values() if token.get("special")}
    return tuple(sorted((token for token in found if len(token) > 1), key=lambda token: (-len(token), token)))


def has_chat_template(path: Path) -> bool:
    """Return whether the model in ``path`` brings a chat template."""
    return (path / "chat_template.jinja").is_file() or bool(_tokenizer_config(path).get("chat_template"))


def _tokenizer_config(path: Path) -> dict[str, Any]:
    file = path / "tokenizer_config.json"
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _cut_inside(text: str, special: Sequence[str], cut: str) -> str:
    """Put ``cut`` after the first character of every special token in ``text``."""
    for token in special:
        text = text.replace(token, token[0] + cut + token[1:])
    return text


def _unused_character(text: str) -> str:
    """Return a private-use character that ``text`` does not hold."""
    return next(chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in text)
