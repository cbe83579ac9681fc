"""Rows from every format, and every way in which they can be bad."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from olivine.config.schema import DataConfig
from olivine.data.rows import data_files, find_problems, iter_rows, read_rows, survey
from olivine.data.sources import parse_split
from olivine.errors import DataError, Location, UnavailableError

Write = Callable[..., DataConfig]
TONES: list[Any] = [{"phrase": f"phrase {n}", "tone": "joy" if n % 2 else "fear"} for n in range(10)]
TEMPLATE = "{phrase}: {tone}"


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def values(config: DataConfig) -> list[dict[str, Any]]:
    return [row.values for row in read_rows(config)]


def texts(config: DataConfig) -> list[str]:
    return [row.values["text"] for row in read_rows(config)]


# Formats --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.ndjson"])
def test_json_lines_whatever_the_suffix(write: Write, name: str) -> None:
    rows = read_rows(write(TONES, name, text_template=TEMPLATE))
    assert [row.values for row in rows] == TONES
    assert [row.line for row in rows] == list(range(1, 11))
    assert rows.columns == ["phrase", "tone"]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_a_json_array_whatever_the_suffix(write: Write, indent: int | None, name: str) -> None:
    rows = read_rows(write(json.dumps(TONES, indent=indent), name, text_template=TEMPLATE))
    assert [row.values for row in rows] == TONES
    assert [row.line for row in rows] == ([1] * 10 if indent is None else [2 + 4 * n for n in range(10)])


def test_an_array_may_have_white_space_and_a_byte_order_mark_before_it(write: Write) -> None:
    (row,) = read_rows(write(b'\xef\xbb\xbf\n\n [\n {"text": "a"} ]\n', "rows.json"))
    assert (row.values, row.line) == ({"text": "a"}, 4)


def test_json_lines_may_have_blank_lines_a_byte_order_mark_and_windows_line_ends(write: Write) -> None:
    rows = read_rows(write(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}'))
    assert [(row.values["text"], row.line) for row in rows] == [("a", 1), ("b", 3)]


def test_csv_has_a_header_and_quoted_fields_with_line_breaks(write: Write) -> None:
    rows = read_rows(write('phrase,tone\n"one, ""two""\nthree",joy\nfour,fear\n', "rows.csv", text_template=TEMPLATE))
    assert [row.values for row in rows] == [
        {"phrase": 'one, "two"\nthree', "tone": "joy"},
        {"phrase": "four", "tone": "fear"},
    ]
    assert [row.line for row in rows] == [2, 4]


def test_tsv_is_separated_by_tabs(write: Write) -> None:
    assert values(write("text\tn\na, b\t1\n", "rows.tsv")) == [{"text": "a, b", "n": "1"}]


def test_text_is_one_row_per_line_without_blank_ones(write: Write) -> None:
    rows = read_rows(write("one\n\n two \r\nthree", "rows.txt"))
    assert [(row.values["text"], row.line) for row in rows] == [("one", 1), (" two ", 3), ("three", 4)]


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz"])
def test_gzipped_files(write: Write, name: str) -> None:
    assert values(write(gzip.compress(lines(TONES).encode()), name, text_template=TEMPLATE)) == TONES


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist(TONES), tmp_path / "rows.parquet")
    config = DataConfig(name="d", data_files=str(tmp_path / "rows.parquet"), text_template=TEMPLATE)
    rows = read_rows(config)
    assert [row.values for row in rows] == TONES
    assert [row.line for row in rows] == list(range(1, 11))
    assert (survey(config).rows, survey(config).exact) == (10, True)


def test_arrow_files_in_both_of_arrows_formats(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_pylist(TONES)
    for name, new in (("stream.arrow", pyarrow.ipc.new_stream), ("file.arrow", pyarrow.ipc.new_file)):
        with new(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
        assert values(DataConfig(name="d", data_files=str(tmp_path / name), text_template=TEMPLATE)) == TONES


def test_data_name_decides_where_the_suffix_misleads(write: Write) -> None:
    assert values(write(TONES, "rows.txt", data_name="json", text_template=TEMPLATE)) == TONES


def test_a_suffix_that_tells_nothing_needs_data_name(write: Write) -> None:
    with pytest.raises(DataError, match=r"format of .*rows\.dat cannot be told.*Set data_name"):
        read_rows(write(TONES, "rows.dat"))


# Saved data sets ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two splits, saved by ``datasets`` itself, one of them in shards."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("saved") / "tones"
    train, test = datasets.Dataset.from_list(TONES), datasets.Dataset.from_list(TONES[:3])
    datasets.DatasetDict(train=train, test=test).save_to_disk(folder, num_shards={"train": 3, "test": 1})
    return folder


def test_a_saved_data_set_is_read_as_datasets_reads_it(saved: Path) -> None:
    import datasets

    config = DataConfig(name="d", data_name=str(saved), text_template=TEMPLATE)
    assert values(config) == datasets.load_from_disk(saved)["train"].to_list() == TONES
    assert survey(config).rows == 10
    assert find_problems(config) == []


def test_a_saved_data_set_has_splits_and_slices(saved: Path) -> None:
    config = DataConfig(name="d", data_name=str(saved), split="test[1:]", text_template=TEMPLATE)
    assert values(config) == TONES[1:3]


def test_one_split_of_a_saved_data_set_can_be_named_by_its_folder(saved: Path) -> None:
    assert len(read_rows(DataConfig(name="d", data_name=str(saved / "test"), text_template=TEMPLATE))) == 3


def test_a_split_that_a_saved_data_set_does_not_have_is_an_error(saved: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'tests'; it has train, test. Did you mean 'test'"):
        read_rows(DataConfig(name="d", data_name=str(saved), split="tests", text_template=TEMPLATE))


def test_a_folder_that_is_no_saved_data_set_says_how_to_name_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data set .*data_files: .*\*\.jsonl"):
        read_rows(DataConfig(name="d", data_name=str(tmp_path)))


def test_a_saved_data_set_with_a_missing_shard_is_an_error(saved: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(saved, tmp_path / "copy")
    next((tmp_path / "copy" / "train").glob("*.arrow")).unlink()
    with pytest.raises(DataError, match=r"is not whole: data-0000.* is missing"):
        read_rows(DataConfig(name="d", data_name=str(tmp_path / "copy"), text_template=TEMPLATE))


# The hub --------------------------------------------------------------------------------------------------------------


def test_a_hub_data_set_that_cannot_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    config = DataConfig(name="d", data_name="olivine-tests/no-such-data-set")
    with pytest.raises(UnavailableError, match=r"no-such-data-set is not on this machine.*data_files"):
        read_rows(config)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnavailableError, match=r"switched off"):
        survey(config)


# Finding files --------------------------------------------------------------------------------------------------------


def test_globs_are_sorted_and_lists_keep_their_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "z.jsonl"):
        (tmp_path / name).write_text(lines([{"text": name}]))
    glob = DataConfig(name="d", data_files=[str(tmp_path / "z.jsonl"), str(tmp_path / "*.jsonl")])
    assert texts(glob) == ["z.jsonl", "a.jsonl", "b.jsonl"]
    assert [file.name for file in data_files(glob)] == ["z.jsonl", "a.jsonl", "b.jsonl"]


def test_a_name_with_brackets_that_exists_is_no_glob(write: Write) -> None:
    assert texts(write([{"text": "a"}], "rows[1].jsonl")) == ["a"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trian.jsonl", r"there is no file .*trian\.jsonl. Did you mean .*train\.jsonl\?"),
        ("*.csv", r"no file matches .*\*\.csv"),
        ("dta/train.jsonl", r"there is no file .*Did you mean .*data\?"),
        ("data", r"is a folder. Name its files, e\.g\. .*data/\*\.jsonl"),
        ("elsewhere/deep/train.jsonl", r"there is no file .*There is no elsewhere in"),
        ("https://example.org/train.jsonl", r"not on this machine. Download it first"),
    ],
)
def test_a_file_that_is_not_there_names_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    (tmp_path / "train.jsonl").write_text(lines(TONES))
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=said):
        data_files(DataConfig(name="d", data_files=name))


def test_all_files_that_are_missing_are_named_at_once(tmp_path: Path) -> None:
    config = DataConfig(name="d", data_files=[str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    with pytest.raises(DataError) as raised:
        data_files(config)
    assert len(raised.value.problems) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "names no data"),
        ({"data_name": "json"}, "names no data"),
        ({"data_name": "./nowhere"}, "there is no folder"),
        ({"data_name": "jsnl"}, "no format 'jsnl'"),
        ({"data_name": "jsonl", "data_files": "x.jsonl"}, r"did you mean 'json'|Did you mean 'json'"),
    ],
)
def test_a_source_that_is_none_is_an_error(given: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        data_files(DataConfig(name="d", **given))


# Splits and limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "chosen"),
    [
        ("train", range(10)),
        ("train[:70%]", range(7)),
        ("train[70%:]", range(7, 10)),
        ("train[25%:55%]", range(2, 6)),
        ("train[2:4]", range(2, 4)),
        ("train[8:200]", range(8, 10)),
        ("train[-20%:]", range(8, 10)),
        ("train[-3:]", range(7, 10)),
        ("train[:-3]", range(7)),
        ("validation", range(10)),
    ],
)
def test_slices_mean_what_they_mean_in_datasets(write: Write, split: str, chosen: range) -> None:
    config = write(TONES, split=split, text_template=TEMPLATE)
    assert values(config) == [TONES[n] for n in chosen]
    assert survey(config).rows == len(chosen)


@pytest.mark.parametrize("split", ["train[", "train[5]", "train[:110%]", "train+test", "train[a:b]", ""])
def test_a_split_that_cannot_be_read_is_an_error(write: Write, split: str) -> None:
    config = write(TONES, split=split, text_template=TEMPLATE)
    with pytest.raises(DataError):
        read_rows(config)
    (problem,) = find_problems(config)
    assert problem.where == Location(path="split")


def test_per_cent_are_rounded_as_in_datasets() -> None:
    datasets = pytest.importorskip("datasets")
    for total in (7, 10, 106, 1000):
        for split in ("train[:70%]", "train[33%:66%]", "train[-10%:]", "train[5:]"):
            (expected,) = datasets.ReadInstruction.from_spec(split).to_absolute({"train": total})
            assert parse_split(split).bounds(total) == (expected.from_ or 0, expected.to or total)


def test_a_split_of_plain_files_is_noted(write: Write) -> None:
    assert "files have no splits" in read_rows(write(TONES, split="validation", text_template=TEMPLATE)).notes[0]


def test_max_rows_stops_reading(write: Write) -> None:
    config = write(lines(TONES[:3]) + "broken\n", max_rows=3, text_template=TEMPLATE)
    assert values(config) == TONES[:3]
    assert survey(config).rows == 3
    assert find_problems(config) == []


def test_max_rows_counts_good_rows(write: Write) -> None:
    config = write([{"text": "a"}, {"text": None}, {"text": "b"}, {"text": "c"}], max_rows=2, on_bad_row="skip")
    assert texts(config) == ["a", "b"]
    assert survey(config).rows == 2


def test_what_is_outside_the_slice_is_not_found_fault_with(write: Write) -> None:
    config = write(lines(TONES[:3]) + "broken\n", split="train[:3]", text_template=TEMPLATE)
    assert values(config) == TONES[:3]
    assert find_problems(config) == []


# Bad rows -------------------------------------------------------------------------------------------------------------

GOOD = '{"text": "good"}\n'
BAD: list[tuple[str, bytes, str]] = [
    ("rows.jsonl", b'{"text": "a" "b"}', "broken JSON: Expecting ',' delimiter at column 14"),
    ("rows.jsonl", b'{"text": "a', "broken JSON: "),
    ("rows.jsonl", b'["a"]', "a row has to be a JSON object, but this is a list"),
    ("rows.jsonl", b'"a"', "a row has to be a JSON object, but this is a text"),
    ("rows.jsonl", b'{"text": null}', "column 'text' is null"),
    ("rows.jsonl", b'{"Text": "a"}', "column 'text' is missing"),
    ("rows.jsonl", b'{"text": ["a"]}', "column 'text' holds a list where text is expected"),
    ("rows.jsonl", b'{"text": "caf\xe9"}', r"the text is not valid UTF-8 \(byte 0xe9\)"),
    ("rows.jsonl", b'{"text": "\\ud83d"}', "column 'text' holds half of a surrogate pair"),
    ("rows.jsonl", b'{"text": ' + b"[" * 100_000, "broken JSON"),
    ("rows.jsonl", b'{"text": "a", "n": ' + b"1" * 5000 + b"}", "broken JSON"),
    ("rows.csv", b"a,b", "the row has 2 fields, the header has 1"),
    ("rows.csv", b'"a"b', "broken CSV"),
    ("rows.csv", b"caf\xe9", "the text is not valid UTF-8"),
    ("rows.txt", b"caf\xe9", "the text is not valid UTF-8"),
]


@pytest.mark.parametrize(("name", "line", "said"), BAD)
def test_a_bad_row_is_an_error_with_file_line_and_remedy(write: Write, name: str, line: bytes, said: str) -> None:
    good = GOOD if name.endswith("jsonl") else "good\n"
    head = "text\n" if name.endswith("csv") else good
    config = write((head + good).encode() + line + b"\n" + good.encode(), name)
    with pytest.raises(DataError, match=rf"{name}:3: {said}") as raised:
        read_rows(config)
    assert raised.value.problems[0].remedy
    assert find_problems(config) == list(raised.value.problems)
    with pytest.raises(DataError, match=rf"{name}:3: {said}"):
        list(iter_rows(config))


@pytest.mark.parametrize(("name", "line", "said"), BAD)
def test_a_bad_row_can_be_skipped_and_is_counted(write: Write, name: str, line: bytes, said: str) -> None:
    good = GOOD if name.endswith("jsonl") else "good\n"
    head = "text\n" if name.endswith("csv") else good
    config = write((head + good).encode() + line + b"\n" + good.encode(), name, on_bad_row="skip")
    rows = read_rows(config)
    assert {row.values["text"] for row in rows} == {"good"}
    assert [problem.where.line for problem in rows.skipped if problem.where] == [3]
    assert rows.notes[0].startswith("1 bad row left out")
    assert find_problems(config) == []
    assert survey(config).rows == len(rows) == len(list(iter_rows(config)))


def test_an_empty_cell_is_null(write: Write) -> None:
    with pytest.raises(DataError, match=r"rows\.csv:3: column 'tone' is null"):
        read_rows(write("phrase,tone\na,joy\nb,\n", "rows.csv", text_template=TEMPLATE))


def test_a_column_that_is_not_used_may_hold_anything(write: Write) -> None:
    assert len(read_rows(write([{"text": "a", "meta": None}, {"text": "b", "meta": [1]}, {"text": "c"}]))) == 3


def test_the_first_ten_bad_rows_are_named_and_all_are_counted(write: Write) -> None:
    config = write([{"text": "a"}, *[{"text": None}] * 25])
    with pytest.raises(DataError) as raised:
        read_rows(config)
    *named, count = raised.value.problems
    assert [problem.where.line for problem in named if problem.where] == list(range(2, 12))
    assert count.what == "25 bad rows in all, the first 10 are named"
    assert "on_bad_row: skip" in count.remedy


def test_a_column_that_no_row_has_is_one_error_not_one_per_row(write: Write) -> None:
    config = write(TONES, text_template="{phrase}: {tonne}", on_bad_row="skip")
    with pytest.raises(DataError) as raised:
        read_rows(config)
    (problem,) = raised.value.problems
    assert problem.what.startswith("there is no column 'tonne' in ")
    assert problem.why == "its columns are: phrase, tone"
    assert problem.remedy == "did you mean 'tone'?"
    assert problem.where == Location(path="text_template")


def test_skipping_every_row_leaves_an_error(write: Write) -> None:
    with pytest.raises(DataError, match=r"no row is left: all 2 .* are bad"):
        read_rows(write([{"text": None}, {"text": None}], on_bad_row="skip"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.jsonl", ""), ("rows.jsonl", "\n\n"), ("rows.json", "[]"), ("rows.csv", "text\n"), ("rows.txt", "\n")],
)
def test_an_empty_data_set_is_an_error(write: Write, name: str, content: str) -> None:
    config = write(content, name)
    with pytest.raises(DataError, match="the data set is empty"):
        read_rows(config)
    (problem,) = find_problems(config)
    assert "the data set is empty" in problem.what


def test_a_slice_without_rows_is_an_error(write: Write) -> None:
    with pytest.raises(DataError, match=r"slice train\[20:\] holds no row"):
        read_rows(write(TONES, split="train[20:]", text_template=TEMPLATE))


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ('[\n{"text": "a"},\n{"text": }\n]', 3, "broken JSON: Expecting value"),
        ('[\n{"text": "a"}\n{"text": "b"}\n]', 3, "has to follow an element"),
        ('[\n{"text": "a"},\n', 3, "broken JSON"),
        ('[\n{"text": "a"}\n', 3, "the end of the file"),
        ('[\n{"text": "a"}\n]\nmore', 4, "something after the end"),
        ('{\n  "text": "a"\n}\n', 1, "spread over several lines"),
    ],
)
def test_a_broken_array_names_the_line(write: Write, content: str, line: int, said: str) -> None:
    for on_bad_row in ("error", "skip"):  # nobody knows how many rows would be skipped
        with pytest.raises(DataError, match=rf"rows\.json:{line}: .*{said}"):
            read_rows(write(content, "rows.json", on_bad_row=on_bad_row))


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.parquet", "rows.arrow"])
def test_a_damaged_file_is_an_error_that_names_it(write: Write, name: str) -> None:
    whole = gzip.compress(lines(TONES * 100).encode())
    content = whole[: len(whole) // 2] if name.endswith("gz") else b"PAR1 no parquet file at all PAR1"
    config = write(content, name, text_template=TEMPLATE, on_bad_row="skip")
    with pytest.raises(DataError, match=name):
        read_rows(config)
    assert any(problem.where and problem.where.file for problem in find_problems(config))


def test_a_header_with_a_column_twice_is_an_error(write: Write) -> None:
    with pytest.raises(DataError, match=r"rows\.csv:1: the header names a column twice: 'text'"):
        read_rows(write("text,text\na,b\n", "rows.csv"))


def test_columns_of_ones_own_can_be_asked_for(write: Write) -> None:
    assert len(read_rows(write(TONES), columns=["phrase", "tone"])) == 10
    with pytest.raises(DataError, match="no column 'label'"):
        read_rows(write(TONES), columns=["label"])


# Survey and problems --------------------------------------------------------------------------------------------------


def test_a_survey_counts_rows_and_shows_the_first(write: Write) -> None:
    found = survey(write(TONES, text_template=TEMPLATE))
    assert (found.rows, found.exact, found.columns) == (10, True, ("phrase", "tone"))
    assert [row.values for row in found.first_rows] == TONES[:5]


def test_a_survey_counts_rows_whose_template_is_still_wrong(write: Write) -> None:
    assert survey(write(TONES)).rows == 10
    assert survey(write(TONES, text_template="{phrase.x}")).rows == 10


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.jsonl.gz"])
def test_a_survey_of_large_files_estimates(write: Write, name: str) -> None:
    draw = random.Random(0)
    many = [{"text": f"row {draw.randrange(10**9, 10**10)}"} for _ in range(60_000)]
    content: str = lines(many)
    if name == "rows.json":
        content = json.dumps(many)
    if name == "rows.csv":
        content = "text\n" + "".join(row["text"] + "\n" for row in many)
    config = write(gzip.compress(content.encode()) if name.endswith("gz") else content, name)
    size = data_files(config)[0].stat().st_size
    found = survey(config, size // 10)
    assert not found.exact
    assert found.rows is not None
    # What a small gzipped file unpacks to at a time is a large part of it.
    assert abs(found.rows - 60_000) < (20_000 if name.endswith("gz") else 6_000)
    assert (survey(config).rows, survey(config).exact) == (60_000, True)


def test_a_survey_sees_that_a_file_has_changed(write: Write) -> None:
    assert survey(write(TONES, text_template=TEMPLATE)).rows == 10
    assert survey(write(TONES[:4], text_template=TEMPLATE)).rows == 4


def test_problems_of_config_and_files_are_found_together(tmp_path: Path) -> None:
    config = DataConfig(
        name="d", data_files=str(tmp_path / "none.jsonl"), strategy="join-sliding-window", max_seq_len=1
    )
    problems = find_problems(config, where=Location("w.yaml", 4, "data_configs.d"))
    assert {problem.where.path for problem in problems if problem.where} == {
        "data_configs.d.stride",
        "data_configs.d.max_seq_len",
        "data_configs.d.data_files",
    }


def test_a_template_that_is_refused_is_found_once(write: Write) -> None:
    (problem,) = find_problems(write(TONES, text_template="{phrase.x}"))
    assert problem.where == Location(path="text_template")


def test_surveying_imports_nothing_heavy(write: Write) -> None:
    config = write(TONES, text_template=TEMPLATE)
    code = (
        "import sys\n"
        "from olivine.config.schema import DataConfig\n"
        "import olivine.data.preview, olivine.data.splitting, olivine.data.sequences\n"
        "from olivine.data.rows import find_problems, survey\n"
        "config = DataConfig.model_validate_json(sys.argv[1])\n"
        "assert find_problems(config) == [] and survey(config).rows == 10\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'numpy', 'pandas', 'jinja2', 'huggingface_hub'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, config.model_dump_json()], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
