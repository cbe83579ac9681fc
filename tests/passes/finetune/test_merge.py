"""Merging gives what the base computes with its adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from olivine.config.schema import DataConfig
from olivine.errors import ModelError
from olivine.models.checkpoint import read_checkpoint
from olivine.passes.base import PassResult
from olivine.passes.conformance import run_pass
from olivine.passes.finetune.merge import MergeAdapterWeights, MergeParams

IDS = [[1, 17, 45, 99, 120, 7, 3, 250]]


def merge(adapter: Path, base: Path, folder: Path, notes: list[str] | None = None, **params: Any) -> PassResult:
    return run_pass(MergeAdapterWeights, MergeParams(**params), {"model": adapter, "base": base}, folder, notes=notes)


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(torch.tensor(IDS)).logits


def load(folder: Path, **more: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **more)


def with_adapter(base: Path, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(load(base), adapter)


def tied_copy(model: Path, folder: Path) -> Path:
    """Copy the checkpoint, with the output head tied to the embeddings."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("LoRA", {}),
    "patterns and rsLoRA": (
        "LoRA",
        {
            "use_rslora": True,
            "rank_pattern": {"o_proj": 2},
            "alpha_pattern": {"layers.1.mlp.down_proj": 3.0},
            "layers_to_transform": [1],
        },
    ),
    "embeddings": ("LoRA", {"target_modules": ["embed_tokens", "qkv_proj"]}),
    "head trained in full": ("LoRA", {"modules_to_save": ["lm_head"]}),
    "DoRA": ("DoRA", {}),
    "QLoRA": ("QLoRA", {"double_quant": True}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_computes_what_base_and_adapter_do(
    kind: str, pico_model: Path, trained: Callable[..., Path], tmp_path: Path
) -> None:
    import torch

    name, params = KINDS[kind]
    adapter = trained(name, **params)
    merge(adapter, pico_model, tmp_path)
    wrapped = with_adapter(pico_model, adapter)
    expected = logits(wrapped)
    found = load(tmp_path / "output")
    torch.testing.assert_close(logits(found), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, logits(load(pico_model)), atol=1e-3)
    reference = wrapped.merge_and_unload().state_dict()
    for key, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, reference[key], rtol=1e-5, atol=1e-5)


def test_loftq_is_merged_into_the_base_that_it_made(
    pico_model: Path, trained: Callable[..., Path], tmp_path: Path
) -> None:
    import torch

    adapter = trained("LoftQ", loftq_iter=2)
    merge(adapter, adapter / "base", tmp_path)
    expected = logits(with_adapter(adapter / "base", adapter))
    torch.testing.assert_close(logits(load(tmp_path / "output")), expected, rtol=1e-5, atol=1e-5)


def test_everything_that_the_adapter_leaves_alone_is_kept(
    pico_model: Path, trained: Callable[..., Path], tmp_path: Path
) -> None:
    merge(trained("LoRA"), pico_model, tmp_path)
    base, found = read_checkpoint(pico_model), read_checkpoint(tmp_path / "output")
    assert [file.name for file in found.files] == [file.name for file in base.files]
    assert list(found.tensors) == list(base.tensors)
    for file in base.files:
        if file.suffix != ".safetensors":
            assert (tmp_path / "output" / file.name).read_bytes() == file.read_bytes()


def test_shards_stay_as_they_are(pico_model: Path, trained: Callable[..., Path], tmp_path: Path) -> None:
    import torch

    sharded = tmp_path / "sharded"
    shutil.copytree(pico_model, sharded)
    (sharded / "model.safetensors").unlink()
    load(pico_model).save_pretrained(sharded, max_shard_size="100KB")
    base = read_checkpoint(sharded)
    assert len({tensor.file for tensor in base.tensors.values()}) > 1
    merge(trained("LoRA"), sharded, tmp_path)
    found = read_checkpoint(tmp_path / "output")
    assert {name: each.file for name, each in found.tensors.items()} == {
        name: each.file for name, each in base.tensors.items()
    }
    expected = logits(with_adapter(pico_model, trained("LoRA")))
    torch.testing.assert_close(logits(load(tmp_path / "output")), expected, rtol=1e-5, atol=1e-5)


def test_tied_embeddings_stay_tied(pico_model: Path, trained: Callable[..., Path], tmp_path: Path) -> None:
    base = tied_copy(pico_model, tmp_path / "tied")
    merge(trained("LoRA"), base, tmp_path)
    found = read_checkpoint(tmp_path / "output")
    assert "lm_head.weight" not in found.tensors
    assert found.config["tie_word_embeddings"] is True


def test_embeddings_that_were_trained_apart_from_the_head_are_untied(
    pico_model: Path, trained: Callable[..., Path], tmp_path: Path
) -> None:
    import torch

    base = tied_copy(pico_model, tmp_path / "tied")
    adapter = trained("LoRA", base=base, target_modules=["embed_tokens", "qkv_proj"])
    notes: list[str] = []
    merge(adapter, base, tmp_path, notes)
    assert "not tied" in notes[0]
    expected = logits(with_adapter(base, adapter))
    torch.testing.assert_close(logits(load(tmp_path / "output")), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_result_can_be_written_in_another_number_format(
    dtype: str, pico_model: Path, trained: Callable[..., Path], tmp_path: Path
) -> None:
    merge(trained("LoRA"), pico_model, tmp_path, torch_dtype=dtype)
    found = read_checkpoint(tmp_path / "output")
    assert {each.dtype for each in found.tensors.values()} == {"BF16" if dtype == "bfloat16" else "F16"}
    assert found.config["dtype"] == dtype


def test_a_kind_that_only_peft_knows_is_merged_by_peft(pico_model: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoHaConfig, get_peft_model

    torch.manual_seed(0)
    wrapped = get_peft_model(load(pico_model), LoHaConfig(r=2, target_modules=["o_proj"], init_weights=False))
    wrapped.save_pretrained(tmp_path / "loha")
    notes: list[str] = []
    merge(tmp_path / "loha", pico_model, tmp_path, notes)
    assert "by peft" in notes[0]
    torch.testing.assert_close(logits(load(tmp_path / "output")), logits(wrapped), rtol=1e-5, atol=1e-5)


def test_an_adapter_of_another_base_is_refused(pico_model: Path, trained: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter = tmp_path / "adapter"
    shutil.copytree(trained("LoRA"), adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    key = next(key for key in weights if key.endswith("o_proj.lora_A.weight"))
    weights[key] = weights[key][:, :-8].contiguous()
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"o_proj.*shape \(64, 56\).*\(64, 64\).*another base"):
        merge(adapter, pico_model, tmp_path)


def test_an_adapter_for_modules_that_the_base_lacks_is_refused(
    pico_model: Path, trained: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    adapter = tmp_path / "adapter"
    shutil.copytree(trained("LoRA"), adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    weights = {key.replace("layers.1.", "layers.7."): tensor for key, tensor in weights.items()}
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.7.*another base"):
        merge(adapter, pico_model, tmp_path)


def test_a_quantised_base_is_refused(pico_model: Path, trained: Callable[..., Path], tmp_path: Path) -> None:
    base = tmp_path / "quantised"
    shutil.copytree(pico_model, base)
    config = json.loads((base / "config.json").read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="16- or 32-bit"):
        merge(trained("LoRA"), base, tmp_path)


def test_an_update_in_bfloat16_is_rounded_once(
    pico_model: Path, rows: DataConfig, trained: Callable[..., Path], tmp_path: Path
) -> None:
    import torch

    base = tmp_path / "bf16"
    shutil.copytree(pico_model, base)
    load(pico_model).to(torch.bfloat16).save_pretrained(base)
    merge(trained("LoRA"), base, tmp_path / "kept")
    merge(trained("LoRA"), base, tmp_path / "wide", torch_dtype="float32")
    found = load(tmp_path / "kept" / "output", dtype=torch.bfloat16).state_dict()
    assert read_checkpoint(tmp_path / "kept" / "output").tensors["model.norm.weight"].dtype == "BF16"
    reference = with_adapter(base, trained("LoRA")).to(torch.float32).merge_and_unload().state_dict()
    for key, tensor in found.items():
        torch.testing.assert_close(tensor.float(), reference[key].float(), rtol=8e-3, atol=1e-4)
