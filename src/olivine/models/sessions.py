"""ONNX Runtime sessions: made-up inputs, and which execution provider each node ran on."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.errors import ModelError, UnavailableError
from olivine.telemetry import switch_off_telemetry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CPU = "CPUExecutionProvider"
EMPTY = ("past_sequence_length", "past_seq_len", "past_length")
"""Dimensions that are 0 unless told otherwise: nothing has been computed yet."""
TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def onnx_file(model: Path, name: str | None = None) -> Path:
    """Return the graph in a model's folder.

    Raises:
        ModelError: there is none, or more than one and none is called ``model.onnx``.
    """
    if model.is_file():
        return model
    found = [model / name] if name else sorted(model.glob("*.onnx"))
    if len(found) > 1 and (model / "model.onnx") in found:
        found = [model / "model.onnx"]
    if len(found) != 1 or not found[0].is_file():
        raise ModelError(
            f"there is no single ONNX file in {model}", remedy="name it model.onnx, or leave one in the folder"
        )
    return found[0]


def open_session(file: Path, provider: str, *, profile: Path | None = None) -> Any:
    """Return a session that runs on ``provider``, the CPU taking what it cannot.

    Args:
        profile: folder for a profile of the nodes.

    Raises:
        UnavailableError: the provider is not installed, or did not start: ONNX Runtime would go on with the CPU alone.
        ModelError: the graph cannot be loaded.
    """
    switch_off_telemetry()  # before it is imported
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "profile")
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise UnavailableError(
            f"{provider} is not in the ONNX Runtime here", why=f"it has {', '.join(available)}",
            remedy="install the distribution that brings it, or choose another target",
        )  # fmt: skip
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=list(dict.fromkeys([provider, CPU])))
    except Exception as error:  # the library has a class of its own for each status
        raise ModelError(f"ONNX Runtime cannot load {file}: {' '.join(str(error).split())[:300]}") from None
    if provider not in session.get_providers():
        raise UnavailableError(
            f"{provider} did not start, and ONNX Runtime would have gone on with {', '.join(session.get_providers())}",
            remedy="look into the log for why: mostly a driver or a library of it is missing",
        )
    return session


def made_up_inputs(session: Any, dimensions: Mapping[str, int], seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Return a value for every input: floats uniform in [0, 1), integers and booleans 1.

    Args:
        dimensions: sizes of the graph's symbolic dimensions; those that are not named are 1, past ones 0.

    Raises:
        ModelError: an input is no tensor of numbers.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    found: dict[str, NDArray[np.generic]] = {}
    for each in session.get_inputs():
        kind = TYPES.get(each.type)
        if kind is None:
            raise ModelError(f"the input {each.name} is a {each.type}, which cannot be made up")
        shape = [size if isinstance(size, int) else size_of(size, dimensions) for size in each.shape]
        if kind.startswith("float"):
            found[each.name] = generator.random(shape).astype(kind)
        else:
            found[each.name] = np.ones(shape, dtype=kind)
    return found


def known_dimensions(model: Path) -> dict[str, int]:
    """Return the symbolic dimensions whose size the model's generation configuration tells, if it has one."""
    file = model / "genai_config.json"
    if not file.is_file():
        return {}
    decoder = json.loads(file.read_text(encoding="utf-8")).get("model", {}).get("decoder", {})
    named = ("head_size", "num_key_value_heads", "hidden_size")
    decoder = decoder | {"kv_cache_dim": decoder.get("head_size")}
    return {name: decoder[name] for name in (*named, "kv_cache_dim") if isinstance(decoder.get(name), int)}


def size_of(name: str | None, dimensions: Mapping[str, int]) -> int:
    """Return the size of a symbolic dimension. ``total_sequence_length`` is past and present together."""
    if name is not None and name in dimensions:
        return dimensions[name]
    if name in EMPTY:
        return 0
    if name == "total_sequence_length":
        return size_of("past_sequence_length", dimensions) + size_of("sequence_length", dimensions)
    return 1


def placement(file: Path, provider: str, inputs: Mapping[str, Any]) -> dict[str, int]:
    """Run the graph once, and return how many nodes ran on each execution provider, as its profile tells.

    Raises:
        UnavailableError: another provider than the CPU was asked for, and not a single node ran on it.
    """
    with tempfile.TemporaryDirectory(prefix="olivine-profile-") as folder:
        session = open_session(file, provider, profile=Path(folder))
        session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = {
        each["name"]: each["args"]["provider"]
        for each in events
        if each.get("cat") == "Node" and each.get("args", {}).get("provider")
    }
    found = dict(Counter(nodes.values()).most_common())
    if provider != CPU and not found.get(provider):
        raise UnavailableError(
            f"no node of the model ran on {provider}: all {sum(found.values())} ran on {', '.join(found) or 'nothing'}",
            why="ONNX Runtime gives what a provider cannot do to the CPU, and says nothing",
            remedy="choose a precision and operators that the provider has, or the CPU as target",
        )
    return found
