"""The fast path: what it accepts, tuning.rows accepts, with the same numbers."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.data.duplicates import row_key
from maas_client.data.fast import FORMATS, FastReader
from maas_client.data.tokens import estimated_bytes
from tuning import rows
from tuning.rows import parse_row
from tuning.tasks import PREFERENCES

TASKS = {
    "chat": "chat",
    "prompt/completion": "translation",  # the task with a prompt of its own says more than one without
    "text/label": "classification",
    "text": "text-generation",
    "source/target": "translation",
    "document/summary": "summarization",
    "context/question/answers": "qa",
}
TEXT = st.text(max_size=5) | st.sampled_from(
    ["", " ", "\n", "\u2003", "x", "é", "\ud800", "Translate:\n", "Translate:\nx", "Summarize:\n y"]
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "assistant", "tool", "asistant"]),
        "content": TEXT,
    },
    optional={"weight": st.sampled_from([0, 1, 2, True, 1.0, None]), "name": TEXT, "tool_calls": st.just([])},
)
ROWS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "chat": st.fixed_dictionaries(
        {"messages": st.lists(MESSAGE, max_size=4)}, optional={"tools": st.just([]), "tool": st.just(1)}
    ),
    "prompt/completion": st.fixed_dictionaries({"prompt": TEXT, "completion": TEXT}, optional={"text": TEXT}),
    "text/label": st.fixed_dictionaries(
        {"text": TEXT}, optional={"label": TEXT | st.integers(), "category": TEXT}
    ),
    "text": st.fixed_dictionaries({"text": TEXT | st.none()}, optional={"label": TEXT}),
    "source/target": st.fixed_dictionaries({"source": TEXT, "target": TEXT}, optional={"text": TEXT}),
    "document/summary": st.fixed_dictionaries({"document": TEXT, "summary": TEXT}, optional={"id": TEXT}),
    "context/question/answers": st.fixed_dictionaries(
        {"context": TEXT, "question": TEXT},
        optional={"answers": st.lists(TEXT, max_size=3) | TEXT, "answer": TEXT},
    ),
}


def test_every_format_is_read_fast_or_said_to_be_slow() -> None:
    assert FORMATS | {"tokens/tags", "text/entities", *PREFERENCES} == set(rows.FORMATS)
    assert set(TASKS) == set(ROWS) == FORMATS


@pytest.mark.parametrize("row_format", sorted(TASKS))
@given(data=st.data())
def test_what_the_fast_path_accepts_is_a_row_with_the_same_numbers(
    row_format: str, data: st.DataObject
) -> None:
    made = data.draw(st.lists(ROWS[row_format], min_size=1, max_size=3))
    block = b"".join(json.dumps(row).encode() + b"\n" for row in made)
    read = FastReader(row_format, TASKS[row_format]).read(block, len(made))
    if read is None:
        return
    roles: Counter[str] = Counter()
    for row, size, key in zip(made, read.sizes, read.keys, strict=True):
        if size != -1:
            example = parse_row(row, TASKS[row_format])
            assert size == estimated_bytes(example)
            assert key == row_key(example)
            roles.update(turn.role for turn in example.messages)
    assert +read.roles == roles


def chat(*contents: str) -> bytes:
    roles = ["user", "assistant"] * len(contents)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return json.dumps({"messages": messages}).encode() + b"\n"


def test_plain_rows_take_the_fast_path() -> None:
    read = FastReader("chat", "chat").read(chat("Hi", "Hello") + chat("Hi", "Hé", "Hi", "Hello"), 2)
    assert read is not None
    assert read.sizes == [7 + 2 * 14, 12 + 4 * 14]
    assert read.roles == Counter(user=3, assistant=3, system=0)


@pytest.mark.parametrize("contents", [("Hi", " "), ("Hi", "Hello", "Hi"), ("Hi", "Hello", " ", "Hi")])
def test_a_row_that_needs_a_look_does_not_spoil_the_others(contents: tuple[str, ...]) -> None:
    read = FastReader("chat", "chat").read(chat("Hi", "Hello") + chat(*contents), 2)
    assert read is not None
    assert read.sizes[0] == 35
    assert (read.sizes[1] == -1) == (contents == ("Hi", " "))


def test_a_blank_line_or_broken_text_is_left_to_the_slow_path() -> None:
    reader = FastReader("chat", "chat")
    assert reader.read(chat("Hi", "Hello") + b"\n", 2) is None
    assert reader.read(chat("Hi", "Hello").replace(b"Hi", b"\xff"), 1) is None
    assert reader.read(b"[" * 100_000, 1) is None
