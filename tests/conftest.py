"""Real parts, small: a pico Phi-3 checkpoint, built once a session; and disks that are full or read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Matrices this small take longer on two threads than on one, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def build_pico_phi3(
    folder: Path,
    *,
    hidden_size: int = 64,
    layers: int = 2,
    vocabulary: int = 400,
    tie_word_embeddings: bool = False,
    seed: int = 0,
) -> Path:
    """Write a random Phi-3 checkpoint (float32, head size 16) with a trained tokenizer into ``folder``."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

    text = [
        "the cat sat on the mat",
        "### Text: cricket is a wonderful sport!\n### The tone is:\njoy",
        "sad fear surprise",
    ]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>", "<|system|>"]
    core.train_from_iterator(
        text * 4,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special[1:],
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    config = Phi3Config(
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 16,
        num_key_value_heads=hidden_size // 16,
        intermediate_size=hidden_size * 2,
        vocab_size=vocabulary,
        max_position_embeddings=512,
        original_max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        tie_word_embeddings=tie_word_embeddings,
        sliding_window=None,
    )
    torch.manual_seed(seed)
    model = Phi3ForCausalLM(config)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0, do_sample=False)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pico_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Phi-3 checkpoint: hidden size 64, 2 layers, vocabulary 400. Read only: copy it before changing it."""
    return build_pico_phi3(tmp_path_factory.mktemp("pico") / "phi3-pico")


def mount(*arguments: str) -> None:
    """Mount something, or skip the test where that is not permitted."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True) if os.name == "posix" else None
    if done is None or done.returncode != 0:
        pytest.skip("mounting is not permitted here")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "none", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Make a folder read-only, for root too, until the test ends."""
    mounted: list[Path] = []

    def make_read_only(folder: Path) -> None:
        mount("--bind", str(folder), str(folder))
        mounted.append(folder)
        mount("-o", "remount,bind,ro", str(folder))

    yield make_read_only
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
