"""A whole workflow with secrets around it, and no network: not a byte of any secret is written anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from canaries import CANARIES, assert_no_canary
from finished_run import workflow
from workflow_project import Project

from olivine.redaction import HIDDEN, environment_for_child, redact, remember


def without_network() -> list[str]:
    """Return what runs a command in a network namespace with no route, or nothing if that is not permitted here."""
    command = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        return []
    return command


def run(folder: Path, *arguments: str, prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"} | CANARIES
    return subprocess.run(
        [*(prefix or []), sys.executable, "-m", "olivine", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_run_without_a_network_writes_no_secret_anywhere(tmp_path: Path, pico_model: Path) -> None:
    project = Project(tmp_path, pico_model)
    config = workflow()
    config["input_model"]["model_path"] = "base"
    config["data_configs"][0] |= {
        "data_files": "train.jsonl",
        "text_template": "${env:PLAIN_NAME} {phrase} {tone}",
    }
    config["evaluators"]["e"]["metrics"][0]["prompt_template"] = "${env:PLAIN_NAME} {phrase} "
    config["passes"]["lora"]["training_args"] = {"max_steps": 1, "logging_steps": 1}
    config["engine"] |= {"evaluate_input_model": False, "log_severity_level": 0}
    config["systems"] = {"here": {"type": "LocalSystem", "device": "cpu", "hf_token": True}}
    config["engine"]["host"] = "here"
    project.write(config)
    done = run(tmp_path, "run", "workflow.json", "--json", prefix=without_network())
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "workflow.json").unlink()
    assert_no_canary([tmp_path], [done.stdout, done.stderr])
    assert "${env:PLAIN_NAME} {phrase}" in (tmp_path / "out" / "workflow.yaml").read_text()
    log = next((tmp_path / "cache" / "runs").glob("*/log.txt"))
    assert log.stat().st_size > 0
    assert not log.parent.stat().st_mode & 0o077


def test_whatever_looks_at_a_run_or_shares_it_writes_no_secret(tmp_path: Path, pico_model: Path) -> None:
    project = Project(tmp_path, pico_model)
    config = workflow()
    config["input_model"]["model_path"] = "base"
    config["data_configs"][0] |= {
        "data_files": "train.jsonl",
        "text_template": "${env:PLAIN_NAME} {phrase} {tone}",
    }
    config["evaluators"]["e"]["metrics"] = [{"type": "size"}]
    config["passes"] = {"q": {"type": "Quantize", "bits": 4, "group_size": 32, "calibration_data_config": "tones"}}
    config["passes"]["q"] |= {"method": "calibrated", "sequence_length": 16, "samples": 2}
    config["engine"] |= {"log_severity_level": 0, "shared_cache": {"url": "team", "writable": True}}
    project.write(config)
    said = []
    for arguments, code in [
        (("plan", "workflow.json", "--json"), 0),
        (("run", "workflow.json"), 0),
        (("run", "workflow.json", "--set", "engine.cache_dir=other", "--set", "engine.output_dir=again"), 0),
        (("run", "workflow.json", "--set", "passes.q.group_size=33"), 2),
        (("report", "out"), 0),
        (("compare", "out", "again"), 0),
        (("cache", "ls"), 0),
        (("cache", "verify"), 0),
        (("cache", "why", "workflow.json"), 0),
        (("config", "show", "workflow.json"), 0),
    ]:
        done = run(tmp_path, *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        said += [done.stdout, done.stderr]
    (tmp_path / "workflow.json").unlink()
    assert list((tmp_path / "team").rglob("manifest.json")), "the shared cache was written"
    assert assert_no_canary([tmp_path], said) > 30


def test_the_verbs_without_a_configuration_write_no_secret(tmp_path: Path, pico_model: Path) -> None:
    shutil.copytree(pico_model, tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(8)))
    said = []
    for arguments in [
        ("finetune", "base", "--data", "rows.jsonl", "--text-cols", "text", "--max-seq-len", "64", "--max-steps", "1"),
        ("optimize", "base", "--output", "small", "--dry-run"),
        ("convert", "base", "--output", "built"),
        ("evaluate", "built", "--metrics", "size"),
        ("generate", "built", "--prompt", "a cat"),
    ]:
        done = run(tmp_path, *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        said += [done.stdout, done.stderr]
    assert assert_no_canary([tmp_path], said) > 30


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_a_failing_step_shows_no_secret_in_its_traceback(
    tmp_path: Path, pico_model: Path, debug: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path, pico_model)
    project.write(
        {
            "input_model": {"model_path": "base"},
            "passes": {
                # A name that is too long for a file system.
                "b": {
                    "type": "ModelBuilder",
                    "precision": "fp32",
                    "extra_options": {"filename": f"{'y' * 250}${{env:PLAIN_NAME}}.onnx"},
                }
            },
            "engine": {"cache_dir": "cache", "output_dir": "out"},
        }
    )
    done = run(tmp_path, "run", "workflow.json", *debug)
    assert done.returncode == 1, done.stdout + done.stderr
    assert bool(debug) == ("Traceback" in done.stderr)
    assert_no_canary([tmp_path], [done.stdout, done.stderr])
    assert "${env:PLAIN_NAME}" in next((tmp_path / "cache" / "runs").glob("*/log.txt")).read_text()


def test_a_secret_in_the_configuration_is_refused_and_not_repeated(tmp_path: Path, pico_model: Path) -> None:
    project = Project(tmp_path, pico_model)
    config = workflow()
    config["data_configs"][0]["data_files"] = CANARIES["SAS_URL"]
    config["passes"]["lora"]["training_args"]["hub_token"] = CANARIES["HF_TOKEN"]
    project.write(config)
    done = run(tmp_path, "run", "workflow.json")
    assert done.returncode == 2
    assert " ".join(done.stderr.split()).count("looks like a secret") == 2
    (tmp_path / "workflow.json").unlink()
    assert_no_canary([tmp_path], [done.stdout, done.stderr])


def test_a_reference_to_a_variable_that_is_not_set_is_an_error(tmp_path: Path, pico_model: Path) -> None:
    project = Project(tmp_path, pico_model)
    project.write(workflow() | {"workflow_id": "${env:NOT_SET_ANYWHERE}"})
    done = run(tmp_path, "plan", "workflow.json")
    assert done.returncode == 2
    assert "the environment has no NOT_SET_ANYWHERE" in " ".join(done.stderr.split())


def test_children_get_no_secret_and_the_hub_s_token_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (CANARIES | {"TOKENIZERS_PARALLELISM": "true"}).items():
        monkeypatch.setenv(name, value)
    alone = environment_for_child(hub_token=False)
    assert set(CANARIES) & set(alone) == {"PLAIN_NAME"}
    assert alone["TOKENIZERS_PARALLELISM"] == "true"
    assert "HF_TOKEN" in environment_for_child(hub_token=True)
    assert "WANDB_API_KEY" not in environment_for_child(hub_token=True)


def test_known_forms_are_found_inside_a_text_and_the_rest_of_it_stays() -> None:
    assert redact("GET https://me:pass-word@host/x failed") == f"GET https://{HIDDEN}@host/x failed"
    assert redact("token hf_abcdefghijklmnopqrstuvwxyz is wrong") == f"token {HIDDEN} is wrong"
    assert redact("the task-oriented risk-assessment-of-everything-here") == (
        "the task-oriented risk-assessment-of-everything-here"
    )
    remember("a-remembered-value")
    assert redact(json.dumps({"x": "a-remembered-value"})) == f'{{"x": "{HIDDEN}"}}'
