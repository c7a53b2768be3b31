"""Rows in the formats of services: every format that training reads, the same rows held out, whole files."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from maas_client.bundled import tuning_module
from maas_client.data.convert import convert_file, held_out_places, plain_text_line
from maas_client.errors import DataError


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def written(
    tmp_path: Path, text: str, task: str, *, name: str = "rows.jsonl", shape: str = "messages"
) -> Any:
    source = tmp_path / name
    source.write_text(text, encoding="utf-8")
    convert_file(source, task, shape, tmp_path / "out.jsonl")  # type: ignore[arg-type]
    return lines(tmp_path / "out.jsonl")


def test_labels_become_the_conversation_that_training_teaches(tmp_path: Path) -> None:
    found = written(tmp_path, '{"text": "Where is it?", "label": "card_arrival"}\n', "classification")
    asked, answered = found[0]["messages"]
    example = tuning_module("rows").parse_row(
        {"text": "Where is it?", "label": "card_arrival"}, "classification"
    )
    assert [asked["role"], answered["role"]] == ["user", "assistant"]
    assert [asked["content"], answered["content"]] == [turn.content for turn in example.messages]


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("ner", {"tokens": ["Zoe", "paid"], "tags": ["B-person", "O"]}),
        ("ner", {"text": "Zoe paid", "entities": [{"start": 0, "end": 3, "label": "person"}]}),
        ("qa", {"context": "It is red.", "question": "Which color?", "answers": ["red", "Red"]}),
        ("translation", {"source": "yes", "target": "oui"}),
        ("summarization", {"document": "A long text.", "summary": "Text."}),
        ("summarization", {"prompt": "A long text.", "completion": "Text."}),
    ],
)
def test_every_task_with_an_answer_becomes_the_turns_that_training_teaches(
    tmp_path: Path, task: str, row: dict[str, Any]
) -> None:
    [found] = written(tmp_path, json.dumps(row) + "\n", task)
    example = tuning_module("rows").parse_row(row, task)
    taught = [{"role": turn.role, "content": turn.content} for turn in example.messages]
    assert found == {"messages": taught}


@pytest.mark.parametrize("task", ["domain", "music", "text-generation"])
def test_tasks_of_plain_text_have_no_conversation(tmp_path: Path, task: str) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "Once upon a time"}\n')
    assert plain_text_line(source, task) == 1


def test_csv_becomes_messages(tmp_path: Path) -> None:
    found = written(tmp_path, 'text,label\n"a, b",c\n', "classification", name="rows.csv")
    assert found[0]["messages"][-1] == {"role": "assistant", "content": "c"}


def test_chat_keeps_roles_weights_tools_and_calls(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    row = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Zoë?"},
            {"role": "assistant", "content": "No.", "weight": 0},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "yes", "tool_call_id": "1"},
            {"role": "assistant", "content": "Yes.", "weight": 1},
        ],
        "tools": [{"type": "function", "function": {"name": "look"}}],
    }
    found = written(tmp_path, json.dumps(row) + "\n", "chat")[0]
    assert found["tools"] == row["tools"]
    turns = found["messages"]
    assert turns[2] == {"role": "assistant", "content": "No.", "weight": 0}
    assert json.loads(turns[3]["tool_calls"][0]["function"]["arguments"]) == {"at": 1}
    assert turns[4]["tool_call_id"] == "1"
    assert turns[5] == {"role": "assistant", "content": "Yes."}
    assert "Zoë" in (tmp_path / "out.jsonl").read_text(encoding="utf-8")


def test_what_was_written_is_read_by_training_as_the_same_rows(tmp_path: Path) -> None:
    rows = tuning_module("rows")
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n')
    convert_file(source, "chat", "messages", tmp_path / "out.jsonl")
    before = [row.example.messages for row in rows.read_rows(source, "chat")]
    assert [row.example.messages for row in rows.read_rows(tmp_path / "out.jsonl", "chat")] == before


def test_prompt_and_completion_stay_what_they_are(tmp_path: Path) -> None:
    text = '{"prompt": "a", "completion": "b"}\n'
    assert written(tmp_path, text, "text-generation", shape="prompt/completion") == [
        {"prompt": "a", "completion": "b"}
    ]


def test_plain_text_is_refused_by_its_line(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('\n{"text": "Once upon a time"}\n')
    assert plain_text_line(source, "text-generation") == 2
    with pytest.raises(DataError, match=r"rows.jsonl, line 2: plain text has no prompt"):
        convert_file(source, "text-generation", "prompt/completion", tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_byte_order_mark_goes_and_none_is_written(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "completion": "b"}\r\n\r\n')
    main, _ = convert_file(source, "chat", "messages", tmp_path / "out.jsonl")
    assert main.path.read_bytes().startswith(b'{"messages"')
    assert main.rows == 1


def test_size_and_hash_are_those_of_the_file(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    main, _ = convert_file(source, "chat", "messages", tmp_path / "out.jsonl")
    data = main.path.read_bytes()
    assert (main.size_bytes, main.sha256, main.rows) == (len(data), hashlib.sha256(data).hexdigest(), 3)


@pytest.mark.parametrize("seed", [7, 8])
@pytest.mark.parametrize(("rows", "share"), [(2, 0.1), (10, 0.1), (101, 0.25)])
def test_the_rows_held_out_are_those_that_training_holds_out(
    tmp_path: Path, rows: int, share: float, seed: int
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(f'{{"prompt": "{n}", "completion": "x"}}\n' for n in range(rows)))
    out, held = tmp_path / "out.jsonl", tmp_path / "held.jsonl"
    main, other = convert_file(source, "chat", "messages", out, held_out=held, share=share, seed=seed)
    rest, held_out = tuning_module("data").hold_out(list(range(rows)), share, seed)
    assert [int(row["messages"][0]["content"]) for row in lines(out)] == rest
    assert [int(row["messages"][0]["content"]) for row in lines(held)] == held_out
    assert other is not None
    assert (main.rows, other.rows) == (len(rest), len(held_out))


def test_a_split_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(DataError, match="No rows are left"):
        convert_file(source, "chat", "messages", tmp_path / "o", held_out=tmp_path / "h", share=0.1, seed=7)
    assert held_out_places(1, 0.1, 7) == {0}


def test_a_bad_row_leaves_no_file(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl: Line 2") as caught:
        convert_file(source, "chat", "messages", tmp_path / "out.jsonl")
    assert "maas data check" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for rows in (200, 4000):
        source = tmp_path / f"{rows}.jsonl"
        text = "word " * 100
        source.write_text("".join(f'{{"prompt": "{n} {text}", "completion": "x"}}\n' for n in range(rows)))
        tracemalloc.start()
        convert_file(source, "chat", "messages", tmp_path / "o", held_out=tmp_path / "h", share=0.1, seed=7)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000
