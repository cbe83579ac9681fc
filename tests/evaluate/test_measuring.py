"""Several metrics on one model, here and in a process of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from metric_inputs import ACCURACY

from olivine.config.docstrings import field_docs
from olivine.config.schema import DataConfig
from olivine.errors import OlivineError, UnavailableError
from olivine.evaluate import registry
from olivine.evaluate.measuring import measure_all
from olivine.passes.base import Accelerator, Format


def metric(index: int, type: str, name: str | None = None, **params: Any) -> dict[str, Any]:
    return {"index": index, "name": name or type, "type": type, "params": params}


def measured(model: Path, *metrics: dict[str, Any], **data: DataConfig) -> dict[str, Any]:
    return measure_all(
        metrics,
        model=model,
        format=Format.GENAI,
        data={key.replace("_", ".", 1): config for key, config in data.items()},
        target=Accelerator(),
        progress=lambda *_, **__: None,
    )


def test_every_metric_gets_its_own_data_and_parameters(tone_genai: Path, tones: Path) -> None:
    config = DataConfig(name="tones", data_files=str(tones), text_template="{phrase}")
    params = {key: value for key, value in ACCURACY.items() if key != "data_config"}
    found = measured(
        tone_genai,
        metric(0, "accuracy", **params, max_rows=4),
        metric(1, "size"),
        metric(2, "perplexity", "surprise", max_seq_len=64),
        **{"0_data_config": config, "2_data_config": config},
    )
    assert list(found) == ["accuracy", "size", "surprise"]
    assert found["accuracy"]["count"] == 4
    assert found["surprise"]["perplexity"] > 1


def test_two_metrics_of_one_name_are_both_kept(tone_genai: Path) -> None:
    assert list(measured(tone_genai, metric(0, "size"), metric(1, "size"))) == ["size", "size-2"]


def test_unknown_metric(tone_genai: Path) -> None:
    with pytest.raises(OlivineError, match="'flops' is not installed"):
        measured(tone_genai, metric(0, "flops"))


def test_text_metrics_refuse_a_silent_fall_back_to_the_cpu(tone_genai: Path, tones: Path) -> None:
    config = DataConfig(name="tones", data_files=str(tones))
    params = {key: value for key, value in ACCURACY.items() if key != "data_config"}
    with pytest.raises(UnavailableError, match="no node of the model ran on AzureExecutionProvider"):
        # It comes with ONNX Runtime, starts, and leaves every node of ours to the CPU.
        measure_all(
            [metric(0, "accuracy", **params)],
            model=tone_genai,
            format=Format.GENAI,
            data={"0.data_config": config},
            target=Accelerator("cpu", "AzureExecutionProvider"),
            progress=lambda *_, **__: None,
        )


def test_every_built_in_metric_is_described() -> None:
    for name in registry.BUILTIN:
        found = registry.find(name)
        assert found is not None
        assert found.type == name
        assert found.summary
        assert found.__doc__
        assert set(found.units) == set(found.higher_is_better)
        assert set(field_docs(found.params_type)) == set(found.params_type.model_fields)


def test_importing_the_metrics_is_cheap() -> None:
    import subprocess
    import sys

    heavy = ("torch", "transformers", "onnxruntime", "onnxruntime_genai", "numpy", "datasets")
    modules = ", ".join(target.partition(":")[0] for target in registry.BUILTIN.values())
    code = f"import sys, {modules}; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
