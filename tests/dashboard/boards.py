"""Made-up boards: the same at every time and on every machine."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType

from maas_client.dashboard.board import Board, Cursor, with_page, with_runs, with_status
from maas_client.dashboard.glyphs import UNICODE as UNICODE
from maas_client.endpoint import Billing, EndpointRef, EndpointState, EndpointStatus
from maas_client.ledger import RunRecord
from maas_client.run import Event, Reason, RunState, RunStatus

NOW = 1_800_000_000.0
SPEC = {"task": "classification", "model": "tiny-phi3", "method": {"name": "lora"}}
FIRST = "card-support-1a2b3c4d-1"


def record(run_id: str, state: RunState, *, age_s: float = 600.0, **changes: Any) -> RunRecord:
    """A run as the ledger keeps it, begun `age_s` before NOW."""
    began = NOW - age_s
    facts: dict[str, Any] = {
        "id": run_id,
        "name": run_id.rsplit("-", 2)[0],
        "backend": "local",
        "fingerprint": run_id,
        "number": 1,
        "created_at": began,
        "spec": SPEC,
        "plan": {},
        "state": state,
        "native_state": state.value,
        "message": "",
        "seen_at": NOW - 3,
        "started_at": began + 2,
        "ended_at": began + 182 if state.is_final else None,
    }
    return RunRecord(**{**facts, **changes})


def status(state: RunState, **changes: Any) -> RunStatus:
    """A look at a run, 3 s before NOW."""
    return RunStatus(**{"state": state, "native_state": state.value, "seen_at": NOW - 3, **changes})


def events(steps: int, *, total: int = 400, began: float = NOW - 234) -> Iterator[Event]:
    """What a run writes up to a step: a loss that falls and wavers, validations, checkpoints."""
    facts = {"device": "cpu", "precision": "fp32", "parameters": 11_900_000, "trainable_parameters": 830_000}
    yield {
        "time": began,
        "event": "started",
        "steps_total": total,
        "epochs": 3,
        "resumed_from_step": 0,
        **facts,
    }
    before = {"accuracy": 0.125, "loss": 4.812}
    yield {"time": began + 9, "event": "evaluation", "when": "before", "metrics": before, "rows": 200}
    for step in range(1, steps + 1):
        at, loss = began + 10 + step, 0.35 + 4.4 * math.exp(-step / 60) + 0.12 * math.sin(step * 1.7)
        yield {
            "time": at,
            "event": "step",
            "step": step,
            "epoch": 3 * step / total,
            "loss": round(loss, 4),
            "learning_rate": 5e-4 * (1 - step / total),
            "grad_norm": 0.8,
            "tokens_per_s": 4821.5,
            "tokens_seen": step * 4096,
            "memory_bytes": 812_000_000,
            "eta_s": float(total - step),
        }
        if step % 50 == 0:
            yield {"time": at, "event": "validation", "step": step, "loss": round(loss + 0.25, 4)}
            yield {"time": at, "event": "checkpoint", "step": step, "path": f"checkpoints/step-{step:06d}"}


def finished(total: int = 400) -> list[Event]:
    """All events of a run that succeeded."""
    after = {"accuracy": 0.835, "loss": 0.402}
    last = NOW - 598 + 420
    return [
        *events(total, total=total, began=NOW - 598),
        {"time": last, "event": "evaluation", "when": "after", "metrics": after, "rows": 200},
        {"time": last + 1, "event": "finished", "steps": total, "metrics": after},
    ]


def endpoint(name: str = "card-support", *, left_s: float = 11_520.0) -> EndpointStatus:
    """An endpoint that is ready."""
    url, ref = "http://127.0.0.1:41234", EndpointRef("local", name)
    return EndpointStatus(
        ref, EndpointState.READY, "ready", NOW, f"{name}:3", Billing.FREE, url, expires_at=NOW + left_s
    )


def board(
    records: Sequence[RunRecord],
    look: RunStatus | None = None,
    happened: Sequence[Event] = (),
    lines: Sequence[str] = (),
    endpoints: tuple[EndpointStatus, ...] = (),
) -> Board:
    """A board on which the first record is chosen, was looked at and read."""
    made = with_runs(Board(endpoints=endpoints, chosen=records[0].id if records else None), records)
    if look is not None:
        made = with_status(made, records[0].id, look)
    if happened or lines:
        open_ = Cursor("1")
        made = with_page(made, records[0].id, lines=lines, events=happened, logs=open_, metrics=open_)
    return made


OTHERS = (
    record("card-support-77aa88bb-1", RunState.SUCCEEDED, age_s=90_000),
    record("small-talk-00ff00ff-1", RunState.FAILED, age_s=100_000, message="The disk is full."),
    record("small-talk-00ff00ff-2", RunState.CANCELED, age_s=200_000),
)
LOG = tuple(f"step {step}: loss {4.0 / step:.4f}" for step in range(1, 60))
TRACE = ("Traceback (most recent call last):", '  File "train.py", line 12, in main', "MemoryError: no room")


def empty() -> Board:
    """No run yet."""
    return board(())


def queued() -> Board:
    """A run that waits for room."""
    waiting = record(FIRST, RunState.QUEUED, age_s=40, started_at=None)
    look = status(RunState.QUEUED, reason=Reason.CAPACITY, message="No machine of this size is free.")
    return board((waiting, *OTHERS), look)


def running() -> Board:
    """A run in the middle of its steps."""
    look = status(RunState.RUNNING, started_at=NOW - 598)
    return board((record(FIRST, RunState.RUNNING), *OTHERS), look, list(events(220)), LOG, (endpoint(),))


def stale() -> Board:
    """A run that was not seen for a minute and a half."""
    made = board((record(FIRST, RunState.RUNNING, seen_at=NOW - 90), *OTHERS), None, list(events(220)), LOG)
    row = made.rows[0]
    troubled = replace(row, trouble="The workspace does not answer.")
    return replace(made, rows=(troubled, *made.rows[1:]))


def failed() -> Board:
    """A run that failed for lack of memory."""
    look = status(
        RunState.FAILED,
        reason=Reason.MEMORY,
        message="The process was killed, perhaps for lack of memory.",
        tail=TRACE,
        started_at=NOW - 598,
        ended_at=NOW - 200,
    )
    return board((record(FIRST, RunState.FAILED), *OTHERS), look, list(events(220)), LOG)


def succeeded() -> Board:
    """A run with its measured improvement."""
    look = status(RunState.SUCCEEDED, started_at=NOW - 598, ended_at=NOW - 177)
    return board(
        (record(FIRST, RunState.SUCCEEDED), *OTHERS),
        look,
        finished(),
        LOG,
        (endpoint(), endpoint("small-talk")),
    )


ALL = {
    "empty": empty,
    "queued": queued,
    "running": running,
    "stale": stale,
    "failed": failed,
    "succeeded": succeeded,
}


def drawn(renderable: RenderableType, width: int) -> list[str]:
    """The lines of a renderable as plain text; each must fit the width."""
    console = Console(width=width, color_system=None, legacy_windows=False, file=io.StringIO(), _environ={})
    with console.capture() as capture:
        console.print(renderable)
    lines = capture.get().split("\n")[:-1]
    assert all(cell_len(line) <= width for line in lines)
    return lines
