"""Strict loading: all mistakes at once, each with its place and the nearest valid name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olivine.config import load
from olivine.config.schema import Workflow
from olivine.config.writing import dump
from olivine.errors import ConfigError

WORKFLOW = """\
version: 1
input_model:
  model_path: base
data_configs:
  - name: train
    data_files: train.jsonl
systems:
  here: {device: cpu}
passes:
  lora:
    type: lora
    r: 16
    train_data_config: train
  builder:
    type: ModelBuilder
    precision: int4
evaluators:
  tone:
    metrics:
      - type: size
engine:
  evaluator: tone
  host: here
  output_dir: out
"""


def write(folder: Path, text: str, name: str = "workflow.yaml") -> Path:
    (folder / "base").mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def problems(folder: Path, text: str, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), **options)
    return [str(problem) for problem in caught.value.problems]


def test_a_valid_file_loads_with_absolute_paths(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, WORKFLOW))
    assert loaded.dialect == "olivine-1"
    assert loaded.notes == ()
    workflow = loaded.workflow
    assert workflow.input_model.model_path == str(tmp_path / "base")
    assert workflow.data_configs[0].data_files == str(tmp_path / "train.jsonl")
    assert workflow.engine.output_dir == str(tmp_path / "out")
    assert workflow.passes["lora"].type == "LoRA"
    assert workflow.passes["lora"].params == {"r": 16, "train_data_config": "train"}


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("    r: 16", "    lora_r: 16", 12, ["`lora_r` is not a key of LoRA", "Did you mean r?", "passes.lora.lora_r"]),
        ("    r: 16", "    r: sixty", 12, ["'sixty', a text", "whole number"]),
        ("    r: 16", "    r: 0", 12, ["at least 1"]),
        ("type: lora", "type: loar", 11, ["no pass 'loar'", "LoRA"]),
        ("train_data_config: train", "train_data_config: trian", 13, ["'trian'", "Did you mean train?"]),
        ("precision: int4", "precision: int5", 16, ["int5", "int4"]),
        ("type: size", "type: sise", 20, ["no metric 'sise'", "size"]),
        ("evaluator: tone", "evaluator: tune", 22, ["Did you mean tone?"]),
        ("host: here", "host: there", 23, ["Did you mean here?"]),
        ("output_dir: out", "outptu_dir: out", 24, ["outptu_dir", "Did you mean output_dir?"]),
        ("device: cpu", "device: cpus", 8, ["'cpus'", "Did you mean cpu?"]),
        ("passes:", "pases:", 9, ["`pases`", "Did you mean passes?"]),
        ("version: 1", "version: 7", 1, ["version"]),
        ("name: train", "name: tra.in", 5, ["tra.in"]),
    ],
)
def test_one_mistake_is_named_with_its_line_and_the_remedy(
    tmp_path: Path, old: str, new: str, line: int, said: list[str]
) -> None:
    assert WORKFLOW.count(old) == 1
    found = problems(tmp_path, WORKFLOW.replace(old, new))
    matching = [each for each in found if f"workflow.yaml:{line}," in each and all(text in each for text in said)]
    assert matching, found


def test_all_mistakes_are_named_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        WORKFLOW.replace("    r: 16", "    lora_r: 16")
        .replace("int4", "int5")
        .replace("evaluator: tone", "evaluatr: x")
    )
    found = problems(tmp_path, text)
    assert len(found) == 3
    assert [each.split(":")[1].split(",")[0] for each in found] == ["12", "16", "22"]


def test_json_has_lines_too(tmp_path: Path) -> None:
    text = '{\n "version": 1,\n "input_model": {\n  "model_path": "base"\n },\n "engine": {\n  "cach_dir": "x"\n }\n}'
    with pytest.raises(ConfigError, match=r"workflow\.json:7, engine\.cach_dir"):
        load(write(tmp_path, text, "workflow.json"))


def test_two_data_configs_of_one_name_are_refused(tmp_path: Path) -> None:
    text = WORKFLOW.replace("systems:", "  - name: train\n    data_files: b.jsonl\nsystems:")
    assert any("two data configs" in each for each in problems(tmp_path, text))


def test_overrides_set_values_and_are_named_when_they_are_wrong(tmp_path: Path) -> None:
    file = write(tmp_path, WORKFLOW)
    loaded = load(file, overrides=["passes.lora.r=8", "data_configs.train.max_seq_len=64", "engine.output_dir=other"])
    assert loaded.workflow.passes["lora"].params["r"] == 8
    assert loaded.workflow.data_configs[0].max_seq_len == 64
    assert loaded.workflow.engine.output_dir == str(tmp_path / "other")
    assert loaded.locate("passes.lora.r").file == "--set"
    for wrong, said in (
        ("passes.lora.rr=8", "--set, passes.lora.rr"),
        ("passes.lora.r.x=8", "no object"),
        ("nonsense", "no override"),
        ("passes.lroa.r=8", "Did you mean lora?"),
        ("data_configs.tran.split=x", "Name one of train"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(file, overrides=[wrong])
        assert said in str(caught.value)


def test_an_override_adds_a_pass_if_it_says_which(tmp_path: Path) -> None:
    added = ["passes.smaller.bits=4", "passes.smaller.type=Quantize"]
    assert load(write(tmp_path, WORKFLOW), overrides=added).workflow.single_pass("smaller").type == "Quantize"


def test_a_tab_in_yaml_is_called_one(tmp_path: Path) -> None:
    assert any(
        "a tab, where YAML takes only spaces" in each for each in problems(tmp_path, "version: 1\nengine:\n\tx: 1\n")
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("anything", "hf_" + "aB3" * 10),
        ("hf_token", "0123456789abcdef"),
        ("url", "https://x.blob.core.windows.net/c/b?sv=1&sig=" + "Ab1%2B" * 8),
        ("connection_string", "DefaultEndpointsProtocol=https;AccountKey=" + "q1W2" * 10),
    ],
)
def test_a_secret_is_refused_and_never_repeated(tmp_path: Path, key: str, value: str) -> None:
    text = WORKFLOW.replace("  model_path: base", f"  model_path: base\n  {key}: {json.dumps(value)}")
    (said,) = problems(tmp_path, text)
    assert "looks like a secret" in said
    assert f"workflow.yaml:4, input_model.{key}" in said
    assert value not in said


def test_a_mapping_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    given = {"input_model": {"model_path": "base"}, "passes": {"b": {"type": "ModelBuilder", "precision": "int4"}}}
    before = json.dumps(given)
    loaded = load(given)
    assert loaded.workflow.input_model.model_path == str(tmp_path / "base")
    assert json.dumps(given) == before


def test_a_hub_id_is_left_alone(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, WORKFLOW.replace("model_path: base", "model_path: microsoft/Phi-3-mini-4k-instruct")))
    assert loaded.workflow.input_model.model_path == "microsoft/Phi-3-mini-4k-instruct"


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
DATA = st.fixed_dictionaries(
    {"name": NAMES},
    optional={
        "data_files": st.sampled_from(["a.jsonl", ["a.jsonl", "b.csv"]]),
        "text_template": st.sampled_from(["{a}\n{b}", "é: {phrase}", "# {x}"]),
        "strategy": st.sampled_from(["join", "line-by-line"]),
        "max_seq_len": st.integers(1, 4096),
        "joiner": st.sampled_from([None, "", "\n\n", " - "]),
        "on_bad_row": st.sampled_from(["error", "skip"]),
    },
)


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(DATA, max_size=3, unique_by=lambda each: each["name"]),
    passes=st.dictionaries(NAMES, st.sampled_from(["int4", "int8", "fp32"]), max_size=3),
    engine=st.fixed_dictionaries({}, optional={"output_dir": NAMES, "evaluate_input_model": st.booleans()}),
)
def test_what_is_written_loads_to_the_same(data: Any, passes: Any, engine: Any, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.getbasetemp()
    config = {
        "input_model": {"model_path": str(folder)},
        "data_configs": data,
        "passes": {name: {"type": "ModelBuilder", "precision": precision} for name, precision in passes.items()},
        "engine": engine,
    }
    first = load(config).workflow
    file = folder / "written.yaml"
    file.write_text(dump(first))
    again = load(file).workflow
    assert again == first
    assert isinstance(again, Workflow)
