"""What the views compute from the events of a run."""

from __future__ import annotations

import pytest

from olivine.cli import view


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
