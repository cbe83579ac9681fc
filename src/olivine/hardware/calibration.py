"""Measure how fast this machine is, in about a second and a half: matrix products, memory, disk, the interpreter.

The best of several short rounds counts, for others may be using the machine: a round is shorter than the turn that a
system gives a process, and what one thread does is timed by the processor time that it took. ``plan`` never runs it:
``doctor`` does, in a process of its own, and a worker after the first Step that took longer than the measuring would.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from olivine.hardware.machine import this_machine
from olivine.hardware.rates import Rates

ROUND_S = 0.25
"""Seconds for which each rate is measured."""
SIDE = 512
"""Rows and columns of the matrices that are multiplied: a round takes milliseconds, and is at full speed yet."""
GPU_SIDE = 4096
DISK_BYTES = 32 << 20
DISK_ROUNDS = 3
LOOP = 100_000


def calibrate(folder: Path) -> Rates:
    """Measure this machine.

    Args:
        folder: where the disk is measured; a file of 32 MiB is written there, and removed, three times.

    Raises:
        OSError: nothing can be written there.
    """
    import numpy as np

    float32, bfloat16 = _products()
    source = np.ones(4 << 20, dtype=np.float64)
    target = np.empty_like(source)
    memory = source.nbytes / _best(lambda: np.copyto(target, source), time.thread_time)
    read, write = (max(each) for each in zip(*(_disk(folder) for _ in range(DISK_ROUNDS)), strict=True))
    return Rates(float32, bfloat16, memory, read, write, LOOP / _best(_loop, time.thread_time), *_gpu())


def _best(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds of the fastest of the rounds that fit into :data:`ROUND_S`, the first not counted.

    Args:
        work: a round.
        clock: tells seconds.
    """
    work()
    best, until = float("inf"), time.perf_counter() + ROUND_S
    while time.perf_counter() < until:
        started = clock()
        work()
        best = min(best, clock() - started)
    return best


def _loop() -> int:
    total = 0
    for each in range(LOOP):
        total += each
    return total


def _products() -> tuple[float, float]:
    """Return operations a second in float32 and bfloat16.

    With torch, which training uses, where it is loaded or where there are products in bfloat16 to measure; else with
    numpy, which is as fast in float32 to a few percent, while importing torch takes longer than all else here.

    Where others are computing, threads wait for each other most of the time, and all together are slower than one
    alone by far: then what one does in its own processor time counts.
    """
    work = 2.0 * SIDE**3
    has_bfloat16 = this_machine().cpu_has_bf16
    if not ("torch" in sys.modules or (has_bfloat16 and importlib.util.find_spec("torch"))):
        import numpy as np

        matrix = np.ones((SIDE, SIDE), dtype=np.float32)
        return work / _best(lambda: matrix @ matrix), 0.0
    import torch

    found = []
    for dtype in (torch.float32, torch.bfloat16):
        if dtype is torch.bfloat16 and not has_bfloat16:
            found.append(0.0)
            continue
        values = torch.ones((SIDE, SIDE), dtype=dtype)
        together = work / _best(lambda values=values: values @ values)  # type: ignore[misc]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            alone = work / _best(lambda values=values: values @ values, time.thread_time)  # type: ignore[misc]
        finally:
            torch.set_num_threads(threads)
        found.append(max(together, alone))
    return found[0], found[1]


def _gpu() -> tuple[float, float, float]:
    """Return operations a second in float32 and bfloat16, and bytes a second, of the first GPU; zeros without one."""
    if not this_machine().gpus:
        return 0.0, 0.0, 0.0
    try:
        import torch
    except ImportError:
        return 0.0, 0.0, 0.0
    if not torch.cuda.is_available():
        return 0.0, 0.0, 0.0
    found = []
    half = torch.bfloat16 if this_machine().has_bf16("gpu") else torch.float16
    for dtype in (torch.float32, half):
        values = torch.ones((GPU_SIDE, GPU_SIDE), dtype=dtype, device="cuda")

        def multiply(values: torch.Tensor = values) -> None:
            values @ values
            torch.cuda.synchronize()

        found.append(2.0 * GPU_SIDE**3 / _best(multiply))
    source = torch.ones(64 << 20, dtype=torch.float32, device="cuda")

    def copy() -> None:
        source.clone()
        torch.cuda.synchronize()

    return found[0], found[1], 2 * source.numel() * 4 / _best(copy)


def _disk(folder: Path) -> tuple[float, float]:
    """Return bytes a second read from and written to the disk of ``folder``."""
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        started = time.perf_counter()
        for _ in range(DISK_BYTES >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter() - started
        if hasattr(os, "posix_fadvise"):
            # So that it is the disk that is read. Not every file system heeds it.
            with contextlib.suppress(OSError):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        started = time.perf_counter()
        while file.read(1 << 20):
            pass
        return DISK_BYTES / (time.perf_counter() - started), DISK_BYTES / written


if __name__ == "__main__":
    print(json.dumps(asdict(calibrate(Path(sys.argv[1])))))
