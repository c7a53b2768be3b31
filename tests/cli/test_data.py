"""`maas data`: what people see, what programs read, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shell import maas, on_a_terminal

from maas_client.bundled import model_folder
from maas_client.cli.data import TaskChoice
from maas_client.trainingspec import Task

GOOD = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}
needs_model = pytest.mark.skipif(model_folder("tiny-phi3") is None, reason="the tiny model is not built")


@pytest.fixture
def path(empty_home: Path) -> Path:
    path = empty_home / "rows.jsonl"
    path.write_text("".join(json.dumps(GOOD) + "\n" for _ in range(12)), encoding="utf-8")
    return path


def spoil(path: Path, rows: int = 25) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write('{"messages": []}\n' * rows)


def test_a_good_file_ends_with_0(path: Path) -> None:
    done = maas("data", "check", path.name)
    assert done.returncode == 0, done.stderr
    assert "12: 12 good, 0 bad" in done.stdout
    assert "±30 %" in done.stdout
    assert done.stderr == ""


def test_bad_rows_end_with_2_and_the_first_20_are_listed(path: Path) -> None:
    spoil(path)
    done = maas("data", "check", path.name)
    assert done.returncode == 2
    assert "line 13: 'messages' must be a list with at least one message" in done.stdout
    assert "and 5 more (--all prints each)" in done.stdout
    assert "line 33:" not in done.stdout


def test_all_prints_every_bad_row(path: Path) -> None:
    spoil(path)
    done = maas("data", "check", path.name, "--all")
    assert done.returncode == 2
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:25]] == [
        f"line {n}" for n in range(13, 38)
    ]


def test_json_is_alone_on_stdout(path: Path) -> None:
    spoil(path)
    done = maas("data", "check", path.name, "--all", "-o", "json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["bad"] == 25
    assert done.stderr.count("line ") == 25


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data", "check", "nothing.jsonl"), "There is no file nothing.jsonl."),
        (
            ("data", "check", "rows.jsonl", "--task", "classification"),
            "has chat rows; task classification takes",
        ),
        (("data", "check", "rows.jsonl", "--model", "./nowhere"), "There is no model folder ./nowhere."),
        (("data", "check", "rows.jsonl", "--task", "poetry"), "poetry"),
        (("data", "preview", "rows.jsonl", "--row", "99"), "There is no row 99; rows.jsonl has 12 rows."),
    ],
)
def test_bad_input_is_a_sentence_and_code_2(path: Path, words: tuple[str, ...], said: str) -> None:
    done = maas(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@needs_model
def test_preview_marks_loss_with_brackets_without_color(path: Path) -> None:
    done = maas("data", "preview", path.name, NO_COLOR="1")
    assert done.returncode == 0, done.stderr
    assert "「Hi<|end|>」" in done.stdout
    tokens = json.loads(maas("data", "preview", path.name, "-o", "json").stdout)["tokens"]
    assert [token["loss"] for token in tokens].count(True) >= 2


@needs_model
def test_preview_colors_loss_on_a_terminal(path: Path) -> None:
    shown = on_a_terminal("data", "preview", path.name)
    assert "\x1b[1;32mHi<|end|>" in shown
    assert "「Hi" not in shown


@needs_model
def test_a_row_whose_answer_is_cut_off_ends_with_2(path: Path) -> None:
    done = maas("data", "preview", path.name, "--max-length", "3")
    assert done.returncode == 2
    assert "Row 1 teaches nothing" in done.stderr


def test_convert_joins_files_and_never_overwrites(empty_home: Path) -> None:
    for name, text in (("a.en", "One.\nTwo.\n"), ("a.de", "Eins.\nZwei.\n")):
        (empty_home / name).write_text(text, encoding="utf-8")
    words = ("data", "convert", "a.en", "a.de", "--parallel", "--to", "pairs.jsonl")
    done = maas(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "pairs.jsonl: 2 rows, 70 bytes"
    again = maas(*words)
    assert again.returncode == 2
    assert "pairs.jsonl is there already" in again.stderr
    chat = maas("data", "convert", "pairs.jsonl", "--as-chat", "--to", "chat.jsonl", "-o", "json")
    assert json.loads(chat.stdout)["rows"] == 2
    alone = maas("data", "convert", "a.en", "--parallel", "--to", "x.jsonl")
    assert (alone.returncode, "joins 2 files" in alone.stderr) == (2, True)


def test_the_tasks_of_the_command_line_are_those_of_job_files() -> None:
    assert [one.value for one in TaskChoice] == [one.value for one in Task]


@pytest.mark.parametrize(
    ("name", "content", "task"),
    [
        ("train.conll", "in O\nOslo B-place\n", "ner (tokens/tags rows)"),
        ("tunes.abc", "X:1\nK:G\nG8|\n", "music (text rows)"),
        ("book.txt", "Once upon a time.\n", "domain (text rows)"),
        ("pairs.tsv", "one\teins\n", "translation (source/target rows)"),
        ("rows.jsonl", '{"document": "a", "summary": "b"}\n', "summarization (document/summary rows)"),
    ],
)
def test_files_of_every_kind_are_checked(empty_home: Path, name: str, content: str, task: str) -> None:
    (empty_home / name).write_text(content, encoding="utf-8")
    done = maas("data", "check", name)
    assert done.returncode == 0, done.stderr
    assert task in done.stdout
    assert "1: 1 good, 0 bad" in done.stdout


def test_the_file_is_named_as_it_is_and_has_its_size(empty_home: Path) -> None:
    file = empty_home / "rows [b].jsonl"
    file.write_text('{"text": "a", "label": "b"}\n', encoding="utf-8")
    first = maas("data", "check", str(file)).stdout.splitlines()[0]
    assert first.split(maxsplit=1) == ["file", f"{file} (28 bytes)"]
