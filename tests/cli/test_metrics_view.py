"""What people see of measured numbers: side by side, how sure they are, and what speaks against them."""

from __future__ import annotations

from typing import Any

from maas_client.cli.views import metrics_view

RESULT: dict[str, Any] = {
    "metric": "accuracy",
    "before": {"accuracy": 0.08, "loss": 9.5},
    "after": {"accuracy": 0.975, "loss": 0.1},
    "change": {"difference": 0.895, "low": 0.85, "high": 0.935, "level": 0.95},
}


def test_before_and_after_with_the_interval_of_the_change() -> None:
    assert metrics_view(RESULT).plain().splitlines() == [
        "METRIC    BEFORE  AFTER",
        "accuracy    0.08  0.975",
        "loss         9.5    0.1",
        "accuracy changed by +0.895 (95% interval: +0.85 to +0.935)",
    ]


def test_one_scoring_with_its_interval_and_warnings() -> None:
    interval = {"value": 0.9, "low": 0.86, "high": 0.93, "level": 0.95}
    warnings = ["Labels that the model never learned: x."]
    result = {"metric": "accuracy", "metrics": {"accuracy": 0.9}, "interval": interval, "warnings": warnings}
    assert metrics_view(result).plain().splitlines() == [
        "METRIC    VALUE",
        "accuracy    0.9",
        "accuracy 0.9 (95% interval: 0.86 to 0.93)",
        "warning: Labels that the model never learned: x.",
    ]


def test_a_result_of_an_older_run_has_no_interval() -> None:
    old = {"before": {"loss": 2.0}, "after": {"loss": 1.0}}
    assert metrics_view(old).plain().splitlines() == ["METRIC  BEFORE  AFTER", "loss         2      1"]
