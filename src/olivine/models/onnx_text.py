"""Plain ONNX graphs of decoders, run with ONNX Runtime: a folder with the graph and its tokenizer, without GenAI.

Exporters agree on the inputs ``input_ids``, ``attention_mask`` and ``position_ids``, of which a graph may lack the last
two, and on the output ``logits``. A graph that goes on where it was has an input for the keys and one for the values of
each layer, with ``past`` in the name, and in the same order as many outputs with ``present`` in the name. A graph
without those reads the whole text again for every token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.errors import ModelError, UnavailableError
from olivine.models.sessions import TYPES, onnx_file, open_session
from olivine.models.text import CHUNK, GREEDY, Sampling
from olivine.models.tokenized import TokenizedModel
from olivine.models.tokenizer import load_tokenizer
from olivine.passes.base import Accelerator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""Files one of which is beside a graph that can be asked for text."""
UNBOUNDED = 10**9
"""What tokenizers say of their longest text if they do not know is more."""


def has_tokenizer(path: Path) -> bool:
    """Return whether a tokenizer lies in the folder ``path``."""
    return any((path / name).is_file() for name in TOKENIZERS)


class OnnxTextModel(TokenizedModel):
    """An ONNX graph of a decoder, loaded on the execution provider of ``target``.

    Args:
        path: folder with one ONNX file (or ``model.onnx``) and a tokenizer; ``config.json`` and
            ``generation_config.json`` tell the context length and the tokens that end an answer, where they are there.
        target: where it runs.

    Raises:
        ModelError: there is no tokenizer, the graph cannot be loaded, or it is none of a decoder.
        UnavailableError: a library or the execution provider is not installed.
    """

    def __init__(self, path: Path, target: Accelerator) -> None:
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            raise UnavailableError(
                f"running an ONNX model needs onnxruntime: {error}", remedy="`pip install 'olivine[cpu]'`"
            ) from None
        if not has_tokenizer(path):
            raise ModelError(
                f"there is no tokenizer in {path}, so the graph cannot be asked for text",
                remedy="put the model's tokenizer.json and tokenizer_config.json beside the graph",
            )
        self.path = path
        self._tokenizer = load_tokenizer(path)
        self._session = open_session(onnx_file(path), target.execution_provider)
        inputs = {each.name: each for each in self._session.get_inputs()}
        outputs = [each.name for each in self._session.get_outputs()]
        self._past = [each for name, each in inputs.items() if "past" in name]
        self._present = [name for name in outputs if "present" in name]
        self._plain = [name for name in inputs if "past" not in name]
        unknown = set(self._plain) - {"input_ids", "attention_mask", "position_ids"}
        if "input_ids" not in inputs or "logits" not in outputs or unknown:
            raise ModelError(
                f"the graph in {path} is none of a decoder",
                why=f"it takes {', '.join(inputs)} and gives {', '.join(outputs)}",
                remedy="export it with the inputs input_ids, attention_mask and position_ids, and the output logits",
            )
        if len(self._past) != len(self._present) and self._past:
            raise ModelError(
                f"the graph in {path} takes {len(self._past)} past keys and values and gives {len(self._present)}",
                remedy="export it with as many",
            )
        self._dtype = TYPES[inputs["input_ids"].type]
        self._config = config = _json(path / "config.json")
        generation = _json(path / "generation_config.json")
        longest = config.get("max_position_embeddings") or self._tokenizer.model_max_length
        self.context_length = int(longest) if longest < UNBOUNDED else 2**31
        end = generation.get("eos_token_id", config.get("eos_token_id", self._tokenizer.eos_token_id))
        self.eos_ids = frozenset([end] if isinstance(end, int) else end or ())
        self.bos_id = self._tokenizer.bos_token_id

    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling = GREEDY, *, ignore_eos: bool = False
    ) -> Iterator[int]:
        """See :meth:`TextModel.generate`."""
        import numpy as np

        self.check_fits(len(prompt), max_new_tokens)
        chance = np.random.default_rng(sampling.seed)
        reading, new = _Reading(self, 1), np.asarray([prompt])
        for _ in range(max_new_tokens):
            scores = reading.read(new)[0, -1]
            if ignore_eos:
                scores[list(self.eos_ids)] = -np.inf
            token = _choose(scores, sampling, chance)
            if token in self.eos_ids and not ignore_eos:
                return
            yield token
            new = np.asarray([[token]])

    def generate_batch(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """See :meth:`TextModel.generate_batch`."""
        import numpy as np

        self.check_fits(len(prompts[0]), max_new_tokens)
        answers: list[list[int]] = [[] for _ in prompts]
        going = set(range(len(prompts)))
        reading, new = _Reading(self, len(prompts)), np.asarray(prompts)
        for _ in range(max_new_tokens):
            new = reading.read(new)[:, -1].argmax(-1, keepdims=True)
            for row in list(going):
                if int(new[row, 0]) in self.eos_ids:
                    going.remove(row)
                else:
                    answers[row].append(int(new[row, 0]))
            if not going:
                break
        return answers

    def logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """See :meth:`TextModel.logits`."""
        import numpy as np

        self.check_fits(len(ids), 0)
        reading = _Reading(self, 1)
        size = CHUNK if self._past else len(ids)
        for start in range(0, len(ids), size):
            chunk = np.asarray([ids[start : start + size]])
            found = reading.read(chunk)
            if found.shape[1] != chunk.shape[1]:
                raise ModelError(
                    f"the graph in {self.path} gives the logits of the last token only",
                    remedy="export it with the logits of every token to score texts with it",
                )
            yield found[0]


class _Reading:
    """Rows of the same length that a graph reads, a part at a time.

    Args:
        rows: how many.
    """

    def __init__(self, model: OnnxTextModel, rows: int) -> None:
        import numpy as np

        self._model = model
        self._seen: NDArray[np.int64] = np.empty((rows, 0), dtype=np.int64)
        self._kept = {
            each.name: np.zeros(_nothing(each, rows, model._config), dtype=TYPES[each.type]) for each in model._past
        }

    def read(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the logits after ``ids``, which follow what was read before: ``(rows, tokens, vocabulary)``, of all
        tokens or of the last, as the graph gives them."""
        import numpy as np

        model = self._model
        before = self._seen.shape[1] if self._kept else 0
        self._seen = np.concatenate([self._seen, ids], axis=1)
        given = self._seen[:, before:]
        rows, length = self._seen.shape
        plain = {
            "input_ids": given,
            "attention_mask": np.ones((rows, length)),
            "position_ids": np.broadcast_to(np.arange(before, length), given.shape),
        }
        feed = {name: plain[name].astype(model._dtype) for name in model._plain} | self._kept
        names = ["logits", *(model._present if self._kept else ())]
        logits, *present = model._session.run(names, feed)
        self._kept = {each.name: value for each, value in zip(model._past, present, strict=True)}
        # Without past keys and values the graph gave the logits of all that was read.
        return np.asarray(logits, dtype=np.float32)[:, -ids.shape[1] :]


def _nothing(past: Any, rows: int, config: Mapping[str, Any]) -> list[int]:
    """Return the shape of past keys or values of nothing: ``(rows, heads, 0, head size)``.

    Args:
        past: the graph's input.
        config: the checkpoint's configuration, for what the graph leaves open.

    Raises:
        ModelError: neither says how many heads there are, or how large they are.
    """
    query_heads = config.get("num_attention_heads")
    size = config.get("head_dim") or (config["hidden_size"] // query_heads if query_heads else None)
    known = (None, config.get("num_key_value_heads") or query_heads, None, size)
    shape = [each if isinstance(each, int) else other for each, other in zip(past.shape, known, strict=False)]
    if len(past.shape) != 4 or shape[1] is None or shape[3] is None:
        raise ModelError(
            f"the input {past.name} has the shape {past.shape}, of which the second and the fourth must be known",
            why="they are the number of heads and their size",
            remedy="put the checkpoint's config.json beside the graph, or export it with those as numbers",
        )
    return [rows, int(shape[1]), 0, int(shape[3])]


def _choose(scores: NDArray[np.float32], sampling: Sampling, chance: np.random.Generator) -> int:
    """Return the next token: the likeliest, or one drawn from those that top-k and top-p leave."""
    import numpy as np

    if sampling.temperature <= 0:
        return int(scores.argmax())
    count = min(sampling.top_k or len(scores), len(scores))
    best = np.argsort(-scores, kind="stable")[:count]
    shares = np.exp((scores[best] - scores[best[0]]).astype(np.float64) / sampling.temperature)
    shares /= shares.sum()
    # A token stays as long as those before it have not reached top_p; the first always stays.
    shares[1:][(shares.cumsum() - shares)[1:] >= sampling.top_p] = 0
    return int(chance.choice(best, p=shares / shares.sum()))


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
