"""The ledger: a SQLite record of what was meant and what came of it.

Every action that changes something writes its intent before and its result after. An action without a result
was cut off, and the same command again finds it. Several processes may use one ledger at once: SQLite's locks
order them. Looking at a ledger that is not there yet makes none.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from maas_client.errors import MaasError, NotFoundError, QuotaError, ServiceError, UnavailableError
from maas_client.run import RunRef, RunState, RunStatus

_VERSION = 1
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS runs (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, backend TEXT NOT NULL,
        fingerprint TEXT NOT NULL, number INTEGER NOT NULL, created_at REAL NOT NULL,
        spec TEXT NOT NULL, plan TEXT NOT NULL,
        state TEXT NOT NULL, native_state TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '',
        seen_at REAL, started_at REAL, ended_at REAL,
        UNIQUE (backend, fingerprint, number))""",
    """CREATE TABLE IF NOT EXISTS actions (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, verb TEXT NOT NULL, subject TEXT NOT NULL,
        intent TEXT NOT NULL, begun_at REAL NOT NULL, result TEXT, error TEXT, ended_at REAL)""",
    "CREATE INDEX IF NOT EXISTS actions_by_subject ON actions (subject, seq)",
    f"PRAGMA user_version = {_VERSION}",
)
_INSERT_RUN = """INSERT INTO runs (id, name, backend, fingerprint, number, created_at, spec, plan, state)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued')"""
_NEWEST_RUN = "SELECT * FROM runs WHERE backend = ? AND fingerprint = ? ORDER BY number DESC LIMIT 1"
_ACTIONS = """SELECT * FROM actions
    WHERE ? IS NULL OR subject = ? OR json_extract(intent, '$.run') = ? ORDER BY seq"""
_KEEP_LOOK = """UPDATE runs
    SET state = ?, native_state = ?, message = ?, seen_at = ?, started_at = ?, ended_at = ?
    WHERE id = ? AND (seen_at IS NULL OR seen_at <= ?)"""


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

    @property
    def scores(self) -> bool:
        """True for a run that scores a model on a file of rows, False for one that makes a model."""
        return "data" in self.plan.get("inputs", {})

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
    """The record in one SQLite file.

    Each call opens, does one transaction and closes: nothing is held between calls. A call waits up to
    `busy_s` seconds for other processes.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, busy_s: float = 15.0) -> None:
        self.path = path
        self._clock = clock
        self._busy_s = busy_s

    def adopt_or_add(
        self,
        *,
        name: str,
        backend: str,
        fingerprint: str,
        plan_of: Callable[[int], tuple[str, Mapping[str, Any]]],
        spec: Mapping[str, Any],
        again: bool = False,
    ) -> tuple[RunRecord, bool]:
        """The newest run with this fingerprint, else (or with `again`) a new one; True when it is new.

        `plan_of` gives the run's id and plan for a number. Two callers at once get the same run. With
        `again`, a run that was never seen at its backend (its submission was cut off or refused) is taken
        up before another is made.
        """
        with self._transaction() as db:
            row = db.execute(_NEWEST_RUN, (backend, fingerprint)).fetchone()
            if row is not None and not (again and row["seen_at"]):
                return _run(row), False
            number = 1 if row is None else row["number"] + 1
            run_id, plan = plan_of(number)
            texts = (json.dumps(spec), json.dumps(plan))
            db.execute(_INSERT_RUN, (run_id, name, backend, fingerprint, number, self._clock(), *texts))
            return _run(db.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone()), True

    def knows(self, backend: str, fingerprint: str) -> bool:
        """Whether there is a run with this fingerprint."""
        return bool(self._rows(_NEWEST_RUN, (backend, fingerprint)))

    def runs(self) -> list[RunRecord]:
        """All runs, newest first."""
        return [_run(row) for row in self._rows("SELECT * FROM runs ORDER BY created_at DESC, rowid DESC")]

    def find_run(self, key: str) -> RunRecord:
        """The run with this id or reference, the newest with this job name or id prefix, or `last`.

        `last` is the newest run that trains: scoring a model does not hide the run that made it.
        Raises NotFoundError.
        """
        runs = self.runs()
        for matches in (
            [run for run in runs if key in (run.id, str(run.ref))],
            [run for run in runs if run.name == key],
            [run for run in runs if not run.scores] if key == "last" else [],
            [run for run in runs if len(key) >= 4 and run.id.startswith(key)],
        ):
            if matches:
                return matches[0]
        known = ", ".join(run.id for run in runs[:3]) or "none yet"
        hint = f"maas runs list shows all; the newest: {known}."
        raise NotFoundError(f"There is no run {key!r}.", operation="find run", hint=hint)

    def seen(self, run_id: str, status: RunStatus) -> None:
        """Keep the newest look at a run; an older look never replaces a newer one."""
        self.seen_all({run_id: status})

    def seen_all(self, statuses: Mapping[str, RunStatus]) -> None:
        """Keep the newest looks at runs, by run id, all at once."""
        rows = [
            (
                *(one.state.value, one.native_state, one.message),
                *(one.seen_at, one.started_at, one.ended_at),
                *(run_id, one.seen_at),
            )
            for run_id, one in statuses.items()
        ]
        if rows:
            with self._transaction() as db:
                db.executemany(_KEEP_LOOK, rows)

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
        """All actions (on one subject, and on what was made of a run of that name), oldest first."""
        return [_action(row) for row in self._rows(_ACTIONS, (subject, subject, subject))]

    def _end_action(
        self, seq: int | None, *, result: Mapping[str, Any] | None = None, error: str | None = None
    ) -> None:
        text = None if result is None else json.dumps(result, default=str)
        with self._transaction() as db:
            db.execute(
                "UPDATE actions SET result = ?, error = ?, ended_at = ? WHERE seq = ?",
                (text, error, self._clock(), seq),
            )

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        """What a query finds; nothing where there is no ledger yet."""
        try:
            if not self.path.exists():
                return []
            with closing(self._connect()) as db:
                return db.execute(query, values).fetchall() if _version(db, self.path) else []
        except (OSError, sqlite3.Error) as error:
            raise _storage_error(self.path, error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside happens at once or not at all; other processes wait for it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as db:
                db.execute("BEGIN IMMEDIATE")
                if _version(db, self.path) < _VERSION:
                    for statement in _SCHEMA:
                        db.execute(statement)
                yield db
                db.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise _storage_error(self.path, error) from error

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=self._busy_s, isolation_level=None)
        db.row_factory = sqlite3.Row
        return db


def _version(db: sqlite3.Connection, path: Path) -> int:
    """The version of the tables, 0 before there are any. Raises ServiceError for one from the future."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > _VERSION:
        what = f"The ledger {path} was written by a newer maas_client."
        raise ServiceError(what, operation="ledger", hint="Update it: pip install -U maas-client")
    return version


def _storage_error(path: Path, error: Exception) -> ServiceError:
    """SQLite's and the file system's words, as one of ours."""
    text = error.strerror or "" if isinstance(error, OSError) else str(error)
    if "locked" in text:
        what, hint = f"The ledger {path} is in use by another command.", "Try again in a moment."
        return UnavailableError(what, operation="ledger", hint=hint)
    if "full" in text or "No space" in text:
        what, hint = (
            f"The disk is full: the ledger {path} cannot be written.",
            "Free some space and try again.",
        )
        return QuotaError(what, operation="ledger", hint=hint)
    if "not a database" in text or "malformed" in text or "no such" in text:
        what, hint = f"{path} is not a readable ledger.", "Move it away; runs on disk stay where they are."
        return ServiceError(what, operation="ledger", hint=hint)
    hint = f"Check that {path.parent} can be written, or set MAAS_HOME to a folder that can."
    return ServiceError(f"The ledger {path} cannot be used: {text}.", operation="ledger", hint=hint)


def _run(row: sqlite3.Row) -> RunRecord:
    values = {one.name: row[one.name] for one in fields(RunRecord)}
    values |= {"spec": json.loads(row["spec"]), "plan": json.loads(row["plan"])}
    return RunRecord(**{**values, "state": RunState(row["state"])})


def _action(row: sqlite3.Row) -> Action:
    values = dict(row)
    values |= {
        "intent": json.loads(row["intent"]),
        "result": json.loads(row["result"]) if row["result"] else None,
    }
    return Action(**values)
