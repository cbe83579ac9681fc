"""Goals: the bound, the verdict, and what is measured once more."""

from __future__ import annotations

from typing import Any

import pytest

from olivine.config.schema import Evaluator
from olivine.evaluate.goals import Verdict, goals_of, judge, sentence, shown, to_measure_again


def evaluator(type: str, value: str, goal: dict[str, Any], metric: str = "accuracy") -> Evaluator:
    return Evaluator.model_validate(
        {"metrics": [{"type": metric, "sub_types": [{"name": value, "goal": {"type": type, **goal}}]}]}
    )


ACCURACY = {"accuracy": {"accuracy": 0.91, "count": 1000, "labels": {"joy": {"recall": 0.5}}}}
INPUT = {"input": {"accuracy": {"accuracy": 0.93}, "speed": {"ttft_ms": 200.0, "decode_tokens_per_s": 10.0}}}


@pytest.mark.parametrize(
    ("metric", "value", "type", "asked", "needed"),
    [
        ("accuracy", "accuracy", "threshold", 0.9, 0.9),
        ("accuracy", "accuracy", "max-degradation", 0.01, 0.92),
        ("accuracy", "accuracy", "min-improvement", 0.01, 0.94),
        ("speed", "ttft_ms", "max-degradation", 10, 210),
        ("speed", "ttft_ms", "min-improvement", 10, 190),
        ("speed", "ttft_ms", "percent-min-improvement", 10, 180),
        ("speed", "ttft_ms", "percent-max-degradation", 10, 220),
        ("speed", "decode_tokens_per_s", "percent-min-improvement", 50, 15),
        ("speed", "decode_tokens_per_s", "percent-max-degradation", 50, 5),
    ],
)
@pytest.mark.parametrize(("better", "met"), [(1, True), (0, True), (-1, False)])
def test_each_type_of_goal_each_way(
    metric: str, value: str, type: str, asked: float, needed: float, better: int, met: bool
) -> None:
    wanted = goals_of(evaluator(type, value, {"value": asked}, metric))
    direction = 1 if wanted[0].higher_is_better else -1
    measured = {metric: {value: needed + better * direction * 0.004, "count": 10**9, "ttft_spread": 0.0}}
    (verdict,) = judge(wanted, measured, INPUT)
    assert verdict.needed == pytest.approx(needed)
    assert verdict.met is met
    assert verdict.missed_by == pytest.approx(0 if met else 0.004)


def test_a_threshold_alone_is_judged_and_said_in_words() -> None:
    (verdict,) = judge(goals_of(evaluator("threshold", "accuracy", {"value": 0.95})), ACCURACY, {})
    assert sentence(verdict) == "missed by 0.04: accuracy 0.91, wanted at least 0.95"
    assert Verdict.from_json(verdict.as_json()) == verdict


def test_within_a_standard_error_it_is_near_and_accuracy_is_not_measured_again() -> None:
    wanted = goals_of(evaluator("threshold", "accuracy", {"value": 0.915}))
    verdicts = judge(wanted, ACCURACY, {})
    assert not verdicts[0].met
    assert verdicts[0].near
    assert to_measure_again(wanted, verdicts) == []


def test_a_timing_that_is_near_is_measured_again_once_and_the_mean_counts() -> None:
    wanted = goals_of(evaluator("threshold", "ttft_ms", {"value": 100}, "speed"))
    first = {"speed": {"ttft_ms": 104.0, "ttft_spread": 0.1}}
    verdicts = judge(wanted, first, {})
    assert not verdicts[0].met
    assert to_measure_again(wanted, verdicts) == [0]
    again = judge(wanted, first, {}, {"speed": {"ttft_ms": 94.0, "ttft_spread": 0.1}})
    assert again[0].met
    assert again[0].measured == 99
    assert again[0].attempts == (104.0, 94.0)
    assert to_measure_again(wanted, again) == []


def test_what_was_not_measured_and_what_is_no_number_is_missed() -> None:
    wanted = goals_of(evaluator("threshold", "accuracy", {"value": 0.5}))
    assert not judge(wanted, {}, {})[0].met
    assert not judge(wanted, {"accuracy": {"accuracy": float("nan"), "count": 3}}, {})[0].met


def test_a_value_in_a_table_and_a_named_model() -> None:
    wanted = goals_of(evaluator("max-degradation", "labels.joy.recall", {"value": 0.1, "against": "merge"}))
    assert wanted[0].against == "merge"
    config = Evaluator.model_validate(
        {
            "metrics": [
                {
                    "type": "accuracy",
                    "sub_types": [
                        {
                            "name": "labels.joy.recall",
                            "higher_is_better": True,
                            "goal": {"type": "max-degradation", "value": 0.1, "against": "merge"},
                        }
                    ],
                }
            ]
        }
    )
    (verdict,) = judge(goals_of(config), ACCURACY, {"merge": {"accuracy": {"labels": {"joy": {"recall": 0.65}}}}})
    assert verdict.missed_by == pytest.approx(0.05)
    assert "merge's 0.65" in verdict.goal


def test_a_second_measurement_is_said_also_where_it_takes_the_mean_far_away() -> None:
    verdict = Verdict("speed.ttft_ms", "at most 10", 15.0, 10.0, None, False, 5.0, False, (10.0, 20.0))
    assert sentence(verdict) == "missed by 5 (measured again, the mean counts): speed.ttft_ms 15, wanted at most 10"


def test_bytes_are_told_in_full() -> None:
    verdict = Verdict("size.size_bytes", "at most 3,150,000", 3121484.0, 3150000.0, None, True, 0.0, False)
    assert sentence(verdict) == "met: size.size_bytes 3,121,484, wanted at most 3,150,000"
    assert (shown(9999.0), shown(0.123456789), shown(1234567.25, 4)) == ("9999", "0.123457", "1.235e+06")
