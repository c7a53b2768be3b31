"""Azure ML's words without a wire: places, durations, and events among log lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.backends.azureml.wire import (
    attempt_name,
    events_in,
    input_place,
    iso_duration,
    log_lines,
    run_place,
    split_line,
)
from maas_client.command import JsonFile
from maas_client.transport.commands import seconds_of

EVENTS = st.fixed_dictionaries({"event": st.text(), "time": st.floats(allow_nan=False, allow_infinity=False)})
TEXTS = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])).filter(
    lambda text: "@maas " not in text
)


@given(event=EVENTS)
def test_an_event_on_a_line_of_its_own_is_no_log_line(event: dict[str, object]) -> None:
    line = f"@maas {json.dumps(event)}"
    assert split_line(line) == ("", event)
    assert log_lines([line]) == ()
    assert events_in([line]) == (event,)


@given(lines=st.lists(st.one_of(TEXTS, EVENTS)))
def test_every_line_is_shown_once_as_text_or_as_event(lines: list[object]) -> None:
    written = [line if isinstance(line, str) else f"@maas {json.dumps(line)}" for line in lines]
    assert list(log_lines(written)) == [line for line in lines if isinstance(line, str)]
    assert list(events_in(written)) == [line for line in lines if not isinstance(line, str)]


def test_an_event_after_an_unfinished_line_leaves_the_line() -> None:
    line = '50%|#####     @maas {"event": "step", "step": 1}'
    assert log_lines([line]) == ("50%|#####     ",)
    assert events_in([line]) == ({"event": "step", "step": 1},)


@pytest.mark.parametrize("line", ["@maas", "@maas {", "@maas []", '@maas {"step": 1}', "@maas hello", ""])
def test_a_line_that_only_looks_like_an_event_is_a_line(line: str) -> None:
    assert log_lines([line]) == (line,)
    assert events_in([line]) == ()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "PT1S"), (90, "PT1M30S"), (5400, "PT1H30M"), (86400, "P1D"), (90000, "P1DT1H")],
)
def test_durations_are_written_as_the_service_writes_them(seconds: int, text: str) -> None:
    assert iso_duration(seconds) == text
    assert seconds_of(text) == seconds


@given(seconds=st.integers(1, 10**8))
def test_durations_come_back_as_they_were(seconds: int) -> None:
    assert seconds_of(iso_duration(seconds)) == seconds


def test_places_are_named_by_run_and_by_content(tmp_path: Path) -> None:
    assert run_place("card-1").path == "maas/card-1/run/"
    rows = tmp_path / "some rows (final).jsonl"
    rows.write_text("{}")
    assert input_place("train", rows, "sha256:abc").path == "maas/inputs/abc/train.jsonl"
    assert input_place("config", JsonFile({}), "sha256:abc").path == "maas/inputs/abc/config.json"
    assert input_place("model", tmp_path, "sha256:abc").path == "maas/inputs/abc/"
    assert [attempt_name("card-1", number) for number in (1, 2)] == ["card-1", "card-1-r2"]
