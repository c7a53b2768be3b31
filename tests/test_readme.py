"""Every command and the Python example of the README, run as a reader would run them."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from platformdirs import user_cache_path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAAS = Path(sys.executable).with_name("maas")

# Set-up lines: `make` is what runs this test, and tests/test_wheel.py installs the package for real.
SETUP = ("make ", "python3 -m venv ", ".venv/bin/")


AZURE = README.partition("\n## On Azure\n")[2].partition("\n## ")[0]
ELSEWHERE = README.replace(AZURE, "")
SIMULATE = "maas simulate --env azure.env"
VARIABLES = "set -a; . ./azure.env; set +a"


def blocks(language: str, text: str = ELSEWHERE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str = ELSEWHERE) -> list[str]:
    lines = [line for block in blocks("sh", text) for line in block.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(SETUP)]


def test_every_command_is_one_that_this_test_can_run() -> None:
    assert len(commands()) > 20
    assert {line.split()[0] for line in commands()} == {"maas", "cd"}
    first, second, *others = commands(AZURE)
    assert (first, second) == (SIMULATE, VARIABLES)
    assert len(others) > 12
    assert {line.split()[0] for line in others} == {"maas", "cd"}


def walk(lines: list[str], folder: Path, env: dict[str, str]) -> tuple[Path, dict[str, str]]:
    """Run the commands one after another; the folder where that leads, and what each said on stdout."""
    said = {}
    for line in lines:
        words = shlex.split(line)
        if words[0] == "cd":
            folder = folder / words[1]
            continue
        done = subprocess.run(
            [str(MAAS), *words[1:]], cwd=folder, env=env, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert done.stdout or done.stderr, line
        said[line] = done.stdout
    return folder, said


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
        folder, _ = walk(commands(), folder, env)
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_walk_on_a_small_azure(tmp_path: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE", "MAAS"))}
    kept = {"XDG_CACHE_HOME": str(user_cache_path().absolute())}  # Azurite is installed there already
    env = {**bare, **kept, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    azure = subprocess.Popen(
        [str(MAAS), *shlex.split(SIMULATE)[1:]],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert azure.stderr is not None
        assert any("A small Azure listens" in line for line in azure.stderr)
        lines = (line.partition("=") for line in (tmp_path / "azure.env").read_text().splitlines())
        named = {name: shlex.split(value)[0] for name, _, value in lines}
        _, said = walk(commands(AZURE)[2:], tmp_path, {**env, **named})
    finally:
        azure.send_signal(signal.SIGINT)
        _, bill = azure.communicate(timeout=60)
    asked = [line for line in said if line.startswith("maas run ")]
    assert [said[line].count(" is ready at https://localhost:") for line in asked] == [1, 1, 1]
    assert all(said[line].strip() for line in said if line.startswith("maas chat "))
    runs = next(text for line, text in said.items() if line.startswith("maas runs list"))
    assert runs.count("succeeded") == 3
    assert "What Azure would have charged" in bill
    assert azure.returncode == 0
