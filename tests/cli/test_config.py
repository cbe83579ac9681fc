"""`olivine config`: check, upgrade, and show, from the outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from olivine.cli.main import main

OLD: dict[str, Any] = {
    "input_model": {
        "type": "PyTorchModel",
        "config": {"hf_config": {"model_name": "base", "task": "text-generation"}},
    },
    "data_configs": [
        {
            "name": "train",
            "type": "HuggingfaceContainer",
            "load_dataset_config": {"params": {"data_name": "json", "data_files": "train.json", "split": "train"}},
            "pre_process_data_config": {"params": {"text_cols": ["text"], "source_max_len": 64}},
        }
    ],
    "passes": {
        "lora": {
            "type": "LoRA",
            "clean_run_cache": True,
            "config": {"lora_r": 8, "train_data_config": "train"},
        },
    },
    "engine": {"output_dir": "models"},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "old.json").write_text(json.dumps(OLD, indent=1))
    (tmp_path / "new.yaml").write_text(
        "version: 1\ninput_model: {model_path: base}\npasses:\n  b: {type: ModelBuilder, precision: int4}\n"
    )
    (tmp_path / "wrong.yaml").write_text("version: 1\ninput_model: {model_path: base}\npases: {}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_check_says_what_it_is_and_that_it_can_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "old.json"]) == 0
    said = capsys.readouterr().out
    assert "old.json: can run (Olive 0.6" in said
    assert "load_dataset_config" in said
    assert main(["config", "check", "new.yaml"]) == 0


def test_check_of_several_answers_for_each_and_ends_with_the_worst(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "check", "wrong.yaml", "new.yaml", "missing.json"]) == 2
    said = capsys.readouterr().out
    assert "wrong.yaml:3, pases: `pases` is not a key of a workflow. Did you mean passes?" in said
    assert "new.yaml: can run" in said
    assert "there is no configuration missing.json" in said


def test_check_as_json_is_one_object_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "check", "old.json", "wrong.yaml", "--json"])
    old, wrong = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert old["status"] == "runnable"
    assert old["dialect"] == "0.6.2"
    assert old["notes"]
    assert {"path", "line", "text"} == set(old["notes"][0])
    assert wrong["status"] == "error"
    assert wrong["errors"][0]["line"] == 3
    assert wrong["errors"][0]["path"] == "pases"


def test_check_with_plan_finds_what_only_the_files_can_tell(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "new.yaml", "--json"]) == 0
    assert main(["config", "check", "new.yaml", "--plan", "--json"]) == 2
    checked, planned = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert "plan" not in checked
    assert "config.json" in planned["plan"]["problems"][0]["text"]


def test_what_is_not_filled_in_is_named_and_nothing_starts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "template.yaml").write_text("version: 1\ninput_model: {model_path: <MODEL_PATH>}\n")
    assert main(["config", "check", "template.yaml"]) == 3
    assert "not available: input_model.model_path (line 2): '<MODEL_PATH>' is not filled in" in capsys.readouterr().out
    for verb in ("plan", "run"):
        assert main([verb, "template.yaml"]) == 3
        assert "is not filled in" in capsys.readouterr().err
    assert not (folder / ".olivine-cache").exists()


def test_a_field_not_filled_in_is_not_blamed_for_its_type(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "template.yaml").write_text(
        "version: 1\ninput_model: {model_path: base}\nsystems:\n  s: {device: <device>}\n"
        "data_configs:\n- {name: d, max_seq_len: <length>}\n"
        "passes:\n  b: {type: ModelBuilder, precision: <precision>}\n"
        "engine: {evaluator: <evaluator>, target: s}\n"
    )
    for file in ("template.yaml", "again.yaml"):
        assert main(["config", "check", file, "--json"]) == 3
        found = json.loads(capsys.readouterr().out)
        assert {each["path"] for each in found["unavailable"]} == {
            "systems.s.device", "data_configs.0.max_seq_len", "passes.b.precision", "engine.evaluator",
        }  # fmt: skip
        assert main(["config", "upgrade", file, "-o", "again.yaml", "--force"]) == 0
        capsys.readouterr()
    (folder / "template.yaml").write_text("version: 1\ninput_model: {model_path: base, task: 3, nmae: <x>}\n")
    assert main(["config", "check", "template.yaml"]) == 2


def test_an_upgraded_file_means_the_same_and_needs_no_notes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from olivine.config import load

    before = load(Path("old.json"))
    assert before.notes
    assert main(["config", "upgrade", "old.json", "-o", "sub.yaml"]) == 0
    after = load(Path("sub.yaml"))
    assert after.dialect == "olivine-1"
    assert after.notes == ()
    assert after.workflow == before.workflow


def test_an_upgraded_file_in_another_folder_finds_the_same_paths(folder: Path) -> None:
    from olivine.config import load

    (folder / "elsewhere").mkdir()
    assert main(["config", "upgrade", "old.json", "-o", "elsewhere/new.yaml"]) == 0
    text = Path("elsewhere/new.yaml").read_text()
    assert "model_path: ../base" in text
    assert str(folder) not in text
    assert load(Path("elsewhere/new.yaml")).workflow == load(Path("old.json")).workflow


def test_an_upgraded_file_says_what_changed_where_it_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "upgrade", "old.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("# From old.json, read as Olive 0.6.2 (input_model has a nested config") for line in lines
    )
    dropped = next(number for number, line in enumerate(lines) if "clean_run_cache" in line)
    assert lines[dropped].startswith("  # passes.lora.clean_run_cache (line 35): has no effect")
    assert lines[dropped + 1] == "  lora:"
    assert "    r: 8" in lines
    assert any("# default of Olive 0.6" in line for line in lines)


def test_an_upgrade_overwrites_nothing_unless_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("new.yaml").read_text()
    assert main(["config", "upgrade", "old.json", "-o", "new.yaml"]) == 2
    assert Path("new.yaml").read_text() == before
    assert main(["config", "upgrade", "old.json", "-o", "new.yaml", "--force"]) == 0
    assert "lora" in Path("new.yaml").read_text()


def test_show_names_the_origin_of_every_value(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "old.json", "--set", "engine.output_dir=other", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    values = {each["path"]: each for each in shown["values"]}
    assert values["passes.lora.r"]["origin"] == "file"
    assert values["passes.lora.r"]["written"] == "passes.lora.config.lora_r"
    line = values["passes.lora.r"]["line"]
    assert "lora_r" in Path("old.json").read_text().splitlines()[line - 1]
    assert values["passes.lora.training_args.max_steps"]["origin"] == "dialect default"
    assert values["passes.lora.use_rslora"]["origin"] == "default"
    assert values["engine.output_dir"] == {
        "path": "engine.output_dir", "value": str(folder / "other"), "origin": "override", "line": None,
        "written": "engine.output_dir",
    }  # fmt: skip


def test_show_is_yaml_that_loads_to_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from olivine.config import load

    assert main(["config", "show", "old.json", "--all"]) == 0
    text = capsys.readouterr().out
    Path("shown.yaml").write_text(text)
    assert "# --set" not in text
    shown, old = load(Path("shown.yaml")).workflow, load(Path("old.json")).workflow
    assert shown.data_configs == old.data_configs
    assert shown.engine == old.engine


def test_a_dialect_can_be_forced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "old.json", "--dialect", "0.6.2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evidence"] == "--dialect"
    assert main(["config", "check", "old.json", "--dialect", "olivine-1"]) == 2
    assert main(["config", "check", "old.json", "--dialect", "7.1"]) == 2


def test_checking_imports_nothing_heavy(folder: Path) -> None:
    heavy = ("torch", "transformers", "onnxruntime", "datasets", "numpy", "psutil", "rich", "pyarrow", "yaml")
    code = (
        "import sys\nfrom olivine.cli.main import main\n"
        "assert main(['config', 'check', 'old.json']) == 0\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=folder)
    assert done.stderr.strip() == "[]"


def test_show_of_a_value_that_holds_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    passes = {"p": {"type": "OnnxQuantization", "config": {"extra_options": {"type": None}}}}
    Path("empty.json").write_text(json.dumps(OLD | {"passes": passes}))
    assert main(["config", "show", "empty.json"]) == 0
    assert "extra_options" in capsys.readouterr().out


COMPILER = {"passes": [{"name": "init", "plugin": "vaip-pass_init"}], "target": "X", "targets": [{"name": "X"}]}


def test_a_configuration_of_a_vendors_compiler_is_told_as_what_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("compiler.json").write_text(json.dumps(COMPILER, indent=1))
    assert main(["config", "check", "compiler.json", "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["status"] == "unavailable"
    assert report["errors"] == []
    assert [(each["path"], each["line"]) for each in report["unavailable"]] == [("passes.0", 3)]
    assert "VitisAI" in report["unavailable"][0]["why"]
    assert main(["run", "--config", "compiler.json"]) == 3


def test_a_models_own_file_is_no_workflow(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    assert main(["config", "check", "config.json"]) == 2
    said = capsys.readouterr().out
    assert "config.json of a checkpoint" in said
    assert said.count("error:") == 1
