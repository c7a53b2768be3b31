"""Files gathered into one: rows as they are, lines side by side, and the chat that training sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maas_client.data.gathering import gather, gather_chats, gather_pairs
from maas_client.errors import DataError, UsageError
from tuning.rows import read_rows

TUNE = "X:1\nT:One\nK:G\nGAB|\n"
SHARED = Path(__file__).parents[3] / "shared" / "data"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_several_files_become_one(tmp_path: Path) -> None:
    first = write(tmp_path / "a.abc", f"{TUNE}\n{TUNE}")
    second = write(tmp_path / "b.abc", TUNE.replace("One", "Zwölf"))
    written = gather([first, second], tmp_path / "new" / "all.jsonl")
    assert (written.rows, written.size_bytes) == (3, written.path.stat().st_size)
    assert [row["text"].split("\n")[1] for row in rows_of(written.path)] == ["T:One", "T:One", "T:Zwölf"]
    assert len(list(read_rows(written.path, "music"))) == 3


def test_two_files_of_lines_become_pairs(tmp_path: Path) -> None:
    source, target = write(tmp_path / "a.en", "One.\n\nTwo.\n"), write(tmp_path / "a.de", "Eins.\n\nZwei.\n")
    written = gather_pairs(source, target, tmp_path / "pairs.jsonl")
    assert rows_of(written.path) == [
        {"source": "One.", "target": "Eins."},
        {"source": "Two.", "target": "Zwei."},
    ]


@pytest.mark.parametrize(
    ("target", "reason"),
    [("Eins.\n", "a.de ends before line 2"), ("Eins.\n \n", "a.de, line 2: the line is blank")],
)
def test_files_that_do_not_match_are_one_sentence(tmp_path: Path, target: str, reason: str) -> None:
    source, other = write(tmp_path / "a.en", "One.\nTwo.\n"), write(tmp_path / "a.de", target)
    with pytest.raises(DataError, match=reason):
        gather_pairs(source, other, tmp_path / "pairs.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.de", "a.en"]


def test_rows_become_the_chat_that_training_sees(tmp_path: Path) -> None:
    path = write(tmp_path / "train.conll", "in O\nOslo B-place\n")
    written = gather_chats([path], tmp_path / "chat.jsonl")
    (row,) = rows_of(written.path)
    assert [turn["content"] for turn in row["messages"]] == ["Name the entities:\nin Oslo", "place: Oslo"]
    again = next(read_rows(written.path, "chat")).example
    assert again.messages == next(read_rows(path, "ner")).example.messages


def test_what_cannot_be_read_is_named_by_its_line(tmp_path: Path) -> None:
    into = tmp_path / "all.jsonl"
    mixed = write(tmp_path / "mixed.jsonl", '{"text": "a"}\n{"prompt": "b", "completion": "c"}\n')
    with pytest.raises(DataError, match=r"mixed.jsonl, line 2: a prompt/completion row among text rows"):
        gather([mixed], into)
    with pytest.raises(DataError, match=r"bad.conll, line 2: found 'one column'"):
        gather([write(tmp_path / "bad.conll", "a O\nb\n")], into)
    with pytest.raises(DataError, match="There is no file"):
        gather([tmp_path / "nothing.abc"], into)
    with pytest.raises(UsageError, match="is there already"):
        gather([mixed], mixed)
    assert not into.exists()


def test_parallel_texts_of_the_shared_data_are_read(tmp_path: Path) -> None:
    folder = SHARED / "multi30k"
    if not folder.is_dir():
        pytest.skip("the dataset is not on this machine")
    written = gather_pairs(folder / "val.en", folder / "val.de", tmp_path / "val.jsonl")
    assert written.rows == 1014
    assert sum(1 for _ in read_rows(written.path, "translation")) == 1014
