"""The parser: help, usage errors, formats of errors, completion, pipes that close and colors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shell import MAAS, job_in, maas, on_a_terminal

pytestmark = pytest.mark.usefixtures("empty_home")
PAGES = [
    [], ["init"], ["doctor"], ["schema"], ["data"], ["models"], ["plan"], ["submit"], ["run"], ["runs"],
    ["runs", "list"], ["runs", "show"], ["runs", "logs"], ["runs", "cancel"], ["runs", "resume"],
    ["runs", "download"], ["watch"], ["eval"], ["register"], ["deploy"], ["endpoints"], ["endpoints", "list"],
    ["endpoints", "delete"], ["chat"], ["reap"],
]  # fmt: skip


@pytest.mark.parametrize("words", PAGES, ids=lambda words: "maas " + " ".join(words))
def test_help_pages(words: list[str], snapshot: Any) -> None:
    ended = maas(*words, "--help", COLUMNS="80", NO_COLOR="1")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert max(map(len, ended.stdout.splitlines())) <= 80
    assert ended.stdout == snapshot


@pytest.mark.parametrize("words", [[], ["runs"], ["endpoints"], ["data"], ["models"]])
def test_a_bare_word_prints_its_help(words: list[str]) -> None:
    ended = maas(*words, COLUMNS="80")
    assert ended.returncode == 2
    assert "Usage: " in ended.stdout
    assert "Commands" in ended.stdout or "Start here" in ended.stdout
    assert ended.stderr == ""


def test_the_version() -> None:
    from importlib.metadata import version

    ended = maas("--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, version("maas-client") + "\n", "")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["rnus"], "No such command 'rnus'", "maas --help"),
        (["runs", "lst"], "No such command 'lst'", "maas runs --help"),
        (["plan"], "Missing argument 'job'.", "maas plan --help"),
        (["plan", "a.yaml", "b.yaml"], "Got unexpected extra argument(s) (b.yaml).", "maas plan --help"),
        (["plan", "--sett", "a=1"], "No such option: --sett", "maas plan --help"),
        (["runs", "list", "--limit", "many"], "Invalid value for '--limit'", "maas runs list --help"),
        (["runs", "list", "--limit", "0"], "Invalid value for '--limit'", "maas runs list --help"),
        (
            ["data", "check", "a", "--task", "poetry"],
            "Invalid value for '--task': 'poetry' is not",
            "maas data check --help",
        ),
        (["runs", "list", "-o", "xml"], "Invalid value for '--output'", "maas runs list --help"),
        (["deploy", "m", "--port", "99999"], "Invalid value for '--port'", "maas deploy --help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors_are_a_sentence_and_a_hint(words: list[str], message: str, hint: str) -> None:
    ended = maas(*words)
    assert (ended.returncode, ended.stdout) == (2, "")
    first, *rest = ended.stderr.splitlines()
    assert first.startswith("error: ")
    assert message in first.replace(" / '-n'", "").replace(" / '-o'", "")
    assert first.endswith(".")
    assert rest == [f"  try: {hint}"]


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (["plan", "nothing.yaml"], "SpecError", 2),
        (["runs", "show", "nothing"], "NotFoundError", 3),
        (["endpoints", "show", "nothing"], "NotFoundError", 3),
        (["register", "nothing"], "NotFoundError", 3),
        (["deploy", "nothing"], "NotFoundError", 3),
        (["deploy", "a/b"], "UsageError", 2),
        (["init", "--example", "x"], "UsageError", 2),
        (["runs", "list", "--bogus"], "UsageError", 2),
        (["bogus"], "UsageError", 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("option", [["-o", "json"], ["--output=json"], ["-ojson"]])
def test_errors_as_json(words: list[str], kind: str, code: int, option: list[str]) -> None:
    ended = maas(*words, *option)
    assert (ended.returncode, ended.stdout) == (code, "")
    error = json.loads(ended.stderr)
    assert (error["error"], error["exit_code"]) == (kind, code)
    assert error["message"].endswith(".")
    assert error["hint"]


def test_problems_of_a_job_file_one_a_line(empty_home: Path) -> None:
    job = job_in(empty_home, name="No", tsk="chat")
    ended = maas("plan", job.name)
    assert ended.returncode == 2
    assert [line.partition(" found ")[0] for line in ended.stderr.splitlines()] == [
        "error: job.yaml has 2 problems.",
        "  job.yaml:1: name:",
        "  job.yaml:6: tsk: unknown key 'tsk'; accepted: name, task, model, backend, data, method, training, "
        "evaluation, distributed, compute, foundry, register, deploy; did you mean task?",
        "  try: maas schema prints what a job file may hold.",
    ]
    as_json = json.loads(maas("plan", job.name, "-o", "json").stderr)
    assert len(as_json["problems"]) == 2


def test_data_on_stdout_and_talk_on_stderr(empty_home: Path) -> None:
    ended = maas("init", "there", "-o", "json")
    assert json.loads(ended.stdout) == [str(path) for path in json.loads(ended.stdout)]
    assert "maas plan there/card-support.yaml" in ended.stderr


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o default -F _maas_completion maas"),
        ("zsh", "compdef _maas_completion maas"),
        ("fish", "complete --command maas"),
    ],
)
def test_completion_scripts(shell: str, line: str) -> None:
    ended = maas(_MAAS_COMPLETE=f"source_{shell}")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert line in ended.stdout
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=ended.stdout, text=True).returncode == 0


@pytest.mark.parametrize(
    ("shell", "typed"),
    [
        ("bash", {"COMP_WORDS": "maas ru", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "maas ru"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "maas ru", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_commands_are_completed(shell: str, typed: dict[str, str]) -> None:
    ended = maas(_MAAS_COMPLETE=f"complete_{shell}", **typed)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "runs" in ended.stdout
    assert "submit" not in ended.stdout


@pytest.mark.parametrize("words", [["models", "list"], ["schema"], ["models", "list", "-o", "json"]])
def test_a_reader_that_goes_away_is_no_error(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([*MAAS, *words], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_a_disk_that_is_full_under_stdout() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([*MAAS, "models", "list"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 3
    assert ended.stderr.splitlines()[0] == "error: The disk is full; nothing half-written was kept."


def test_colors_only_on_a_terminal_that_wants_them() -> None:
    assert "\x1b[" in on_a_terminal("plan", "nothing.yaml")
    for shown in (
        on_a_terminal("plan", "nothing.yaml", NO_COLOR="1"),
        on_a_terminal("plan", "nothing.yaml", TERM="dumb"),
    ):
        assert "There is no job file nothing.yaml." in shown
        assert "\x1b[3" not in shown
    assert "\x1b" not in maas("plan", "nothing.yaml").stderr


def test_nothing_is_folded_in_a_pipe(empty_home: Path) -> None:
    deep = empty_home / ("long-folder-name-" * 8)
    deep.mkdir()
    job = job_in(deep)
    plan = maas("plan", str(job)).stdout
    assert str(deep / "rows.jsonl") in plan


def test_text_is_not_read_as_markup(empty_home: Path) -> None:
    folder = empty_home / "[bold]x[/bold] :smile:"
    folder.mkdir(parents=True)
    assert str(folder / "rows.jsonl") in maas("plan", str(job_in(folder))).stdout
    assert "[bold]x[/bold] :smile:" in on_a_terminal("plan", "[bold]x[/bold] :smile:/nothing", columns=300)


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_ctrl_c_ends_with_130(number: signal.Signals) -> None:
    script = "import signal, sys\nfrom maas_client.cli.app import run\n"
    script += "import maas_client.starter\n"
    script += "signal.setitimer(signal.ITIMER_REAL, 0.3)\n"
    script += "signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))\n"
    script += "sys.exit(run(['plan', '/dev/stdin']))\n"
    process = subprocess.Popen(
        [MAAS[0], "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.wait(timeout=90) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
