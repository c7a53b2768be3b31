"""What a full disk and a lack of memory are told, from the errors that the system really raises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tuning.events import EventLog, write_json
from tuning.failures import explain

OUTPUT = Path("out")


def test_more_memory_than_there_is() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 58)
    sentence = explain(caught.value, OUTPUT)
    assert sentence is not None
    assert "not enough memory" in sentence
    assert "lower training.max_length" in sentence


def test_a_full_disk() -> None:
    with EventLog(Path("/dev/full")) as events, pytest.raises(OSError, match="No space left") as caught:
        events.write("started")
    sentence = explain(caught.value, OUTPUT)
    assert sentence is not None
    assert "The disk that holds out is full; make room" in sentence


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        write_json(tmp_path / "gone" / "result.json", {})
    assert explain(caught.value, OUTPUT) == (
        "Cannot write to out: No such file or directory; try another --output."
    )


def test_other_errors_stay_as_they_are() -> None:
    assert explain(RuntimeError("shapes do not fit"), OUTPUT) is None
    assert explain(KeyError("x"), OUTPUT) is None
