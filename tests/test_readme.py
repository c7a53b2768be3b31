"""Every command and the Python example of the README, run as a reader would run them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAAS = Path(sys.executable).with_name("maas")

# Set-up lines: `make` is what runs this test, and tests/test_wheel.py installs the package for real.
SETUP = ("make ", "python3 -m venv ", ".venv/bin/")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(SETUP)]


def test_every_command_is_one_that_this_test_can_run() -> None:
    assert len(commands()) > 20
    assert {line.split()[0] for line in commands()} == {"maas", "cd"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_walk_and_the_python_example(tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = tmp_path / "work"
    folder.mkdir()
    env = {
        **os.environ,
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "MAAS_HOME": str(home / "maas"),
    }
    try:
        for line in commands():
            words = shlex.split(line)
            if words[0] == "cd":
                folder = folder / words[1]
                continue
            done = subprocess.run(
                [str(MAAS), *words[1:]], cwd=folder, env=env, capture_output=True, text=True, timeout=600
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            assert done.stdout or done.stderr, line
        [example] = blocks("python")
        ran = subprocess.run(
            [sys.executable, "-c", example], cwd=folder, env=env, capture_output=True, text=True, timeout=600
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.splitlines()[0].startswith("1 ")
        assert "accuracy" in ran.stdout.splitlines()[-1]
    finally:
        subprocess.run(
            [str(MAAS), "endpoints", "delete", "card-support", "-y"], cwd=folder, env=env, capture_output=True
        )
