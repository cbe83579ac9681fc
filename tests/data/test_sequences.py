"""Each strategy against sequences computed by hand; one letter is one token."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from letter_tokens import BOS, EOS, PAD, config, ids, letter_tokenizer, rows

from olivine.data.formats import Row
from olivine.data.sequences import build_sequences, check_config
from olivine.errors import ConfigError, DataError

NO = -100
TEXTS = st.lists(st.text(alphabet="abc \n", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=12)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# join -----------------------------------------------------------------------------------------------------------------


def test_join_cuts_the_rows_into_blocks_with_the_joiner_between_them(letters: Any) -> None:
    built = build_sequences(rows("abc", "de"), config(max_seq_len=4, joiner="--"), letters)
    assert built.input_ids == [ids("abc-"), ids("-de")]
    assert built.labels == built.input_ids


def test_join_keeps_a_block_that_ends_exactly_at_the_end(letters: Any) -> None:
    built = build_sequences(rows("abcd", "efgh"), config(max_seq_len=4, last_block="drop"), letters)
    assert built.input_ids == [ids("abcd"), ids("efgh")]
    assert built.report.tokens_dropped == 0


def test_join_drops_the_last_block_only_if_asked_and_reports_it(letters: Any) -> None:
    built = build_sequences(rows("abcdefg"), config(max_seq_len=4, last_block="drop"), letters)
    assert built.input_ids == [ids("abcd")]
    assert built.report.tokens_dropped == 3
    assert built.report.notes == ["the last block of 3 tokens is dropped (last_block: drop)"]


def test_a_data_set_shorter_than_one_block_is_one_short_block(letters: Any) -> None:
    assert build_sequences(rows("ab"), config(max_seq_len=8), letters).input_ids == [ids("ab")]


def test_a_data_set_shorter_than_one_block_cannot_be_used_if_the_last_block_is_dropped(letters: Any) -> None:
    with pytest.raises(DataError, match=r"3 of 8 tokens.*max_seq_len to 3 or less"):
        build_sequences(rows("abc"), config(max_seq_len=8, last_block="drop"), letters)


def test_a_last_block_of_one_token_has_nothing_to_predict_and_is_reported(letters: Any) -> None:
    built = build_sequences(rows("abcde"), config(max_seq_len=4), letters)
    assert built.input_ids == [ids("abcd")]
    assert built.report.tokens_dropped == 1
    assert built.report.notes == ["1 sequence with no token to learn left out"]


def test_max_samples_counts_blocks(letters: Any) -> None:
    built = build_sequences(rows("abcd", "efgh", "ijkl"), config(max_seq_len=4, max_samples=2), letters)
    assert built.input_ids == [ids("abcd"), ids("efgh")]
    assert built.report.rows_used == 2
    assert built.report.notes == ["max_samples: 2 sequences made, the rest of the rows left out"]


def test_max_samples_that_is_met_exactly_leaves_nothing_to_note(letters: Any) -> None:
    assert build_sequences(rows("abcd"), config(max_seq_len=4, max_samples=1), letters).report.notes == []


@quick
@given(texts=TEXTS, length=st.integers(2, 9), joiner=st.sampled_from([None, "--"]), special=st.booleans())
def test_join_loses_no_token(letters: Any, texts: list[str], length: int, joiner: str | None, special: bool) -> None:
    around = ([BOS], [EOS]) if special else ([], [])
    stream: list[int] = []
    for number, text in enumerate(texts):
        stream += (ids(joiner or "") if number else []) + around[0] + ids(text) + around[1]
    if len(stream) < 2:
        return
    setting = config(max_seq_len=length, joiner=joiner, add_special_tokens=special)
    built = build_sequences(rows(*texts), setting, letters)
    assert all(len(block) == length for block in built.input_ids[:-1])
    joined = [token for block in built.input_ids for token in block]
    # A single token after the last block has nothing to predict it from.
    assert joined == (stream[:-1] if len(stream) % length == 1 else stream)
    assert built.report.tokens + built.report.tokens_dropped == len(stream)


# join-sliding-window --------------------------------------------------------------------------------------------------


def test_windows_begin_every_stride_and_count_only_what_is_new(letters: Any) -> None:
    built = build_sequences(rows("abcdefg"), config(strategy="join-sliding-window", max_seq_len=4, stride=2), letters)
    assert built.input_ids == [ids("abcd"), ids("cdef"), ids("efg")]
    assert built.labels == [ids("abcd"), [NO, NO, *ids("ef")], [NO, NO, *ids("g")]]


@quick
@given(texts=TEXTS, length=st.integers(2, 9), data=st.data())
def test_sliding_windows_count_each_token_exactly_once(
    letters: Any, texts: list[str], length: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, length - 1))
    stream = [token for text in texts for token in ids(text)]
    if len(stream) < 2:
        return
    setting = config(strategy="join-sliding-window", max_seq_len=length, stride=stride)
    built = build_sequences(rows(*texts), setting, letters)
    assert [label for labels in built.labels for label in labels if label != NO] == stream


def test_sliding_windows_need_a_stride() -> None:
    (problem,) = check_config(config(strategy="join-sliding-window"))
    assert problem.where is not None
    assert problem.where.path == "stride"


def test_a_stride_beyond_the_window_would_leave_tokens_out() -> None:
    (problem,) = check_config(config(strategy="join-sliding-window", max_seq_len=4, stride=5))
    assert "larger than max_seq_len" in problem.what


# join-random ----------------------------------------------------------------------------------------------------------


def test_random_blocks_begin_at_a_row_and_go_on_with_those_after_it(letters: Any) -> None:
    setting = config(strategy="join-random", max_seq_len=5, max_samples=3, random_seed=1)
    built = build_sequences(rows("ab", "cd", "ef"), setting, letters)
    expected = {tuple(ids(block)) for block in ("abcde", "cdefa", "efabc")}
    assert {tuple(block) for block in built.input_ids} == expected


def test_random_blocks_repeat_no_row_within_a_block(letters: Any) -> None:
    setting = config(strategy="join-random", max_seq_len=50, max_samples=2, random_seed=1)
    built = build_sequences(rows("ab", "cd"), setting, letters)
    assert sorted(built.input_ids) == [ids("abcd"), ids("cdab")]


@pytest.mark.parametrize("strategy", ["join-random", "line-by-line-random"])
def test_random_strategies_give_the_same_for_the_same_seed_and_other_for_another(letters: Any, strategy: str) -> None:
    texts = [f"row {number}" for number in range(40)]

    def built(seed: int) -> list[list[int]]:
        setting = config(strategy=strategy, max_seq_len=6, max_samples=10, random_seed=seed)
        return build_sequences(rows(*texts), setting, letters).input_ids

    assert built(1) == built(1)
    assert built(1) != built(2)
    assert len(built(1)) == 10


@pytest.mark.parametrize("strategy", ["join-random", "line-by-line-random"])
def test_random_strategies_need_a_number_of_samples_and_a_seed(letters: Any, strategy: str) -> None:
    paths = {problem.where.path for problem in check_config(config(strategy=strategy)) if problem.where}
    assert paths == {"max_samples", "random_seed"}
    with pytest.raises(ConfigError, match="random_seed"):
        build_sequences(rows("ab"), config(strategy=strategy, max_samples=1), letters)


# line-by-line ---------------------------------------------------------------------------------------------------------


def test_line_by_line_is_one_sequence_per_row_cut_and_reported(letters: Any) -> None:
    built = build_sequences(rows("ab", "cdefgh"), config(strategy="line-by-line", max_seq_len=4), letters)
    assert built.input_ids == [ids("ab"), ids("cdef")]
    assert (built.report.truncated_rows, built.report.tokens_dropped) == (1, 2)


def test_padding_is_left_out_of_the_loss_by_position_even_if_it_is_the_eos_token() -> None:
    tokenizer = letter_tokenizer(pad_token="</s>")
    setting = config(strategy="line-by-line", max_seq_len=6, pad_to_max_len=True, add_special_tokens=True)
    built = build_sequences(rows("ab"), setting, tokenizer)
    assert built.input_ids == [[BOS, *ids("ab"), EOS, EOS, EOS]]
    assert built.labels == [[BOS, *ids("ab"), EOS, NO, NO]]
    assert built.lengths == [4]
    assert built.report.tokens == 4


def test_padding_uses_the_pad_token(letters: Any) -> None:
    setting = config(strategy="line-by-line", max_seq_len=4, pad_to_max_len=True)
    assert build_sequences(rows("ab"), setting, letters).input_ids == [[*ids("ab"), PAD, PAD]]


def test_joined_blocks_are_never_padded(letters: Any) -> None:
    built = build_sequences(rows("ab"), config(max_seq_len=4, pad_to_max_len=True), letters)
    assert built.input_ids == [ids("ab")]


def test_short_sequences_can_be_left_out_and_are_reported(letters: Any) -> None:
    setting = config(strategy="line-by-line", max_seq_len=3, drop_short_sequences=True)
    built = build_sequences(rows("ab", "cdef", "ghi"), setting, letters)
    assert built.input_ids == [ids("cde"), ids("ghi")]
    assert built.report.tokens_dropped == 3
    assert "1 row shorter than 3 tokens left out" in built.report.notes


def test_only_short_sequences_is_an_error_that_says_so(letters: Any) -> None:
    setting = config(strategy="line-by-line", max_seq_len=9, drop_short_sequences=True)
    with pytest.raises(DataError, match=r"no sequence is left.*2 rows shorter than 9 tokens"):
        build_sequences(rows("ab", "c"), setting, letters)


def test_padding_and_dropping_short_sequences_exclude_each_other() -> None:
    assert check_config(config(strategy="line-by-line", pad_to_max_len=True, drop_short_sequences=True))


def test_max_samples_counts_lines(letters: Any) -> None:
    built = build_sequences(rows("ab", "cd", "ef"), config(strategy="line-by-line", max_samples=2), letters)
    assert built.input_ids == [ids("ab"), ids("cd")]


def test_random_lines_draw_each_row_once_and_say_when_there_are_no_more(letters: Any) -> None:
    setting = config(strategy="line-by-line-random", max_samples=5, random_seed=3)
    built = build_sequences(rows("ab", "cd", "ef"), setting, letters)
    assert sorted(built.input_ids) == [ids("ab"), ids("cd"), ids("ef")]
    assert built.report.notes == ["3 of max_samples 5 sequences: there are no more rows to draw"]


def test_random_lines_try_again_for_a_sequence_long_enough(letters: Any) -> None:
    texts = ["ab"] * 5 + ["cdef"]
    common = {"strategy": "line-by-line-random", "max_seq_len": 4, "max_samples": 1, "drop_short_sequences": True}
    built = build_sequences(rows(*texts), config(**common, random_seed=0, random_retries=5), letters)
    assert built.input_ids == [ids("cdef")]


def test_random_lines_give_up_after_the_retries(letters: Any) -> None:
    common = {"strategy": "line-by-line-random", "max_seq_len": 4, "max_samples": 1, "drop_short_sequences": True}
    with pytest.raises(DataError, match=r"1 sample not made: no usable row in 3 draws"):
        build_sequences(rows(*["ab"] * 9), config(**common, random_seed=0, random_retries=2), letters)


# Special tokens -------------------------------------------------------------------------------------------------------


def test_bos_and_eos_are_ids_without_spaces_around_the_text(letters: Any) -> None:
    built = build_sequences(rows("hi"), config(add_special_tokens=True), letters)
    assert built.input_ids == [[BOS, *ids("hi"), EOS]]


def test_a_tokenizer_without_bos_gets_none_and_no_word_in_its_place() -> None:
    built = build_sequences(rows("hi"), config(add_special_tokens=True), letter_tokenizer(bos_token=None))
    assert built.input_ids == [[*ids("hi"), EOS]]


def test_special_tokens_that_the_text_has_are_not_doubled(letters: Any) -> None:
    built = build_sequences(
        rows("<s>hi</s>", "<s>ho</s>\n"), config(add_special_tokens=True, strategy="line-by-line"), letters
    )
    assert built.input_ids == [[BOS, *ids("hi"), EOS], [BOS, *ids("ho"), EOS, *ids("\n")]]


def test_a_row_that_is_cut_does_not_pretend_to_end(letters: Any) -> None:
    built = build_sequences(
        rows("abcdef"), config(add_special_tokens=True, strategy="line-by-line", max_seq_len=4), letters
    )
    assert built.input_ids == [[BOS, *ids("abc")]]


def test_the_joiner_gets_no_space_that_a_tokenizer_puts_before_every_text() -> None:
    from tokenizers import normalizers

    tokenizer = letter_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Prepend("_")
    built = build_sequences(rows("ab", "cd"), config(joiner="--"), tokenizer)
    assert built.input_ids == [ids("_ab--_cd")]


# Completion only ------------------------------------------------------------------------------------------------------

QA = [Row({"q": "2+2", "a": "4"}, "qa.jsonl", 1), Row({"q": "1+1", "a": "2"}, "qa.jsonl", 2)]


def test_completion_of_a_corpus_is_the_last_placeholder_and_what_follows_it(letters: Any) -> None:
    setting = config(text_template="Q{q}A{a}!", train_on="completion", strategy="line-by-line", add_special_tokens=True)
    built = build_sequences(QA[:1], setting, letters)
    assert built.input_ids == [[BOS, *ids("Q2+2A4!"), EOS]]
    assert built.labels == [[NO, *[NO] * 5, *ids("4!"), EOS]]


def test_join_carries_the_mask_along_and_keeps_the_joiner_out_of_the_loss(letters: Any) -> None:
    setting = config(text_template="{q}={a}", train_on="completion", joiner="--", max_seq_len=7)
    built = build_sequences(QA, setting, letters)
    assert built.input_ids == [ids("2+2=4--"), ids("1+1=2")]
    assert built.labels == [[NO] * 4 + ids("4") + [NO] * 2, [NO] * 4 + ids("2")]


def test_a_block_with_nothing_to_learn_is_left_out(letters: Any) -> None:
    setting = config(text_template="{q}={a}", train_on="completion", joiner=None, max_seq_len=2)
    built = build_sequences([*QA[:1], Row({"q": "9-9+1", "a": "1"}, "qa.jsonl", 2)], setting, letters)
    # 2+ | 2= | 49 | -9 | +1 | =1: only the last has something to predict that is in the loss.
    assert built.input_ids == [ids("=1")]
    assert built.report.tokens_dropped == 10
    assert built.report.notes == ["5 sequences with no token to learn left out"]


def test_a_token_that_lies_partly_in_the_completion_is_in_the_loss() -> None:
    tokenizer = letter_tokenizer(merged=["=4"])
    merged = tokenizer.convert_tokens_to_ids("=4")
    setting = config(text_template="{q}={a}", train_on="completion", strategy="line-by-line")
    built = build_sequences(QA[:1], setting, tokenizer)
    assert built.input_ids == [[*ids("2+2"), merged]]
    assert built.labels == [[NO, NO, NO, merged]]


def test_the_text_is_tokenised_as_a_whole_whatever_is_in_the_loss(pico_model: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pico_model)
    row = [Row({"phrase": "cricket is a wonderful sport!", "tone": "joy"}, "f", 1)]
    common = {"text_template": "### Text: {phrase}\n### The tone is: {tone}", "strategy": "line-by-line"}
    everything = build_sequences(row, config(**common), tokenizer)
    completion = build_sequences(row, config(**common, train_on="completion"), tokenizer)
    assert completion.input_ids == everything.input_ids
    learnt = [label for label in completion.labels[0] if label != NO]
    assert tokenizer.decode(learnt).strip() == "joy"
    assert 0 < len(learnt) < len(everything.labels[0])


def test_a_slow_tokenizer_finds_the_same_completion(letters: Any) -> None:
    class Slow:
        """The same tokens without positions."""

        is_fast = False
        bos_token_id, eos_token_id, eos_token = BOS, EOS, "</s>"

        def __call__(self, text: Any, **options: Any) -> Any:
            assert not options.get("return_offsets_mapping")
            return letters(text, **options)

    setting = config(text_template="Q{q}A{a}!", train_on="completion", add_special_tokens=True, max_seq_len=6)
    fast, slow = (build_sequences(QA, setting, tokenizer) for tokenizer in (letters, Slow()))
    assert (slow.input_ids, slow.labels) == (fast.input_ids, fast.labels)


def test_the_last_of_several_columns_is_the_completion(letters: Any) -> None:
    built = build_sequences(QA[:1], config(text_cols=["q", "a"], train_on="completion"), letters)
    assert built.input_ids == [ids("2+2 4")]
    assert built.labels == [[NO] * 4 + ids("4")]


# Pairs ----------------------------------------------------------------------------------------------------------------


def pair(**values: Any) -> Any:
    return config(dataset_type="pair", prompt_col="q", completion_col="a", add_special_tokens=True, **values)


def test_a_pair_is_bos_prompt_completion_eos_with_the_prompt_out_of_the_loss(letters: Any) -> None:
    built = build_sequences(QA, pair(), letters)
    assert built.input_ids == [[BOS, *ids("2+24"), EOS], [BOS, *ids("1+12"), EOS]]
    assert built.labels == [[NO, NO, NO, NO, *ids("4"), EOS], [NO, NO, NO, NO, *ids("2"), EOS]]


def test_a_pair_can_be_trained_on_whole(letters: Any) -> None:
    built = build_sequences(QA[:1], pair(train_on="all"), letters)
    assert built.labels == built.input_ids


def test_prompt_and_completion_are_cut_separately(letters: Any) -> None:
    row = [Row({"q": "abcdef", "a": "uvwxyz"}, "f", 1)]
    built = build_sequences(row, pair(max_prompt_len=3, max_completion_len=2), letters)
    assert built.input_ids == [[BOS, *ids("abuv")]]
    assert built.labels == [[NO, NO, NO, *ids("uv")]]
    assert (built.report.truncated_rows, built.report.tokens_dropped) == (1, 9)


def test_the_whole_pair_is_cut_at_max_seq_len(letters: Any) -> None:
    built = build_sequences(QA[:1], pair(max_seq_len=5), letters)
    assert built.input_ids == [[BOS, *ids("2+24")]]


def test_a_pair_whose_completion_is_cut_off_is_left_out_and_reported(letters: Any) -> None:
    rows_ = [*QA[:1], Row({"q": "a long question", "a": "no"}, "f", 2)]
    built = build_sequences(rows_, pair(max_seq_len=8), letters)
    assert built.report.sequences == 1
    assert built.report.rows_used == 1
    assert "1 sequence with no token to learn left out" in built.report.notes


def test_pairs_from_templates(letters: Any) -> None:
    setting = config(dataset_type="pair", prompt_template="Q: {q}\n", completion_template="A: {a}")
    built = build_sequences(QA[:1], setting, letters)
    assert built.input_ids == [ids("Q: 2+2\nA: 4")]
    assert built.labels == [[NO] * 7 + ids("A: 4")]


def test_pairs_are_not_joined() -> None:
    (problem,) = check_config(pair(strategy="join-sliding-window", stride=4))
    assert "pairs are not joined" in problem.what


def test_a_prompt_that_may_fill_the_sequence_leaves_no_room_for_the_completion() -> None:
    (problem,) = check_config(pair(max_seq_len=16, max_prompt_len=16))
    assert problem.where is not None
    assert problem.where.path == "max_prompt_len"


# Rows -----------------------------------------------------------------------------------------------------------------


def test_rows_without_text_are_left_out_and_counted(letters: Any) -> None:
    built = build_sequences(rows("ab", "  ", "", "cd"), config(joiner="-"), letters)
    assert built.input_ids == [ids("ab-cd")]
    assert (built.report.rows_in, built.report.rows_used) == (4, 2)
    assert built.report.notes == ["2 rows without any text left out"]


def test_no_rows_is_an_error(letters: Any) -> None:
    with pytest.raises(DataError, match="empty"):
        build_sequences([], config(), letters)


def test_a_sequence_of_one_token_cannot_be_asked_for() -> None:
    (problem,) = check_config(config(max_seq_len=1))
    assert "nothing to predict" in problem.what


def test_batches_of_rows_give_what_one_batch_gives(letters: Any) -> None:
    texts = [f"row {number}" for number in range(2500)]
    built = build_sequences(rows(*texts), config(max_seq_len=64, joiner="-"), letters)
    assert [token for block in built.input_ids for token in block] == ids("-".join(texts))
    assert built.report.rows_used == 2500
