"""What the views compute from the events of a run."""

from __future__ import annotations

import pytest

from olivine.cli import view
from olivine.events import Event


def test_time_left_is_from_the_pace_of_the_stretch_and_not_of_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(view.time, "monotonic", lambda: now[0])
    eta = view.Eta()
    found = []
    for moment, done, total in (
        (0, 0, None),  # loading libraries
        (100, 1, 10),  # training
        (101, 2, 10),
        (102, 1, 2),  # evaluating
        (105, 2, 2),
        (106, 3, 10),  # training again
        (108, 4, 10),
    ):
        now[0] = float(moment)
        eta.update(done, total)
        found.append(eta.seconds)
    assert found == [None, None, 8.0, None, 0.0, None, 12.0]


@pytest.mark.parametrize(("columns", "type_shown"), [(60, False), (120, True)])
def test_a_narrow_terminal_gets_the_figures_and_not_the_types(columns: int, type_shown: bool) -> None:
    from io import StringIO
    from types import SimpleNamespace

    from rich.console import Console

    from olivine.cli.live import LiveView

    out = StringIO()
    steps = [SimpleNamespace(name=name, step=SimpleNamespace(type="MergeAdapterWeights")) for name in ("one", "two")]
    live = LiveView(SimpleNamespace(steps=steps), Console(file=out, width=columns, force_terminal=False))  # type: ignore[arg-type]
    live(Event("step-started", "two", {"type": "MergeAdapterWeights", "device": "cpu"}))
    done = {"seconds": 2.0, "peak_memory": 681_000_000, "type": "LoRA", "metrics": {"train_loss": 2.155}}
    live(Event("step-done", "one", done))
    live._console.print(live._render())
    said = out.getvalue()
    assert "2.0 s, peak 681 MB, train_loss 2.155" in said
    assert ("MergeAdapterWeights" in said) == type_shown


def test_who_is_waited_for_is_named_as_far_as_it_is_known() -> None:
    assert view.another({"pid": 12}) == "another run (process 12)"
    assert view.another({"pid": None}) == "another run"
