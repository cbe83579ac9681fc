"""What ``plan --show-data`` shows is what training gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from olivine.config.schema import DataConfig
from olivine.data.preview import decode_each, preview

Write = Callable[..., DataConfig]
ROWS = [{"phrase": "what a day", "tone": "joy"}, {"phrase": "oh no", "tone": "fear"}]
TEMPLATE = "### Text: {phrase}\n### The tone is:\n{tone}"


def pico_tokenizer(model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def test_tokens_are_shown_with_what_is_in_the_loss(write: Write, pico_model: Path) -> None:
    config = write(ROWS, text_template=TEMPLATE, train_on="completion", strategy="line-by-line")
    first, second = preview(config, pico_tokenizer(pico_model), 5)
    assert "".join(token.text for token in first.tokens if token.in_loss) == "joy<|endoftext|>"
    assert "".join(token.text for token in second.tokens if not token.in_loss) == (
        "<|endoftext|>### Text: oh no\n### The tone is:\n"
    )


def test_no_more_sequences_are_shown_than_asked_for(write: Write, letters: Any) -> None:
    assert len(preview(write(ROWS, text_template=TEMPLATE, strategy="line-by-line"), letters, 1)) == 1


def test_padding_is_not_shown(write: Write, letters: Any) -> None:
    config = write([{"text": "ab"}], strategy="line-by-line", max_seq_len=9, pad_to_max_len=True)
    (sequence,) = preview(config, letters, 1)
    assert [token.text for token in sequence.tokens] == ["<s>", "a", "b", "</s>"]


def test_the_parts_joined_are_the_text_even_where_a_character_is_spread_over_tokens(pico_model: Path) -> None:
    tokenizer = pico_tokenizer(pico_model)
    text = "سلام دنیا 🙂 the cat"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = decode_each(ids, tokenizer)
    assert len(texts) == len(ids)
    assert "".join(texts) == text
    assert "🙂" in texts
