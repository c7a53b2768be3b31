"""Metrics: the numbers of the libraries, sums that give the same numbers again, and what tunes are."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.datafile import read_records
from tuning.entities import Entity, from_tags, read_entities
from tuning.metrics import sums
from tuning.metrics.abc_notation import header_of, read_tune
from tuning.metrics.answers import exact_match, word_f1
from tuning.metrics.labels import accuracy, label_table, macro_f1
from tuning.metrics.spans import span_scores
from tuning.metrics.summaries import summary_scores
from tuning.metrics.tokens import token_metrics
from tuning.metrics.translations import chrf, translation_scores
from tuning.metrics.tunes import tune_scores

NOTTINGHAM = Path(__file__).parents[3] / "shared" / "data" / "nottingham"


def total(parts: list[list[float]]) -> torch.Tensor:
    return torch.tensor(parts, dtype=torch.float64).sum(0, keepdim=True)


def test_labels() -> None:
    pairs = [("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("c", "a")]
    assert accuracy(pairs) == pytest.approx(3 / 5)
    assert macro_f1(pairs) == pytest.approx((2 * 2 / 6 + 2 * 1 / 3 + 0) / 3)
    table = label_table(pairs)
    assert table["a"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "rows": 3})
    assert table["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 1}


TAGS = st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"]), min_size=1, max_size=6)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=4))
def test_span_f1_over_characters_is_that_over_tokens(rows: list[tuple[list[str], list[str]]]) -> None:
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    true = [row[: len(other)] for row, other in rows]
    said = [other[: len(row)] for row, other in rows]
    texts = [from_tags([f"t{place}" for place in range(len(row))], row) for row in true]
    answers = [from_tags([f"t{place}" for place in range(len(row))], row).entities for row in said]
    precision, recall, f1, _ = precision_recall_fscore_support(true, said, average="micro", zero_division=0)
    scores, by_label, parts = span_scores(texts, answers)
    assert scores == pytest.approx({"precision": precision, "recall": recall, "f1": f1})
    assert float(sums.f1(total(parts))) == pytest.approx(f1)
    assert set(by_label) <= {"x", "y"}


def test_an_entity_that_is_not_in_the_text_costs_precision() -> None:
    marked = from_tags(["Ada", "sings"], ["B-person", "O"])
    scores, by_label, parts = span_scores([marked], [read_entities("person: Ada\nplace: Oslo", marked.text)])
    assert scores == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3)}
    assert by_label["place"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "entities": 0.0}
    assert parts == [[1.0, 2.0, 1.0]]
    assert span_scores([from_tags(["a"], ["O"])], [[]])[0]["f1"] == 0
    wrong = [Entity(0, 3, "place")]
    assert span_scores([marked], [wrong])[2] == [[0.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("answer", "accepted", "exact", "f1"),
    [
        ("The red  lamp.", ["red lamp"], 1.0, 1.0),
        ("a lamp", ["red lamp", "lamp"], 1.0, 1.0),
        ("red", ["red lamp"], 0.0, 2 / 3),
        ("", ["red lamp"], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),
        ("blue blue", ["blue"], 0.0, 2 / 3),
    ],
)
def test_answers_are_compared_as_squad_does(
    answer: str, accepted: list[str], exact: float, f1: float
) -> None:
    assert exact_match(answer, accepted) == exact
    assert word_f1(answer, accepted) == pytest.approx(f1)


def test_translations_have_the_numbers_of_sacrebleu() -> None:
    import sacrebleu

    expected = ["Das Bild ist alt.", "Wo ist die Uhr?", "Hier."]
    answers = ["Das Bild ist neu.", "Wo ist die Tür?", ""]
    metrics, parts = translation_scores(expected, answers)
    assert metrics["chrf"] == sacrebleu.corpus_chrf(answers, [expected]).score
    assert metrics["bleu"] == sacrebleu.corpus_bleu(answers, [expected]).score
    assert float(chrf(total(parts))) == pytest.approx(metrics["chrf"])
    assert translation_scores(expected, expected)[0]["chrf"] == pytest.approx(100)


def test_summaries_have_the_numbers_of_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    expected, answers = ["the press loses oil", "the oven is hot"], ["the press is hot", "the oven is hot"]
    library = RougeScorer(["rougeL"])
    means = [library.score(a, b)["rougeL"].fmeasure for a, b in zip(expected, answers, strict=True)]
    metrics, parts = summary_scores(expected, answers)
    assert metrics["rouge_l"] == pytest.approx(sum(means) / 2)
    assert float(sums.share(total(parts))) == pytest.approx(metrics["rouge_l"])
    assert list(metrics) == ["rouge_l", "rouge2", "rouge1"]


def test_summaries_of_other_scripts_count_their_words() -> None:
    assert summary_scores(["Пресс теряет масло"], ["пресс теряет масло."])[0]["rouge_l"] == 1.0


def test_perplexity_is_over_all_tokens_not_over_rows() -> None:
    parts = [[2.0, 1.0, 0.0], [0.0, 3.0, 3.0]]
    metrics = token_metrics(parts)
    assert metrics["loss"] == 0.5
    assert metrics["token_accuracy"] == 0.75
    assert float(sums.perplexity(total(parts))) == pytest.approx(metrics["perplexity"])
    assert token_metrics([[1e9, 1.0, 0.0]])["perplexity"] < float("inf")


HEADER = "X:1\nT:A tune\nM:4/4\nL:1/8\nK:G\n"


@pytest.mark.parametrize(
    ("body", "bars", "full"),
    [
        ("GABc d2e2 | G2A2 B2c2 | d4 d4 |]", 1, 1),
        ("G2 | GABc d2e2 | G2A2 B2c2 | d4 |", 3, 2),  # a bar of half the length, no pickup
        ("GABc d2e2 | G2A2 B2c2d2 | e8 | d4 d4 |]", 2, 1),
        ('"Em"G4 G4 | (3GAB c2 d4 | G>A B<c d2 z2 | {g}[GBd]4 [GBd]2>e2 | x8 |', 4, 4),
        ("|: G8 | A8 :| [1 B4 | c8 | d8 :|2 e8 |]", 1, 1),
        ("G8 | [M:3/4] G6 | A6 | [M:6/8] B3c3 | G8 |", 4, 3),
        ("G8 | Z2 | A/2A/2A3 _B//^c//=d/e/ f3- | f8 |", 2, 1),
    ],
)
def test_bars_between_plain_lines_are_measured(body: str, bars: int, full: int) -> None:
    tune = read_tune(f"{HEADER}{body}\n")
    assert (tune.problem, tune.bars, tune.full_bars) == ("", bars, full)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no X: field comes first"),
        ("T:x\nK:G\nG8|\n", "no X: field comes first"),
        ("X:1\nT:x\nG8|\n", "no X: field comes first, or no K: field"),
        ("X:1\nhello\nK:G\nG8|\n", "the header has the line 'hello'"),
        ("X:1\nM:four\nK:G\nG8|\n", "M:four is no meter"),
        ("X:1\nL:1/0\nK:G\nG8|\n", "L:1/0 is no length"),
        (HEADER + "hello|\n", "'hello|' is no ABC"),
        (HEADER + "[GB|\n", "'[GB|' is no ABC"),
        (HEADER + "[h]|\n", "[h] is no chord"),
        (HEADER + "[G=]|\n", "[G=] is no chord"),
        (HEADER + '"G|\n', "is no ABC"),
        (HEADER + "G/0|\n", "a length is divided by 0"),
        (HEADER + "GABc\n", "the body has no bar line"),
        (HEADER + "|\n", "the body has no notes"),
    ],
)
def test_what_is_no_tune_is_said(text: str, problem: str) -> None:
    assert problem in read_tune(text).problem


@settings(deadline=None)
@given(text=st.text() | st.text(st.sampled_from("XKML:1/2|[]GAb^,'()3<>-Z {}\"!\n")))
def test_any_text_is_a_tune_or_none(text: str) -> None:
    tune = read_tune(HEADER + text)
    assert tune.problem or (tune.notes and 0 <= tune.full_bars <= tune.bars)


def test_a_tune_that_is_cut_is_read_up_to_its_last_bar_line() -> None:
    text = HEADER + 'GABc d2e2 | G2A2 B2c2 | d4 "G'
    assert read_tune(text).problem
    cut = read_tune(text, is_cut=True)
    assert (cut.problem, cut.bars, cut.full_bars) == ("", 1, 1)
    assert tune_scores([text, text], [True, False]) == {"parsed": 0.5, "full_bars": 1.0}


def test_the_header_ends_with_the_key() -> None:
    assert header_of(HEADER + "GAB|") == HEADER
    assert header_of("X:1\nGAB|") == ""


def test_real_tunes_can_be_read_and_fill_their_bars() -> None:
    if not NOTTINGHAM.is_dir():
        pytest.skip("the dataset is not on this machine")
    rows = [row for path in sorted(NOTTINGHAM.glob("*.abc")) for _, row in read_records(path)]
    texts = [str(row["text"]) for row in random.Random(1).sample(rows, 100) if isinstance(row, dict)]
    scores = tune_scores(texts, [False] * len(texts))
    assert scores["parsed"] > 0.98
    assert scores["full_bars"] > 0.99
