"""Some of the scenarios of ``fault_scenarios``, once each; ``benchmarks/azure_faults.py`` counts all of them."""

from __future__ import annotations

import pytest
from fault_scenarios import Bench, model_of_some_megabytes, play
from standin.cloud import Cloud


@pytest.fixture(scope="module")
def bench(running_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    model = model_of_some_megabytes(tmp_path_factory.mktemp("faulty") / "model")
    made = Bench(running_cloud, tmp_path_factory.mktemp("faults"), model)
    made.reference()
    return made


@pytest.mark.parametrize(
    "name",
    [
        "reset, early end and flipped byte in one model",
        "client killed while the result is fetched",
        "job without output",
    ],
)
def test_what_goes_wrong_costs_time_and_nothing_else(bench: Bench, name: str) -> None:
    outcome = play(name, bench)
    assert outcome.problems == []
