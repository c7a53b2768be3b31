"""Previews: the tokens of one row, their loss, and where max_length cuts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maas_client.bundled import model_folder
from maas_client.data import preview_row
from maas_client.data.preview import render
from maas_client.errors import DataError

pytestmark = pytest.mark.skipif(model_folder("tiny-phi3") is None, reason="the tiny model is not built")

CHAT = {
    "messages": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi! \U0001f600"},
        {"role": "user", "content": "More"},
        {"role": "assistant", "content": "No.", "weight": 0},
        {"role": "user", "content": "Please"},
        {"role": "assistant", "content": "Yes."},
    ]
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(CHAT) + "\n\n" + json.dumps({"messages": []}) + "\n", encoding="utf-8")
    return path


def test_runs_show_the_text_that_carries_loss(path: Path) -> None:
    seen = preview_row(path, 1)
    assert [run.text for run in seen.runs if run.loss] == ["Hi! \U0001f600<|end|>", "Yes.<|end|>"]
    assert sum(token.loss for token in seen.tokens) == seen.supervised
    assert (seen.row, seen.line, seen.truncated, seen.model) == (1, 1, False, "tiny-phi3")
    assert json.loads(json.dumps(seen.to_dict()))["tokens"][0]["loss"] is False


def test_without_color_loss_is_in_brackets(path: Path) -> None:
    shown = render(preview_row(path, 1), color=False)
    assert "「Hi! \U0001f600<|end|>」" in shown.plain
    assert "No.<|end|>" in shown.plain
    assert "「No." not in shown.plain


def test_in_color_loss_is_green_and_the_rest_dim(path: Path) -> None:
    shown = render(preview_row(path, 1), color=True)
    styles = {shown.plain[span.start : span.end]: span.style for span in shown.spans}
    assert styles["Yes.<|end|>"] == "bold green"
    assert "「" not in shown.plain.split("\n\n")[0]


def test_what_max_length_cuts_off_is_marked(path: Path) -> None:
    whole = preview_row(path, 1)
    seen = preview_row(path, 1, max_length=len(whole.tokens) - 2)
    assert seen.truncated
    assert [token.cut for token in seen.tokens[-3:]] == [False, True, True]
    assert seen.supervised == whole.supervised - 2
    shown = render(seen, color=False).plain
    assert shown.count("⟨cut here⟩") == 1
    assert "2 cut off" in shown


def test_csv_and_plain_text_are_previewed(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("text,label\nlate,card\n", encoding="utf-8")
    assert [run.text for run in preview_row(table, 1).runs if run.loss] == ["card<|end|>"]
    text = tmp_path / "rows.jsonl"
    text.write_text('{"text": "la la"}\n', encoding="utf-8")
    assert [run.loss for run in preview_row(text, 1).runs] == [True]


def test_a_template_of_ones_own_is_previewed(path: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text(
        "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    seen = preview_row(path, 1, chat_template=own)
    assert [run.text for run in seen.runs if run.loss] == ["Hi! \U0001f600<|endoftext|>", "Yes.<|endoftext|>"]
    with pytest.raises(DataError, match="Cannot read the chat template"):
        preview_row(path, 1, chat_template=tmp_path / "nothing.jinja")


def test_a_document_that_is_split_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("A long story about a garden. " * 20)
    seen = preview_row(path, 1, max_length=16)
    assert (seen.task, seen.truncated, seen.max_length) == ("domain", False, None)


@pytest.mark.parametrize(
    ("number", "reason"),
    [(2, r"Row 2 \(line 3\) is bad: 'messages' must"), (3, "There is no row 3; .* has 2 rows")],
)
def test_a_bad_or_missing_row_is_one_sentence(path: Path, number: int, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        preview_row(path, number)


def test_a_model_that_is_not_on_disk_is_one_sentence(path: Path) -> None:
    with pytest.raises(DataError, match="tokenizer of microsoft/no-such-model-here is not on this disk"):
        preview_row(path, 1, model="microsoft/no-such-model-here")
