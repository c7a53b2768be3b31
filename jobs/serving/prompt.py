"""From chat messages to the tokens that the model was trained on, by the code that training uses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from serving.engine import PromptError
from tuning.chatrows import Message
from tuning.errors import InputError
from tuning.prompts import Manner, ask, ask_about
from tuning.templates import TemplateError, render, template_facts, tools_place

END_OF_TURN = ("<|end|>", "<|im_end|>", "<|endoftext|>")


class ChatPrompt:
    """Renders and encodes conversations for one model, as `manner` says that it was asked in training.

    Raises InputError for a model of turns whose tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any, manner: Manner | None = None) -> None:
        self._tokenizer, self._manner = tokenizer, manner or Manner()
        if not self._manner.plain_text and not isinstance(tokenizer.chat_template, str):
            raise InputError("The tokenizer has no chat template; add chat_template.jinja to its folder.")

    def encode(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int]:
        """Token ids of the conversation with the opening of the assistant's turn. Raises PromptError."""
        if tools and (self._manner.plain_text or not tools_place(self._tokenizer)):
            raise PromptError("This model's chat template takes no tools; send the request without 'tools'.")
        turns = [_message(message) for message in messages]
        if self._manner.plain_text:
            return self._plain("".join(turn.content for turn in turns))
        turns = [self._asked(turn) if turn.role == "user" else turn for turn in turns]
        try:
            text = render(self._tokenizer, turns, tools or None, prompt=True)
        except TemplateError as error:
            raise PromptError(str(error)) from None
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _plain(self, text: str) -> list[int]:
        """The tokens of a text to go on with: no turns, no template."""
        ids = list(self._tokenizer(text, verbose=False)["input_ids"])
        if ids[-1:] == [self._tokenizer.eos_token_id]:
            ids.pop()
        if not ids:
            raise PromptError(
                "The messages are empty; this model goes on with a text, so send its beginning."
            )
        return ids

    def _asked(self, turn: Message) -> Message:
        """A user's turn with the prompt of the model's task."""
        task, content = self._manner.task, turn.content
        if task == "qa" and (row := _question_row(content)):
            return Message(turn.role, ask_about(*row), name=turn.name)
        return Message(turn.role, ask(task, content), name=turn.name)


def _question_row(content: str) -> tuple[str, str] | None:
    """The context and the question where a message is a row: a JSON object with both."""
    try:
        row = json.loads(content) if content.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return None
    pair = (row.get("context"), row.get("question")) if isinstance(row, dict) else (None, None)
    return pair if all(isinstance(part, str) for part in pair) else None  # type: ignore[return-value]


def end_tokens(tokenizer: Any, generation_config: Any) -> frozenset[int]:
    """Every token that ends an answer: of both configs, of the template, and the vocabulary's end marks."""
    ids: set[int] = set()
    for configured in (tokenizer.eos_token_id, generation_config.eos_token_id):
        ids.update([configured] if isinstance(configured, int) else configured or [])
    vocabulary = tokenizer.get_vocab()
    ids.update(vocabulary[mark] for mark in END_OF_TURN if mark in vocabulary)
    with suppress(TemplateError):  # of a base model, or of a template that nobody could have trained with
        ids.add(template_facts(tokenizer).end_id)
    return frozenset(ids)


def _message(message: dict[str, Any]) -> Message:
    """A message as training saw it: text content, tool arguments as objects, 'developer' as 'system'."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    calls = message.get("tool_calls")
    return Message(
        role="system" if message["role"] == "developer" else message["role"],
        content=content,
        tool_calls=tuple(_with_parsed_arguments(call) for call in calls) if calls else None,
        tool_call_id=message.get("tool_call_id"),
        name=message.get("name"),
    )


def _with_parsed_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        raise PromptError("The 'arguments' of a tool call are not valid JSON.") from None
    return {
        **call,
        "type": "function",
        "function": {"name": function.get("name"), "arguments": arguments},
    }
