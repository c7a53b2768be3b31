"""Training rows: what is accepted, what each fault is called, and files that are no data files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.datafile import LINE_LIMIT_BYTES
from tuning.rows import TASKS, DataError, Message, RowError, parse_row, read_rows

USER = {"role": "user", "content": "Hello"}
ANSWER = {"role": "assistant", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


def call(name: str = "weather", arguments: object = '{"city": "Oslo"}') -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def chat(*messages: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_chat_row_keeps_its_turns_and_gives_weight_to_answers() -> None:
    example = parse_row(chat({"role": "system", "content": "Be kind"}, USER, ANSWER), "chat")
    assert example.messages == (
        Message("system", "Be kind"),
        Message("user", "Hello"),
        Message("assistant", "Hi", weight=1),
    )


def test_weight_0_takes_the_loss_away() -> None:
    example = parse_row(chat(USER, {**ANSWER, "weight": 0}, USER, ANSWER), "chat")
    assert [turn.weight for turn in example.messages] == [0, 0, 0, 1]


def test_prompt_and_completion_become_a_turn_each() -> None:
    for task in ("chat", "text-generation"):
        example = parse_row({"prompt": "2+2=", "completion": " 4"}, task)
        assert example.messages == (Message("user", "2+2="), Message("assistant", " 4", weight=1))


def test_a_label_is_the_answer_to_its_text() -> None:
    example = parse_row({"text": "Where is my card?", "label": "card_arrival"}, "classification")
    assert example.messages == (
        Message("user", "Where is my card?"),
        Message("assistant", "card_arrival", weight=1),
    )
    assert example.label == "card_arrival"
    assert parse_row({"text": "x", "category": 3}, "classification").label == "3"


def test_plain_text_has_no_messages() -> None:
    example = parse_row({"text": "X:1\nK:G"}, "text-generation")
    assert (example.messages, example.text) == ((), "X:1\nK:G")


def test_tool_calls_are_read_with_their_arguments_as_objects() -> None:
    asked = {"role": "assistant", "tool_calls": [call()]}
    result = {"role": "tool", "content": "cold", "tool_call_id": "call_1"}
    example = parse_row(chat(USER, asked, result, ANSWER, tools=[TOOL]), "chat")
    assert example.tools == (TOOL,)
    assert example.messages[1].tool_calls is not None
    assert example.messages[1].tool_calls[0]["function"]["arguments"] == {"city": "Oslo"}
    assert example.messages[1].content == ""
    assert example.messages[2].tool_call_id == "call_1"


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert parse_row(chat({"role": "user", "content": parts}, ANSWER), "chat").messages[0] == Message(
        "user", "Hello"
    )


BAD_CHATS: list[tuple[object, str, str]] = [
    ([1], "expected a JSON object, found a list", "wrong shape"),
    ({}, "found no keys", "unknown key"),
    ({"mesages": []}, "did you mean 'messages'", "unknown key"),
    ({"foo": 1}, "found 'foo', expected 'messages'", "unknown key"),
    (chat(USER, ANSWER, prompt="x"), "keys of two formats", "two formats"),
    (chat(USER, ANSWER, tool=[TOOL]), "did you mean 'tools'", "unknown key"),
    (chat(), "at least one message", "wrong shape"),
    ({"messages": "Hello"}, "must be a list", "wrong shape"),
    (
        chat(USER, {**ANSWER, "role": "asistant"}),
        "message 2 has role 'asistant' (did you mean 'assistant'?)",
        "",
    ),
    (chat({"content": "x"}, ANSWER), "message 1 has no role", "unknown role"),
    (chat(USER, {**ANSWER, "wieght": 0}), "did you mean 'weight'", "unknown key"),
    (chat(USER, {**ANSWER, "weight": 2}), "weight '2'; accepted: 0 or 1", "wrong weight"),
    (chat(USER, {**ANSWER, "weight": True}), "weight 'true'", "wrong weight"),
    (chat({**USER, "weight": 1}, ANSWER), "not from the assistant", "wrong weight"),
    (chat(USER), "no token carries loss: there is no assistant turn", "no loss"),
    (chat(USER, {**ANSWER, "weight": 0}), "every assistant turn has weight 0", "no loss"),
    (chat(ANSWER, USER), "answers nothing", "turn order"),
    (chat(USER, {"role": "assistant", "content": " \n"}), "message 2 is an empty answer", "empty answer"),
    (chat(USER, {"role": "assistant"}), "message 2 has no content", "no content"),
    (chat({"role": "user", "content": 5}, ANSWER), "content of type a number", "no content"),
    (
        chat({"role": "user", "content": [{"type": "image_url"}]}, ANSWER),
        "'image_url'; only text",
        "wrong shape",
    ),
    (
        chat(USER, {"role": "assistant", "tool_calls": [call(arguments="{")]}),
        "not valid JSON",
        "wrong tool call",
    ),
    (chat(USER, {"role": "assistant", "tool_calls": [call(arguments="[1]")]}), "must be a JSON object", ""),
    (
        chat(USER, {"role": "assistant", "tool_calls": [call("stock")]}, tools=[TOOL]),
        "calls 'stock', not one",
        "",
    ),
    (chat(USER, {"role": "assistant", "tool_calls": [{}]}), "no function with a name", "wrong tool call"),
    (chat({**USER, "tool_calls": [call()]}, ANSWER), "has tool_calls but is not", "wrong tool call"),
    (chat(USER, ANSWER, tools={}), "'tools' must be a list", "wrong tools"),
    (chat(USER, ANSWER, tools=[{"name": "x"}]), "tool 1 has no function with a name", "wrong tools"),
    (chat(USER, {"role": "tool", "content": "cold"}, ANSWER), "no tool call asked for", "turn order"),
    (chat({"role": "user", "content": "\ud83d"}, ANSWER), "half of a surrogate pair", "not UTF-8"),
    ({"prompt": "x"}, "'completion' is missing", "no content"),
    ({"prompt": "x", "completion": ""}, "'completion' is empty", "empty answer"),
    (
        {"text": "x"},
        "a text row cannot be used for task chat (accepted: chat or prompt/completion)",
        "wrong format",
    ),
]


@pytest.mark.parametrize(
    ("row", "reason", "kind"), BAD_CHATS, ids=[reason[:40] for _, reason, _ in BAD_CHATS]
)
def test_a_bad_row_is_refused_with_its_reason(row: object, reason: str, kind: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_row(row, "chat")
    assert reason in caught.value.reason
    assert kind in ("", caught.value.kind)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "x", "label": " "}, "'label' is empty"),
        ({"text": "x", "label": True}, "'label' must be text, found true or false"),
        ({"text": "x", "label": "a", "category": "b"}, "keep one"),
        ({"label": "a"}, "'text' is missing"),
        (chat(USER, ANSWER), "a chat row cannot be used for task classification"),
    ],
)
def test_a_bad_label_is_refused(row: object, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_row(row, "classification")
    assert reason in caught.value.reason


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "weight", "messages", "tools", "text", "label", "function", "name"]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(row=JSON_VALUES, task=st.sampled_from(TASKS))
def test_any_json_is_an_example_or_a_row_error(row: object, task: str) -> None:
    try:
        example = parse_row(row, task)
    except RowError:
        return
    assert example.text or any(turn.weight for turn in example.messages)


def test_rows_come_with_their_lines_whatever_ends_and_precedes_them(tmp_path: Path) -> None:
    row = json.dumps(chat(USER, ANSWER)).encode()
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + row + b"\r\n\r\n" + row + b"\r\n" + row)
    assert [row.line for row in read_rows(path, "chat")] == [1, 3, 4]


@pytest.mark.parametrize("header", ["text,label", "Text,Category", '"text","label"', "id,label,text"])
def test_csv_is_read_by_its_header(tmp_path: Path, header: str) -> None:
    order = [name.strip('"').lower() for name in header.split(",")]
    values = {"id": "1", "text": '"late, my\ncard"', "label": "card_arrival", "category": "card_arrival"}
    line = ",".join(values[name] for name in order)
    path = tmp_path / "rows.csv"
    path.write_text(f"{header}\n{line}\n\n{line}\n", encoding="utf-8-sig")
    rows = list(read_rows(path, "classification"))
    assert [row.line for row in rows] == [2, 5]
    assert rows[0].example.messages[0].content == "late, my\ncard"
    assert rows[0].example.label == "card_arrival"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n \n", "has no rows, only blank lines"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b'{"messages"\x00', "a binary file"),
        ('{"text": "x"}'.encode("utf-16"), "is UTF-16 text"),
        (b'[{"text": "x"}]', "one JSON list"),
    ],
)
def test_a_file_that_is_no_data_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        list(read_rows(path, "chat"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        list(read_rows(tmp_path / "nothing.jsonl", "chat"))
    with pytest.raises(DataError, match="is a folder"):
        list(read_rows(tmp_path, "chat"))


def test_wrong_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\na,b\n", encoding="utf-8")
    with pytest.raises(DataError, match="The columns are 'question,answer'"):
        list(read_rows(path, "classification"))


def test_mixed_formats_are_refused_at_the_line_where_they_begin(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", chat(USER, ANSWER), {"prompt": "x", "completion": "y"})
    with pytest.raises(DataError, match="Line 2: a prompt/completion row among chat rows"):
        list(read_rows(path, "chat"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"messages": ', "Line 2: not JSON"),
        (b'{"text": "\xff"}', "Line 2: not UTF-8: byte 0xff at position 11"),
        (b'{"text": "\\ud83d"}', "Line 2: half of a surrogate pair"),
        (b"[" * 100_000, "Line 2: not JSON that can be read"),
        (b'{"text": ' + b"9" * 5000 + b"}", "Line 2: not JSON that can be read"),
        (b'{"text": ""}', "Line 2: 'text' is empty"),
        (b'"' + b"x" * LINE_LIMIT_BYTES + b'"', "Line 2: the line is longer than 16 MB"),
    ],
    ids=["cut", "latin-1", "surrogate", "deep", "number", "empty", "long"],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' + line + b'\n{"text": "fine"}\n')
    with pytest.raises(RowError, match=reason):
        list(read_rows(path, "text-generation"))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (b"late,card,more\n", "Line 2: 3 columns, the header has 2"),
        (b'"late,card\n', "Line 2: not CSV: .*quote left open"),
        (b"late\xff,card\n", "Line 2: not UTF-8: byte 0xff at position 5"),
        (b"late,\n", "Line 2: 'label' is empty"),
    ],
)
def test_a_bad_csv_line_is_named(tmp_path: Path, lines: bytes, reason: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\n" + lines)
    with pytest.raises(RowError, match=reason):
        list(read_rows(path, "classification"))
