"""What is asked of a real run: its first losses again (maas runs replay), and if it got better (eval)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.shell import maas


@pytest.mark.slow
def test_a_run_is_replayed_and_measured_and_what_is_not_so_exits_with_1(
    empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAAS_HOME", str(empty_home / "home"))
    assert maas("init", ".").returncode == 0
    small = ("training.max_steps=3", "evaluation.max_rows=4", "evaluation.max_new_tokens=4")
    words = [word for text in small for word in ("--set", text)]
    assert maas("submit", "card-support.yaml", *words).returncode == 0
    ended = maas("watch", "card-support")
    assert ended.returncode == 0, ended.stderr
    (capsule,) = empty_home.glob("home/runs/*/outputs/run/capsule.json")

    ended = maas("runs", "replay", "card-support")
    assert ended.returncode == 0, ended.stderr
    head, *steps, verdict = ended.stdout.splitlines()
    assert head.split() == ["STEP", "LOSS", "THEN", "LOSS", "NOW", "DIFFERENCE"]
    assert [line.split()[0] for line in steps] == ["1", "2", "3"], ended.stdout
    assert verdict == "The losses are the same: largest relative difference 0, accepted 0."

    value = json.loads(capsule.read_text())
    value["first_losses"][0] *= 1.5
    capsule.write_text(json.dumps(value))
    ended = maas("runs", "replay", "--steps", "1", "-o", "json")
    assert ended.returncode == 1, ended.stderr
    report = json.loads(ended.stdout)
    assert report["losses_then"] == [value["first_losses"][0]]
    assert report["losses_now"] == [pytest.approx(value["first_losses"][0] / 1.5)]
    assert (report["same"], report["not_as_it_was"]) == (False, [])

    capsule.unlink()
    ended = maas("runs", "replay")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "left no capsule." in ended.stderr

    result = capsule.with_name("result.json")
    measured = json.loads(result.read_text())
    for low, code in ((0.1, 0), (-0.1, 1), (None, 2)):
        change = low and {"difference": 0.2, "low": low, "high": 0.3, "level": 0.95}
        result.write_text(json.dumps({**measured, "change": change}))
        ended = maas("eval", "card-support", "--require-better")
        assert ended.returncode == code
        assert ("is not sure that accuracy got better" in ended.stderr) == (code == 1)
        assert maas("eval", "card-support").returncode == 0
    ended = maas("eval", "card-support", "--data", "card-support/test.jsonl", "--require-better")
    assert (ended.returncode, ended.stdout) == (2, "")
