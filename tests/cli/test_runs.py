"""maas runs: a ledger that other processes wrote, shown and steered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maas_client.ledger import Ledger
from maas_client.run import RunState, RunStatus
from tests.cli.shell import maas

COMMAND = {"command": "python train.py", "hashes": {"code": "sha256:0"}}


@pytest.fixture
def ledger(empty_home: Path) -> Ledger:
    """A ledger with a finished, a failed and a lost run; nothing of them is on this machine's disk."""
    ticks = iter(range(1_700_000_000, 1_800_000_000, 60))
    made = Ledger(empty_home / ".maas" / "ledger.sqlite3", clock=lambda: float(next(ticks)))
    for number, name in enumerate(["done", "broken", "lost"]):
        made.adopt_or_add(
            name=name,
            backend="local",
            fingerprint=f"{number}{name}",
            plan_of=lambda one, name=name: (f"{name}-0000000{one}-1", COMMAND),  # type: ignore[misc]
            spec={"name": name},
        )
    done = RunStatus(
        RunState.SUCCEEDED, "exit 0", 1_700_000_100.0, started_at=1_700_000_000.0, ended_at=1_700_000_085.0
    )
    made.seen("done-00000001-1", done)
    broken = RunStatus(RunState.FAILED, "exit 1", 1_700_000_100.0, message="the data [is] bad")
    made.seen("broken-00000001-1", broken)
    return made


def test_no_runs_yet(empty_home: Path) -> None:
    ended = maas("runs", "list")
    assert (ended.returncode, ended.stdout) == (0, "No runs yet. Start one: maas submit JOB.yaml\n")
    assert maas("runs", "list", "-o", "json").stdout == "[]\n"
    assert list(empty_home.iterdir()) == []


def test_list_is_newest_first_and_says_unknown_as_unknown(ledger: Ledger) -> None:
    ended = maas("runs", "list")
    assert ended.returncode == 1
    header, lost, broken, done = ended.stdout.splitlines()
    assert header.split() == ["RUN", "STATE", "STARTED", "TOOK"]
    assert lost.split()[:2] == ["lost-00000001-1", "unknown"]
    assert broken.endswith("the data [is] bad")
    assert done.split()[-1] == "1:25"
    states = [run["state"] for run in json.loads(maas("runs", "list", "-o", "json", "-n", "2").stdout)]
    assert states == ["unknown", "failed"]


@pytest.mark.parametrize("command", ["show", "logs", "cancel", "resume", "download", "replay"])
def test_a_run_that_nobody_knows(ledger: Ledger, command: str) -> None:
    ended = maas("runs", command, "nothing")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.splitlines()[0] == "error: There is no run 'nothing'."


@pytest.mark.parametrize("command", ["show", "logs", "cancel", "resume", "download", "replay"])
def test_a_run_whose_files_are_gone(ledger: Ledger, command: str) -> None:
    ended = maas("runs", command, "done")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "Traceback" not in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert "  try: " in ended.stderr


def test_a_broken_ledger_is_one_sentence(empty_home: Path) -> None:
    (empty_home / ".maas").mkdir()
    (empty_home / ".maas" / "ledger.sqlite3").write_bytes(b"junk" * 500)
    for words in (["runs", "list"], ["runs", "show"], ["register"]):
        ended = maas(*words)
        assert (ended.returncode, ended.stdout) == (3, "")
        assert ended.stderr.splitlines()[0].endswith("ledger.sqlite3 is not a readable ledger.")


def test_an_evaluation_needs_a_run(ledger: Ledger) -> None:
    assert maas("eval", "nothing").returncode == 3
    assert maas("eval", "nothing:1").returncode == 3
    assert maas("eval", "local://nothing").returncode == 3
