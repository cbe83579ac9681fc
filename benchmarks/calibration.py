"""Divergence of each method of Quantize from the float model, on held-out text of two kinds.

    python benchmarks/calibration.py --model MODEL --text wikitext-2-valid.txt --other comments.txt --samples 32

Half of ``--text`` calibrates, the other half and ``--other`` are measured. 4 bits, groups of 32, symmetric, ``lm_head``
in float; mean KL divergence in nats.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from olivine.config.schema import DataConfig
from olivine.passes.conformance import run_pass
from olivine.passes.quantize.quantize import Quantize, QuantizeParams
from olivine.quant.reading import TensorReader
from olivine.quant.stored.reading import QuantizedCheckpointReader

ROWS: dict[str, dict[str, Any]] = {
    "rtn": {"method": "rtn"},
    "search": {"method": "search"},
    "gptq": {"method": "gptq"},
    "gptq, left to right": {"method": "gptq", "act_order": False},
    "scale_estimation": {"method": "scale_estimation"},
    "calibrated, no correction": {"method": "calibrated", "correction": 0.0},
    "calibrated": {"method": "calibrated"},
    "calibrated, full correction": {"method": "calibrated", "correction": 1.0},
    "scale_estimation, scaled": {"method": "scale_estimation", "scaling": "awq"},
    "gptq, scaled": {"method": "gptq", "scaling": "awq"},
    "calibrated, scaled": {"method": "calibrated", "scaling": "awq"},
}
LENGTH = 512


def main() -> None:
    """Print one row per method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True, help="text, half of which calibrates")
    parser.add_argument("--other", type=Path, help="text of another kind, to measure on")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--measured", type=int, default=16, help="sequences of each text that are measured")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--built-in", action="store_true", help="calibrate on the text that Olivine brings")
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32).eval()

    def blocks(text: str) -> torch.Tensor:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor([ids[i : i + LENGTH] for i in range(0, len(ids) - LENGTH + 1, LENGTH)][: given.measured])

    @torch.no_grad()
    def predictions(ids: torch.Tensor) -> torch.Tensor:
        return torch.cat([model(each[None]).logits.log_softmax(-1) for each in ids])

    text = given.text.read_text(encoding="utf-8")
    cut = text.rfind("\n", 0, len(text) // 2)
    texts = {"text": blocks(text[cut:])} | ({"other": blocks(given.other.read_text())} if given.other else {})
    expected = {name: predictions(ids) for name, ids in texts.items()}
    base: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.jsonl"
        rows.write_text("".join(json.dumps({"text": line}) + "\n" for line in text[:cut].splitlines() if line.strip()))
        data = {} if given.built_in else {"calibration_data_config": DataConfig(name="text", data_files=str(rows))}
        for number, name in enumerate(given.rows):
            calibration = {} if given.built_in else {"calibration_data_config": "text"}
            params = QuantizeParams(form="gptq", samples=given.samples, **calibration, **ROWS[name])
            folder, began = Path(scratch) / str(number), time.perf_counter()
            run_pass(Quantize, params, {"model": given.model}, folder, data=data)
            seconds = time.perf_counter() - began
            reader = TensorReader(folder / "output")
            found = QuantizedCheckpointReader(reader)
            with torch.no_grad():
                for vector, parameter in model.named_parameters():
                    if parameter.dim() == 1:  # scaling changes norms
                        parameter.copy_(torch.from_numpy(reader.read(vector)))
                for module in found.schemes:
                    model.get_submodule(module).weight.copy_(found.read_rounded(module).dequantise())
            row = f"{name:28} {seconds:6.0f} s"
            for kind, ids in texts.items():
                p, q = expected[kind], predictions(ids)
                divergence = float((p.exp() * (p - q)).sum(-1).mean())
                base.setdefault(kind, divergence)
                row += f"   {kind} {divergence:.6f} ({1 - divergence / base[kind]:.0%} of the first row's won back)"
            print(row, flush=True)


if __name__ == "__main__":
    main()
