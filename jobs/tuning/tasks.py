"""The tasks in one table: the rows each takes, how it asks, how long it answers, and what is measured.

A new task is a row here, a reader for its rows in taskrows.py where no format fits, and a file in metrics/.
Nothing heavy is imported: the client reads this table too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tuning.entities import read_entities
from tuning.metrics import sums
from tuning.metrics.answers import exact_match, word_f1
from tuning.metrics.labels import accuracy, label_table, macro_f1
from tuning.metrics.spans import span_scores
from tuning.metrics.summaries import summary_scores
from tuning.metrics.tokens import token_metrics
from tuning.metrics.translations import chrf, translation_scores
from tuning.metrics.tunes import tune_scores
from tuning.scores import Scores

if TYPE_CHECKING:
    from tuning.evaluation import HeldOut, Scorer

TEXT_SAMPLES = 20  # continuations to show where nothing is measured on them
TUNES = 64  # tunes to write


@dataclass(frozen=True)
class Task:
    """One task.

    `formats` are the rows it takes; `prompt` stands before the user's text in training, evaluation and
    serving. `score` measures a model, `metric` is the one number to look at and `direction` its better side;
    `combine` makes it from the sums of what rows contribute (`Scores.parts`).
    """

    formats: tuple[str, ...]
    metric: str
    direction: Literal["max", "min"]
    combine: Callable[[Any], Any]
    score: Callable[[Scorer, Sequence[HeldOut]], Scores]
    prompt: str = ""
    max_new_tokens: int = 64
    temperature: float = 0.0  # 0: greedy
    splits_long_text: bool = False  # into rows of max_length tokens, instead of cutting it there
    pairs: tuple[str, ...] = ()  # rows with a better and a worse answer, for training.objective dpo


def score_chat(scorer: Scorer, rows: Sequence[HeldOut]) -> Scores:
    """Perplexity of the right answers, and how often the model gives exactly that answer."""
    parts, answers = scorer.row_losses(rows), scorer.answers(rows)
    asked = [(held.expected, answer) for held, answer in zip(rows, answers, strict=True) if held.expected]
    exact = sum(expected == answer for expected, answer in asked) / max(1, len(asked))
    return Scores({**token_metrics(parts), "exact_match": exact}, answers, parts)


def score_text(scorer: Scorer, rows: Sequence[HeldOut]) -> Scores:
    """Perplexity; some continuations to look at."""
    parts, shown = scorer.row_losses(rows), scorer.answers(rows[:TEXT_SAMPLES])
    return Scores(token_metrics(parts), shown + [""] * (len(rows) - len(shown)), parts)


def score_music(scorer: Scorer, rows: Sequence[HeldOut]) -> Scores:
    """Perplexity, and how well the tunes are formed that the model writes below the headers of the rows."""
    parts, tunes = scorer.row_losses(rows), scorer.generated(rows[:TUNES])
    written = [held.prompt_text + tune.text for held, tune in zip(rows, tunes, strict=False)]
    metrics = token_metrics(parts) | tune_scores(written, [tune.is_cut for tune in tunes])
    return Scores(metrics, [tune.text for tune in tunes] + [""] * (len(rows) - len(tunes)), parts)


def score_classification(scorer: Scorer, rows: Sequence[HeldOut]) -> Scores:
    """How often the likeliest label is right."""
    losses, answers = scorer.row_losses(rows), scorer.chosen_labels(rows)
    pairs = [(held.example.label or "", answer) for held, answer in zip(rows, answers, strict=True)]
    metrics = {"accuracy": accuracy(pairs), "macro_f1": macro_f1(pairs), **token_metrics(losses)}
    parts = [[float(expected == answer), 1.0] for expected, answer in pairs]
    return Scores(metrics, answers, parts, label_table(pairs))


def score_ner(scorer: Scorer, rows: Sequence[HeldOut]) -> Scores:
    """F1 of the entities that the answers name."""
    losses, answers = scorer.row_losses(rows), scorer.answers(rows)
    marked = [held.example.marked for held in rows if held.example.marked is not None]
    found = [read_entities(answer, one.text) for answer, one in zip(answers, marked, strict=True)]
    metrics, by_label, parts = span_scores(marked, found)
    return Scores({**metrics, **token_metrics(losses)}, answers, parts, by_label)


def score_qa(scorer: Scorer, rows: Sequence[HeldOut]) -> Scores:
    """Exact match and F1 of the words of the answers."""
    losses, answers = scorer.row_losses(rows), scorer.answers(rows)
    pairs = [(answer, held.example.answers) for held, answer in zip(rows, answers, strict=True)]
    parts = [[word_f1(*pair), 1.0] for pair in pairs]
    exact = sum(exact_match(*pair) for pair in pairs) / len(pairs)
    metrics = {"f1": sum(f1 for f1, _ in parts) / len(parts), "exact_match": exact}
    return Scores({**metrics, **token_metrics(losses)}, answers, parts)


def score_translation(scorer: Scorer, rows: Sequence[HeldOut]) -> Scores:
    """chrF and BLEU."""
    losses, answers = scorer.row_losses(rows), scorer.answers(rows)
    metrics, parts = translation_scores([held.example.answers[0] for held in rows], answers)
    return Scores({**metrics, **token_metrics(losses)}, answers, parts)


def score_summarization(scorer: Scorer, rows: Sequence[HeldOut]) -> Scores:
    """ROUGE."""
    losses, answers = scorer.row_losses(rows), scorer.answers(rows)
    metrics, parts = summary_scores([held.example.answers[0] for held in rows], answers)
    return Scores({**metrics, **token_metrics(losses)}, answers, parts)


PREFERENCES = ("prompt/chosen/rejected", "input/preferred_output/non_preferred_output")

TASKS = {
    "chat": Task(
        ("chat", "prompt/completion"), "perplexity", "min", sums.perplexity, score_chat, pairs=PREFERENCES
    ),
    "text-generation": Task(("text", "prompt/completion"), "perplexity", "min", sums.perplexity, score_text),
    "classification": Task(("text/label",), "accuracy", "max", sums.share, score_classification),
    "ner": Task(
        ("tokens/tags", "text/entities"),
        "f1",
        "max",
        sums.f1,
        score_ner,
        prompt="Name the entities:\n",
        max_new_tokens=128,
    ),
    "qa": Task(("context/question/answers",), "f1", "max", sums.share, score_qa, max_new_tokens=32),
    "translation": Task(
        ("source/target", "prompt/completion"),
        "chrf",
        "max",
        chrf,
        score_translation,
        prompt="Translate:\n",
        max_new_tokens=128,
    ),
    "summarization": Task(
        ("document/summary", "prompt/completion"),
        "rouge_l",
        "max",
        sums.share,
        score_summarization,
        prompt="Summarize:\n",
        max_new_tokens=128,
    ),
    "domain": Task(("text",), "perplexity", "min", sums.perplexity, score_text, splits_long_text=True),
    "music": Task(
        ("text",), "perplexity", "min", sums.perplexity, score_music, max_new_tokens=256, temperature=0.8
    ),
}
