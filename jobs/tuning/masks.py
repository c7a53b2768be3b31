"""Loss masks: the tokens of an example, and which of them carry loss, for any tokenizer with a chat template.

Few chat templates mark what the assistant wrote, so the marks are taken from rendered prefixes: what lies
between the conversation up to the generation prompt and the end token after the answer is what the model has
to learn. The text is encoded once, so that its tokens are those that the model sees; offsets turn characters
into tokens.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any

from tuning.chatrows import Example, Message
from tuning.errors import InputError
from tuning.templates import TemplateError, render, template_facts

__all__ = [
    "IGNORED",
    "Encoded",
    "Marked",
    "TemplateError",
    "UnteachableError",
    "encode",
    "mark",
    "prompt_ids",
    "prompt_text",
    "text_ids_up_to",
]

IGNORED = -100


class UnteachableError(InputError):
    """No token of the example carries loss: nothing can be learned from it."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and labels of one length; a label is the id itself, or IGNORED where no loss is taken.

    `truncated` says that the example was longer than the limit and was cut at its end.
    """

    input_ids: list[int]
    labels: list[int]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Marked:
    """A rendered conversation and the (start, end) characters of its supervised answers and end tokens."""

    text: str
    spans: tuple[tuple[int, int], ...]


def encode(example: Example, tokenizer: Any, max_length: int | None = None) -> Encoded:
    """Encode an example with its loss mask, cut to `max_length` tokens (None: whole).

    Only assistant turns of weight 1 and the end token after each carry loss; in plain text every token does,
    and so does the end-of-text token after it. Raises UnteachableError when no token with loss is left, and
    TemplateError when the chat template does not show the example as it is.
    """
    if example.text is not None:
        ids = _text_ids(example.text, tokenizer)
        labels = list(ids)
    else:
        ids, labels = _chat_ids(mark(example, tokenizer), tokenizer)
    truncated = max_length is not None and len(ids) > max_length
    if truncated:
        ids, labels = ids[:max_length], labels[:max_length]
    if all(label == IGNORED for label in labels[1:]):
        raise UnteachableError(_nothing_left(truncated, max_length))
    return Encoded(ids, labels, truncated)


def prompt_ids(example: Example, tokenizer: Any) -> list[int]:
    """The tokens to generate the last answer from: all before it and the generation prompt.

    Plain text has no prompt: its ids are those of an empty text (the start token, if there is one).
    """
    if example.text is not None:
        return _ids(tokenizer("", verbose=False))
    return _ids(tokenizer(prompt_text(example, tokenizer), add_special_tokens=False, verbose=False))


def prompt_text(example: Example, tokenizer: Any) -> str:
    """The conversation before the last assistant turn as the template writes it, with the prompt for it."""
    last = max(place for place, turn in enumerate(example.messages) if turn.role == "assistant")
    template_facts(tokenizer).require(example)
    return render(tokenizer, example.messages[:last], example.tools, prompt=True)


def text_ids_up_to(text: str, end: int, tokenizer: Any) -> list[int]:
    """The tokens of a plain text that lie wholly before the character `end`."""
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    count = sum(1 for _ in takewhile(lambda place: place[1] <= end, encoded["offset_mapping"]))
    return _ids(encoded)[:count]


def mark(example: Example, tokenizer: Any) -> Marked:
    """Render a conversation and find its supervised answers.

    What a template writes after the end token of the last answer (a newline, an end-of-text token) is left
    away: it teaches nothing and the model never sees it. Raises TemplateError as `encode` does.
    """
    messages, tools = example.messages, example.tools
    facts = template_facts(tokenizer)
    facts.require(example)
    text = render(tokenizer, messages, tools, prompt=False)
    if messages[-1].role == "assistant":
        text = text[: _answer_end(text, messages[-1], facts.suffix, facts.end_token)]
    spans = []
    for place, turn in enumerate(messages):
        if not turn.weight:
            continue
        before = render(tokenizer, messages[:place], tools, prompt=True)
        if place == len(messages) - 1:
            upto = text
        else:
            upto = render(tokenizer, messages[: place + 1], tools, prompt=False)
            upto = upto[: _answer_end(upto, turn, facts.suffix, facts.end_token)]
        if not (text.startswith(upto) and upto.startswith(before)):
            raise TemplateError(
                f"This template rewrites earlier turns: message {place + 1} reads differently in the whole "
                "conversation, so no loss mask is right; split it into rows with one answer each"
            )
        spans.append((len(before), len(upto)))
    return Marked(text, tuple(spans))


def _answer_end(text: str, turn: Message, suffix: str, end_token: str) -> int:
    """Where the end token of the last answer in `text` ends."""
    if not text.endswith(suffix):
        kind = "a tool call" if turn.tool_calls else "an answer"
        raise TemplateError(
            f"The chat template ends {kind} differently from the others; no loss mask is right"
        )
    return len(text) - len(suffix) + len(end_token)


def _chat_ids(marked: Marked, tokenizer: Any) -> tuple[list[int], list[int]]:
    encoded = tokenizer(marked.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = _ids(encoded), encoded["offset_mapping"]
    starts = [start for start, _ in offsets]
    ends = list(accumulate((end for _, end in offsets), max))
    added = template_facts(tokenizer).added_ids
    labels = [IGNORED] * len(ids)
    for start, end in marked.spans:
        first = bisect_right(ends, start)
        if first < len(ids) and starts[first] != start:
            if starts[first] > start or ids[first] not in added:
                return _piecewise(marked, tokenizer)
            first += 1  # a special token that swallows the space after it: it belongs to the prompt
        elif (
            start
            and marked.text[start - 1] == " "
            and not _begins(ids[:first], marked.text[:start], tokenizer)
        ):
            return _piecewise(marked, tokenizer)  # trimmed offsets hide that the answer took the blank along
        last = bisect_left(starts, end, lo=first)
        labels[first:last] = ids[first:last]
    return ids, labels


def _begins(ids: list[int], text: str, tokenizer: Any) -> bool:
    """Whether these are the tokens of a text that ends there."""
    return _ids(tokenizer(text, add_special_tokens=False, verbose=False)) == ids


def _piecewise(marked: Marked, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Encode prompt and answers apart, for the rare answer that merges with the last character before it.

    The prompt then ends where it ends at inference, and the whole answer is learned. Some tokenizers trim
    spaces from their offsets: there an answer that begins with one may have merged, so it comes here too.
    """
    pieces, reached = [], 0
    for start, end in marked.spans:
        pieces += [(marked.text[reached:start], False), (marked.text[start:end], True)]
        reached = end
    pieces.append((marked.text[reached:], False))
    ids: list[int] = []
    labels: list[int] = []
    for text, supervised in pieces:
        piece = _ids(tokenizer(text, add_special_tokens=False, verbose=False)) if text else []
        ids += piece
        labels += piece if supervised else [IGNORED] * len(piece)
    return ids, labels


def _text_ids(text: str, tokenizer: Any) -> list[int]:
    ids = _ids(tokenizer(text, verbose=False))
    end = tokenizer.eos_token_id
    return ids if end is None or ids[-1:] == [end] else [*ids, end]


def _ids(encoded: Any) -> list[int]:
    return list(encoded["input_ids"])


def _nothing_left(truncated: bool, max_length: int | None) -> str:
    if truncated:
        return f"The answers lie wholly beyond max_length ({max_length} tokens); raise it or shorten the row"
    return "No token carries loss: every assistant turn has weight 0, or there is none"
