"""Rows of preferences: a conversation with an answer that is preferred, and one that is not."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from tuning.chatrows import Example, Message, RowError, parse_chat, type_name


def chosen_row(row: dict[str, Any], _task: str) -> Example:
    """{"prompt", "chosen", "rejected"}: each a text, or a list of messages.

    Without a prompt, `chosen` and `rejected` are whole conversations that begin with the same messages.
    """
    for key in ("chosen", "rejected"):
        if key not in row:
            raise RowError(f"'{key}' is missing; a preference row has prompt, chosen and rejected")
    chosen, rejected = (_messages(row[key], "assistant", key) for key in ("chosen", "rejected"))
    if "prompt" in row:
        prompt = _messages(row["prompt"], "user", "prompt")
    else:
        prompt = [one for one, _ in takewhile(lambda both: both[0] == both[1], zip(chosen, rejected))]  # noqa: B905
        if not prompt:
            raise RowError(
                "'prompt' is missing, and 'chosen' and 'rejected' do not begin with the same messages"
            )
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    return _pair(prompt, {"chosen": chosen, "rejected": rejected}, row.get("tools"))


def preferred_row(row: dict[str, Any], _task: str) -> Example:
    """{"input": {"messages", "tools"?}, "preferred_output", "non_preferred_output"}, as Foundry takes it."""
    answers: dict[str, list[Any]] = {}
    for key in ("input", "preferred_output", "non_preferred_output"):
        if key not in row:
            raise RowError(
                f"'{key}' is missing; such a row has input, preferred_output and non_preferred_output"
            )
        if key != "input":
            answers[key] = _messages(row[key], "assistant", key)
    asked = row["input"]
    if not isinstance(asked, dict) or "messages" not in asked:
        raise RowError("'input' must be an object with 'messages'")
    return _pair(_messages(asked["messages"], "user", "input"), answers, asked.get("tools"))


def _messages(value: object, role: str, key: str) -> list[Any]:
    """A list of messages, or a text as the one message of a role."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, list) and value:
        return value
    found = "an empty list" if value == [] else type_name(value)
    raise RowError(f"'{key}' must be text or a list of messages, found {found}")


def _pair(prompt: list[Any], answers: dict[str, list[Any]], tools: object) -> Example:
    """The conversation with the first answer, and beside it the one with the second.

    What the assistant says in the prompt carries no loss.
    """
    asked = [
        {**turn, "weight": 0} if isinstance(turn, dict) and turn.get("role") == "assistant" else turn
        for turn in prompt
    ]
    made = []
    for key, answer in answers.items():
        try:
            example = parse_chat({"messages": [*asked, *answer], "tools": tools})
        except RowError as error:
            raise RowError(f"with '{key}': {error.reason}", kind=error.kind) from None
        for turn in (example.messages[len(prompt)], example.messages[-1]):
            if turn.role != "assistant":
                raise RowError(f"'{key}' must begin and end with the assistant", kind="turn order")
        made.append(example)
    better, worse = made
    if _said(better.messages) == _said(worse.messages):
        raise RowError(f"{' and '.join(map(repr, answers))} are the same", kind="same answers")
    return Example(better.messages, better.tools, rejected=worse.messages)


def _said(turns: tuple[Message, ...]) -> list[tuple[str, str, object]]:
    return [(turn.role, turn.content, turn.tool_calls) for turn in turns]
