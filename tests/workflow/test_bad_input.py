"""Bad input: a clear paragraph that names the place and the remedy, a non-zero exit, nothing lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workflow_project import ROWS, canonical


def test_invalid_json_names_the_line(project) -> None:
    (project.folder / "workflow.json").write_text('{\n  "input_model": {\n    "model_path": "base",,\n  }\n}')
    said = project.refused()
    assert "workflow.json:3" in said


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("passes.lora.type", "LoRAA", ["LoRAA", "LoRA", "passes.lora.type"]),
        ("passes.lora.lora_dropuot", 0.2, ["lora_dropuot", "lora_dropout", "workflow.json:"]),
        ("passes.lora.r", "sixty", ["passes.lora.r", "sixty"]),
        ("passes.lora.training_args", {"max_stepz": 3}, ["max_stepz", "max_steps"]),
        ("passes.lora.training_args", {"max_steps": 0}, ["max_steps"]),
        ("passes.lora.train_data_config", "trian", ["trian", "train", "passes.lora.train_data_config"]),
        ("passes.lora.target_modules", ["q_projj"], ["q_projj"]),
        ("passes.builder.precision", "int5", ["int5", "int4"]),
        ("engine.evaluator", "tune", ["tune", "tone"]),
        ("engine.host", "nowhere", ["nowhere"]),
        ("engine.outptu_dir", "x", ["outptu_dir", "output_dir"]),
        ("input_model.model_path", "./bass", ["bass", "input_model.model_path"]),
        ("data_configs.0.data_files", "trian.jsonl", ["trian.jsonl", "train.jsonl", "data_configs.0.data_files"]),
        ("data_configs.0.text_template", "{phrase} {tune}", ["tune", "tone"]),
        ("data_configs.0.max_seq_len", 4096, ["4096", "512", "data_configs.0.max_seq_len"]),
        ("data_configs.0.strategy", "join-sliding-window", ["stride"]),
        ("data_configs.0.strategy", "join-random", ["max_samples", "random_seed"]),
        ("systems", {"here": {"type": "LokalSystem"}}, ["LokalSystem", "LocalSystem"]),
    ],
)
def test_a_mistake_in_the_configuration_is_named_before_anything_runs(project, changed, path, value, expected) -> None:
    said = project.refused(changed(path, value))
    for text in expected:
        assert text in said


def test_all_mistakes_are_named_at_once(project, changed) -> None:
    config = changed("passes.lora.lora_dropuot", 0.2)
    config["engine"]["outptu_dir"] = "x"
    config["passes"]["builder"]["precision"] = "int5"
    said = project.refused(config)
    for text in ("lora_dropuot", "outptu_dir", "int5"):
        assert text in said


def test_passes_that_do_not_chain_are_refused(project) -> None:
    config = canonical()
    del config["passes"]["merge"]
    said = project.refused(config)
    assert "ModelBuilder" in said
    assert "MergeAdapterWeights" in said


def test_null_text_names_the_row_and_can_be_skipped(project, changed) -> None:
    rows = [*ROWS[:6], {"phrase": None, "tone": "joy"}, *ROWS[6:]]
    project.write_rows("train.jsonl", rows)
    said = project.refused(canonical())
    assert "train.jsonl:7" in said
    assert "on_bad_row" in said
    project.write(changed("data_configs.0.on_bad_row", "skip"))
    assert project.olivine("plan", "workflow.json").returncode == 0


def test_broken_json_in_the_data_names_the_line(project) -> None:
    lines = (project.folder / "train.jsonl").read_text().splitlines()
    lines[4] = lines[4][:-5]
    (project.folder / "train.jsonl").write_text("\n".join(lines))
    assert "train.jsonl:5" in project.refused(canonical())


def test_an_empty_data_set_is_refused(project) -> None:
    (project.folder / "train.jsonl").write_text("")
    assert "train" in project.refused(canonical())


def test_a_data_set_shorter_than_one_block_trains_on_what_there_is(project, changed) -> None:
    config = changed("data_configs.0.max_seq_len", 512)
    project.write_rows("train.jsonl", ROWS[:4])
    config["passes"]["lora"].pop("eval_dataset_size")
    config["passes"] = {"lora": config["passes"]["lora"] | {"training_args": {"max_steps": 1}}}
    config["engine"].pop("evaluator")
    project.write(config)
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stderr


def test_a_pickle_only_checkpoint_is_refused_with_the_way_out(project, pico_model) -> None:
    import torch

    (project.folder / "base").unlink()
    shutil.copytree(pico_model, project.folder / "base")
    (project.folder / "base" / "model.safetensors").unlink()
    torch.save({}, project.folder / "base" / "pytorch_model.bin")
    said = project.refused(canonical())
    assert "safetensors" in said
    assert "pytorch_model.bin" in said


def test_an_output_folder_that_cannot_be_written_is_known_at_once(project, changed) -> None:
    (project.folder / "file").write_text("in the way")
    said = project.refused(changed("engine.output_dir", "file/models"))
    assert "engine.output_dir" in said


def test_a_hub_that_cannot_be_reached_is_said(project, changed) -> None:
    project.write(changed("input_model.model_path", "nobody/no-such-model"))
    done = project.olivine(
        "run",
        "workflow.json",
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HUB_OFFLINE="0",
        HF_HOME=str(project.folder / "hub"),
    )
    assert done.returncode == 3, done.stderr
    said = " ".join(done.stderr.split())
    assert "input_model.model_path: nobody/no-such-model" in said
    assert "hub cannot be reached" in said
    assert "Traceback" not in done.stderr


def test_a_secret_in_the_configuration_is_refused_and_not_repeated(project, changed) -> None:
    secret = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"
    said = project.refused(changed("input_model.load_kwargs", {"token": secret}))
    assert secret not in said
    assert "input_model.load_kwargs" in said


def test_a_file_of_the_users_in_the_output_folder_is_not_overwritten(project) -> None:
    config = canonical()
    config["passes"] = {"builder": config["passes"]["builder"]}
    config["engine"].pop("evaluator")
    (project.folder / "models").mkdir()
    (project.folder / "models" / "model.onnx").write_text("mine")
    (project.folder / "models" / "notes.txt").write_text("mine")
    project.write(config)
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 1
    assert "model.onnx" in done.stderr
    assert (project.folder / "models" / "model.onnx").read_text() == "mine"
    (project.folder / "models" / "model.onnx").unlink()
    assert project.olivine("run", "workflow.json").returncode == 0
    assert (project.folder / "models" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("moment", ["lora", "merge", "builder"])
def test_killed_in_the_middle_the_next_run_makes_the_same_model(project, moment: str) -> None:
    config = canonical()
    config["engine"].pop("evaluator")
    project.write(config)
    command = [sys.executable, "-m", "olivine", "run", "workflow.json", "--json"]
    running = subprocess.Popen(command, cwd=project.folder, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert running.stdout is not None
    for line in running.stdout:
        if '"step-started"' in line and f'"{moment}"' in line:
            time.sleep(0.3)
            break
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    running.stdout.close()
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stderr
    assert project.olivine("cache", "verify").returncode == 0
    assert not leftovers(project.folder)


def leftovers(folder: Path) -> list[Path]:
    """Half-made folders beside the output."""
    return [path for path in folder.iterdir() if "staging" in path.name]
