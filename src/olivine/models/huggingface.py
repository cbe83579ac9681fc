"""Hugging Face checkpoints, run with transformers: what a GenAI model is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.errors import ModelError, UnavailableError
from olivine.hardware.machine import this_machine
from olivine.models.checkpoint import Checkpoint, read_checkpoint
from olivine.models.text import CHUNK, GREEDY, Sampling
from olivine.models.tokenized import TokenizedModel
from olivine.passes.base import Accelerator, Format
from olivine.quant.stored.dequantising import can_dequantise, dequantised

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class HfModel(TokenizedModel):
    """A checkpoint, loaded with transformers.

    Weights in a 16-bit format are computed in float32 on a CPU that has no matrix units for that format: there it is
    both faster and what the weights mean. Weights that are quantised to integers, in a form that Olivine reads, are
    dequantised: that takes the memory of the original, and no library but transformers.

    Args:
        path: folder with ``config.json`` and safetensors.
        target: ``device: gpu`` loads it on the first CUDA device.
        trust_remote_code: whether code that comes with the model may run; that of its tokenizer never does.

    Raises:
        ModelError: the folder is damaged, or transformers does not know the model.
        UnavailableError: transformers or the device is missing.
    """

    def __init__(self, path: Path, target: Accelerator, *, trust_remote_code: bool = False) -> None:
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise UnavailableError(
                f"running a checkpoint needs torch and transformers: {error}", remedy="`pip install 'olivine[torch]'`"
            ) from None
        checkpoint = read_checkpoint(path)
        self.path = path
        self._torch = torch
        self._device = "cpu"
        if target.device == "gpu":
            if not torch.cuda.is_available():
                raise UnavailableError(
                    "the checkpoint is to run on a GPU, and torch finds none here",
                    remedy="choose a target with device: cpu, or install the CUDA build of torch",
                )
            self._device = "cuda"
        dtype = compute_dtype(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype"), target.device)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            place = {}
            if can_dequantise(checkpoint.config):
                model, info = _dequantised(checkpoint, dtype, trust_remote_code=trust_remote_code)
            else:
                # A quantised checkpoint is placed while it loads (which takes accelerate); a plain one is moved after.
                place = {"device_map": self._device} if checkpoint.format is Format.HF_QUANTIZED else {}
                model, info = AutoModelForCausalLM.from_pretrained(
                    path,
                    dtype=dtype,
                    use_safetensors=True,
                    trust_remote_code=trust_remote_code,
                    output_loading_info=True,
                    **place,
                )
        except (OSError, ValueError, KeyError, ImportError) as error:
            said = " ".join(str(error).split())[:300]
            raise ModelError(
                f"transformers cannot load {path}",
                why=said,
                remedy="allow the model's own code with --trust-remote-code if you trust its author"
                if checkpoint.needs_remote_code and not trust_remote_code
                else "check that the folder holds a causal language model and its tokenizer",
            ) from None
        if missing := sorted(info["missing_keys"]):
            method = (checkpoint.config.get("quantization_config") or {}).get("quant_method")
            raise ModelError(
                f"{path} has no weights for {missing[0]}" + (f" and {len(missing) - 1} others" if missing[1:] else ""),
                why=f"transformers does not read quantisation by {method}"
                if method
                else "transformers would go on with random ones",
                remedy="give the checkpoint that it was quantised from" if method else "download the model again",
            )
        self._model = (model if place else model.to(self._device)).eval()
        config = model.config.get_text_config()
        self.context_length = int(getattr(config, "max_position_embeddings", None) or 2**31)
        end = model.generation_config.eos_token_id
        end = end if end is not None else self._tokenizer.eos_token_id
        self.eos_ids = frozenset([end] if isinstance(end, int) else end or ())
        self.bos_id = self._tokenizer.bos_token_id

    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling = GREEDY, *, ignore_eos: bool = False
    ) -> Iterator[int]:
        """See :meth:`TextModel.generate`."""
        torch = self._torch
        self.check_fits(len(prompt), max_new_tokens)
        chance = torch.Generator(self._device)
        if sampling.seed is not None:
            chance.manual_seed(sampling.seed)
        elif sampling.temperature > 0:
            chance.seed()
        ids, cache = torch.tensor([list(prompt)], device=self._device), None
        for _ in range(max_new_tokens):
            with torch.inference_mode():
                out = self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                scores = out.logits[:, -1].float()
                if ignore_eos:
                    scores[:, list(self.eos_ids)] = -torch.inf
                ids, cache = self._choose(scores, sampling, chance), out.past_key_values
            token = int(ids)
            if token in self.eos_ids and not ignore_eos:
                return
            yield token

    def generate_batch(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """See :meth:`TextModel.generate_batch`."""
        torch = self._torch
        self.check_fits(len(prompts[0]), max_new_tokens)
        answers: list[list[int]] = [[] for _ in prompts]
        going = set(range(len(prompts)))
        ids, cache = torch.tensor([list(prompt) for prompt in prompts], device=self._device), None
        for _ in range(max_new_tokens):
            with torch.inference_mode():
                out = self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                ids, cache = out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values
            for row in list(going):
                token = int(ids[row])
                if token in self.eos_ids:
                    going.remove(row)
                else:
                    answers[row].append(token)
            if not going:
                break
        return answers

    def logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """See :meth:`TextModel.logits`."""
        torch = self._torch
        self.check_fits(len(ids), 0)
        cache = None
        for start in range(0, len(ids), CHUNK):
            chunk = torch.tensor([list(ids[start : start + CHUNK])], device=self._device)
            with torch.inference_mode():
                out = self._model(chunk, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            yield out.logits[0].float().cpu().numpy()

    def _choose(self, scores: Any, sampling: Sampling, chance: Any) -> Any:
        """Return the next token, shape (1, 1): the likeliest, or one drawn from those that top-k and top-p leave."""
        torch = self._torch
        if sampling.temperature <= 0:
            return scores.argmax(-1, keepdim=True)
        count = min(sampling.top_k or scores.shape[-1], scores.shape[-1])
        best, tokens = (scores / sampling.temperature).topk(count)
        shares = best.softmax(-1)
        # A token stays as long as those before it have not reached top_p; the first always stays.
        shares[shares.cumsum(-1) - shares >= sampling.top_p] = 0
        shares[..., 0] = shares[..., 0].clamp(min=1e-9)
        return tokens.gather(-1, torch.multinomial(shares, 1, generator=chance))


def _dequantised(checkpoint: Checkpoint, dtype: str, *, trust_remote_code: bool) -> tuple[Any, dict[str, Any]]:
    """Return the model that a quantised checkpoint stands for, in floats, and what transformers says of its loading."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from olivine.quant.reading import TensorReader

    config = AutoConfig.from_pretrained(checkpoint.path, trust_remote_code=trust_remote_code)
    del config.quantization_config
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    wanted = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    state = dequantised(TensorReader(checkpoint), wanted, getattr(torch, dtype))
    found: tuple[Any, dict[str, Any]] = type(empty).from_pretrained(
        None, config=config, state_dict=state, dtype=dtype, output_loading_info=True
    )
    return found


def compute_dtype(stored: Any, device: str) -> str:
    """Return the dtype to compute in: the stored one, or float32 where the processor has no units for it."""
    name = str(stored or "float32").removeprefix("torch.")
    if name == "bfloat16" and not this_machine().has_bf16(device):
        return "float32"
    if name == "float16" and device == "cpu":
        return "float32"
    return name if name in ("bfloat16", "float16") else "float32"
