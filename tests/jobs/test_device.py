"""The number format is measured without disturbing anything, and without being disturbed."""

from __future__ import annotations

import torch

from tuning.device import choose_precision

CPU = torch.device("cpu")


def test_the_number_format_is_measured_where_nobody_says_it() -> None:
    threads = torch.get_num_threads()
    chosen = {choose_precision("auto", CPU, 1024)[0] for _ in range(3)}
    assert len(chosen) == 1, "of the thread's own time, the same each time"
    assert torch.get_num_threads() == threads
    precision, why = choose_precision("auto", CPU, 1024)
    assert precision in chosen
    assert "times the speed of fp32 on this CPU" in why


def test_the_config_and_narrow_models_are_not_measured() -> None:
    assert choose_precision("bf16", CPU, 1024) == ("bf16", "the config says so")
    assert choose_precision("auto", CPU, 128)[0] == "fp32"
