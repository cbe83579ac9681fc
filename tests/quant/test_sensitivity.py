"""Sensitivities: what is estimated ranks as what is measured, and what is stored alike is chosen alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from built_models import PROMPT, rows, trained_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from olivine.quant.reading import TensorReader
from olivine.quant.scheme import Scheme
from olivine.quant.sensitivity.exact import Divergence, exact_losses
from olivine.quant.sensitivity.fisher import fisher_losses
from olivine.quant.sensitivity.groups import fused_groups, options_of
from olivine.quant.sensitivity.mixing import measured_divergence
from olivine.quant.sensitivity.table import Sensitivities

OPTIONS = (Scheme(2, 32, symmetric=False), Scheme(4, 64, symmetric=True), Scheme(4, 16, symmetric=False))


@pytest.fixture(scope="module")
def reader(pico_model: Path) -> TensorReader:
    return TensorReader(trained_model(pico_model))


@pytest.fixture(scope="module")
def sequences(reader: TensorReader) -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(reader.checkpoint.path)
    return [tokenizer(PROMPT.format(**row) + row["tone"])["input_ids"] for row in rows()]


@pytest.fixture(scope="module")
def model(reader: TensorReader) -> Any:
    return AutoModelForCausalLM.from_pretrained(reader.checkpoint.path, dtype=torch.float32).eval()


def ranks(values: list[float]) -> torch.Tensor:
    return torch.tensor(values).argsort().argsort().double()


def test_estimated_losses_rank_as_measured_ones(reader: TensorReader, sequences: list[list[int]], model: Any) -> None:
    groups = fused_groups(reader.checkpoint.config, reader.checkpoint.modules)
    options: dict[str, list[Scheme | None]] = {group.name: [*OPTIONS] for group in groups}
    estimated = fisher_losses(reader, sequences, groups, options, "search")
    measured = exact_losses(model, sequences, groups, options, "search")
    pairs = [(estimated[name][scheme], measured[name][scheme]) for name in options for scheme in OPTIONS]
    spearman = torch.corrcoef(torch.stack([ranks([a for a, _ in pairs]), ranks([b for _, b in pairs])]))[0, 1]
    assert spearman > 0.9
    fine = [(estimated[name][OPTIONS[2]], measured[name][OPTIONS[2]]) for name in options]
    assert 0.5 < sum(a for a, _ in fine) / sum(b for _, b in fine) < 2


def test_mix_that_streams_diverges_as_the_one_in_memory(
    reader: TensorReader, sequences: list[list[int]], model: Any
) -> None:
    groups = fused_groups(reader.checkpoint.config, reader.checkpoint.modules)
    chosen = {group.name: OPTIONS[place % 3] for place, group in enumerate(groups)}
    by_tensor = {tensor: chosen[group.name] for group in groups for tensor in group.tensors}
    expected = Divergence(model, sequences).of(groups, chosen, "search")
    assert expected > 0.001
    assert measured_divergence(reader, sequences, by_tensor, "search") == pytest.approx(expected, rel=1e-3)
    assert measured_divergence(reader, sequences, {}, "search") == 0


def test_what_the_runtime_fuses_is_one_group_whether_the_checkpoint_fuses_it_or_not() -> None:
    apart = {
        "model.embed_tokens": (400, 64),
        "model.layers.10.mlp.down_proj": (64, 96),
        **{f"model.layers.2.self_attn.{part}_proj": (rows, 64) for part, rows in (("k", 32), ("q", 64), ("v", 32))},
        **{f"model.layers.2.mlp.{part}_proj": (96, 64) for part in ("up", "gate")},
        "lm_head": (400, 64),
    }
    found = fused_groups({}, apart)
    assert [(group.name, group.rows, group.role) for group in found] == [
        ("model.embed_tokens", 400, "embedding"),
        ("model.layers.2.self_attn.qkv_proj", 128, "linear"),
        ("model.layers.2.mlp.gate_up_proj", 192, "linear"),
        ("model.layers.10.mlp.down_proj", 64, "linear"),
        ("lm_head", 400, "head"),
    ]
    assert set(found[1].tensors) == {f"model.layers.2.self_attn.{part}_proj.weight" for part in "qkv"}
    (tied,) = fused_groups({"tie_word_embeddings": True}, {"model.embed_tokens": (400, 64), "lm_head": (400, 64)})
    assert (tied.role, tied.tensors) == ("tied", ("model.embed_tokens.weight",))


def test_groups_come_out_even_and_only_the_embedding_may_stay_as_it_is() -> None:
    shapes = {"model.embed_tokens": (8, 96), "model.layers.0.mlp.up_proj": (8, 96), "lm_head": (8, 96)}
    embedding, layer, head = fused_groups({}, shapes)
    for group in (embedding, layer, head):
        assert all(scheme is None or 96 % scheme.group_size == 0 for scheme in options_of(group))
    assert [None in options_of(group) for group in (embedding, layer, head)] == [True, False, False]
    assert {each.bits for each in options_of(layer) if each} == {2, 4, 8}
    assert {each.bits for each in options_of(head) if each} == {4, 8}
    assert {each.bits for each in options_of(head, bits=(8,)) if each} == {8}


def test_table_is_read_as_it_was_written_and_a_broken_one_is_made_anew(tmp_path: Path) -> None:
    table = Sensitivities("fisher", 7, {"a": {None: 0.0, Scheme(2, 16, symmetric=False): 0.25}})
    table.save(tmp_path / "made" / "table.json")
    assert Sensitivities.load(tmp_path / "made" / "table.json") == table
    for text in ("", "[]", '{"version": 0}', (tmp_path / "made" / "table.json").read_text()[:-9]):
        (tmp_path / "broken.json").write_text(text)
        assert Sensitivities.load(tmp_path / "broken.json") is None
    assert Sensitivities.load(tmp_path / "nothing.json") is None
