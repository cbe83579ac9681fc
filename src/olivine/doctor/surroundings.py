"""The machine, its GPUs, free memory and disk, the hub and the cache."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.doctor.finding import Finding, State
from olivine.engine.words import memory, size
from olivine.hardware.machine import Machine, cpu_features
from olivine.hardware.memory import free_memory_bytes, memory_limit_bytes
from olivine.hardware.packages import installed_version

if TYPE_CHECKING:
    from olivine.store import Artifact

LITTLE_MEMORY = 4 * 2**30
LITTLE_DISK = 10 * 10**9
"""Below these a model of a few billion weights does not go through."""


def check_machine(machine: Machine) -> list[Finding]:
    """Look at processor, memory and GPUs."""
    return [_processor(machine), _memory(machine), *_gpus(machine)]


def _processor(machine: Machine) -> Finding:
    features = cpu_features()
    told = f" ({', '.join(features)})" if features else ""
    text = f"{machine.processor}, {machine.cores} core{'s' if machine.cores != 1 else ''}{told}"
    if platform.machine().lower() in ("x86_64", "amd64") and features and "avx2" not in features:
        remedy = "run it on a processor of the last ten years, or be patient"
        return Finding("machine", "processor", State.WARNING, f"{text}: no AVX2, so quantised models are slow", remedy)
    if machine.cpu_has_bf16:
        return Finding("machine", "processor", State.OK, f"{text}, multiplies bfloat16 in hardware")
    return Finding(
        "machine", "processor", State.OK, f"{text}, no bfloat16 units: `torch_dtype: auto` takes float32 on it"
    )


def _memory(machine: Machine) -> Finding:
    free = free_memory_bytes()
    text = f"{memory(free)} free of {memory(machine.memory_bytes)}"
    limit = memory_limit_bytes()
    if limit is not None and limit < machine.memory_bytes:
        text += f", of which a container or control group lets it take {memory(limit)}"
    if free < LITTLE_MEMORY:
        return Finding(
            "machine", "memory", State.WARNING, text, "end other programs; quantising streams, fine-tuning needs memory"
        )
    return Finding("machine", "memory", State.OK, text)


def _gpus(machine: Machine) -> Iterator[Finding]:
    if not machine.gpus:
        if shutil.which("nvidia-smi") is not None:
            yield Finding(
                "machine",
                "GPU",
                State.PROBLEM,
                "nvidia-smi is here, and no driver answers it",
                "install or restart the NVIDIA driver; in a container, start it with access to the GPUs",
            )
        else:
            yield Finding("machine", "GPU", State.ABSENT, "no NVIDIA driver is installed")
        return
    for gpu in machine.gpus:
        text = f"{gpu.name}, {memory(gpu.memory_bytes)}, compute capability {gpu.capability}"
        text += f", driver {gpu.driver}" if gpu.driver else ""
        yield Finding("machine", "GPU", State.OK, text)
    torch = installed_version("torch")  # with its build: 2.13.0+cpu
    if torch is not None and torch.endswith("+cpu"):
        yield Finding(
            "machine",
            "GPU",
            State.WARNING,
            f"torch {torch} is a build for CPUs: fine-tuning will not use the GPU",
            "`pip uninstall -y torch`, then install the CUDA build that pytorch.org names for your driver",
        )


def check_disk(cache_dir: Path) -> list[Finding]:
    """Look at the room where results, temporary files and downloaded models go."""
    from olivine.models.hub import cache_folder
    from olivine.store.disk import free_bytes

    found, seen = [], set[int]()
    for subject, folder in (
        ("cache", cache_dir),
        ("temporary files", Path(tempfile.gettempdir())),
        ("hub", cache_folder()),
    ):
        existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
        free = free_bytes(existing)
        disk = existing.stat().st_dev
        if free is None or disk in seen:
            continue
        seen.add(disk)
        state, remedy = State.OK, ""
        if free < LITTLE_DISK:
            state, remedy = State.WARNING, "`olivine cache gc --max-size 20GB` makes room, or put it on another disk"
        found.append(Finding("disk", subject, state, f"{size(free)} free at {existing}", remedy))
        if not os.access(existing, os.W_OK):
            found.append(
                Finding(
                    "disk", subject, State.PROBLEM, f"{existing} cannot be written", "choose another with cache_dir"
                )
            )
    return found


def check_hub() -> list[Finding]:
    """Look at how models are fetched from the Hugging Face hub. No request is made, and no token is shown."""
    from olivine.models.hub import cache_folder, is_offline

    if is_offline():
        mode = Finding("hub", "network", State.OK, "offline mode is on (HF_HUB_OFFLINE): what is on disk is used")
    else:
        mode = Finding("hub", "network", State.OK, "used when a model or data set is not on disk, and for nothing else")
    return [mode, _token(), Finding("hub", "downloads", State.OK, str(cache_folder()))]


def _is_whole(artifact: Artifact) -> bool:
    """Return whether the files' sizes and times are those of the manifest."""
    from olivine.store.artifact import Damaged, check_files

    try:
        check_files(str(artifact.path.parent), artifact.manifest)
    except Damaged:
        return False
    return True


def _token() -> Finding:
    if os.environ.get("HF_TOKEN"):
        return Finding("hub", "login", State.OK, "a token is in HF_TOKEN (not shown, not tried)")
    try:
        from huggingface_hub import get_token
    except ImportError:
        return Finding(
            "hub", "login", State.ABSENT, "huggingface_hub is not installed", "`pip install 'olivine[torch]'`"
        )
    if get_token():
        return Finding("hub", "login", State.OK, "a token is stored by `hf auth login` (not shown, not tried)")
    return Finding("hub", "login", State.ABSENT, "no token: gated models cannot be fetched", "`hf auth login`")


def check_cache(cache_dir: Path) -> list[Finding]:
    """Look at the Store, by its manifests; `olivine cache verify` reads the files too."""
    from olivine.errors import OlivineError
    from olivine.store import Store

    if not cache_dir.is_dir():
        return [Finding("cache", str(cache_dir), State.ABSENT, "there is none yet; the first run makes it")]
    store = Store(cache_dir)
    try:
        digests = store.digests()
        whole = [each for each in store.artifacts() if _is_whole(each)]
        leftovers = store.collect(dry_run=True)
    except OlivineError as error:
        return [Finding("cache", str(cache_dir), State.PROBLEM, str(error), "choose another with cache_dir")]
    finally:
        store.release()
    held = f"{len(whole)} artifact{'s' if len(whole) != 1 else ''}, {size(sum(each.size for each in whole))}"
    if len(whole) < len(digests):
        return [
            Finding(
                "cache",
                str(cache_dir),
                State.WARNING,
                f"{held}; {len(digests) - len(whole)} damaged, and not used",
                "nothing: a run that needs one makes it again (`olivine cache verify` says what is damaged)",
            )
        ]
    if leftovers.leftovers:
        return [
            Finding(
                "cache",
                str(cache_dir),
                State.OK,
                f"{held}; {size(leftovers.freed_bytes)} left by runs that were killed",
                "`olivine cache gc` removes it; a run that goes on uses its checkpoints first",
            )
        ]
    return [Finding("cache", str(cache_dir), State.OK, held)]
