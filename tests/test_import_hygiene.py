"""What commands import: looking, planning and help load nothing that is slow or talks to a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).parent.parent / "jobs" / "examples" / "card-support.yaml"
HEAVY = {
    "accelerate", "azure", "datasets", "httpx", "numpy", "openai", "pandas", "peft", "requests", "starlette",
    "tokenizers", "torch", "transformers", "trl", "uvicorn",
}  # fmt: skip
SCRIPT = """
import json, sys
from maas_client.cli.app import run
code = run(sys.argv[1:])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


def loaded(script: str, *words: str) -> tuple[int, set[str]]:
    """The exit code and the top-level modules that a process had at its end."""
    command = [sys.executable, "-c", script, *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    code, names = json.loads(ended.stderr.splitlines()[-1])
    return code, set(names)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--help",), 0),
        (("--version",), 0),
        (("submit", "--help"), 0),
        (("runs", "list"), 0),
        (("runs", "list", "-o", "json"), 0),
        (("plan", str(JOB)), 0),
        (("plan", str(JOB), "-o", "json"), 0),
        (("plan", "nothing.yaml"), 2),
        (("models", "list"), 0),
        (("endpoints", "list"), 0),
        (("schema",), 0),
        (("doctor",), None),
    ],
    ids=lambda value: " ".join(value).replace(str(JOB), "JOB") if isinstance(value, tuple) else str(value),
)
def test_commands_that_only_look_load_nothing_heavy(
    empty_home: Path, words: tuple[str, ...], code: int | None
) -> None:
    ended, names = loaded(SCRIPT, *words)
    assert names & HEAVY == set()
    assert code in (None, ended)
    assert list(empty_home.iterdir()) == []


@pytest.mark.parametrize("words", [("--help",), ("--version",)])
def test_help_needs_no_job_file_and_no_ledger(empty_home: Path, words: tuple[str, ...]) -> None:
    assert "maas_client" in loaded(SCRIPT, *words)[1]
    assert "yaml" not in loaded(SCRIPT, *words)[1]
    assert "sqlite3" not in loaded(SCRIPT, *words)[1]


@pytest.mark.parametrize("words", [("runs", "list"), ("plan", str(JOB)), ("plan", str(JOB), "-o", "json")])
def test_data_in_a_pipe_needs_no_rich(empty_home: Path, words: tuple[str, ...]) -> None:
    code, names = loaded(SCRIPT, *words)
    assert code == 0
    assert "rich" not in names


def test_importing_the_package_is_nearly_free() -> None:
    bare = loaded("import json, sys; print(json.dumps([0, sorted(sys.modules)]), file=sys.stderr)")[1]
    with_package = loaded(
        "import json, sys, maas_client; print(json.dumps([0, sorted(sys.modules)]), file=sys.stderr)"
    )[1]
    ours = {name for name in with_package if name.startswith("maas_client")}
    assert ours == {"maas_client"}
    assert {name.partition(".")[0] for name in with_package - bare} <= {
        "maas_client",
        *sys.stdlib_module_names,
    }


def test_public_names_come_when_they_are_asked_for() -> None:
    script = """
import json, sys, maas_client
assert "maas_client.spec" not in sys.modules
names = [getattr(maas_client, name).__name__ for name in maas_client.__all__]
assert names == maas_client.__all__, names
assert set(names) <= set(dir(maas_client))
print(json.dumps([0, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""
    assert loaded(script)[1] & HEAVY == set()
