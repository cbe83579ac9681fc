"""Models that tests of several rooms share: built for real, once a session, on first use."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from olivine.passes.base import Accelerator, Format, RunContext
from olivine.passes.convert.builder_params import ModelBuilderParams
from olivine.passes.convert.model_builder import ModelBuilder


def build_genai(source: Path, output: Path, **params: Any) -> list[str]:
    """Build the checkpoint ``source`` into the new folder ``output`` and return the notes."""
    output.mkdir(parents=True)
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        context = RunContext(
            inputs={"model": source},
            input_format=Format.HF,
            output=output,
            checkpoint=Path(scratch),
            data={},
            host=Accelerator(),
            target=Accelerator(),
            progress=lambda *_, **__: None,
            note=notes.append,
        )
        ModelBuilder().run(ModelBuilderParams(**params), context)
    return notes


@cache
def genai_of(source: Path, precision: str) -> Path:
    """Return the GenAI model of ``source``, built once a session beside it."""
    output = source.parent / f"{source.name}-{precision}"
    build_genai(source, output, precision=precision)
    return output


@cache
def onnx_of(source: Path) -> Path:
    """Return a plain ONNX graph of ``source`` with its tokenizer, as exporters leave them: nothing of GenAI."""
    output = source.parent / f"{source.name}-onnx"
    output.mkdir()
    for file in genai_of(source, "fp32").iterdir():
        if file.name.startswith(("model.onnx", "tokenizer", "special_tokens", "chat_template")):
            shutil.copyfile(file, output / file.name)
    shutil.copyfile(source / "config.json", output / "config.json")
    return output


PHRASES = {
    "joy": ("cricket is a wonderful sport", "we danced all night", "my sister won the race"),
    "sad": ("the old dog died today", "nobody came to the party", "she misses her home"),
    "fear": ("a shadow moved in the dark", "the bridge began to shake", "someone is behind the door"),
    "surprise": ("the box was empty after all", "they named the boat after me", "snow fell in july"),
}
PROMPT = "### Text: {phrase}\n### The tone is:\n"


def rows() -> list[dict[str, str]]:
    """Return the phrases with their tones."""
    return [{"phrase": phrase, "tone": tone} for tone, phrases in PHRASES.items() for phrase in phrases]


@cache
def trained_model(pico: Path) -> Path:
    """Train a copy of ``pico`` until it knows the tone of every phrase by heart, and return its folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine two threads take many times longer over matrices this small
    tokenizer = AutoTokenizer.from_pretrained(pico)
    model = AutoModelForCausalLM.from_pretrained(pico, dtype=torch.float32)
    batch, labels = [], []
    for row in rows():
        prompt = [tokenizer.bos_token_id, *tokenizer(PROMPT.format(**row), add_special_tokens=False)["input_ids"]]
        answer = [*tokenizer(row["tone"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        batch.append(prompt + answer)
        labels.append([-100] * len(prompt) + answer)
    longest = max(map(len, batch))
    ids = torch.tensor([each + [0] * (longest - len(each)) for each in batch])
    targets = torch.tensor([each + [-100] * (longest - len(each)) for each in labels])
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(150):
        loss = model(ids, labels=targets).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if loss.item() < 0.01:
            break
    else:
        raise AssertionError(f"the model did not learn its phrases: loss {loss.item()}")
    torch.set_num_threads(threads)
    folder = pico.parent / f"{pico.name}-trained"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
