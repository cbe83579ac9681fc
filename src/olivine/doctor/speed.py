"""How fast this machine is, for the times in plans: measured once and kept in the cache, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from olivine.doctor.finding import Finding, State
from olivine.engine.words import size
from olivine.hardware.machine import Machine
from olivine.hardware.rates import Rates, best_of, keep_rates, kept_rates, rates_file

TIMEOUT_S = 120


def check_speed(cache_dir: Path, machine: Machine) -> list[Finding]:
    """Measure how fast this machine is, and keep it in the cache if there is one.

    Whatever else runs makes a machine seem slower than it is, so of each rate the best that was ever seen is kept.
    """
    with tempfile.TemporaryDirectory(prefix="olivine-speed-") as folder:
        where = str(cache_dir) if cache_dir.is_dir() else folder
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "olivine.hardware.calibration", where],
                capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return [_unknown(f"measuring did not end within {TIMEOUT_S} s")]
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1][:200] if lines else f"exit status {done.returncode}"
        if "No module named" in reason:
            return [_unknown(f"not measured: {reason}", "`pip install 'olivine[torch]'`")]
        return [_unknown(f"it cannot be measured: {reason}")]
    rates = best_of(Rates(**json.loads(done.stdout)), kept_rates(cache_dir, machine))
    if not cache_dir.is_dir():
        return [Finding("machine", "speed", State.OK, f"{_told(rates)}; plans use it once there is a cache")]
    try:
        keep_rates(rates_file(cache_dir, machine), machine, rates)
    except OSError as error:
        return [_unknown(f"{_told(rates)}; it cannot be kept: {error.strerror}")]
    return [Finding("machine", "speed", State.OK, f"{_told(rates)} (kept in {cache_dir}, for plans)")]


def _told(rates: Rates) -> str:
    parts = [f"{rates.float32 / 1e9:.0f} GFLOP/s in float32"]
    if rates.bfloat16:
        parts.append(f"{rates.bfloat16 / 1e9:.0f} in bfloat16")
    if rates.gpu_bfloat16:
        parts.append(f"GPU {rates.gpu_bfloat16 / 1e12:.0f} TFLOP/s in 16 bits")
    parts.append(f"memory {size(rates.memory)}/s, disk {size(rates.read)}/s to read, {size(rates.write)}/s to write")
    return ", ".join(parts)


def _unknown(text: str, remedy: str = "") -> Finding:
    return Finding("machine", "speed", State.WARNING, text, remedy or "plans tell no times until a run has been made")
