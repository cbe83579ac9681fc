"""The layer walker: what it computes layer by layer is what the whole model computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from olivine.errors import ModelError
from olivine.quant.calibration.activations import Activations
from olivine.quant.calibration.walking import LayerWalker
from olivine.quant.reading import TensorReader

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Phi3": {"original_max_position_embeddings": 512, "sliding_window": 5},
    "Llama": {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0,
              "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
    "Mistral": {"head_dim": 16, "sliding_window": 7},
    "Qwen2": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "Qwen3": {"head_dim": 32},
    "Gemma": {"head_dim": 16},
    "Gemma2": {"head_dim": 32, "query_pre_attn_scalar": 16, "sliding_window": 6},
    "Gemma3Text": {"head_dim": 32, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    "Granite": {"residual_multiplier": 0.5, "logits_scaling": 2.0, "embedding_multiplier": 3.0},
    "SmolLM3": {"tie_word_embeddings": True},
}  # fmt: skip


def checkpoint(name: str, folder: Path, **changes: Any) -> Any:
    """Write a random model of the architecture and return it."""
    import transformers

    known = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": 120,
        "max_position_embeddings": 512,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    config = getattr(transformers, f"{name}Config")(**known, **ARCHITECTURES[name], **changes)
    torch.manual_seed(0)
    causal = name.replace("3Text", "3")
    model = getattr(transformers, f"{causal}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_gives_the_hidden_states_of_the_whole_model(name: str, tmp_path: Path) -> None:
    model = checkpoint(name, tmp_path / "model")
    ids = torch.randint(120, (3, 19), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(ids, output_hidden_states=True)
    walker = LayerWalker(TensorReader(tmp_path / "model"), batch_tokens=40)
    states = walker.embed(ids.tolist())
    found = [torch.cat([states.read(batch).clone() for batch in states.batches(40)])]
    for index in range(walker.layer_count):
        with walker.layer(index) as layer:
            layer.advance(states)
        found.append(torch.cat([states.read(batch).clone() for batch in states.batches(40)]))
    # transformers applies the last norm to the last of its hidden states
    for mine, whole in zip(found[:-1], expected.hidden_states[:-1], strict=True):
        torch.testing.assert_close(mine, whole, atol=1e-5, rtol=1e-5)
    with walker.head() as logits:
        torch.testing.assert_close(logits(found[-1]), expected.logits, atol=1e-5, rtol=1e-4)
    assert float(expected.logits.std()) > 0.01


def test_observers_see_the_inputs_of_each_matrix_by_its_name_in_the_checkpoint(tmp_path: Path) -> None:
    model = checkpoint("Qwen3", tmp_path / "model")
    ids = torch.randint(120, (2, 11))
    inputs: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, args, name=name: inputs.__setitem__(name, args[0].detach()))
    with torch.no_grad():
        model(ids)
    walker = LayerWalker(TensorReader(tmp_path / "model"))
    states = walker.embed(ids.tolist())
    seen: dict[str, torch.Tensor] = {}
    for index in range(2):
        with walker.layer(index) as layer:
            layer.observe(states, {name: lambda x, name=name: seen.__setitem__(name, x) for name in layer.linears})
            assert [[name.rpartition(".")[2] for name in group] for group in layer.groups()] == [
                ["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"],
            ]  # fmt: skip
            layer.advance(states)
    del inputs["lm_head"]
    assert seen.keys() == inputs.keys()
    for name, found in seen.items():
        torch.testing.assert_close(found, inputs[name].flatten(0, 1), atol=1e-5, rtol=1e-5)


def test_layers_after_a_changed_one_see_what_it_computes(tmp_path: Path) -> None:
    model = checkpoint("Llama", tmp_path / "model")
    ids = torch.randint(120, (2, 11))
    walker = LayerWalker(TensorReader(tmp_path / "model"))
    states = walker.embed(ids.tolist())
    with walker.layer(0) as layer, torch.no_grad():
        layer.linears["model.layers.0.mlp.down_proj"].weight.mul_(3)
        layer.advance(states)
        model.model.layers[0].mlp.down_proj.weight.mul_(3)
        expected = model(ids, output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(states.read(next(states.batches(100))), expected, atol=1e-5, rtol=1e-5)


def test_beyond_the_budget_hidden_states_are_in_a_file(tmp_path: Path) -> None:
    checkpoint("Llama", tmp_path / "model")
    walker = LayerWalker(TensorReader(tmp_path / "model"), batch_tokens=30)
    sequences = [[3, 4, 5], [7, 8, 9], [1, 2, 3, 4, 5]]
    kept, spilt = walker.embed(sequences), walker.embed(sequences, budget=100, folder=tmp_path)
    assert (kept.spilt, spilt.spilt) == (False, True)
    with walker.layer(1) as layer:
        layer.advance(kept)
        layer.advance(spilt)
    batches = list(kept.batches(30))
    assert [(batch.sequences, batch.length) for batch in batches] == [(2, 3), (1, 5)]
    for batch in batches:
        assert torch.equal(kept.read(batch), spilt.read(batch))
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]  # a killed process leaves no file
    spilt.close()


def test_no_weights_stay_when_a_layer_is_done(tmp_path: Path) -> None:
    checkpoint("Gemma2", tmp_path / "model")
    walker = LayerWalker(TensorReader(tmp_path / "model"))
    states = walker.embed([[1, 2, 3]])
    with walker.layer(0) as layer:
        assert not any(each.is_meta for each in layer.module.parameters())
        layer.advance(states)
    with walker.head():
        pass
    assert all(each.is_meta for each in walker._model.causal.parameters())


def test_a_token_beyond_the_vocabulary_is_an_error(tmp_path: Path) -> None:
    checkpoint("Llama", tmp_path / "model")
    with pytest.raises(ModelError, match="token 120 is not in the vocabulary of 120"):
        LayerWalker(TensorReader(tmp_path / "model")).embed([[1, 120]])


def test_batches_hold_at_least_one_sequence() -> None:
    states = Activations([8, 8, 8, 2], 4)
    assert [(each.first, each.sequences, each.length) for each in states.batches(5)] == [
        (0, 1, 8), (8, 1, 8), (16, 1, 8), (24, 1, 2),
    ]  # fmt: skip
