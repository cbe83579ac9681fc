"""What quantising costs, and what it leaves of a model: beside the plain model builder and Microsoft Olive 0.13.

    python benchmarks/quantize.py cost --shape mini [--olive PEER/bin/olive] [--folder MODELS] [--only NAME ...]
                                       [--speed]
    python benchmarks/quantize.py quality --model TRAINED --text TEXT [--olive PEER/bin/olive] [--only NAME ...]
                                          [--results FILE] [--also NAME=PASSES.json ...]

``cost`` writes a random Phi-3 checkpoint of the shape (half: 0.5B weights, mini: 3.8B, large: 14B) in bfloat16, shard
by shard, and has each way make an int4 ONNX Runtime GenAI folder of it: wall time, peak resident memory of the process
tree, and the part of it that no file backs; and how long it takes to read the checkpoint and to write as many bytes as
the result. ``mini`` takes 8 GB of disk and ``large`` 30, and each result on top, which is deleted before the next; but
with ``--speed`` all are kept to the end, loaded together, and generate by turns: tokens/s.

``quality`` makes GenAI folders of a trained model in every way, and measures each on the text: perplexity, the mean
Kullback-Leibler divergence of its next-token distribution from that of the float model (nats a token), bytes of its
weights, tokens/s. One row per lever. Calibrated on the first half of the text, measured on the second. ``auto`` gets as
many bytes as another row has, all files counted. A way that failed has its reason and no figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from processes import Figures, measure

if TYPE_CHECKING:
    from olivine.models.genai import GenaiModel

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
    """Write one safetensors file of random bfloat16 matrices (standard deviation 0.02) and vectors of ones.

    The same rows come again every 512, so that a checkpoint of 30 GB is written as fast as the disk is.
    """
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
            rows = (min(512, shape[0]), *shape[1:])
            values = random.standard_normal(rows, np.float32) * 0.02 if len(shape) > 1 else np.ones(rows, np.float32)
            block = (values.view(np.uint32) >> 16).astype("<u2")
            for start in range(0, shape[0], len(block)):
                stream.write(block[: shape[0] - start].tobytes())


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


def ours(model: Path, folder: Path, passes: dict[str, Any], calibration: Path | None = None) -> list[str]:
    """Return the command that makes ``folder/models`` with Olivine; ``calib`` names the calibration text."""
    config: dict[str, Any] = {
        "version": 1,
        "input_model": {"model_path": str(model)},
        "passes": passes,
        "engine": {"cache_dir": "cache", "output_dir": "models"},
    }
    if calibration:
        config["data_configs"] = [CALIB | {"data_files": str(calibration)}]
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return [sys.executable, "-m", "olivine", "run", "--config", "config.json"]


CALIB: dict[str, Any] = {
    "name": "calib",
    "text_template": "{text}",
    "max_samples": 32,
    "max_seq_len": 512,
}
"""As many rows, as long, as Olive's Gptq gets."""


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


def ways(arguments: argparse.Namespace, model: Path, calibration: Path | None) -> Iterator[tuple[str, Way]]:
    """Yield the name of each way and what gives its command for a folder, given the bytes of earlier results."""
    builder = {"builder": {"type": "ModelBuilder", "precision": "int4"}}
    for name, options in BUILDERS.items():
        yield name, lambda folder, sizes, options=options: plain(model, *options)
    if arguments.olive:  # as in workflow.py: the newest onnxruntime-genai that Olive 0.13 works with is 0.14.1
        for name, passes in OLIVES.items():
            if "data_config" not in str(passes) or calibration:
                yield (
                    name,
                    lambda folder, sizes, passes=passes: theirs(
                        arguments.olive, model, folder, passes | builder, calibration if "gptq" in passes else None
                    ),
                )
    for name, more in OURS.items():
        passes = {"builder": builder["builder"] | more}
        yield name, lambda folder, sizes, passes=passes: ours(model, folder, passes)
    for name, more in ROUNDED.items():
        rounded = {"quantize": {"type": "Quantize", "lm_head_bits": 4} | more} | builder
        yield name, lambda folder, sizes, passes=rounded: ours(model, folder, passes)
    for each in arguments.also:
        name, _, file = each.partition("=")
        passes = json.loads(Path(file).read_text(encoding="utf-8"))
        yield name, lambda folder, sizes, passes=passes: ours(model, folder, passes, calibration)
    for name, beside in MIXED.items():
        if calibration:
            yield name, lambda folder, sizes, beside=beside: ours(model, folder, _mixed(sizes, beside), calibration)


def _mixed(sizes: Mapping[str, int], beside: str) -> dict[str, Any]:
    """Return the passes that choose bits for no more bytes than the result called ``beside`` has, all files counted."""
    if beside not in sizes:
        raise Impossible(f"needs the size of {beside}: run that too")
    own = {"type": "ModelBuilder", "precision": "auto", "max_size": sizes[beside], "calibration_data_config": "calib"}
    return {"builder": own}


class Impossible(Exception):
    """Why a row cannot be measured."""


Way = Callable[[Path, Mapping[str, int]], list[str]]

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
OURS: dict[str, dict[str, Any]] = {
    "olivine": {},
    "olivine asymmetric": {"int4_is_symmetric": False},
    "olivine groups of 16": {"int4_block_size": 16},
    "olivine groups of 128": {"int4_block_size": 128},
    "olivine hqq": {"int4_algo_config": "hqq"},
    "olivine embedding 4": {"embedding_bits": 4},
    "olivine float embedding": {"int4_nodes_to_exclude": ["/model/embed_tokens/Gather"]},
    "olivine head 8": {"lm_head_bits": 8},
    "olivine head 8, groups of 16": {"lm_head_bits": 8, "int4_block_size": 16},
    "olivine int8": {"precision": "int8"},
}
"""The embedding has 8 bits where nothing else is said."""

ROUNDED: dict[str, dict[str, Any]] = {
    "olivine rtn": {"method": "rtn"},
    "olivine rtn_half": {"method": "rtn_half"},
    "olivine k_quant": {"method": "k_quant"},
    "olivine k_quant asymmetric": {"method": "k_quant", "symmetric": False},
    "olivine hqq asymmetric": {"method": "hqq", "symmetric": False},
}
MIXED: dict[str, str] = {
    "olivine auto, bytes of olivine": "olivine",
    "olivine auto, bytes of builder k_quant_mixed": "builder k_quant_mixed",
}
NO_MODEL = 99
"""Counts as the exit status of a run that ended with 0 and made nothing."""

COST = ("olivine", "builder", "olive rtn")


@dataclass
class Row:
    """What was measured of one way; what failed has the reason."""

    name: str
    failed: str = ""
    seconds: float = 0.0
    resident: int = 0
    anonymous: int = 0
    size: int = 0
    weights: int = 0
    perplexity: float = 0.0
    divergence: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0


PROMPT, NEW, TURNS = 64, 64, 5
"""Tokens of the prompt, tokens that are generated, and how often each model has its turn."""


def _make(name: str, way: Way, root: Path, sizes: Mapping[str, int], interval: float) -> tuple[Row, Path | None]:
    """Run one way; return what it took and the folder of its model."""
    folder = Path(tempfile.mkdtemp(dir=root))
    try:
        command = way(folder, sizes)
    except Impossible as reason:
        return Row(name, str(reason)), None
    figures = Figures()
    measure(command, folder, figures, interval=interval)
    built = next(iter(sorted((folder / "models").rglob("genai_config.json"))), None)
    row = Row(name, "", figures.seconds[-1], figures.memory[-1], figures.anonymous[-1])
    if figures.codes[-1] or built is None:
        row.failed = f"exit {figures.codes[-1] or NO_MODEL}: {_last_words(folder / 'output.log')}"
        return row, None
    row.size = sum(file.stat().st_size for file in built.parent.iterdir())
    row.weights = sum(file.stat().st_size for file in built.parent.glob("*.data"))
    return row, built.parent


def _last_words(log: Path) -> str:
    """Return the last line of a log that says something, cut short."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return ((errors or lines or ["it printed nothing"])[-1])[:160].replace("|", "/")


def cost(arguments: argparse.Namespace) -> None:
    """Print what each way takes, and what Olivine takes of the time and memory of the others."""
    root = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.folder))
    model = Path(arguments.folder or root) / f"checkpoint-{arguments.shape}"
    if not model.exists():
        write_checkpoint(model, arguments.shape)
    stored = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    found: dict[str, Row] = {}
    results: dict[str, Path] = {}
    own_names = {each.partition("=")[0] for each in arguments.also}
    for name, way in ways(arguments, model, None):
        if name not in (arguments.only or COST) and name not in own_names:
            continue
        for _ in range(arguments.repeats):
            row, built = _make(name, way, root, {each.name: each.size for each in found.values()}, 0.05)
            print(f"{name}: {row.failed or 'made'} {row.seconds:.1f} s, {row.resident / 1e9:.2f} GB, "
                  f"{row.anonymous / 1e9:.2f} GB anonymous", flush=True)  # fmt: skip
            if name not in found or (not row.failed and row.seconds < found[name].seconds):
                found[name] = row
            if built is not None and arguments.speed:
                results[name] = built
            elif built is not None:
                shutil.rmtree(root / built.relative_to(root).parts[0])
    for name, (prefill, decode) in _rates(results).items():
        found[name].prefill, found[name].decode = prefill, decode
    plain_copy = _copy_seconds(model, root, found["olivine"].size) if "olivine" in found else None
    own = found.get("olivine")
    best = own if own is not None and not own.failed else None
    print(f"\n{arguments.shape}: {stored / 1e9:.2f} GB of bfloat16\n\n| way | wall | resident | anonymous | result | "
          "olivine's share of time, memory |\n|---|---|---|---|---|---|")  # fmt: skip
    for name, row in found.items():
        if row.failed:
            print(f"| {name} | after {row.seconds:.1f} s: {row.failed} | {row.resident / 1e9:.2f} GB | | | none |")
            continue
        share = f"{best.seconds / row.seconds:.2f}, {best.resident / row.resident:.2f}" if best else ""
        print(f"| {name} | {row.seconds:.1f} s | {row.resident / 1e9:.2f} GB | {row.anonymous / 1e9:.2f} GB | "
              f"{row.size / 1e9:.2f} GB | {share} |")  # fmt: skip
    if plain_copy is not None and best:
        print(f"| reading the checkpoint and writing as many bytes as the result | {plain_copy:.1f} s | | | | "
              f"{best.seconds / plain_copy:.1f} times as long |")  # fmt: skip
    for name in results:
        print(f"{name}: {found[name].prefill:.1f} tokens/s of a prompt, {found[name].decode:.1f} generated")
    shutil.rmtree(root)


def _rates(folders: Mapping[str, Path]) -> dict[str, tuple[float, float]]:
    """Return the tokens/s of a prompt, and those that are generated, of the GenAI models in ``folders``, by turns."""
    from olivine.models.genai import GenaiModel
    from olivine.passes.base import Accelerator

    models = {name: GenaiModel(folder, Accelerator()) for name, folder in folders.items()}
    best = dict.fromkeys(models, (0.0, 0.0))
    for _ in range(TURNS):
        for name, model in models.items():
            prefill, decode = _speed(model, list(range(300, 300 + PROMPT)), NEW)
            best[name] = max(best[name][0], prefill), max(best[name][1], decode)
    return best


def _speed(model: GenaiModel, prompt: list[int], new: int) -> tuple[float, float]:
    """Return the tokens/s of the prompt and of ``new`` tokens after the first."""
    started = time.perf_counter()
    tokens = model.generate(prompt, new + 1, ignore_eos=True)
    next(tokens)
    first = time.perf_counter()
    rest = sum(1 for _ in tokens)
    return len(prompt) / (first - started), rest / (time.perf_counter() - first)


def _copy_seconds(model: Path, root: Path, size: int) -> float:
    """Return how long it takes to read the checkpoint and to write, and sync, ``size`` bytes: nothing can be faster."""
    block = bytearray(16 << 20)
    started = time.perf_counter()
    for file in sorted(model.glob("*.safetensors")):
        with open(file, "rb", buffering=0) as stream:
            while stream.readinto(block):
                pass
    with open(root / "copy", "wb", buffering=0) as stream:
        for start in range(0, size, len(block)):
            stream.write(memoryview(block)[: min(len(block), size - start)])
        os.fsync(stream.fileno())
    return time.perf_counter() - started


def quality(arguments: argparse.Namespace) -> None:
    """Print what each way leaves of a trained model."""
    root = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.folder))
    text = arguments.text.read_text(encoding="utf-8")
    half = len(text) // 2  # calibrated on the first half, measured on the second
    calibration = root / "calibration.jsonl"
    lines = [line for line in text[:half].splitlines() if len(line) > 400]
    calibration.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    chunks, expected = _reference(arguments.model, text[half:], arguments.chunks, arguments.length)
    lost = _score(chunks, expected, iter(expected))[0]
    rows = _earlier(arguments.results)
    for name, way in ways(arguments, arguments.model.absolute(), calibration):
        if name in rows or (arguments.only and name not in arguments.only):
            continue
        row, built = _make(name, way, root, {each.name: each.size for each in rows.values()}, 0.02)
        if built is not None:
            row.perplexity, row.divergence, row.prefill, row.decode = _measured(built, chunks, expected)
        print(f"{name}: {row.failed or f'divergence {row.divergence:.5f}, {row.weights / 1e6:.2f} MB'}", flush=True)
        rows[name] = row
        if arguments.results and not row.failed:
            with open(arguments.results, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(row)) + "\n")
    _print_quality(rows, lost)
    shutil.rmtree(root)


def _print_quality(rows: Mapping[str, Row], lossless: float) -> None:
    """Print one row per way, and how much of what the builder's rounding loses it does not lose."""
    nearest = rows.get("builder")
    print(
        "\n| way | perplexity | divergence | of the builder's closed | weights | prefill | decode | wall | resident |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    print(f"| float (transformers) | {lossless:.3f} | 0 | 100 % | | | | | |")
    for row in rows.values():
        if row.failed:
            print(f"| {row.name} | {row.failed} | | | | | | | |")
            continue
        closed = f"{1 - row.divergence / nearest.divergence:.0%}" if nearest and not nearest.failed else ""
        cells = [
            f"{row.perplexity:.3f}", f"{row.divergence:.5f}", closed, f"{row.weights / 1e6:.2f} MB",
            f"{row.prefill:.0f} tok/s", f"{row.decode:.0f} tok/s", f"{row.seconds:.1f} s",
            f"{row.resident / 1e9:.2f} GB",
        ]  # fmt: skip
        print(f"| {row.name} | {' | '.join(cells)} |")


def _earlier(results: Path | None) -> dict[str, Row]:
    """Return the rows that an earlier call has measured."""
    if results is None or not results.exists():
        return {}
    rows = [Row(**json.loads(line)) for line in results.read_text(encoding="utf-8").splitlines()]
    return {row.name: row for row in rows}


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
    from olivine.models.genai import GenaiModel
    from olivine.passes.base import Accelerator

    model = GenaiModel(folder, Accelerator())

    def distributions() -> Iterator[NDArray[np.float32]]:
        for ids in chunks:
            logits = np.concatenate(list(model.logits(ids))).astype(np.float64)
            logits -= logits.max(-1, keepdims=True)
            yield (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)

    perplexity, divergence = _score(chunks, expected, distributions())
    speeds = [_speed(model, chunks[0][:128], 128) for _ in range(5)]
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
        verb.add_argument(
            "--also", nargs="+", default=[], metavar="NAME=FILE", help="more ways of Olivine: passes in JSON"
        )
        if run is cost:
            verb.add_argument("--shape", choices=SHAPES, default="half")
            verb.add_argument("--repeats", type=int, default=1)
            verb.add_argument("--speed", action="store_true", help="measure what the results generate, too")
        else:
            verb.add_argument(
                "--results", type=Path, help="keeps rows from call to call; those that are there are not run"
            )
            verb.add_argument("--model", type=Path, required=True)
            verb.add_argument("--text", type=Path, required=True)
            verb.add_argument("--chunks", type=int, default=40)
            verb.add_argument("--length", type=int, default=256)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    arguments.run(arguments)


if __name__ == "__main__":
    main()
