"""Rows of the tasks with one question and one answer: what each holds, and the turns that it becomes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from tuning.chatrows import Example, Message, RowError, encodable, quote, type_name
from tuning.entities import Entity, MarkedText, from_tags, is_label, is_tag, write_entities
from tuning.prompts import NO_ANSWER, ask, ask_about


def turns(question: str, answer: str, **truth: Any) -> Example:
    """A user's turn and the answer that is taught, with what the task measures answers with."""
    return Example((Message("user", question), Message("assistant", answer, 1)), **truth)


def text_row(row: dict[str, Any], _task: str) -> Example:
    """{"text"}: text to go on with."""
    return Example((), text=text_of(row, "text"))


def label_row(row: dict[str, Any], task: str) -> Example:
    """{"text", "label"}: the text asks, the label answers."""
    label = _label(row)
    return turns(ask(task, text_of(row, "text")), label, label=label)


def pair_row(question: str, answer: str) -> Callable[[dict[str, Any], str], Example]:
    """The reader of rows with a text to ask with and a text to answer."""

    def read(row: dict[str, Any], task: str) -> Example:
        asked, answered = text_of(row, question), text_of(row, answer)
        return turns(ask(task, asked), answered, answers=(answered,))

    return read


def question_row(row: dict[str, Any], _task: str) -> Example:
    """{"context", "question", "answers"}: the first answer is taught, all of them are right."""
    answers = _answers(row)
    question = ask_about(text_of(row, "context"), text_of(row, "question"))
    return turns(question, answers[0], answers=answers)


def tags_row(row: dict[str, Any], task: str) -> Example:
    """{"tokens", "tags"}: one tag a token."""
    tokens, tags = row.get("tokens"), row.get("tags")
    for key, value in (("tokens", tokens), ("tags", tags)):
        if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
            raise RowError(f"'{key}' must be a list of texts", kind="wrong tags")
    assert isinstance(tokens, list)  # noqa: S101 - for the type checker
    assert isinstance(tags, list)  # noqa: S101
    if len(tokens) != len(tags):
        raise RowError(f"{len(tokens)} tokens but {len(tags)} tags", kind="wrong tags")
    for tag in tags:
        if not is_tag(tag):
            raise RowError(f"tag {quote(tag)} is neither O nor B-label or I-label", kind="wrong tags")
    for place, token in enumerate(tokens, 1):
        encodable(token, f"token {place}")
        if not token.strip():
            raise RowError(f"token {place} is empty", kind="no content")
    return _entities(from_tags(tokens, tags), task)


def entities_row(row: dict[str, Any], task: str) -> Example:
    """{"text", "entities": [{"start", "end", "label"}]}: `end` is the first character after the entity."""
    text, listed = text_of(row, "text"), row.get("entities")
    if not isinstance(listed, list):
        raise RowError(f"'entities' must be a list, found {type_name(listed)}", kind="wrong entities")
    entities = sorted(
        (_entity(entity, text, place) for place, entity in enumerate(listed, 1)),
        key=lambda entity: (entity.start, entity.end),
    )
    for before, after in pairwise(entities):
        if after.start < before.end:
            parts = " and ".join(quote(text[one.start : one.end]) for one in (before, after))
            raise RowError(f"entities {parts} overlap", kind="wrong entities")
    return _entities(MarkedText(text, tuple(entities)), task)


def _entity(entity: object, text: str, place: int) -> Entity:
    """One entity, without the spaces around its words."""
    where = f"entity {place}"
    if not isinstance(entity, dict):
        raise RowError(f"{where} must be an object, found {type_name(entity)}", kind="wrong entities")
    start, end, label = (entity.get(key) for key in ("start", "end", "label"))
    if not (type(start) is int and type(end) is int and 0 <= start < end <= len(text)):
        found = f"start {quote(start)} and end {quote(end)}"
        raise RowError(f"{where} has {found}; expected 0 to {len(text)}", kind="wrong entities")
    if not isinstance(label, str) or not label:
        raise RowError(f"{where} has no label", kind="wrong entities")
    words = text[start:end]
    if not words.strip():
        raise RowError(f"{where} has no words, only spaces", kind="wrong entities")
    return Entity(end - len(words.lstrip()), start + len(words.rstrip()), label)


def _entities(marked: MarkedText, task: str) -> Example:
    for label in sorted({entity.label for entity in marked.entities}):
        encodable(label, "a label")
        if not is_label(label):
            reason = f"label {quote(label)} cannot be written before its words; use one without ':' and '#'"
            raise RowError(reason, kind="wrong entities")
    return turns(ask(task, marked.text), write_entities(marked), marked=marked)


def _label(row: dict[str, Any]) -> str:
    if "label" in row and "category" in row:
        raise RowError("both 'label' and 'category' are there; keep one", kind="two formats")
    key = "label" if "label" in row else "category"
    value = row[key]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and not value.strip():
        raise RowError(f"'{key}' is empty", kind="empty answer")
    return text_of(row, key)


def _answers(row: dict[str, Any]) -> tuple[str, ...]:
    """The right answers of a question; an empty list says that the context holds none."""
    if "answers" in row and "answer" in row:
        raise RowError("both 'answers' and 'answer' are there; keep one", kind="two formats")
    key = "answers" if "answers" in row else "answer"
    value = row.get(key)
    if isinstance(value, dict):  # as SQuAD writes them: {"text": [...], "answer_start": [...]}
        value = value.get("text")
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(answer, str) for answer in value):
        raise RowError(f"'{key}' must be a text or a list of texts", kind="no content")
    if not all(answer.strip() for answer in value):
        raise RowError(f"'{key}' has an empty answer", kind="empty answer")
    return tuple(dict.fromkeys(encodable(answer, f"'{key}'") for answer in value)) or (NO_ANSWER,)


def text_of(row: dict[str, Any], key: str) -> str:
    """The text under a key; raises RowError where there is none."""
    value = row.get(key)
    if value is None:
        raise RowError(f"'{key}' is missing", kind="no content")
    if not isinstance(value, str):
        raise RowError(f"'{key}' must be text, found {type_name(value)}")
    if not value.strip():
        answers = ("completion", "target", "summary")
        raise RowError(f"'{key}' is empty", kind="empty answer" if key in answers else "no content")
    return encodable(value, f"'{key}'")
