"""Preference rows: recognized, checked by line, held out byte for byte, and learned from by objective dpo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maas_client.backends.datafiles import check_data_files
from maas_client.data.check import check_file
from maas_client.data.convert import convert_file
from maas_client.data.preference import hold_out_lines, is_preference_file, problems_of
from maas_client.data.preview import preview_row
from maas_client.errors import DataError
from maas_client.preflight import check_rows
from maas_client.spec import JobSpec

ROW: dict[str, Any] = {
    "input": {"messages": [{"role": "user", "content": "hi"}], "tools": [], "parallel_tool_calls": True},
    "preferred_output": [{"role": "assistant", "content": "hello"}],
    "non_preferred_output": [{"role": "assistant", "content": "go away"}],
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_rows(*rows: Any, raw: bytes = b"") -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_bytes(raw or "".join(f"{json.dumps(row)}\n" for row in rows).encode())
        return path

    return write_rows


def spec_of(path: Path, backend: str, objective: str = "sft") -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "card",
            "task": "chat",
            "model": "tiny-phi3",
            "backend": backend,
            "data": {"train": str(path)},
            "training": {"objective": objective},
        }
    )


def test_rows_are_recognized_by_the_first_one(write: Any) -> None:
    assert is_preference_file(write(ROW))
    assert is_preference_file(write(raw=b"\xef\xbb\xbf\n  \n" + json.dumps(ROW).encode()))
    assert not is_preference_file(write({"messages": []}, ROW))
    for raw in (b"", b"\n", b"{oops", b"[1]\n", b"text,label\na,b\n", b"\xff\xfe"):
        assert not is_preference_file(write(raw=raw or b"\n"))
    assert not is_preference_file(Path("nothing.jsonl"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preferred_output": None}, "'preferred_output' must be a list"),
        ({"preferred_output": []}, "'preferred_output' must be a list"),
        ({"non_preferred_output": [{"role": "user", "content": "x"}]}, "messages of the assistant"),
        ({"input": {"messages": []}}, "'input' must hold 'messages'"),
        ({"input": "hi"}, "'input' must hold 'messages'"),
    ],
)
def test_bad_rows_are_named_by_line(write: Any, change: dict[str, Any], said: str) -> None:
    count, problems = problems_of(write(ROW, {**ROW, **change}))
    assert count == 2
    assert len(problems) == 1
    assert problems[0].startswith("rows.jsonl:2: ")
    assert said in problems[0]


def test_missing_keys_and_broken_lines_are_named(write: Any) -> None:
    lines = [json.dumps(ROW), "{oops", json.dumps({"input": ROW["input"]}), "[1]"]
    _, problems = problems_of(write(raw="\n".join(lines).encode()))
    assert [each.split(":")[1] for each in problems] == ["2", "3", "4"]
    assert "'preferred_output' is missing" in problems[1]


def test_held_out_lines_are_byte_for_byte_and_the_same_each_time(write: Any, tmp_path: Path) -> None:
    rows = [json.dumps({**ROW, "n": number}).encode() + b" " * number + b"\n" for number in range(20)]
    source = write(raw=b"\xef\xbb\xbf" + b"\n".join([b"".join(rows)]).rstrip(b"\n"))
    one, other = hold_out_lines(source, tmp_path / "a", tmp_path / "b", share=0.2, seed=7)
    assert (one.rows, other.rows) == (16, 4)
    kept = (tmp_path / "a").read_bytes().splitlines(True) + (tmp_path / "b").read_bytes().splitlines(True)
    assert sorted(kept) == sorted(rows)
    again = hold_out_lines(source, tmp_path / "c", tmp_path / "d", share=0.2, seed=7)
    assert [each.sha256 for each in again] == [one.sha256, other.sha256]
    assert hold_out_lines(source, tmp_path / "c", tmp_path / "d", share=0.2, seed=8)[1].sha256 != other.sha256


TRL_PAIR = {"chosen": "hello", "rejected": "go away"}
TRL_ROW = {"prompt": "hi", **TRL_PAIR}


@pytest.mark.parametrize("backend", ["local", "azureml", "foundry"])
@pytest.mark.parametrize("row", [ROW, TRL_ROW], ids=["Foundry's form", "TRL's form"])
def test_rows_and_objective_agree_or_one_sentence_says_so(write: Any, backend: str, row: Any) -> None:
    path = write(row)
    with pytest.raises(DataError, match=r"has pairs of a better and a worse answer, and .* is sft") as caught:
        check_data_files(spec_of(path, backend))
    assert caught.value.hint == "Set training.objective: dpo to learn from them."
    check_data_files(spec_of(path, backend, objective="dpo"))
    check_data_files(spec_of(path, backend), trains=False)
    answers = write({"messages": []})
    with pytest.raises(DataError, match=r"training.objective is dpo, and .* has no pairs"):
        check_data_files(spec_of(answers, backend, objective="dpo"))


def test_pairs_are_written_as_foundry_takes_them(write: Any, tmp_path: Path) -> None:
    asked = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    asked += [{"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    said = [[{"role": "assistant", "content": word}] for word in ("good", "bad")]
    source = write({"prompt": asked, "chosen": said[0], "rejected": said[1]}, {"prompt": asked, **TRL_PAIR})
    written, _ = convert_file(source, "chat", "preference", tmp_path / "made.jsonl")
    first, second = map(json.loads, written.path.read_text().splitlines())
    assert first == {
        "input": {"messages": asked},
        "preferred_output": said[0],
        "non_preferred_output": said[1],
    }
    assert second["preferred_output"] == [{"role": "assistant", "content": "hello"}]
    assert problems_of(written.path) == (2, ())
    with pytest.raises(DataError, match="a pair of answers cannot be written as one"):
        convert_file(source, "chat", "messages", tmp_path / "chat.jsonl")


def test_pairs_are_checked_counted_and_shown_as_they_are_learned(write: Any) -> None:
    path = write(TRL_ROW, TRL_ROW, {**TRL_ROW, "rejected": "no"}, {**TRL_ROW, "rejected": "hello"})
    report = check_file(path, model="tiny-phi3")
    assert (report.task, report.good, report.bad, report.duplicates) == ("chat", 3, 1, 1)
    assert report.problems[0].reason == "'chosen' and 'rejected' are the same"
    seen = preview_row(path, 1)
    assert seen.rejected is not None
    for side, answer in ((seen, "hello"), (seen.rejected, "go away")):
        assert "".join(token.text for token in side.tokens if token.loss) == f"{answer}<|end|>"
    assert (
        report.tokens.supervised
        == 3 * seen.supervised + 2 * seen.rejected.supervised + preview_row(path, 3).rejected.supervised
    )  # type: ignore[union-attr]


def test_rows_are_read_before_a_run_starts(write: Any) -> None:
    check_rows(spec_of(write(ROW, ROW), "foundry"))
    with pytest.raises(DataError) as caught:
        check_rows(spec_of(write(ROW, {"input": 1}), "foundry"))
    assert caught.value.problems
