"""`olivine generate`, `chat` and `evaluate`, from the outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from built_models import PROMPT, genai_of, rows, trained_model

TEMPLATE = PROMPT.replace("\n", "\\n")


@pytest.fixture(scope="module")
def model(pico_model: Path) -> Path:
    """A GenAI model that knows the tone of twelve phrases by heart."""
    return genai_of(trained_model(pico_model), "fp32")


def olivine(*arguments: object, stdin: str = "", status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "olivine", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
        timeout=120,
    )
    assert done.returncode == status, done.stderr
    return done


def test_generate_prints_the_answer_and_nothing_else(model: Path) -> None:
    done = olivine("generate", model, "--prompt", "we danced all night", "--prompt-template", TEMPLATE)
    assert done.stdout == "joy\n"
    assert done.stderr == ""


def test_checkpoint_answers_like_what_ships(pico_model: Path) -> None:
    done = olivine(
        "generate", trained_model(pico_model), "--prompt", "we danced all night", "--prompt-template", TEMPLATE
    )
    assert done.stdout == "joy\n"


def test_output_folder_of_a_run_knows_its_template(model: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(model, tmp_path / "models"))
    workflow = {
        "data_configs": [{"name": "train", "text_template": PROMPT + "{tone}"}],
        "passes": {"lora": {"type": "LoRA", "train_data_config": "train"}},
    }
    (output / "workflow.yaml").write_text(yaml.safe_dump(workflow))
    assert olivine("generate", output, "--prompt", "the old dog died today").stdout == "sad\n"
    assert olivine("chat", output, stdin="we danced all night\nthe old dog died today\n").stdout == "joy\nsad\n"


def test_prompt_may_come_through_a_pipe_and_is_given_raw(model: Path) -> None:
    assert olivine("generate", model, "--raw", stdin=PROMPT.format(phrase="we danced all night")).stdout == "joy\n"


def test_json_says_why_the_answer_ended(model: Path) -> None:
    asked = ("generate", model, "--json", "--prompt", "we danced all night", "--prompt-template", TEMPLATE)
    found = json.loads(olivine(*asked).stdout)
    assert (found["answer"], found["ended"]) == ("joy", "eos")
    assert found["prompt_tokens"] > found["new_tokens"] >= 1
    assert json.loads(olivine(*asked, "--max-new-tokens", 1).stdout)["ended"] == "length"
    stopped = json.loads(olivine(*asked, "--stop", "y").stdout)
    assert (stopped["answer"], stopped["ended"]) == ("jo", "stop")


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (("MODEL", "--prompt", " "), 2, "there is no prompt"),
        (("MODEL", "--prompt", "x", "--prompt-template", "{a} {b}"), 2, "has 2 columns"),
        (("MODEL", "--prompt", "x", "--prompt-template", "{a"), 2, "cannot be read"),
        (("MODEL", "--prompt", "x", "--temperature", "-1"), 2, "--temperature -1.0 is out of range"),
        (("MODEL", "--prompt", "x", "--max-new-tokens", "1000"), 2, "do not fit into the model's context of 512"),
        (("/nowhere/model", "--prompt", "x"), 2, "there is no model folder /nowhere/model"),
        (("org/model", "--prompt", "x"), 3, "hf download org/model"),
        (("MODEL", "--prompt", "x", "--execution-provider", "CUDAExecutionProvider"), 3, "is not on this machine"),
    ],
)
def test_bad_input_is_one_paragraph(model: Path, arguments: tuple[str, ...], status: int, expected: str) -> None:
    given = [str(model) if each == "MODEL" else each for each in arguments]
    done = olivine("generate", *given, status=status)
    assert expected in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_chat_answers_line_by_line_in_a_pipe(model: Path) -> None:
    done = olivine("chat", model, "--max-new-tokens", 4, stdin="hello\n\n/reset\n/help\nhello\n/exit\nnever asked\n")
    first, second = done.stdout.splitlines()[:2]
    assert first == second  # the conversation was forgotten in between
    assert "/reset" in done.stderr


def test_chat_without_a_chat_template_says_what_to_do(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    assert "has no chat template" in olivine("chat", folder, stdin="hi\n", status=2).stderr


def test_chat_forgets_the_oldest_turn_when_the_context_is_full(model: Path) -> None:
    done = olivine("chat", model, "--max-new-tokens", 440, stdin="hello there\n" * 12)
    assert "oldest turn is forgotten" in done.stderr


def test_evaluate_compares_models(model: Path, pico_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "eval.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    asked = (
        "evaluate", model, genai_of(pico_model, "int4"), "--data", data, "--prompt-template", TEMPLATE,
        "--label-col", "tone", "--max-new-tokens", 12, "--metrics", "accuracy,size",
    )  # fmt: skip
    found = json.loads(olivine(*asked, "--json").stdout)
    assert found[str(model)]["accuracy"]["accuracy"] == 1.0
    assert found[str(genai_of(pico_model, "int4"))]["accuracy"]["accuracy"] < 0.5
    config = tmp_path / "evaluate.yaml"
    said = olivine(*asked, "--write-config", config).stdout
    other = genai_of(pico_model, "int4")
    assert said.startswith(f"# olivine evaluate stands for this configuration, and the same for {other}:\n")
    assert "max_new_tokens: 12" in config.read_text()
    assert "evaluate input model" in olivine("plan", config).stdout
    table = said.partition("output_dir: evaluation\n\n")[2].splitlines()
    assert table[0].split() == [model.name, f"{pico_model.name}-int4"]
    assert table[1].split()[:2] == ["accuracy", "1"]
    assert any(line.startswith("size") for line in table)


def test_evaluate_compares_with_a_reference_that_is_recorded_once(pico_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    base, small = trained_model(pico_model), genai_of(trained_model(pico_model), "int4")
    done = olivine(
        "evaluate", base, small, "--reference", base, "--data", data, "--text-template", TEMPLATE + "{tone}",
        "--metrics", "divergence", "--json",
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found[str(base)]["divergence"]["kl"] == pytest.approx(0, abs=1e-6)
    assert found[str(base)]["divergence"]["top_agreement"] == 1.0
    assert found[str(small)]["divergence"]["kl"] > 1e-5
    shown = olivine(
        "evaluate", small, "--reference", base, "--data", data, "--text-template", TEMPLATE + "{tone}",
        "--metrics", "divergence",
    ).stdout  # fmt: skip
    assert f"reference: {base}" in shown
    assert "KL to the reference, nats/token" in shown


def test_evaluate_in_python_is_the_same(model: Path, tmp_path: Path) -> None:
    import olivine as package

    data = tmp_path / "eval.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    result = package.evaluate(
        str(model), metrics=["accuracy"], data=str(data), prompt_template=PROMPT, label_col="tone", max_new_tokens=12,
        output=str(tmp_path / "out"), cache=str(tmp_path / "cache"),
    )  # fmt: skip
    assert result.metrics["input"]["accuracy"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (("--metrics", "acuracy"), 2, "the nearest is accuracy"),
        (("--label-col", "tone"), 2, "(--data, --prompt-template, --label-col)"),
        (("--metrics", "perplexity"), 2, "perplexity needs data (--data)"),
        (("--metrics", "speed", "--repeats", "0"), 2, "metrics.0.repeats"),
        (("--metrics", "perplexity", "--data", "/nowhere.jsonl"), 2, "/nowhere.jsonl"),
    ],
)
def test_evaluate_says_what_is_missing(model: Path, arguments: tuple[str, ...], status: int, expected: str) -> None:
    assert expected in " ".join(olivine("evaluate", model, *arguments, status=status).stderr.split())
