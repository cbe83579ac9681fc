"""What the user sees while a workflow runs: a live view on a terminal, plain lines elsewhere, JSON for machines."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from olivine.engine.card import flat
from olivine.engine.words import duration, memory, number, size
from olivine.evaluate.goals import Verdict, sentence
from olivine.events import Event

if TYPE_CHECKING:
    from olivine.planning import Plan

PLAIN_INTERVAL_S = 10.0
"""Seconds between two progress lines of one Step when the output is no terminal."""


class View(ABC):
    """Shows events. A context manager, so that a live view gives the terminal back."""

    @abstractmethod
    def __call__(self, event: Event) -> None:
        """Show one event."""

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back whatever was taken."""
        self.close()

    def close(self) -> None:  # noqa: B027  (most views take nothing)
        """Give back whatever was taken."""


def make_view(plan: Plan, *, as_json: bool, stream: TextIO) -> View:
    """Return the view that fits where the output goes."""
    if as_json:
        return JsonView(stream)
    if plan.search is not None:
        return StudyView(stream)
    if stream.isatty():
        from olivine.cli.live import LiveView

        return LiveView(plan)
    return PlainView(plan, stream)


class JsonView(View):
    """One JSON object a line, every event."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Write the event."""
        print(json.dumps(event.as_json(), ensure_ascii=False, default=str), file=self._stream, flush=True)


class PlainView(View):
    """Lines that read well in a log: one when a Step starts, some while it goes on, one when it ends."""

    def __init__(self, plan: Plan, stream: TextIO) -> None:
        self._stream = stream
        self._names = [step.name for step in plan.steps]
        self._last = 0.0
        self._eta = Eta()

    def __call__(self, event: Event) -> None:
        """Print what the event is worth."""
        line = self._line(event)
        if line is not None:
            print(line, file=self._stream, flush=True)

    def _line(self, event: Event) -> str | None:
        data = event.data
        place = event.step
        if event.step in self._names:
            place = f"[{self._names.index(event.step) + 1}/{len(self._names)}] {event.step}"
        if event.event == "run-started":
            return "\n".join(opening(data))
        if event.event == "note":
            return f"      note: {data['text']}"
        if event.event == "step-started":
            self._last = time.monotonic()
            self._eta = Eta()
            return f"{place} ({data['type']}) on {data['device']}"
        if event.event == "step-waiting":
            return f"{place}: {another(data)} is making this now; waiting for it"
        if event.event == "progress":
            self._eta.update(data["done"], data["total"])
            if time.monotonic() - self._last < PLAIN_INTERVAL_S:
                return None
            self._last = time.monotonic()
            return f"      {progress_text(data, self._eta)}"
        if event.event in ("step-done", "step-cached"):
            return f"{place}: {ending(event)}"
        if event.event == "step-failed":
            return f"{place}: failed"
        if event.event == "run-failed":
            return f"      log: {data['log']}"
        if event.event == "run-done":
            return "\n".join(["", *closing(data)])
        return None


class StudyView(View):
    """A search: a line for each candidate when it has ended, and the outcome."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._names: list[str] = []
        self._side_by_side = False

    def __call__(self, event: Event) -> None:
        """Print what the event is worth."""
        for line in self._lines(event):
            print(line, file=self._stream, flush=True)

    def _lines(self, event: Event) -> list[str]:
        from olivine.cli.study import described, summary

        data = event.data
        if event.event == "study-started":
            self._names = [each["name"] for each in data["objectives"]]
            self._side_by_side = data["strategy"]["workers"] > 1
            over = ", ".join(each["name"] for each in data["dimensions"]) or "nothing"
            points = f"{data['points']} points" if data["points"] is not None else "a space without end"
            known = f", {data['resumed']} candidates known from before" if data["resumed"] else ""
            return [f"{data['file'] or 'workflow'}: study {data['study'][:8]}, {points} over {over}{known}"]
        if event.event == "trial-started":
            return [f"candidate {data['number']}: {described(data['point'])}"]
        if event.event == "trial-waiting":
            return [
                f"candidate {data['number']} waits until {data['memory_bytes'] / 1e9:.2f} GB of memory are left for it"
            ]
        if event.event == "step-waiting":
            return [f"      {event.step}: {another(data)} is making this now; waiting for it"]
        if event.event == "note" and "candidate" not in data:
            return [f"      note: {data['text']}"]
        if event.event == "trial-done":
            return [f"      {self._ending(data)}"]
        if event.event == "study-done":
            return ["", *summary(data)]
        if event.event == "run-failed":
            return [f"      log: {data['log']}"]
        if event.event == "run-done":
            return ["", *closing(data)]
        return []

    def _ending(self, data: dict[str, Any]) -> str:
        trial = data["trial"]
        head = f"candidate {data['number']}: " if data["known"] or self._side_by_side else ""
        shown = ", ".join(
            f"{name} {number(value)}"
            for name, value in zip(self._names, trial["values"], strict=False)
            if value is not None
        )
        if trial["state"] == "complete":
            missed = [Verdict.from_json(each) for each in trial["verdicts"] if not each["met"]]
            text = shown + "".join(f"; {sentence(each)}" for each in missed)
        else:
            text = f"{trial['state']}: {' '.join(trial['reason'].split())}"
        known = ", known from before" if data["known"] else ""
        return f"{head}{text} ({duration(trial['seconds'])}{known})"


class Eta:
    """Estimates the time that a stretch of a Step still takes from the pace since its first report."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._total: float | None = None
        self.seconds: float | None = None

    def update(self, done: float, total: float | None) -> None:
        """Take one report into account. Another total, or none, is another stretch, with a pace of its own."""
        now = time.monotonic()
        if self._first is None or total != self._total or done < self._first[1]:
            self._first, self._total, self.seconds = (now, done), total, None
        elif total and done > self._first[1]:
            self.seconds = (total - done) * (now - self._first[0]) / (done - self._first[1])


def opening(data: dict[str, Any]) -> list[str]:
    """Return the first lines of a run: what is run, and what the dialect and the plan had to say."""
    cached = sum(step["cached"] for step in data["steps"])
    count = len(data["steps"])
    steps = f"{count} step{'' if count == 1 else 's'}" + (f", {cached} done already" if cached else "")
    dialect = "" if data["dialect"].startswith("olivine") else f" (Olive {data['dialect']} dialect)"
    return [f"{data['file'] or 'workflow'}{dialect}: {steps}", *(f"  note: {note}" for note in data["notes"])]


def another(data: dict[str, Any]) -> str:
    """Return who makes what this run wants too, as far as that is known."""
    return "another run" if data["pid"] is None else f"another run (process {data['pid']})"


def progress_text(data: dict[str, Any], eta: Eta) -> str:
    """Return how far a Step is, with its current values, time left and peak memory."""
    parts = [data["message"]] if data["message"] else []
    if data["total"]:
        parts.append(f"{data['done']:g}/{data['total']:g} {data['unit']}".rstrip())
    elif data["done"]:
        parts.append(f"{data['done']:g} {data['unit']}".rstrip())
    parts += [f"{key} {number(value)}" for key, value in data["values"].items()]
    if eta.seconds is not None and data["total"] and data["done"] < data["total"]:
        parts.append(f"{duration(eta.seconds)} left")
    if data.get("memory"):
        parts.append(memory(data["memory"]))
    return ", ".join(parts)


def ending(event: Event) -> str:
    """Return how a Step went: its time, peak memory and the numbers it reported."""
    data = event.data
    values = headlines(data["metrics"]) if data["type"] == "evaluate" else flat(data["metrics"])
    shown = "".join(f", {key} {number(value)}" for key, value in list(values.items())[:4])
    if event.event == "step-cached":
        return f"in the cache{shown}"
    return f"{duration(data['seconds'])}, peak {memory(data['peak_memory'])}{shown}"


HEADLINES = frozenset({"decode_tokens_per_s", "prefill_tokens_per_s", "ttft_ms"})
"""Values beside a metric's main one that the summary shows; ``metrics.json`` has them all."""


def closing(data: dict[str, Any]) -> list[str]:
    """Return the summary of a run that succeeded."""
    rows = [("model", data["model_dir"]), ("format", data["format"])]
    if data["size_bytes"]:
        rows.append(("size", size(data["size_bytes"])))
    values = {which: headlines(found) for which, found in data["metrics"].items()}
    for key in dict.fromkeys(key for found in values.values() for key in found):
        if key.startswith("size"):
            continue
        final = values.get("final", {}).get(key)
        before = values.get("input", {}).get(key)
        text = number(final) if final is not None else "not measured"
        if before is not None:
            text += f"   (input model {number(before)})"
        rows.append((key, text))
    rows.append(("time", duration(data["seconds"])))
    if data["untried"]:
        rows.append(("tried", f"no: the machine that made it has no {data['untried']}"))
    width = max(len(key) for key, _ in rows)
    lines = [f"{key:<{width}}  {value}" for key, value in rows]
    goals = [Verdict.from_json(each) for each in data["goals"]]
    if goals:
        missed = [each for each in goals if not each.met]
        head = "every goal is met" if not missed else f"{len(missed)} of {len(goals)} goals missed"
        lines += ["", f"{head}:", *(f"  {sentence(each)}" for each in goals)]
    return lines


def headlines(metrics: dict[str, Any]) -> dict[str, float]:
    """Return of each metric its main value, which is its first, and those that :data:`HEADLINES` names."""
    found: dict[str, float] = {}
    for name, values in metrics.items():
        numbers = flat({name: values})
        for index, (key, value) in enumerate(numbers.items()):
            if index == 0 or key.rpartition(".")[2] in HEADLINES:
                found[key] = value
    return found
