"""Held-out rows that are training rows too: counted, named, and an error where nothing else is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuning.config import parse_config
from tuning.contamination import find_repeats
from tuning.data import load_data
from tuning.errors import InputError
from tuning.models import load_tokenizer
from tuning.rows import Row, parse_row

TINY_PHI3 = Path(__file__).parents[2] / "models" / "tiny-phi3"


def rows(*texts: str, first: int = 1) -> list[Row]:
    return [
        Row(line, parse_row({"text": text, "label": "a"}, "classification"))
        for line, text in enumerate(texts, first)
    ]


def test_repeats_are_counted_apart_and_named_by_line() -> None:
    train = rows("My card is late", "I lost it", "Where is it?", "my CARD is late.")
    held_out = rows("I lost it", "my  card is late!", "Something else", "where is it", first=11)
    found = find_repeats(train, held_out)
    assert (found.exact, found.normalized, found.held_out) == (1, 2, 4)
    assert found.lines == ((11, 2), (12, 1), (14, 3))
    assert "3 of 4 held-out rows" in found.sentence()
    assert "lines 11 = 2, 12 = 1, 14 = 3" in found.sentence()
    assert not found.is_total


def test_another_label_is_another_row() -> None:
    other = Row(1, parse_row({"text": "x", "label": "b"}, "classification"))
    assert find_repeats(rows("x"), [other]).rows == 0


def test_signs_alone_are_compared_as_they_are() -> None:
    assert find_repeats(rows("?!"), rows("!?")).rows == 0
    assert find_repeats(rows("?!"), rows("?!")).exact == 1


def test_calculations_that_differ_in_a_sign_are_different() -> None:
    assert find_repeats(rows("3 + 4"), rows("3 - 4")).rows == 0


def test_no_held_out_rows_are_no_contamination() -> None:
    found = find_repeats(rows("x"), [])
    assert (found.rows, found.is_total) == (0, False)


def test_a_validation_file_of_training_rows_is_an_error(tmp_path: Path) -> None:
    config = parse_config({"task": "classification"})
    train, held_out = tmp_path / "train.csv", tmp_path / "held-out.csv"
    train.write_text("text,label\none,a\ntwo,b\n")
    held_out.write_text("text,label\nTwo,b\n")
    tokenizer = load_tokenizer(str(TINY_PHI3))
    with pytest.raises(InputError, match=r"Every held-out row .* \(line 2 is line 3\)"):
        load_data(train, held_out, config, tokenizer)
    held_out.write_text("text,label\nTwo,b\nthree,c\n")
    data = load_data(train, held_out, config, tokenizer)
    assert data.contamination.rows == 1
    assert data.warnings() == [
        "1 of 2 held-out rows are among the training rows too (0 word for word; lines 2 = 3): "
        "what is measured on them says little.",
        "Labels of held-out rows that no training row has: c.",
    ]
