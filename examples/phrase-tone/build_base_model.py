"""Build the small Phi-3 that this example starts from when there is no network: python build_base_model.py

A Phi-3 architecture with a byte-level BPE tokenizer, Phi-3's special tokens and its chat template, trained from scratch
in less than two minutes on two cores. Two kinds of text go in:

- the training phrases as plain text, without their tones;
- notes made of data/text.txt, words and sentences sorted by feeling: a sentence, or a few words among others that say
  nothing, and then, under one of three headings, the name of their feeling.

So it knows, as a large base model does, what goes with which feeling. What it has never seen is the task: the
workflow's prompt, the tone of any phrase, and anything at all of data/eval.jsonl.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
SPECIAL_TOKENS = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
TONES = ("Sad", "Joy", "Fear", "Surprise")
HEADINGS = ("The feeling is", "The mood is", "In a word")
TASK_WORDS = "### Text: \n### The tone is:\n"
"""The workflow's prompt, so that the tokenizer has its words; the model is not trained on it."""

VOCABULARY = 4096
HIDDEN = 128
LAYERS = 2
HEAD_SIZE = 32
CONTEXT = 4096
WINDOW = 64
"""How far back attention sees (2047 in Phi-3-mini), so that joined phrases are not confused with their neighbours."""
LONGEST_TEXT = 60
STEPS = 700
BATCH = 80
BATCHES_SORTED = 10
"""Texts for so many batches are sorted by length, so that little is padding."""
LEARNING_RATE = 1.5e-3
EMBEDDING_RATE = 6
"""How much faster the embeddings learn: a word is seen seldom, and its meaning is what this model has to know."""
WEIGHT_DECAY = 0.05
DROPOUT = 0.2
"""While it is trained; the checkpoint has none."""
SHARE_OF_PHRASES = 0.25
"""Share of a batch that is plain phrases; the rest is notes."""
SHARE_OF_SENTENCES = 0.5
"""Share of the notes that is a sentence; the rest is made of words."""
PLAIN_WEIGHT, NOTE_WEIGHT, FEELING_WEIGHT, END_WEIGHT = 0.3, 0.02, 1.0, 0.1
"""What a token counts in the loss: of a phrase, of a note's text, the name of the feeling, what follows it."""


@dataclass(frozen=True)
class Feeling:
    """One section of text.txt: the names of a feeling, one for each heading, and the words and sentences for it."""

    names: tuple[str, ...]
    signs: tuple[str, ...]
    sentences: tuple[str, ...]


def read_feelings(file: Path) -> list[Feeling]:
    """Return the four sections of text.txt, in the order of ``TONES``."""
    feelings = []
    for section, tone in zip(file.read_text(encoding="utf-8").split("\nfeeling:")[1:], TONES, strict=True):
        names, *lines = section.strip().split("\n")
        words = [line for line in lines if not line.startswith("- ")]
        signs = dict.fromkeys(sign.strip() for line in words for sign in line.split(";"))
        sentences = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
        two = [name.strip() for name in names.split(";")][:2]
        feelings.append(Feeling((*two, tone), tuple(filter(None, signs)), tuple(sentences)))
    return feelings


def read_phrases(file: Path) -> list[str]:
    """Return the phrases of a JSON Lines file, without their tones."""
    return [json.loads(line)["phrase"] for line in file.read_text(encoding="utf-8").splitlines()]


def note(feelings: list[Feeling], phrases: list[str], rng: random.Random) -> tuple[str, str]:
    """Return a note up to its heading, and the name of its feeling."""
    feeling = rng.choice(feelings)
    heading = rng.randrange(len(HEADINGS))
    if rng.random() < SHARE_OF_SENTENCES:
        text = rng.choice(feeling.sentences)
        return f"### Text: {text}\n### {HEADINGS[heading]}:\n", feeling.names[heading]
    parts = rng.sample(feeling.signs, rng.choice((1, 1, 1, 2, 2, 3)))
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        words = rng.choice(phrases).rstrip(".!?").split()
        length = rng.randint(1, 4)
        start = rng.randrange(max(1, len(words) - length + 1))
        parts.append(" ".join(words[start : start + length]))
    rng.shuffle(parts)
    text = parts[0]
    for part in parts[1:]:
        text += rng.choice((", ", " ", " and ", ". ", "; ")) + part
    text = text[0].upper() + text[1:] + rng.choice((".", ".", ".", "!", "?", ""))
    return f"### Text: {text}\n### {HEADINGS[heading]}:\n", feeling.names[heading]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with Phi-3's special tokens, trained on ``texts``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=CONTEXT,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def batches(
    tokenizer: PreTrainedTokenizerFast, feelings: list[Feeling], phrases: list[str], rng: random.Random
) -> Iterator[tuple[list[list[int]], list[list[float]]]]:
    """Yield token ids and what each counts in the loss, both of shape (BATCH, longest), of texts of like length."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    end = tokenizer.eos_token_id
    while True:
        texts = []
        for _ in range(BATCH * BATCHES_SORTED):
            if rng.random() < SHARE_OF_PHRASES:
                row = [end, *ids("### Text: " + rng.choice(phrases))[:LONGEST_TEXT], end]
                weight = [PLAIN_WEIGHT] * len(row)
            else:
                text, name = note(feelings, phrases, rng)
                head, tail = [end, *ids(text)], ids(name)
                row = [*head, *tail, end]
                weight = [NOTE_WEIGHT] * len(head) + [FEELING_WEIGHT] + [END_WEIGHT] * len(tail)
            texts.append((row, weight))
        texts.sort(key=lambda each: len(each[0]))
        for start in rng.sample(range(0, len(texts), BATCH), BATCHES_SORTED):
            chosen = texts[start : start + BATCH]
            longest = len(chosen[-1][0])
            yield (
                [row + [end] * (longest - len(row)) for row, _ in chosen],
                [weight + [0.0] * (longest - len(weight)) for _, weight in chosen],
            )


def build(output: Path, seed: int = 0) -> None:
    """Train the tokenizer and the model, and write both into ``output``."""
    import torch
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    rng = random.Random(seed)
    feelings = read_feelings(HERE / "data" / "text.txt")
    phrases = read_phrases(HERE / "data" / "train.jsonl")
    names = [f"{TASK_WORDS}{tone}\n" for tone in TONES]
    names += [f"### {heading}:\n{each.names[n]}\n" for n, heading in enumerate(HEADINGS) for each in feelings]
    words = [sign for each in feelings for sign in each.signs]
    sentences = [sentence for each in feelings for sentence in each.sentences]
    tokenizer = train_tokenizer(phrases + sentences + words * 2 + names * 50)
    tokenizer.save_pretrained(output)

    torch.set_flush_denormal(True)  # a CPU takes some 100 times longer for a number below 1e-38
    torch.manual_seed(seed)
    model: Any = Phi3ForCausalLM(
        Phi3Config(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=2 * HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HIDDEN // HEAD_SIZE,
            num_key_value_heads=HIDDEN // HEAD_SIZE,
            max_position_embeddings=CONTEXT,
            original_max_position_embeddings=CONTEXT,
            embd_pdrop=DROPOUT,
            resid_pdrop=DROPOUT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            sliding_window=WINDOW,
        )
    )
    model.train()
    print(f"{sum(weight.numel() for weight in model.parameters()):,} weights, {len(tokenizer)} tokens", flush=True)
    embeddings = model.get_input_embeddings().weight
    others = [weight for weight in model.parameters() if weight is not embeddings]
    groups = [{"params": [embeddings], "rate": EMBEDDING_RATE}, {"params": others, "rate": 1}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
    started = time.monotonic()
    source = batches(tokenizer, feelings, phrases, rng)
    for step in range(STEPS):
        rate = LEARNING_RATE * min(1.0, (step + 1) / 40) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / STEPS)))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        rows, weights = next(source)
        ids, weight = torch.tensor(rows), torch.tensor(weights)[:, 1:].reshape(-1)
        # The head is most of the work: of the tokens that count little, a sample is enough.
        chosen = (weight >= END_WEIGHT) | ((weight > 0) & (torch.rand(weight.shape) < 0.15))
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].reshape(-1, HIDDEN)[chosen]
        losses = torch.nn.functional.cross_entropy(
            model.lm_head(hidden), ids[:, 1:].reshape(-1)[chosen], reduction="none"
        )
        loss = (losses * weight[chosen]).sum() / weight[chosen].sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 49:
            passed = time.monotonic() - started
            print(f"step {step + 1}/{STEPS}, loss {loss.item():.3f}, {passed:.0f} s", flush=True)
    model.config.embd_pdrop = model.config.resid_pdrop = 0.0
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    disable_progress_bar()  # one file: a bar would only be noise
    model.save_pretrained(output)
    print(f"written to {output}")


def main() -> int:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description="Build the example's small Phi-3 base model.")
    parser.add_argument("--output", type=Path, default=HERE / "base-model")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    build(arguments.output, arguments.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
