"""ONNX Runtime GenAI folders, through the library's Python API (seen with 0.16 to 0.18).

Since 0.6 a prompt goes in with ``Generator.append_tokens``; ``GeneratorParams.input_ids`` and ``compute_logits`` are
gone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.errors import ModelError, OlivineError, UnavailableError
from olivine.models.checkpoint import read_checkpoint
from olivine.models.text import CHUNK, GREEDY, Message, Sampling, TextModel, bos_token
from olivine.passes.base import Accelerator
from olivine.telemetry import switch_off_telemetry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROVIDERS: dict[str, str] = {
    "CPUExecutionProvider": "cpu",
    "CUDAExecutionProvider": "cuda",
    "DmlExecutionProvider": "dml",
    "WebGpuExecutionProvider": "webgpu",
    "NvTensorRTRTXExecutionProvider": "NvTensorRtRtx",
    "NvTensorRtRtxExecutionProvider": "NvTensorRtRtx",
}
"""What ONNX Runtime GenAI and its builder call each execution provider of ONNX Runtime."""

EXTRAS = {"cuda": "gpu", "dml": "directml"}


class GenaiModel(TextModel):
    """A GenAI folder, loaded on the execution provider of ``target``.

    Args:
        path: folder with ``genai_config.json``.
        target: where it runs; its execution provider replaces the one that the folder names.
        mapped: leave the weights in their file and map it, where the kernels would copy all of them into an order of
            their own. Loading takes no time and next to no memory; computing takes several times longer.

    Raises:
        ModelError: the folder is damaged, or the library cannot load it.
        UnavailableError: the library or the execution provider is not installed.
    """

    def __init__(self, path: Path, target: Accelerator, *, mapped: bool = False) -> None:
        switch_off_telemetry()  # before it is imported
        try:
            import onnxruntime_genai as og
        except ImportError as error:
            raise UnavailableError(
                f"running a GenAI model needs onnxruntime-genai: {error}", remedy="`pip install 'olivine[cpu]'`"
            ) from None
        disable_telemetry()
        provider = PROVIDERS.get(target.execution_provider)
        if provider is None:
            raise UnavailableError(
                f"ONNX Runtime GenAI has no {target.execution_provider}",
                remedy=f"choose one of {', '.join(PROVIDERS)}",
            )
        checkpoint = read_checkpoint(path)
        self.path = path
        self._og = og
        try:
            config = og.Config(str(path))
            if provider not in _named_providers(checkpoint.config) or provider == "cpu":
                config.clear_providers()
                if provider != "cpu":
                    config.append_provider(provider)
            if mapped:
                options = {"session.disable_prepacking": "1"}
                config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
            self._model = og.Model(config)
            self._tokenizer = og.Tokenizer(self._model)
        except Exception as error:  # the library raises RuntimeError and its own types, whatever the cause
            raise _explained(error, path, target, provider) from None
        # BOS is prepended by encode_prompt, so that every tokenizer family does the same.
        self._tokenizer.update_options(add_special_tokens="false")
        self.context_length = int(checkpoint.config["model"]["context_length"])
        window = checkpoint.config["model"]["decoder"].get("sliding_window") or {}
        # Layers with a window keep that many keys, and the runtime refuses a shorter cache.
        self._shortest = 0 if window.get("slide_key_value_cache", True) else int(window.get("window_size", 0))
        self.eos_ids = frozenset(int(each) for each in self._tokenizer.eos_token_ids)
        bos = bos_token(path)
        bos_id = int(self._tokenizer.to_token_id(bos)) if bos else -1
        self.bos_id = bos_id if bos_id >= 0 else None

    def encode(self, text: str) -> list[int]:
        """See :meth:`TextModel.encode`."""
        return [int(each) for each in self._tokenizer.encode(text)] if text else []

    def decode(self, ids: Sequence[int]) -> str:
        """See :meth:`TextModel.decode`."""
        import numpy as np

        return str(self._tokenizer.decode(np.asarray(ids, dtype=np.int32))) if len(ids) else ""

    def pieces(self, ids: Iterator[int]) -> Iterator[str]:
        """See :meth:`TextModel.pieces`."""
        stream = self._tokenizer.create_stream()
        for each in ids:
            yield stream.decode(each)

    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling = GREEDY, *, ignore_eos: bool = False
    ) -> Iterator[int]:
        """See :meth:`TextModel.generate`."""
        self.check_fits(len(prompt), max_new_tokens)
        length = len(prompt) + max_new_tokens
        options: dict[str, Any] = {"min_length": length if ignore_eos else 0}
        if sampling.temperature > 0:
            seed = sampling.seed if sampling.seed is not None else random.SystemRandom().randrange(2**31)
            options |= {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "random_seed": seed,
            }
        generator = self._generator(1, length, options)
        self._append(generator, [prompt])
        for _ in range(max_new_tokens):
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            if token in self.eos_ids and not ignore_eos:
                return
            yield token
            if generator.is_done():
                return

    def generate_batch(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """See :meth:`TextModel.generate_batch`."""
        length = len(prompts[0])
        self.check_fits(length, max_new_tokens)
        generator = self._generator(len(prompts), length + max_new_tokens, {})
        self._append(generator, prompts)
        for _ in range(max_new_tokens):
            if generator.is_done():
                break
            generator.generate_next_token()
        answers = []
        for row in range(len(prompts)):
            answer = [int(each) for each in generator.get_sequence(row)[length:]]
            end = next((place for place, token in enumerate(answer) if token in self.eos_ids), len(answer))
            answers.append(answer[:end])
        return answers

    def logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """See :meth:`TextModel.logits`."""
        import numpy as np

        self.check_fits(len(ids), 0)
        generator = self._generator(1, len(ids), {})
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            self._append(generator, [chunk])
            found = np.asarray(generator.get_output("logits"), dtype=np.float32)
            if found.shape[1] != len(chunk):
                raise ModelError(
                    f"the model in {self.path} gives the logits of the last token only",
                    why="it was built with prune_lm_head",
                    remedy="build it without prune_lm_head to measure its perplexity",
                )
            yield found[0]

    def step(self, ids: Sequence[int]) -> tuple[NDArray[np.float32], int]:
        """Run the model once over ``ids``; return the logits of the last, shape ``(vocabulary,)``, and what follows."""
        import numpy as np

        generator = self._generator(1, len(ids) + 1, {})
        self._append(generator, [ids])
        logits = np.asarray(generator.get_output("logits"), dtype=np.float32)[0, -1]
        generator.generate_next_token()
        return logits, int(generator.get_next_tokens()[0])

    def _render(self, messages: Sequence[Message]) -> str:
        try:
            return str(self._tokenizer.apply_chat_template(json.dumps([dict(each) for each in messages])))
        except Exception as error:
            raise ModelError(
                f"the chat template of {self.path} cannot be applied: {error}", remedy="mend its chat_template.jinja"
            ) from None

    def _generator(self, batch_size: int, max_length: int, options: dict[str, Any]) -> Any:
        params = self._og.GeneratorParams(self._model)
        # Everything that genai_config.json may say otherwise is set, so that a measurement is the same for all models.
        settings: dict[str, Any] = {
            "batch_size": batch_size,
            "max_length": max(max_length, min(self._shortest, self.context_length)),
            "min_length": 0,
            "do_sample": False,
            "num_beams": 1,
            "num_return_sequences": 1,
            "repetition_penalty": 1.0,
            "no_repeat_ngram_size": 0,
        }
        params.set_search_options(**(settings | options))
        return self._og.Generator(self._model, params)

    @staticmethod
    def _append(generator: Any, rows: Sequence[Sequence[int]]) -> None:
        import numpy as np

        generator.append_tokens(np.asarray(rows, dtype=np.int32))


def disable_telemetry() -> None:
    """Switch off the usage events of the library, where this version has them. Cheap; may be called often."""
    import onnxruntime_genai as og

    if hasattr(og, "disable_telemetry_events"):
        og.disable_telemetry_events()


def can_run(execution_provider: str) -> bool:
    """Return whether the ONNX Runtime that is installed here brings ``execution_provider``."""
    import onnxruntime

    return execution_provider in onnxruntime.get_available_providers()


def _named_providers(config: Any) -> set[str]:
    """Return the providers that the decoder's session options name."""
    options = config.get("model", {}).get("decoder", {}).get("session_options", {}).get("provider_options", [])
    return {name for option in options for name in option}


def _explained(error: Exception, path: Path, target: Accelerator, provider: str) -> OlivineError:
    """Return what to tell about a model that does not load."""
    said = " ".join(str(error).split())[:400]
    if provider != "cpu" and not can_run(target.execution_provider):
        extra = EXTRAS.get(provider)
        return UnavailableError(
            f"{target.execution_provider} is not on this machine",
            why=said,
            remedy=(f"pip install 'olivine[{extra}]' in its own environment, or " if extra else "")
            + "run it where that provider is",
        )
    return ModelError(
        f"ONNX Runtime GenAI cannot load {path}",
        why=said,
        remedy="build the model again; if it was copied, compare the files' sizes",
    )
