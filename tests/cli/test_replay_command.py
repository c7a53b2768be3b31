"""maas runs replay: a real run's first losses, computed again by the script that travels with the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.shell import maas


@pytest.mark.slow
def test_a_run_is_replayed_and_what_is_not_the_same_exits_with_1(
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
    assert [line.split()[0] for line in steps] == ["1", "2", "3"]
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
