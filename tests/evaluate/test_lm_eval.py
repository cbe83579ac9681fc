"""Tasks of lm-eval on our model: the mathematics always, the harness itself where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from built_models import PROMPT, onnx_of
from metric_inputs import context

from olivine.evaluate.lm_eval import LmEval, LmEvalParams, _scores, generate_until, loglikelihood, rolling
from olivine.models.text import open_text_model
from olivine.passes.base import Format

TONE = PROMPT.format(phrase="we danced all night")
TASK = """
task: tones
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "### Text: {{{{phrase}}}}\\n### The tone is:\\n"
doc_to_choice: [joy, sad, fear, surprise]
doc_to_target: tone
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""


def test_the_right_answer_is_likely_and_greedy_and_a_wrong_one_is_not(tone_model: Path, tone_genai: Path) -> None:
    found = []
    for folder, format in (
        (tone_model, Format.HF), (tone_genai, Format.GENAI), (onnx_of(tone_model), Format.ONNX),
    ):  # fmt: skip
        model = open_text_model(folder, format=format)
        # As in the harness's own models, the newline that ends the prompt belongs to the answer: to every answer.
        right, _ = loglikelihood(model, TONE, "joy", True)
        wrong, greedy = loglikelihood(model, TONE, "sad", True)
        assert wrong < right - 2
        assert not greedy
        assert generate_until(model, TONE, {"until": ["y"], "max_gen_toks": 8}, add_special_tokens=True) == "jo"
        found.append((right, wrong, rolling(model, "the cat sat on the mat", True)))
    assert found[0] == pytest.approx(found[1], abs=1e-3)
    assert found[0] == pytest.approx(found[2], abs=1e-3)


def test_a_rolling_likelihood_is_the_sum_over_the_tokens(tone_model: Path) -> None:
    model = open_text_model(tone_model, format=Format.HF)
    ids = model.encode_prompt("the cat sat")
    logits = np.concatenate(list(model.logits(ids[:-1]))).astype("float64")
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.log(shares[np.arange(len(ids) - 1), ids[1:]]).sum()
    assert rolling(model, "the cat sat", True) == pytest.approx(expected, rel=1e-6)


def test_scores_are_named_without_their_filter() -> None:
    found = _scores(
        {"acc,none": 0.5, "exact_match,strict": 0.25, "alias": "tones", "acc_stderr,none": "N/A", "sample_len": 9}
    )
    assert found == {"acc": 0.5, "exact_match-strict": 0.25}


@pytest.mark.parametrize("format", [Format.GENAI, Format.ONNX])
def test_a_task_from_local_files_runs_offline(
    tone_model: Path, tone_genai: Path, tones: Path, tmp_path: Path, format: Format
) -> None:
    pytest.importorskip("lm_eval")
    model = tone_genai if format is Format.GENAI else onnx_of(tone_model)
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "tones.yaml").write_text(TASK.format(file=tones))
    params = LmEvalParams(tasks=["tones"], include_path=str(folder))
    given = context(model)
    assert given.format is format
    assert LmEval().measure(params, given)["tones"]["acc"] == 1.0
