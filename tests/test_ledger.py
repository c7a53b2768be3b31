"""The ledger under several processes, cut off in the middle, and on disks that refuse."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maas_client.errors import ConflictError, NotFoundError, ServiceError, UnavailableError
from maas_client.ledger import Ledger, RunRecord
from maas_client.run import RunState, RunStatus

ROOT = Path(__file__).parent.parent
ADD = """
from maas_client.errors import MaasError
from maas_client.ledger import Ledger
import os, pathlib, sys, time

def add(ledger, fingerprint, **more):
    return ledger.adopt_or_add(
        name="card", backend="local", fingerprint=fingerprint, spec={},
        plan_of=lambda n: (f"{fingerprint}-{n}", {}), **more
    )

ledger = Ledger(pathlib.Path(sys.argv[1]))
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "home" / "ledger.sqlite3", clock=ticking())


def ticking() -> Any:
    """A clock that goes on by one second a look."""
    ticks: Iterator[float] = iter(range(1, 10_000))
    return lambda: float(next(ticks))


def add(
    ledger: Ledger, fingerprint: str = "f", *, name: str = "card", again: bool = False
) -> tuple[RunRecord, bool]:
    return ledger.adopt_or_add(
        name=name,
        backend="local",
        fingerprint=fingerprint,
        plan_of=lambda number: (f"{name}-{fingerprint}-{number}", {"run": number}),
        spec={"name": name},
        again=again,
    )


def process(
    script: str, path: Path, *words: str, wrap: tuple[str, ...] = (), **options: Any
) -> subprocess.Popen[str]:
    """A python process of its own with `ledger` and `add` at hand."""
    command = [*wrap, sys.executable, "-c", ADD + textwrap.dedent(script), str(path), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.PIPE}
    return subprocess.Popen(command, text=True, cwd=ROOT, **{**pipes, **options})


def answer(started: subprocess.Popen[str]) -> str:
    out, err = started.communicate(timeout=60)
    assert started.returncode == 0, err
    return out


# -- one process


def test_looking_makes_nothing(ledger: Ledger) -> None:
    assert ledger.runs() == []
    assert ledger.actions() == []
    with pytest.raises(NotFoundError):
        ledger.find_run("last")
    assert not ledger.path.parent.exists()


def test_the_same_fingerprint_is_the_same_run(ledger: Ledger) -> None:
    first, new = add(ledger)
    assert (new, first.id, first.number, first.state) == (True, "card-f-1", 1, RunState.QUEUED)
    assert add(ledger) == (first, False)
    assert add(ledger, "g")[1]
    assert [run.id for run in ledger.runs()] == ["card-g-1", "card-f-1"]


def test_again_makes_the_next_number_once_the_last_was_seen(ledger: Ledger) -> None:
    first, _ = add(ledger)
    assert add(ledger, again=True) == (first, False)
    ledger.seen(first.id, RunStatus(RunState.RUNNING, "r", seen_at=5.0))
    second, new = add(ledger, again=True)
    assert (new, second.number) == (True, 2)
    assert add(ledger) == (second, False)


def test_an_older_look_never_replaces_a_newer_one(ledger: Ledger) -> None:
    run, _ = add(ledger)
    ledger.seen(run.id, RunStatus(RunState.SUCCEEDED, "done", seen_at=50.0, ended_at=49.0))
    ledger.seen(run.id, RunStatus(RunState.RUNNING, "old", seen_at=40.0))
    seen = ledger.find_run(run.id)
    assert (seen.state, seen.native_state, seen.ended_at) == (RunState.SUCCEEDED, "done", 49.0)


def test_an_action_has_an_intent_and_then_a_result_or_an_error(ledger: Ledger) -> None:
    with ledger.action("submit", "a", target=Path("here")) as result:
        assert ledger.actions("a")[0].ended_at is None
        result["ref"] = "local://a"
    with pytest.raises(ConflictError), ledger.action("cancel", "a"):
        raise ConflictError("It is over.")
    with pytest.raises(KeyboardInterrupt), ledger.action("resume", "b"):
        raise KeyboardInterrupt
    submitted, canceled, cut_off = ledger.actions()
    assert (submitted.intent, submitted.result, submitted.error) == (
        {"target": "here"},
        {"ref": "local://a"},
        None,
    )
    assert (canceled.result, canceled.error) == (None, "It is over.")
    assert (cut_off.subject, cut_off.result, cut_off.error, cut_off.ended_at) == ("b", None, None, None)
    assert [one.verb for one in ledger.actions("a")] == ["submit", "cancel"]


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("card-aaaa1111-1", "card-aaaa1111-1"),
        ("local://card-aaaa1111-1", "card-aaaa1111-1"),
        ("card", "card-bbbb2222-1"),
        ("card-aaaa", "card-aaaa1111-1"),
        ("card-b", "card-bbbb2222-1"),
        ("last", "talk-cccc3333-1"),
        ("talk", "talk-cccc3333-1"),
    ],
)
def test_a_run_is_found(ledger: Ledger, key: str, found: str) -> None:
    for name, fingerprint in (("card", "aaaa1111"), ("card", "bbbb2222"), ("talk", "cccc3333")):
        add(ledger, fingerprint, name=name)
    assert ledger.find_run(key).id == found


@pytest.mark.parametrize(
    "key", ["car", "", "azureml://card-f-1", "local://", "first", "card-f-2", "%", "card-f-1 "]
)
def test_a_run_is_not_found(ledger: Ledger, key: str) -> None:
    add(ledger)
    with pytest.raises(NotFoundError) as caught:
        ledger.find_run(key)
    assert caught.value.message == f"There is no run {key!r}."
    assert "card-f-1" in caught.value.hint


# -- several processes


def test_four_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "home" / "ledger.sqlite3"
    script = """
    for turn in range(15):
        run, _ = add(ledger, f"{sys.argv[2]}-{turn}")
        with ledger.action("submit", run.id, turn=turn) as result:
            result["turn"] = turn
        ledger.runs()
    """
    started = [process(script, path, str(number)) for number in range(4)]
    for one in started:
        answer(one)
    ledger = Ledger(path)
    assert len(ledger.runs()) == 60
    assert all(one.result == {"turn": one.intent["turn"]} for one in ledger.actions())
    assert len(ledger.actions()) == 60


def test_a_race_for_one_plan_gives_one_run(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    script = """
    print("ready", flush=True)
    sys.stdin.readline()
    run, new = add(ledger, "same")
    print(run.id, new)
    """
    started = [process(script, path) for _ in range(4)]
    for one in started:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    answers = sorted(answer(one).strip() for one in started)
    assert answers == ["same-1 False", "same-1 False", "same-1 False", "same-1 True"]
    assert len(Ledger(path).runs()) == 1


@pytest.mark.parametrize("where", ["action", "transaction"])
def test_a_process_killed_in_the_middle_leaves_its_intent_and_a_usable_ledger(
    tmp_path: Path, where: str
) -> None:
    path = tmp_path / "ledger.sqlite3"
    inside = {
        "action": "with ledger.action('submit', run.id, target='here'):\n    wait()",
        "transaction": "add(ledger, 'half', again=False) if 0 else ledger.adopt_or_add(name='n', backend='b',"
        " fingerprint='half', spec={}, plan_of=lambda n: wait())",
    }[where]
    head = "run, _ = add(ledger, 'f')\ndef wait():\n    print('inside', flush=True)\n    time.sleep(60)\n"
    started = process(head + inside, path)
    assert started.stdout is not None
    assert started.stdout.readline() == "inside\n"
    started.send_signal(signal.SIGKILL)
    started.communicate()
    ledger = Ledger(path)
    assert [run.id for run in ledger.runs()] == ["f-1"]
    assert [(one.intent, one.result, one.ended_at) for one in ledger.actions()] == (
        [({"target": "here"}, None, None)] if where == "action" else []
    )
    assert add(ledger, "half")[1]
    with ledger.action("submit", "f-1"):
        pass
    assert ledger.actions()[-1].ended_at is not None


def test_a_writer_that_does_not_end_is_said_in_one_sentence(ledger: Ledger) -> None:
    add(ledger)
    holder = sqlite3.connect(ledger.path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UnavailableError) as caught:
        add(Ledger(ledger.path, busy_s=0.1), "g")
    assert caught.value.message == f"The ledger {ledger.path} is in use by another command."
    with pytest.raises(UnavailableError):
        Ledger(ledger.path, busy_s=0.1).runs()
    holder.close()
    assert add(ledger, "g")[1]


# -- files and disks that refuse


def error_of(ledger: Ledger) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        add(ledger)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"\x00" * 5000, b"SQLite format 3\x00" + b"x" * 4000]
)
def test_a_file_that_is_no_ledger(ledger: Ledger, content: bytes) -> None:
    ledger.path.parent.mkdir()
    ledger.path.write_bytes(content)
    assert error_of(ledger).message == f"{ledger.path} is not a readable ledger."
    with pytest.raises(ServiceError):
        ledger.runs()
    assert ledger.path.read_bytes() == content


def test_an_empty_file_is_a_ledger_that_was_cut_off_before_its_first_word(ledger: Ledger) -> None:
    ledger.path.parent.mkdir()
    ledger.path.touch()
    assert ledger.runs() == []
    assert add(ledger)[1]


def test_a_database_with_other_tables(ledger: Ledger) -> None:
    ledger.path.parent.mkdir()
    with sqlite3.connect(ledger.path) as db:
        db.execute("CREATE TABLE runs (x)")
        db.execute("PRAGMA user_version = 1")
    assert error_of(ledger).message == f"{ledger.path} is not a readable ledger."


def test_a_ledger_from_the_future(ledger: Ledger) -> None:
    add(ledger)
    with sqlite3.connect(ledger.path) as db:
        db.execute("PRAGMA user_version = 99")
    assert error_of(ledger).message == f"The ledger {ledger.path} was written by a newer maas_client."


@pytest.mark.parametrize("place", ["folder", "below a file"])
def test_a_place_that_cannot_be_a_ledger(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path if place == "folder" else tmp_path / "file" / "ledger.sqlite3"
    assert str(path) in error_of(Ledger(path)).message


FAILS = """
try:
    for turn in range(10_000):
        add(ledger, str(turn) * 100)
except MaasError as error:
    print(type(error).__name__, "|", error.message, "|", error.hint)
"""


def can_mount() -> bool:
    """Whether this machine lets us mount a small disk of our own."""
    if shutil.which("unshare") is None:
        return False
    words = ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(words, capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="needs a user namespace to mount a small disk")


@needs_mounts
def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    kept, disk = tmp_path / "kept.sqlite3", tmp_path / "disk"
    disk.mkdir()
    add(Ledger(kept))
    mount = 'mount -t tmpfs none "$0" && cp "$1" "$0/l" && mount -o remount,ro "$0" && shift && exec "$@"'
    wrap = ("unshare", "-Urm", "sh", "-c", mount, str(disk), str(kept))
    assert answer(process("print(ledger.runs()[0].id)", disk / "l", wrap=wrap)) == "card-f-1\n"
    for name in ("l", "new/l"):
        said = answer(process(FAILS, disk / name, wrap=wrap))
        assert said.startswith(f"ServiceError | The ledger {disk / name} cannot be used: ")
        assert "set MAAS_HOME to a folder that can" in said


@needs_mounts
def test_a_disk_that_fills(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=256k none "$0" && exec "$@"'
    wrap = ("unshare", "-Urm", "sh", "-c", mount, str(tmp_path))
    after = FAILS + "\nprint(len(ledger.runs()) > 0)"
    said, usable = answer(process(after, tmp_path / "ledger.sqlite3", wrap=wrap)).splitlines()
    assert said.startswith(f"QuotaError | The disk is full: the ledger {tmp_path}/ledger.sqlite3")
    assert usable == "True"


def test_a_record_is_json(ledger: Ledger) -> None:
    run, _ = add(ledger)
    data = json.loads(json.dumps(run.to_dict()))
    assert data["id"] == "card-f-1"
    assert data["state"] == "queued"
    assert "plan" not in data
    assert str(run.ref) == "local://card-f-1"
