"""What quantising costs, and what it leaves of a model: beside the plain model builder and Microsoft Olive 0.13.

    python benchmarks/quantize.py cost --shape mini [--olive PEER/bin/olive] [--folder MODELS] [--only NAME ...]
    python benchmarks/quantize.py quality --model TRAINED --text TEXT [--olive PEER/bin/olive] [--only NAME ...]

``cost`` writes a random Phi-3 checkpoint of the shape (half: 0.5B weights, mini: 3.8B, large: 14B) in bfloat16, shard
by shard, and has each way make an int4 ONNX Runtime GenAI folder of it: wall time, peak resident memory of the process
tree, and the part of it that no file backs. ``mini`` takes 8 GB of disk, ``large`` 28 GB and twice the result.

``quality`` makes GenAI folders of a trained model in every way, and measures each on the text: perplexity, the mean
Kullback-Leibler divergence of its next-token distribution from that of the float model (nats a token), bytes of its
weights, tokens/s. One row per lever.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from processes import Figures, measure

SHAPES: dict[str, dict[str, int]] = {
    "half": {"hidden": 1536, "layers": 16, "heads": 16, "key_heads": 16, "intermediate": 4096, "vocabulary": 32064},
    "mini": {"hidden": 3072, "layers": 32, "heads": 32, "key_heads": 32, "intermediate": 8192, "vocabulary": 32064},
    "large": {"hidden": 5120, "layers": 40, "heads": 40, "key_heads": 10, "intermediate": 17920, "vocabulary": 100352},
}
SHARD = 2_000_000_000

PLAIN = """
import sys
from onnxruntime_genai.models import builder
place = (None, sys.argv[1], sys.argv[2], sys.argv[3], "cpu", sys.argv[2] + "-cache")
options = builder.parse_extra_options(*place, ["hf_token=false", *sys.argv[4:]])
builder.create_model(*place, **options)
"""


def write_checkpoint(folder: Path, shape: str) -> None:
    """Write a random Phi-3 of ``shape`` into ``folder``, one tensor in memory at a time."""
    from transformers import Phi3Config

    size = SHAPES[shape]
    folder.mkdir(parents=True)
    _write_tokenizer(folder, 32000)
    config = Phi3Config(
        hidden_size=size["hidden"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["key_heads"],
        intermediate_size=size["intermediate"],
        vocab_size=size["vocabulary"],
        max_position_embeddings=4096,
        original_max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        sliding_window=None,
    )
    config.architectures = ["Phi3ForCausalLM"]
    config.save_pretrained(folder)
    hidden, intermediate, vocabulary = size["hidden"], size["intermediate"], size["vocabulary"]
    fused = hidden + 2 * size["key_heads"] * (hidden // size["heads"])
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(size["layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {
            f"{prefix}self_attn.qkv_proj.weight": (fused, hidden),
            f"{prefix}self_attn.o_proj.weight": (hidden, hidden),
            f"{prefix}mlp.gate_up_proj.weight": (2 * intermediate, hidden),
            f"{prefix}mlp.down_proj.weight": (hidden, intermediate),
            f"{prefix}input_layernorm.weight": (hidden,),
            f"{prefix}post_attention_layernorm.weight": (hidden,),
        }
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    used = 0
    for name, each in shapes.items():
        needed = 2 * int(np.prod(each))
        if used and used + needed > SHARD:
            shards.append({})
            used = 0
        shards[-1][name] = each
        used += needed
    where = {}
    random = np.random.default_rng(0)
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        where |= dict.fromkeys(shard, file)
        _write_shard(folder / file, shard, random)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_shard(file: Path, shapes: dict[str, tuple[int, ...]], random: np.random.Generator) -> None:
    """Write one safetensors file of random bfloat16 matrices (standard deviation 0.02) and vectors of ones."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in shapes.items():
        length = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [place, place + length]}
        place += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(file, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            for start in range(0, shape[0], 4096):
                rows = (min(4096, shape[0] - start), *shape[1:])
                values = (
                    random.standard_normal(rows, np.float32) * 0.02 if len(shape) > 1 else np.ones(rows, np.float32)
                )
                stream.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    """Write a byte-level tokenizer with enough made-up words to fill the vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<|endoftext|>", *alphabet]
    merges = []
    for first in alphabet:
        for second in alphabet:
            if len(words) < vocabulary and first.isalpha() and second.isalpha():
                merges.append((first, second))
                words.append(first + second)
    core = Tokenizer(models.BPE(vocab={word: place for place, word in enumerate(words)}, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=words[0], eos_token=words[0], pad_token=words[0]
    ).save_pretrained(folder)


def ours(model: Path, folder: Path, passes: dict[str, Any]) -> list[str]:
    """Return the command that makes ``folder/models`` with Olivine."""
    config = {
        "version": 1,
        "input_model": {"model_path": str(model)},
        "passes": passes,
        "engine": {"cache_dir": "cache", "output_dir": "models"},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return [sys.executable, "-m", "olivine", "run", "--config", "config.json"]


def plain(model: Path, precision: str, *options: str) -> list[str]:
    """Return the command that makes ``models`` with the model builder alone."""
    return [sys.executable, "-c", PLAIN, str(model), "models", precision, *options]


def theirs(
    olive: Path, model: Path, folder: Path, passes: dict[str, Any], calibration: Path | None = None
) -> list[str]:
    """Return the command that makes ``folder/models`` with Olive 0.13."""
    config: dict[str, Any] = {
        "input_model": {"type": "HfModel", "model_path": str(model)},
        "systems": {
            "local": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "passes": passes,
        "host": "local",
        "target": "local",
        "cache_dir": "cache",
        "output_dir": "models",
    }
    if calibration:
        config["data_configs"] = [
            {
                "name": "calib",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {"data_name": "json", "data_files": str(calibration), "split": "train"},
                "pre_process_data_config": {
                    "text_cols": ["text"],
                    "strategy": "line-by-line",
                    "max_seq_len": 512,
                    "max_samples": 32,
                    "add_special_tokens": False,
                    "pad_to_max_len": False,
                },
            }
        ]
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return [str(olive.absolute()), "run", "--config", "config.json"]


def ways(arguments: argparse.Namespace, model: Path, calibration: Path | None) -> Iterator[tuple[str, Any]]:
    """Yield the name of each way and the function that gives its command for a folder."""
    builder = {"builder": {"type": "ModelBuilder", "precision": "int4"}}
    for name, more in OURS.items():
        passes = {"builder": builder["builder"] | more}
        yield name, lambda folder, passes=passes: ours(model, folder, passes)
    for name, options in BUILDERS.items():
        yield name, lambda folder, options=options: plain(model, *options)
    if arguments.olive:  # as in workflow.py: the newest onnxruntime-genai that Olive 0.13 works with is 0.14.1
        for name, passes in OLIVES.items():
            if name != "olive gptq" or calibration:
                yield (
                    name,
                    lambda folder, passes=passes: theirs(arguments.olive, model, folder, passes | builder, calibration),
                )


OURS: dict[str, dict[str, Any]] = {
    "olivine": {},
    "olivine asymmetric": {"int4_is_symmetric": False},
    "olivine groups of 16": {"int4_block_size": 16},
    "olivine groups of 128": {"int4_block_size": 128},
    "olivine hqq": {"int4_algo_config": "hqq"},
    "olivine embedding 8": {"embedding_bits": 8},
    "olivine embedding, head 8": {"embedding_bits": 8, "lm_head_bits": 8},
    "olivine embedding, head 8, groups of 16": {"embedding_bits": 8, "lm_head_bits": 8, "int4_block_size": 16},
    "olivine int8, embedding 8": {"precision": "int8", "embedding_bits": 8},
}
BUILDERS: dict[str, list[str]] = {
    "builder": ["int4"],
    "builder rtn": ["int4", "algo_config=rtn"],
    "builder k_quant": ["int4", "algo_config=k_quant"],
    "builder k_quant_mixed": ["int4", "algo_config=k_quant_mixed"],
    "builder float": ["fp32"],
}
OLIVES: dict[str, dict[str, Any]] = {
    "olive rtn": {"rtn": {"type": "Rtn", "bits": 4, "group_size": 32}},
    "olive k_quant": {"k_quant": {"type": "KQuant", "bits": 4, "group_size": 32}},
    "olive gptq": {"gptq": {"type": "Gptq", "bits": 4, "group_size": 32, "data_config": "calib"}},
}
NO_MODEL = 99
"""Counts as the exit status of a run that ended with 0 and made nothing."""

COST = ("olivine", "builder", "olive rtn")


def cost(arguments: argparse.Namespace) -> None:
    """Print what each way takes, and what it takes of the time of the others."""
    root = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.folder))
    model = Path(arguments.folder or root) / f"checkpoint-{arguments.shape}"
    if not model.exists():
        write_checkpoint(model, arguments.shape)
    found: dict[str, Figures] = {}
    for name, command in ways(arguments, model, None):
        if name not in (arguments.only or COST):
            continue
        for _ in range(arguments.repeats):
            folder = Path(tempfile.mkdtemp(dir=root))
            figures = found.setdefault(name, Figures())
            measure(command(folder), folder, figures, interval=0.05)
            if not any((folder / "models").rglob("genai_config.json")):
                figures.codes[-1] = figures.codes[-1] or NO_MODEL
            print(f"{name}: {figures.seconds[-1]:.1f} s, {figures.memory[-1] / 1e9:.2f} GB, "
                  f"{figures.anonymous[-1] / 1e9:.2f} GB anonymous, exit {figures.codes[-1]}", flush=True)  # fmt: skip
            if figures.codes[-1] == 0:
                shutil.rmtree(folder)
    print("\n| way | wall | resident | anonymous | exit | olivine's share of its time |\n|---|---|---|---|---|---|")
    best = min(found["olivine"].seconds) if "olivine" in found and not any(found["olivine"].codes) else None
    for name, figures in found.items():
        worked = not any(figures.codes)
        share = f"{best / min(figures.seconds):.2f}" if best and worked else ""
        print(f"| {name} | {min(figures.seconds):.1f} s | {min(figures.memory) / 1e9:.2f} GB | "
              f"{min(figures.anonymous) / 1e9:.2f} GB | {figures.codes[-1]} | {share} |")  # fmt: skip


def quality(arguments: argparse.Namespace) -> None:
    """Print what each way leaves of a trained model."""
    root = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.folder))
    text = arguments.text.read_text(encoding="utf-8")
    half = len(text) // 2  # calibrated on the first half, measured on the second
    calibration = root / "calibration.jsonl"
    lines = [line for line in text[:half].splitlines() if len(line) > 400]
    calibration.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    chunks, expected = _reference(arguments.model, text[half:], arguments.chunks, arguments.length)
    print("| way | perplexity | divergence | weights | prefill | decode | wall | resident |")
    print("|---|---|---|---|---|---|---|---|")
    zero = _score(chunks, expected, iter(expected))
    print(f"| float (transformers) | {zero[0]:.3f} | 0 | | | | | |", flush=True)
    for name, command in ways(arguments, arguments.model.absolute(), calibration):
        if arguments.only and name not in arguments.only:
            continue
        folder = Path(tempfile.mkdtemp(dir=root))
        figures = Figures()
        measure(command(folder), folder, figures, interval=0.02)
        built = next(iter(sorted((folder / "models").rglob("genai_config.json"))), None)
        if figures.codes[-1] or built is None:
            print(f"| {name} | failed, see {folder / 'output.log'} | | | | | | |", flush=True)
            continue
        perplexity, divergence, prefill, decode = _measured(built.parent, chunks, expected)
        size = sum(file.stat().st_size for file in built.parent.glob("*.data"))
        cells = [
            f"{perplexity:.3f}", f"{divergence:.5f}", f"{size / 1e6:.2f} MB", f"{prefill:.0f} tok/s",
            f"{decode:.0f} tok/s", f"{figures.seconds[-1]:.1f} s", f"{figures.memory[-1] / 1e9:.2f} GB",
        ]  # fmt: skip
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _reference(model: Path, text: str, count: int, length: int) -> tuple[list[list[int]], list[NDArray[np.float32]]]:
    """Return ``count`` chunks of ``length`` tokens and the float model's log probabilities on each."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(model)(text)["input_ids"]
    chunks = [ids[start : start + length] for start in range(0, count * length, length)]
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with torch.no_grad():
        return chunks, [torch.log_softmax(loaded(torch.tensor([each])).logits[0], -1).numpy() for each in chunks]


def _score(
    chunks: list[list[int]], expected: list[NDArray[np.float32]], found: Iterator[NDArray[np.float32]]
) -> tuple[float, float]:
    """Return perplexity, and divergence in nats a token."""
    likelihood = divergence = 0.0
    for ids, wanted, got in zip(chunks, expected, found, strict=True):
        likelihood -= float(got[np.arange(len(ids) - 1), ids[1:]].sum())
        divergence += float((np.exp(wanted) * (wanted - got)).sum())
    tokens = sum(len(ids) for ids in chunks)
    return float(np.exp(likelihood / (tokens - len(chunks)))), divergence / tokens


def _measured(
    folder: Path, chunks: list[list[int]], expected: list[NDArray[np.float32]]
) -> tuple[float, float, float, float]:
    """Return perplexity, divergence, and tokens/s of prefill and decoding of the GenAI model in ``folder``."""
    import time

    from olivine.models.genai import GenaiModel
    from olivine.passes.base import Accelerator

    model = GenaiModel(folder, Accelerator())

    def distributions() -> Iterator[NDArray[np.float32]]:
        for ids in chunks:
            logits = np.concatenate(list(model.logits(ids))).astype(np.float64)
            logits -= logits.max(-1, keepdims=True)
            yield (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)

    perplexity, divergence = _score(chunks, expected, distributions())
    speeds = []
    for _ in range(5):
        started = time.perf_counter()
        tokens = model.generate(chunks[0][:128], 129, ignore_eos=True)
        next(tokens)
        first = time.perf_counter()
        rest = sum(1 for _ in tokens)
        speeds.append((128 / (first - started), rest / (time.perf_counter() - first)))
    return perplexity, divergence, max(each[0] for each in speeds), max(each[1] for each in speeds)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    for name, run in (("cost", cost), ("quality", quality)):
        verb = verbs.add_parser(name)
        verb.set_defaults(run=run)
        verb.add_argument("--olive", type=Path, help="the peer's command; without it Olive's rows are left out")
        verb.add_argument("--folder", type=Path, help="where checkpoints and results go; default: the system's")
        verb.add_argument("--only", nargs="+", help="names of ways")
        if run is cost:
            verb.add_argument("--shape", choices=SHAPES, default="half")
            verb.add_argument("--repeats", type=int, default=1)
        else:
            verb.add_argument("--model", type=Path, required=True)
            verb.add_argument("--text", type=Path, required=True)
            verb.add_argument("--chunks", type=int, default=40)
            verb.add_argument("--length", type=int, default=256)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    arguments.run(arguments)


if __name__ == "__main__":
    main()
