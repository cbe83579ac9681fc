"""Chats: what the template writes, and which of it is the assistant's."""

from __future__ import annotations

from typing import Any

import pytest
from letter_tokens import BOS, EOS, config, ids, letter_tokenizer

from olivine.data.formats import Row
from olivine.data.sequences import build_sequences
from olivine.data.templates import render
from olivine.errors import ConfigError, DataError

TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
PLAIN = TURNS + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
WITH_EOS = TURNS + "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}"
NO_PROMPT = "{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}"
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}A: {% generation %}{{ m.content }};{% endgeneration %}"
    "{% else %}U: {{ m.content }};{% endif %}{% endfor %}"
)
STRICT = (
    "{% if not messages or messages[0].role != 'user' %}{{ raise_exception('a user has to begin') }}{% endif %}" + PLAIN
)
CHAT = [
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "two?"},
    {"role": "assistant", "content": "2"},
]


def chat(*messages: dict[str, str]) -> Row:
    return Row({"messages": list(messages or CHAT)}, "chat.jsonl", 3)


def learnt(template: str | bool, tokenizer: Any, row: Row | None = None) -> list[str]:
    text = render(config(chat_template=template, train_on="completion"), row or chat(), tokenizer)
    return [piece.text for piece in text.pieces if piece.in_loss]


def test_the_tokenizers_own_template_is_applied() -> None:
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = PLAIN
    text = render(config(chat_template=True), chat(*CHAT[:2]), tokenizer)
    assert text.text == "<|user|>one?<|end|>\n<|assistant|>1<|end|>\n"
    assert [piece.in_loss for piece in text.pieces] == [True]


def test_a_template_of_ones_own_wins_over_the_tokenizers() -> None:
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = PLAIN
    assert render(config(chat_template=NO_PROMPT), chat(*CHAT[:1]), tokenizer).text == "USER: one?\n"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (PLAIN, ["1<|end|>\n", "2<|end|>\n"]),
        (WITH_EOS, ["1<|end|>\n", "2<|end|>\n</s>"]),
        (NO_PROMPT, ["1\n", "2\n"]),
        (MARKED, ["1;", "2;"]),
        (STRICT, ["1<|end|>\n", "2<|end|>\n"]),
    ],
    ids=["generation prompt", "end of text", "no generation prompt", "generation marks", "refuses to begin otherwise"],
)
def test_completion_only_is_what_the_assistant_says(letters: Any, template: str, expected: list[str]) -> None:
    assert learnt(template, letters) == expected


def test_the_pieces_are_the_whole_text(letters: Any) -> None:
    everything = render(config(chat_template=WITH_EOS), chat(), letters).text
    assert render(config(chat_template=WITH_EOS, train_on="completion"), chat(), letters).text == everything


def test_a_chat_that_ends_with_the_user_teaches_the_turns_before(letters: Any) -> None:
    assert learnt(PLAIN, letters, chat(*CHAT[:3])) == ["1<|end|>\n"]


def test_the_labels_of_a_chat_are_those_of_the_assistants_tokens(letters: Any) -> None:
    setting = config(chat_template=PLAIN, train_on="completion", strategy="line-by-line", add_special_tokens=True)
    built = build_sequences([chat(*CHAT[:2])], setting, letters)
    user, assistant, end = letters.convert_tokens_to_ids(["<|user|>", "<|assistant|>", "<|end|>"])
    newline = ids("\n")
    assert built.input_ids == [
        [BOS, user, *ids("one?"), end, *newline, assistant, *ids("1"), end, *newline, EOS],
    ]
    assert built.labels == [[-100] * 9 + [*ids("1"), end, *newline, EOS]]


def test_special_tokens_that_the_template_writes_are_not_doubled(letters: Any) -> None:
    setting = config(
        chat_template="{{ bos_token }}" + WITH_EOS + "\n", strategy="line-by-line", add_special_tokens=True
    )
    (built,) = build_sequences([chat(*CHAT[:2])], setting, letters).input_ids
    assert built.count(BOS) == built.count(EOS) == 1


def test_a_tokenizer_without_a_chat_template_is_an_error_with_a_way_out(letters: Any) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer has none.*Jinja template of your own"):
        render(config(chat_template=True), chat(), letters)


def test_messages_that_the_template_refuses_name_the_row(letters: Any) -> None:
    with pytest.raises(DataError, match=r"chat\.jsonl:3: .*a user has to begin"):
        render(config(chat_template=STRICT), chat(CHAT[1]), letters)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (None, "is null"),
        ("hello", "holds a text where a list of messages is expected"),
        ([], "holds no messages"),
        (["hello"], "holds a text as message 1"),
        ([{"content": "hello"}], "has no role in message 1"),
        ([CHAT[0], {"role": "assistant", "content": None}], "has no content in message 2"),
        ([{"role": "user", "content": 3.5}, {"role": "assistant", "content": {}}], "holds an object .* in message 2"),
    ],
)
def test_bad_messages_are_named(letters: Any, messages: Any, said: str) -> None:
    with pytest.raises(DataError, match=rf"chat\.jsonl:3: column 'messages' {said}"):
        render(config(chat_template=PLAIN), Row({"messages": messages}, "chat.jsonl", 3), letters)


def test_the_messages_may_be_in_another_column(letters: Any) -> None:
    row = Row({"talk": CHAT[:1]}, "f", 1)
    assert render(config(chat_template=NO_PROMPT, message_col="talk"), row, letters).text == "USER: one?\n"
