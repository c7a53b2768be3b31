"""Named entities: tags of every scheme, and the compact text that is read back as it was written."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.entities import (
    Entity,
    MarkedText,
    from_tags,
    is_label,
    read_entities,
    to_tags,
    write_entities,
)
from tuning.rows import RowError, parse_row, read_rows

WNUT = Path(__file__).parents[3] / "shared" / "data" / "wnut17" / "dev.conll"
LABELS = st.sampled_from(["person", "place", "creative-work", "B 2"])


@st.composite
def marked_texts(draw: st.DrawFn) -> MarkedText:
    """A text of few letters, so that words recur, with entities anywhere in it."""
    text = draw(st.text(st.sampled_from("ab \n.é#1:"), min_size=1, max_size=30))
    borders = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    entities = []
    for start, end in pairwise(borders):
        words = text[start:end]
        if words.strip() and draw(st.booleans()):
            trimmed = (end - len(words.lstrip()), start + len(words.rstrip()))
            entities.append(Entity(*trimmed, draw(LABELS)))
    return MarkedText(text, tuple(entities))


@settings(deadline=None)
@given(marked=marked_texts())
def test_what_is_written_is_read_back(marked: MarkedText) -> None:
    assert tuple(read_entities(write_entities(marked), marked.text)) == marked.entities


@settings(deadline=None)
@given(answer=st.text(st.sampled_from("ab :#2\nnone"), max_size=40), text=st.text("ab 2:", max_size=20))
def test_any_answer_names_entities_that_are_apart(answer: str, text: str) -> None:
    found = read_entities(answer, text)
    assert all(first.end <= second.start for first, second in pairwise(found))
    tags = to_tags(max([len(text), *(entity.end for entity in found)]), found)
    assert sum(tag.startswith("B-") for tag in tags) == len(found)


def test_the_first_place_that_cuts_no_word_is_meant() -> None:
    text = "a bus took us to Us street"
    start = text.index(" us ") + 1
    marked = MarkedText(text, (Entity(start, start + 2, "org"),))
    assert write_entities(marked) == "org: us"
    inside = MarkedText(text, (Entity(3, 5, "org"),))
    assert write_entities(inside) == "org #2: us"


def test_what_is_not_in_the_text_counts_as_named() -> None:
    found = read_entities("person: Ada\nperson: Eve\nplace: Ada", "Ada sings")
    assert found == [Entity(0, 3, "person"), Entity(10, 11, "person"), Entity(12, 13, "place")]
    assert read_entities("none", "Ada sings") == []
    assert write_entities(MarkedText("Ada sings", ())) == "none"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-x I-x O B-x", [(1, 3, "x"), (4, 5, "x")]),  # IOB2
        ("O I-x I-x O I-y", [(1, 3, "x"), (4, 5, "y")]),  # IOB1
        ("S-x B-x E-x O U-y", [(0, 1, "x"), (1, 3, "x"), (4, 5, "y")]),  # BIOES and BILOU
        ("B-x I-y I-y L-y I-y", [(0, 1, "x"), (1, 4, "y"), (4, 5, "y")]),
    ],
)
def test_tags_of_every_scheme(tags: str, expected: list[tuple[int, int, str]]) -> None:
    marked = from_tags(list("abcde"), tags.split())
    assert marked.text == "a b c d e"
    assert marked.entities == tuple(Entity(2 * first, 2 * last - 1, label) for first, last, label in expected)


@pytest.mark.parametrize("label", ["a: b", "x #2", " x", "x\ny", "", "a:b"])
def test_a_label_that_could_not_be_read_back_is_none(label: str) -> None:
    assert not is_label(label)


BAD_ROWS: list[tuple[dict[str, object], str]] = [
    ({"tokens": ["a"], "tags": ["O", "O"]}, "1 tokens but 2 tags"),
    ({"tokens": ["a"], "tags": ["PER"]}, "tag 'PER' is neither O nor B-label or I-label"),
    ({"tokens": ["a"], "tags": [3]}, "'tags' must be a list of texts"),
    ({"tokens": [], "tags": []}, "'tokens' must be a list of texts"),
    ({"tokens": ["a", " "], "tags": ["O", "O"]}, "token 2 is empty"),
    ({"tokens": ["a"]}, "'tags' must be a list of texts"),
    ({"text": "Ada", "entities": {}}, "'entities' must be a list, found an object"),
    ({"text": "Ada", "entities": [{"start": 0, "end": 9, "label": "x"}]}, "expected 0 to 3"),
    ({"text": "Ada", "entities": [{"start": True, "end": 2, "label": "x"}]}, "entity 1 has start"),
    ({"text": "Ada", "entities": [{"start": 0, "end": 2}]}, "entity 1 has no label"),
    ({"text": "A a", "entities": [{"start": 1, "end": 2, "label": "x"}]}, "has no words, only spaces"),
    ({"text": "Ada", "entities": [{"start": 0, "end": 3, "label": "x:y"}]}, "label 'x:y' cannot be written"),
    (
        {"text": "Ada", "entities": [{"start": s, "end": 3, "label": "x"} for s in (0, 1)]},
        "entities 'Ada' and 'da' overlap",
    ),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS, ids=[reason[:30] for _, reason in BAD_ROWS])
def test_a_bad_row_is_refused_with_its_reason(row: dict[str, object], reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_row(row, "ner")
    assert reason in caught.value.reason


def test_spaces_around_an_entity_are_none_of_it() -> None:
    example = parse_row({"text": " Ada sings", "entities": [{"start": 0, "end": 5, "label": "x"}]}, "ner")
    assert example.marked is not None
    assert example.marked.entities == (Entity(1, 4, "x"),)
    assert [turn.content for turn in example.messages] == ["Name the entities:\n Ada sings", "x: Ada"]


def test_real_entities_are_read_back() -> None:
    if not WNUT.is_file():
        pytest.skip("the dataset is not on this machine")
    rows = list(read_rows(WNUT, "ner"))
    assert len(rows) == 1009
    for row in rows:
        marked = row.example.marked
        assert marked is not None
        assert tuple(read_entities(row.example.messages[1].content, marked.text)) == marked.entities
