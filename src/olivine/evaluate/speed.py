"""Speed of text generation: time to first token, and tokens per second for the prompt and for the answer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from olivine.evaluate.base import Metric, MetricContext, Workload
from olivine.evaluate.formats import REQUIRES, SHAPED_BY, TEXT_FORMATS
from olivine.evaluate.opened import opened
from olivine.hardware.peak import peak_memory
from olivine.passes.base import Format, Params, Requirement
from olivine.passes.estimate import DataSize

if TYPE_CHECKING:
    from olivine.models.text import TextModel

_TEXT = "Here is a longer passage, read again and again until the prompt has as many tokens as were asked for. "


class SpeedParams(Params):
    """Parameters of :class:`Speed`."""

    prompt_tokens: int = Field(default=64, ge=1)
    """Length of the prompt in tokens."""
    new_tokens: int = Field(default=64, ge=2)
    """Tokens to generate; the end of text is not heeded."""
    warmup: int = Field(default=1, ge=0)
    """Runs that are not counted: the first ones fill caches."""
    repeats: int = Field(default=5, ge=1)
    """Runs that are counted. The median is reported, so an odd number is best."""


class Speed(Metric[SpeedParams]):
    """Greedy generation of one answer at a time, ``repeats`` times, in a process that does nothing else.

    ``ttft_ms`` is the time from handing over the prompt to the first token of the answer; prefill speed is the prompt's
    length over it. Decode speed counts the tokens after the first. Every value is the median of the runs; ``_p95`` is
    the slow end (the 95th percentile of times, the 5th of speeds) and ``_spread`` is (slowest - fastest) / median, so
    that a noisy machine shows. ``load_s`` is the time to a loaded model, the libraries' imports included;
    ``peak_memory_bytes`` is the most that the process has held until then.
    """

    type: ClassVar[str] = "speed"
    summary: ClassVar[str] = "time to first token, tokens/s of prefill and decode, time to load"
    measures: ClassVar[frozenset[Format]] = TEXT_FORMATS
    version: ClassVar[int] = 2
    params_type = SpeedParams
    units = {  # noqa: RUF012 (declared ClassVar by Metric)
        "decode_tokens_per_s": "tokens/s",
        "decode_tokens_per_s_p95": "tokens/s",
        "decode_spread": "",
        "ttft_ms": "ms",
        "ttft_ms_p95": "ms",
        "ttft_spread": "",
        "prefill_tokens_per_s": "tokens/s",
        "prefill_tokens_per_s_p95": "tokens/s",
        "load_s": "s",
        "peak_memory_bytes": "bytes",
    }
    higher_is_better = {  # noqa: RUF012
        "decode_tokens_per_s": True,
        "decode_tokens_per_s_p95": True,
        "decode_spread": False,
        "ttft_ms": False,
        "ttft_ms_p95": False,
        "ttft_spread": False,
        "prefill_tokens_per_s": True,
        "prefill_tokens_per_s_p95": True,
        "load_s": False,
        "peak_memory_bytes": False,
    }
    hardware_dependent: ClassVar[bool] = True
    cost: ClassVar[int] = 2
    requires: ClassVar[dict[Format, tuple[Requirement, ...]]] = REQUIRES
    shaped_by: ClassVar[tuple[str, ...]] = SHAPED_BY

    @classmethod
    def workload(cls, params: SpeedParams, sizes: Mapping[str, DataSize]) -> Workload | None:
        """See :meth:`Metric.workload`."""
        runs = params.warmup + params.repeats
        longest = params.prompt_tokens + params.new_tokens
        return Workload(read=runs * params.prompt_tokens, passes=runs * params.new_tokens, longest=longest)

    @classmethod
    def noise(cls, value: str, values: Mapping[str, Any]) -> float:
        """Half of what lies between the slowest and the fastest run, at least a twentieth."""
        kind = "decode" if value.startswith("decode") else "ttft"
        return abs(float(values[value])) * max(0.05, float(values.get(f"{kind}_spread", 0.0)) / 2)

    def measure(self, params: SpeedParams, context: MetricContext) -> dict[str, Any]:
        """See :meth:`Metric.measure`."""
        found = opened(context)
        prompt = _prompt(found.model, params.prompt_tokens)
        total = params.warmup + params.repeats
        first_token_s, decode_s = [], []
        for run in range(total):
            first, rest = _time_one(found.model, prompt, params.new_tokens)
            if run >= params.warmup:
                first_token_s.append(first)
                decode_s.append(rest)
            context.progress(run + 1, total, unit="runs", message="speed")
        following = params.new_tokens - 1
        ttft = statistics.median(first_token_s)
        return {
            "decode_tokens_per_s": following / statistics.median(decode_s),
            "decode_tokens_per_s_p95": following / percentile(decode_s, 95),
            "decode_spread": spread(decode_s),
            "ttft_ms": ttft * 1000,
            "ttft_ms_p95": percentile(first_token_s, 95) * 1000,
            "ttft_spread": spread(first_token_s),
            "prefill_tokens_per_s": params.prompt_tokens / ttft,
            "prefill_tokens_per_s_p95": params.prompt_tokens / percentile(first_token_s, 95),
            "load_s": found.seconds,
            "peak_memory_bytes": peak_memory(),
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the ``percent``-th percentile, linear between the nearest ranks."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread(values: Sequence[float]) -> float:
    """Return (largest - smallest) / median."""
    return (max(values) - min(values)) / statistics.median(values)


def _prompt(model: TextModel, tokens: int) -> list[int]:
    """Return a prompt of exactly ``tokens`` tokens."""
    ids = model.encode_prompt(_TEXT)
    while len(ids) < tokens:
        ids += model.encode(_TEXT)
    return ids[:tokens]


def _time_one(model: TextModel, prompt: Sequence[int], new_tokens: int) -> tuple[float, float]:
    """Return the seconds to the first token and those of all that follow."""
    started = time.perf_counter()
    answer = model.generate(prompt, new_tokens, ignore_eos=True)
    next(answer)
    first = time.perf_counter()
    for _ in answer:
        pass
    return first - started, time.perf_counter() - first
