"""Checking data files: every number, every bad row by its line, and files that are none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maas_client.bundled import model_folder
from maas_client.data import CheckReport, check_file
from maas_client.data.check import FOUNDRY_FILE_LIMIT_BYTES
from maas_client.errors import DataError, UsageError
from tuning.datafile import LINE_LIMIT_BYTES


def chat(question: str = "Where is my card?", answer: str = "On its way.") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def bad_lines(report: CheckReport) -> list[tuple[int, str]]:
    return [(problem.line, problem.kind) for problem in report.problems]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def test_a_good_file_gets_its_numbers(path: Path) -> None:
    write(path, *[chat("x" * 8 * number, "y" * 36) for number in range(1, 21)])
    report = check_file(path)
    assert (report.task, report.format) == ("chat", "chat")
    assert (report.rows, report.good, report.bad) == (20, 20, 0)
    assert report.roles == {"assistant": 20, "user": 20}
    sizes = [round((8 * number + 36 + 28) / 3.6) for number in range(1, 21)]
    tokens = report.tokens
    assert (tokens.minimum, tokens.maximum, tokens.total) == (sizes[0], sizes[-1], sum(sizes))
    assert (tokens.p50, tokens.p95, tokens.mean) == (sizes[9], sizes[18], round(sum(sizes) / 20, 1))
    assert tokens.error == "±30 %"
    assert report.warnings == ()


def test_bad_rows_are_named_among_good_ones(path: Path) -> None:
    rows: list[object] = [chat(f"question {number}") for number in range(3000)]
    rows[7] = b'{"messages": '
    rows[1234] = chat(answer=" ")
    rows[1235] = {"messages": [{"role": "user", "content": "x"}]}
    rows[2000] = {"prompt": "x", "completion": "y"}
    rows[2001] = b'{"text": "\xff"}'
    rows[2999] = chat() | {"messages": [{"role": "asistant", "content": "x"}]}
    report = check_file(write(path, *rows))
    assert bad_lines(report) == [
        (8, "not JSON"),
        (1235, "empty answer"),
        (1236, "no loss"),
        (2001, "mixed formats"),
        (2002, "not UTF-8"),
        (3000, "unknown role"),
    ]
    assert (report.rows, report.good, report.bad) == (3000, 2994, 6)
    assert report.roles == {"assistant": 2994, "user": 2994}


def test_only_the_first_bad_rows_are_kept_but_all_are_counted_and_told(path: Path) -> None:
    write(path, *[{"messages": []}] * 50)
    told: list[int] = []
    report = check_file(path, keep=3, on_problem=lambda problem: told.append(problem.line))
    assert [problem.line for problem in report.problems] == [1, 2, 3]
    assert report.bad_kinds == {"wrong shape": 50}
    assert told == list(range(1, 51))


def test_duplicates_are_counted_and_the_first_are_named(path: Path) -> None:
    write(path, *[chat(f"q{number % 90}") for number in range(100)])
    report = check_file(path, keep=2)
    assert report.duplicates == 10
    assert report.duplicate_lines == ((91, 1), (92, 2))


def test_windows_newlines_and_the_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    rows = [json.dumps(chat("café" if number == 3 else f"q{number % 4}")).encode() for number in range(9)]
    plain, windows = tmp_path / "plain.jsonl", tmp_path / "windows.jsonl"
    plain.write_bytes(b"\n".join(rows) + b"\n")
    windows.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(rows))
    first, second = check_file(plain), check_file(windows)
    assert (first.byte_order_mark, second.byte_order_mark) == (False, True)
    for name in ("rows", "good", "tokens", "duplicates", "duplicate_lines", "roles"):
        assert getattr(first, name) == getattr(second, name)


@pytest.mark.parametrize(
    ("row", "task", "row_format"),
    [
        (chat(), "chat", "chat"),
        ({"prompt": "x", "completion": "y"}, "chat", "prompt/completion"),
        ({"text": "x", "label": "y"}, "classification", "text/label"),
        ({"text": "x"}, "text-generation", "text"),
    ],
)
def test_the_task_is_found_from_the_rows(path: Path, row: object, task: str, row_format: str) -> None:
    report = check_file(write(path, b"", b"broken", row))
    assert (report.task, report.format, report.good, report.bad) == (task, row_format, 1, 1)


def test_a_task_that_the_rows_do_not_fit_is_one_sentence(path: Path) -> None:
    with pytest.raises(DataError, match="has chat rows; task classification takes text/label rows"):
        check_file(write(path, chat()), task="classification")
    with pytest.raises(UsageError, match="no task poetry"):
        check_file(path, task="poetry")


def test_csv_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nlate,card\nlate,card\nlate,\nmore,than,two\n", encoding="utf-8")
    report = check_file(path)
    assert bad_lines(report) == [(4, "empty answer"), (5, "not CSV")]
    assert (report.task, report.good, report.duplicates) == ("classification", 2, 1)
    assert report.duplicate_lines == ((3, 2),)


def test_a_file_without_any_good_row_is_a_report_not_an_error(path: Path) -> None:
    report = check_file(write(path, b"hello", b"world"))
    assert (report.format, report.good, report.bad) == ("unknown", 0, 2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"\n\n", "only blank lines"), (b"\x00\x01", "binary"), (b"[{}]", "one JSON list")],
)
def test_a_file_that_is_none_is_one_sentence(path: Path, content: bytes, reason: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        check_file(path)
    assert caught.value.hint


def test_few_rows_and_a_huge_file_are_warned_of(path: Path) -> None:
    write(path, chat())
    assert check_file(path).warnings == ("The file has 1 rows; Azure AI Foundry asks for at least 10.",)
    write(path, *[chat()] * 1000)
    with path.open("ab") as file:  # a hole: one line of zeros, too long to be a row
        file.truncate(FOUNDRY_FILE_LIMIT_BYTES)
    report = check_file(path)
    assert bad_lines(report) == [(1001, "line too long")]
    assert "The file has 512 MB; Azure AI Foundry takes files under 512 MB." in report.warnings


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux to see its peak memory")
def test_a_line_of_100_mb_is_refused_without_being_loaded(path: Path) -> None:
    with path.open("wb") as file:
        file.write(json.dumps(chat()).encode() + b'\n{"text": "')
        for _ in range(100):
            file.write(b"x" * 1024**2)
        file.write(b'"}\n' + json.dumps(chat()).encode() + b"\n")
    program = (
        "import sys; from pathlib import Path; from maas_client.data import check_file\n"
        "report = check_file(Path(sys.argv[1]))\n"
        "print([(p.line, p.kind) for p in report.problems], report.good)\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    found, peak_kb = done.stdout.splitlines()
    assert found == "[(2, 'line too long')] 2"
    assert int(peak_kb) < 150_000


def test_a_line_just_over_the_limit_is_refused_as_training_refuses_it(path: Path) -> None:
    overhead = len(json.dumps({"text": ""}))
    fits, too_long = (b"x" * (LINE_LIMIT_BYTES - overhead + more) for more in (-1, 1))
    report = check_file(write(path, *[b'{"text": "' + text + b'"}' for text in (b"a", fits, too_long, b"b")]))
    assert bad_lines(report) == [(3, "line too long")]
    assert report.good == 3


def test_rows_over_max_length_are_counted_by_the_estimate(path: Path) -> None:
    report = check_file(write(path, *[chat("x" * 40 * number) for number in range(1, 11)]), max_length=50)
    over = [number for number in range(1, 11) if round((40 * number + 11 + 28) / 3.6) > 50]
    assert (report.over_long, list(report.over_long_lines)) == (len(over), over)
    with pytest.raises(UsageError, match="max_length"):
        check_file(path, max_length=0)


def test_tools_and_weights_are_checked_on_the_slow_path(path: Path) -> None:
    tool = {"type": "function", "function": {"name": "weather"}}
    muted = chat()
    muted["messages"][1]["weight"] = 0
    report = check_file(write(path, chat(), chat() | {"tools": [tool]}, muted, chat() | {"id": 7}))
    assert (report.good, bad_lines(report)) == (3, [(3, "no loss")])


needs_model = pytest.mark.skipif(
    not (folder := model_folder("tiny-phi3")) or not (folder / "tokenizer.json").is_file(),
    reason="no tiny-phi3",
)


@needs_model
def test_the_models_own_tokenizer_counts_exactly(path: Path) -> None:
    from transformers import AutoTokenizer

    from tuning import masks, rows

    write(path, *[chat(f"How is number {number}?") for number in range(5)])
    report = check_file(path, model="tiny-phi3")
    tokenizer = AutoTokenizer.from_pretrained(str(model_folder("tiny-phi3")))
    encoded = [masks.encode(row.example, tokenizer, None) for row in rows.read_rows(path, "chat")]
    assert report.tokens.total == sum(len(row.input_ids) for row in encoded)
    assert report.tokens.supervised == sum(label != -100 for row in encoded for label in row.labels)
    assert (report.tokens.error, report.tokens.source) == ("", "tokenizer of tiny-phi3")


@needs_model
def test_a_template_of_ones_own_is_what_counts(path: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    write(path, chat())
    report = check_file(path, model="tiny-phi3", chat_template=own)
    assert "writes no end token" in report.problems[0].reason


@needs_model
def test_an_answer_that_is_wholly_cut_off_is_an_error(path: Path) -> None:
    write(path, chat(), chat("word " * 200))
    report = check_file(path, model="tiny-phi3", max_length=64)
    assert bad_lines(report) == [(2, "no loss")]
    assert "beyond max_length (64 tokens)" in report.problems[0].reason


def test_the_report_is_json_ready(path: Path) -> None:
    report = check_file(write(path, chat(), {"messages": 1}, chat()))
    read_back = json.loads(json.dumps(report.to_dict()))
    assert read_back["problems"][0]["line"] == 2
    assert read_back["duplicate_lines"] == [[3, 1]]
