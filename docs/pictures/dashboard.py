"""Draw docs/pictures/dashboard.svg: the dashboard in the middle of a recorded run. Run it after changes.

The chosen run's events are those of the card-support example (tiny-phi3, LoRA, 2 epochs) on two CPU cores,
as its script wrote them into card-support.jsonl beside this file. The two older runs and the endpoint are
made up.
"""

from __future__ import annotations

import io
import json
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

from rich.console import Console

from maas_client.dashboard.board import Board, Cursor, with_page, with_runs, with_status
from maas_client.dashboard.view import frame
from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus
from maas_client.ledger import RunRecord
from maas_client.run import RunState, RunStatus

FOLDER = Path(__file__).parent
RECORDED = FOLDER / "card-support.jsonl"
PICTURE = FOLDER / "dashboard.svg"
WIDTH, HEIGHT = 100, 30
SHOWN_STEPS = 68
RUN = "card-support-6039b0f0-1"


def recorded_events() -> list[dict[str, Any]]:
    """The events up to the moment that the picture shows."""
    events = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    return list(takewhile(lambda event: event.get("step", 0) <= SHOWN_STEPS, events))


def made_board() -> tuple[Board, float]:
    """The board of that moment, with two older runs and an endpoint; and the moment in unix seconds."""
    events = recorded_events()
    began, now = events[0]["time"], events[-1]["time"] + 1
    records = [
        _record(RUN, RunState.RUNNING, began, None),
        _record("small-talk-51c0ffee-2", RunState.SUCCEEDED, now - 8000, now - 7830),
        _record("small-talk-51c0ffee-1", RunState.FAILED, now - 9000, now - 8960),
    ]
    url, ref = "http://127.0.0.1:41234", EndpointRef("local", "small-talk")
    served = EndpointStatus(
        ref, EndpointState.READY, "ready", now, "small-talk:1", Billing.FREE, url, expires_at=now + 6700
    )
    board = with_runs(Board(endpoints=(served,)), records)
    board = with_status(
        board, RUN, RunStatus(RunState.RUNNING, "process is alive", now - 1, started_at=began)
    )
    cursor = Cursor("1")
    return with_page(board, RUN, lines=(), events=events, logs=cursor, metrics=cursor), now


def _record(run_id: str, state: RunState, began: float, ended: float | None) -> RunRecord:
    return RunRecord(
        id=run_id,
        name=run_id.rsplit("-", 2)[0],
        backend="local",
        fingerprint=run_id.split("-")[2],
        number=1,
        created_at=began - 2,
        spec={"task": "classification", "model": "tiny-phi3", "method": {"name": "lora"}},
        plan={},
        state=state,
        native_state=state.value,
        message="",
        seen_at=ended or began,
        started_at=began,
        ended_at=ended,
    )


def picture() -> str:
    """The picture as SVG: the same on every machine and at every time."""
    board, now = made_board()
    console = Console(
        record=True,
        width=WIDTH,
        height=HEIGHT,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        _environ={},
    )
    console.print(frame(board, WIDTH, HEIGHT, now))
    drawn = console.export_svg(title="maas watch", unique_id="dashboard")
    return re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)  # no font from the network


if __name__ == "__main__":
    PICTURE.write_text(picture() + "\n", encoding="utf-8")
    print(f"wrote {PICTURE}")
