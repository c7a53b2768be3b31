"""The ledger: a SQLite record of what was meant and what came of it.

Every action that changes something writes its intent before and its result after. An action without a result was
cut off, and the same command again finds it. Several processes may use one ledger at once: SQLite's write-ahead log
and immediate transactions order them.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maas_client.errors import MaasError, NotFoundError, QuotaError, ServiceError, UnavailableError
from maas_client.run import RunRef, RunState, RunStatus

_BUSY_S = 15.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, backend TEXT NOT NULL, fingerprint TEXT NOT NULL, number INTEGER NOT NULL,
    created_at REAL NOT NULL, spec TEXT NOT NULL, plan TEXT NOT NULL,
    state TEXT NOT NULL, native_state TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '',
    seen_at REAL, started_at REAL, ended_at REAL,
    UNIQUE (backend, fingerprint, number)
);
CREATE TABLE IF NOT EXISTS actions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, verb TEXT NOT NULL, subject TEXT NOT NULL,
    intent TEXT NOT NULL, begun_at REAL NOT NULL, result TEXT, error TEXT, ended_at REAL
);
CREATE INDEX IF NOT EXISTS actions_by_subject ON actions (subject, seq);
"""


@dataclass(frozen=True)
class RunRecord:
    """What the ledger knows about a run; `state` is as it was at `seen_at`. Times are unix seconds."""

    id: str
    name: str
    backend: str
    fingerprint: str
    number: int
    created_at: float
    spec: Mapping[str, Any]
    plan: Mapping[str, Any]
    state: RunState
    native_state: str
    message: str
    seen_at: float | None
    started_at: float | None
    ended_at: float | None

    @property
    def ref(self) -> RunRef:
        """The run's identity."""
        return RunRef(self.backend, self.id)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data, without the spec and the plan."""
        names = ("id", "name", "backend", "state", "native_state", "message")
        times = ("created_at", "started_at", "ended_at", "seen_at")
        return {name: getattr(self, name) for name in (*names, *times)}


@dataclass(frozen=True)
class Action:
    """One intent and, unless it was cut off, its result or error."""

    seq: int
    verb: str
    subject: str
    intent: Mapping[str, Any]
    begun_at: float
    result: Mapping[str, Any] | None
    error: str | None
    ended_at: float | None


class Ledger:
    """The record in one SQLite file. Each call opens, does one transaction and closes: nothing is held between calls."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock

    def adopt_or_add(
        self, *, name: str, backend: str, fingerprint: str, plan_of: Callable[[int], tuple[str, Mapping[str, Any]]],
        spec: Mapping[str, Any], again: bool = False,
    ) -> tuple[RunRecord, bool]:
        """The newest run with this fingerprint, else (or with `again`) a new one; True when it is new.

        `plan_of` gives the run's id and plan for a number. Two callers at once get the same run.
        """
        with self._transaction() as db:
            row = db.execute(
                "SELECT * FROM runs WHERE backend = ? AND fingerprint = ? ORDER BY number DESC LIMIT 1", (backend, fingerprint)
            ).fetchone()
            if row is not None and not again:
                return _run(row), False
            number = 1 if row is None else row["number"] + 1
            run_id, plan = plan_of(number)
            db.execute(
                "INSERT INTO runs (id, name, backend, fingerprint, number, created_at, spec, plan, state)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (run_id, name, backend, fingerprint, number, self._clock(), json.dumps(spec), json.dumps(plan), "queued"),
            )
            return _run(db.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone()), True

    def runs(self) -> list[RunRecord]:
        """All runs, newest first."""
        with self._transaction() as db:
            return [_run(row) for row in db.execute("SELECT * FROM runs ORDER BY created_at DESC, rowid DESC")]

    def find_run(self, key: str) -> RunRecord:
        """The run with this id or reference, the newest with this job name or id prefix, or `last`. Raises NotFoundError."""
        runs = self.runs()
        wanted = key.split("://", 1)[-1]
        for matches in (
            [run for run in runs if run.id == wanted],
            [run for run in runs if run.name == wanted],
            runs if key == "last" else [],
            [run for run in runs if len(wanted) >= 4 and run.id.startswith(wanted)],
        ):
            if matches:
                return matches[0]
        known = ", ".join(run.id for run in runs[:3]) or "none yet"
        raise NotFoundError(f"There is no run {key!r}.", hint=f"maas runs list shows all; the newest: {known}.")

    def seen(self, run_id: str, status: RunStatus) -> None:
        """Keep the newest look at a run; an older look never replaces a newer one."""
        with self._transaction() as db:
            db.execute(
                "UPDATE runs SET state = ?, native_state = ?, message = ?, seen_at = ?, started_at = ?, ended_at = ?"
                " WHERE id = ? AND (seen_at IS NULL OR seen_at <= ?)",
                (status.state.value, status.native_state, status.message, status.seen_at, status.started_at,
                 status.ended_at, run_id, status.seen_at),
            )

    @contextmanager
    def action(self, verb: str, subject: str, **intent: Any) -> Iterator[dict[str, Any]]:
        """Write the intent, give a dict for the result, and write that (or the error) when the block ends.

        A process that dies inside the block leaves the intent without a result.
        """
        with self._transaction() as db:
            cursor = db.execute(
                "INSERT INTO actions (verb, subject, intent, begun_at) VALUES (?, ?, ?, ?)",
                (verb, subject, json.dumps(intent, default=str), self._clock()),
            )
            seq = cursor.lastrowid
        result: dict[str, Any] = {}
        try:
            yield result
        except MaasError as error:
            self._end_action(seq, error=error.message)
            raise
        self._end_action(seq, result=result)

    def actions(self, subject: str | None = None) -> list[Action]:
        """All actions (on one subject), oldest first."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT * FROM actions WHERE ? IS NULL OR subject = ? ORDER BY seq", (subject, subject)
            ).fetchall()
        return [_action(row) for row in rows]

    def _end_action(self, seq: int | None, *, result: Mapping[str, Any] | None = None, error: str | None = None) -> None:
        text = None if result is None else json.dumps(result, default=str)
        with self._transaction() as db:
            db.execute(
                "UPDATE actions SET result = ?, error = ?, ended_at = ? WHERE seq = ?", (text, error, self._clock(), seq)
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise _storage_error(self.path, error) from error
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            yield db
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise _storage_error(self.path, error) from error
        finally:
            db.close()


def _storage_error(path: Path, error: Exception) -> ServiceError:
    """SQLite's and the file system's words, as one of ours."""
    text = str(error)
    if "locked" in text:
        return UnavailableError(f"The ledger {path} is in use by another command.", hint="Try again in a moment.")
    if "full" in text or "No space" in text:
        return QuotaError(f"The disk is full: the ledger {path} cannot be written.", hint="Free some space and try again.")
    if "not a database" in text or "malformed" in text:
        return ServiceError(f"{path} is not a readable ledger.", hint="Move it away; runs on disk stay where they are.")
    return ServiceError(f"The ledger {path} cannot be used: {text}.", hint="Check that the folder can be written.")


def _run(row: sqlite3.Row) -> RunRecord:
    values = dict(row)
    values |= {"spec": json.loads(row["spec"]), "plan": json.loads(row["plan"]), "state": RunState(row["state"])}
    return RunRecord(**values)


def _action(row: sqlite3.Row) -> Action:
    values = dict(row)
    values |= {"intent": json.loads(row["intent"]), "result": json.loads(row["result"]) if row["result"] else None}
    return Action(**values)
