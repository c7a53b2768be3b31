"""Data files of every kind: found out by name and content, read row by row, every fault with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuning.datafile import DataError, kind_of, open_data, read_records
from tuning.rows import RowError, read_rows
from tuning.textfile import PASSAGE_CHARACTERS

SHARED = Path(__file__).parents[3] / "shared" / "data"
CONLL = "-DOCSTART- -X- O O\n\n# id 1\nAda NNP B-person\nsings VBZ O\n\n\t\nin\tO\nOslo\tB-place\n"
ABC = "% a file of tunes\n\nX: 1\nT:One\n% a remark\nK:G\nGAB|\n\nsome words\n\nX:2\nK:D\nd|\nX:3\nK:C\nc|\n"


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("rows.jsonl", '{"text": "a"}\n', "json"),
        ("rows.jsonl", "hello\nworld\n", "json"),
        ("rows", '{"text": "a"}\n', "json"),
        ("rows.jsonl", "text,label\na,b\n", "csv"),
        ("rows.csv", "a\n", "csv"),
        ("rows.tsv", "one\teins\n", "tsv"),
        ("rows.conll", "Ada B-x\n", "conll"),
        ("train.txt", CONLL, "conll"),
        ("emerging.annotated", CONLL, "conll"),
        ("tunes.abc", "T:x\n", "abc"),
        ("tunes.txt", "X:1\nT:x\nK:G\n", "abc"),
        ("book.txt", "We got an O\nand went home.\n", "prose"),
        ("book.txt", "Once.\n\nTwice.\n", "prose"),
    ],
)
def test_the_kind_of_a_file(tmp_path: Path, name: str, content: str, kind: str) -> None:
    path = write(tmp_path, name, "\n" + content if kind == "json" else content)
    with open_data(path) as stream:
        assert kind_of(path, stream) == kind
        assert stream.tell() == 0


def test_conll_gives_sentences_with_their_lines(tmp_path: Path) -> None:
    assert list(read_records(write(tmp_path, "train.txt", CONLL))) == [
        (3, {"tokens": ["Ada", "sings"], "tags": ["B-person", "O"]}),
        (8, {"tokens": ["in", "Oslo"], "tags": ["O", "B-place"]}),
    ]


def test_conll_tells_the_line_without_a_tag(tmp_path: Path) -> None:
    path = write(tmp_path, "train.conll", "Ada B-person\nsings\n\nin O\nOslo place\n\nx O\n")
    found = list(read_records(path))
    assert [line for line, _ in found] == [2, 5, 7]
    assert isinstance(found[0][1], RowError)
    assert found[0][1].reason == "found 'one column', expected a token and its tag (O, B-label or I-label)"
    with pytest.raises(RowError, match="Line 2: found 'one column'"):
        list(read_rows(path, "ner"))


def test_abc_gives_tunes_without_what_stands_between(tmp_path: Path) -> None:
    assert list(read_records(write(tmp_path, "tunes.abc", ABC))) == [
        (3, {"text": "X: 1\nT:One\nK:G\nGAB|"}),
        (11, {"text": "X:2\nK:D\nd|"}),
        (14, {"text": "X:3\nK:C\nc|"}),
    ]


def test_tsv_without_a_header_is_source_and_target(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.tsv", 'one "two"\teins "zwei"\r\n\nx\ny\tz\tw\n')
    found = list(read_records(path))
    assert found[0] == (1, {"source": 'one "two"', "target": 'eins "zwei"'})
    assert [(line, str(fault)) for line, fault in found[1:]] == [
        (3, "Line 3: 1 columns, expected 2 with a tab between."),
        (4, "Line 4: 3 columns, expected 2 with a tab between."),
    ]


def test_a_header_names_the_columns_of_any_format(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.tsv", "id\tlabel\ttext\n1\ta\tone\n")
    assert list(read_records(path)) == [(2, {"text": "one", "label": "a"})]
    table = write(tmp_path, "rows.csv", 'Question,Context,Answer\n"Who, now?",Ada sings,Ada\n')
    row = {"context": "Ada sings", "question": "Who, now?", "answer": "Ada"}
    assert list(read_records(table)) == [(2, row)]
    assert next(read_rows(table, "qa")).example.answers == ("Ada",)


def test_a_table_without_the_columns_of_a_row_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", "question,answer\na,b\n")
    with pytest.raises(DataError, match="columns are 'question,answer'; a CSV file needs the header of one"):
        list(read_records(path))


def test_prose_is_put_together_to_passages(tmp_path: Path) -> None:
    long = "\n".join(f"line {number} of a long paragraph" for number in range(200))
    content = f"First.\nStill first.\n\n\nSecond.\n\n{long}\n\nLast.\n"
    found = list(read_records(write(tmp_path, "book.txt", content)))
    texts = [str(row["text"]) for _, row in found if isinstance(row, dict)]
    assert texts[0] == "First.\nStill first.\n\nSecond."
    assert all(len(text) <= PASSAGE_CHARACTERS for text in texts)
    assert "\n".join(texts).split() == content.split()
    assert [line for line, _ in found][:2] == [1, 7]


def test_a_line_that_is_no_text_is_named(tmp_path: Path) -> None:
    for name in ("train.conll", "tunes.abc", "book.txt", "rows.tsv"):
        path = write(tmp_path, name, b"X:1 O\n\nbad \xff O\n")
        faults = [(line, str(row)) for line, row in read_records(path) if isinstance(row, RowError)]
        assert (3, "Line 3: not UTF-8: byte 0xff at position 5.") in faults


@pytest.mark.parametrize(
    ("name", "task", "rows"),
    [
        ("banking77/train.csv", "classification", 10_003),
        ("gsm8k-chat/train.jsonl", "chat", 449),
        ("tool-calling/train.jsonl", "chat", 86),
        ("wnut17/train.conll", "ner", 3394),
        ("wnut17/dev.conll", "ner", 1009),
        ("nottingham/jigs.abc", "music", 340),
        ("nottingham/waltzes.abc", "music", 52),
    ],
)
def test_real_files_are_read_as_they_are(name: str, task: str, rows: int) -> None:
    if not (SHARED / name).is_file():
        pytest.skip("the dataset is not on this machine")
    assert sum(1 for _ in read_rows(SHARED / name, task)) == rows
