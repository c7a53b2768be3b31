"""Chat templates: rendering a conversation, and what has to be known of a template before it is trusted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from tuning.chatrows import Example, Message
from tuning.errors import InputError

_MARK = "zqxjk"  # a word that no template writes of its own
_QUESTION, _ANSWER = Message("user", "question"), Message("assistant", "answer", 1)
_CALL = {"id": "call_1", "type": "function", "function": {"name": f"{_MARK}_call", "arguments": {}}}
_TOOL = {
    "type": "function",
    "function": {
        "name": f"{_MARK}_tool",
        "description": "a probe",
        "parameters": {"type": "object", "properties": {}},
    },
}
_LONGEST_TEMPLATE_BYTES = 1 << 20


class TemplateError(InputError):
    """The chat template of the model cannot show the conversation as it is."""


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """What one template does: how an answer ends, and which parts of a row it shows at all.

    `suffix` is all that follows the last answer, `end_token` the part of it that the model must learn: up to
    the special token `stop` (with the id `end_id`), at which generation ends.
    """

    template: object
    suffix: str
    end_token: str
    stop: str
    end_id: int
    added_ids: frozenset[int]
    shows: frozenset[str]

    def require(self, example: Example) -> None:
        """Raise TemplateError when the example has a part that the template would silently leave out."""
        for part in _parts(example):
            if part not in self.shows:
                raise TemplateError(
                    f"The row has {part}, which the chat template of this model leaves out; "
                    "take a model whose template shows them, or write them into the text of the messages"
                )
        for place, turn in enumerate(example.messages, 1):
            if turn.weight and self.stop in turn.content:
                raise TemplateError(
                    f"Message {place} holds {self.stop}, which ends an answer: "
                    "the model would stop there; take it out of the text"
                )


_known: WeakKeyDictionary[Any, TemplateFacts] = WeakKeyDictionary()
_tools_known: WeakKeyDictionary[Any, tuple[object, str]] = WeakKeyDictionary()


def use_template(tokenizer: Any, path: Path) -> None:
    """Give a tokenizer the chat template in a file (Jinja). Raises InputError for one that cannot be read."""
    try:
        data = path.read_bytes()
        if len(data) > _LONGEST_TEMPLATE_BYTES:
            raise InputError(f"The chat template {path} is larger than 1 MB: that is no template.")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"Cannot read the chat template {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The chat template {path} is not UTF-8 text.") from error
    if not text.strip():
        raise InputError(f"The chat template {path} is empty.")
    tokenizer.chat_template = text


def template_facts(tokenizer: Any) -> TemplateFacts:
    """What the chat template of this tokenizer does, learned once from small conversations.

    Raises TemplateError when the tokenizer has no template, or one that does not begin or end an answer.
    """
    facts = _known.get(tokenizer)
    if facts is None or facts.template != tokenizer.chat_template:
        facts = _known[tokenizer] = _learn(tokenizer)
    return facts


def render(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None, *, prompt: bool
) -> str:
    """The conversation as the template writes it; `prompt` adds the start of the assistant's next answer.

    Raises TemplateError where the template refuses it.
    """
    turns = [_as_dict(message) for message in messages]
    if tools and tools_place(tokenizer) == "system":
        return _apply(tokenizer, _with_system_tools(turns, tools), None, prompt=prompt)
    return _apply(tokenizer, turns, tools, prompt=prompt)


def tools_place(tokenizer: Any) -> str:
    """Where a template reads tools: "argument", "system" (a key of the system message) or "" (nowhere)."""
    template, place = _tools_known.get(tokenizer, (None, ""))
    if template is None or template != tokenizer.chat_template:
        place = _find_tools_place(tokenizer)
        _tools_known[tokenizer] = (tokenizer.chat_template, place)
    return place


def _find_tools_place(tokenizer: Any) -> str:
    turns = [_as_dict(turn) for turn in (Message("system", "rules"), _QUESTION, _ANSWER)]
    for place, tried in (("argument", turns), ("system", _with_system_tools(turns, [_TOOL]))):
        try:
            text = _apply(tokenizer, tried, [_TOOL] if place == "argument" else None, prompt=False)
        except TemplateError:
            continue
        if f"{_MARK}_tool" in text:
            return place
    return ""


def _with_system_tools(
    turns: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The tools as JSON in the key `tools` of the system message, where Phi-4-mini's template reads them."""
    text = json.dumps([tool.get("function", tool) for tool in tools])
    if turns and turns[0]["role"] == "system":
        return [{**turns[0], "tools": text}, *turns[1:]]
    return [{"role": "system", "content": "", "tools": text}, *turns]


def _apply(
    tokenizer: Any,
    turns: Sequence[dict[str, Any]],
    tools: Sequence[dict[str, Any]] | None,
    *,
    prompt: bool,
) -> str:
    try:
        text = tokenizer.apply_chat_template(
            list(turns), tools=list(tools) if tools else None, tokenize=False, add_generation_prompt=prompt
        )
    except Exception as error:  # jinja raises whatever the author of the template chose
        if type(error).__module__.partition(".")[0] not in ("jinja2", "builtins"):
            raise
        raise TemplateError(f"The chat template of this model refuses the conversation: {error}") from None
    return str(text)


def _as_dict(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = list(message.tool_calls)
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        turn["name"] = message.name
    return turn


def _parts(example: Example) -> list[str]:
    parts = ["tools"] if example.tools else []
    for message in example.messages:
        if message.role == "system":
            parts.append("system messages")
        elif message.role == "tool":
            parts.append("tool results")
        if message.tool_calls:
            parts.append("tool calls")
    return parts


def _learn(tokenizer: Any) -> TemplateFacts:
    if not tokenizer.chat_template:
        raise TemplateError(
            "The tokenizer of this model has no chat template; give one in data.chat_template "
            "(--chat-template FILE), or take an instruction-tuned model"
        )
    text = render(tokenizer, [_QUESTION, Message("assistant", _MARK)], None, prompt=False)
    before, found, suffix = text.rpartition(_MARK)
    if not found:
        raise TemplateError("The chat template of this model leaves out the answers of the assistant")
    _require_start(tokenizer, before)
    added = {str(token): int(number) for token, number in tokenizer.get_added_vocab().items()}
    end_token, stop = _end_token(suffix, list(added))
    return TemplateFacts(
        template=tokenizer.chat_template,
        suffix=suffix,
        end_token=end_token,
        stop=stop,
        end_id=added[stop],
        added_ids=frozenset(added.values()),
        shows=_shown_parts(tokenizer),
    )


def _require_start(tokenizer: Any, before: str) -> None:
    """Raise TemplateError if `add_generation_prompt` does nothing and an answer has a start of its own."""
    asked = render(tokenizer, [_QUESTION], None, prompt=True)
    if asked != before and asked == render(tokenizer, [_QUESTION], None, prompt=False):
        raise TemplateError(
            "The chat template of this model does not begin an answer where add_generation_prompt asks for "
            "it, so the model would have to write that beginning itself"
        )


def _end_token(suffix: str, special: list[str]) -> tuple[str, str]:
    """(the suffix up to and with its first special token, that token), which is what generation stops at."""
    found = [(suffix.index(token), -len(token), token) for token in special if token and token in suffix]
    if not found:
        raise TemplateError(
            "The chat template of this model writes no end token after an answer: "
            "a tuned model would never stop"
        )
    place, _, token = min(found)
    return suffix[: place + len(token)], token


def _shown_parts(tokenizer: Any) -> frozenset[str]:
    call = Message("assistant", "", 1, (_CALL,))
    result = Message("tool", f"{_MARK}_result", tool_call_id="call_1", name=f"{_MARK}_call")
    probes = {
        "system messages": (
            [Message("system", f"{_MARK}_system"), _QUESTION, _ANSWER],
            None,
            f"{_MARK}_system",
        ),
        "tool calls": ([_QUESTION, call], [_TOOL], f"{_MARK}_call"),
        "tool results": ([_QUESTION, call, result, _ANSWER], [_TOOL], f"{_MARK}_result"),
    }
    shown = {"tools"} if tools_place(tokenizer) else set()
    for part, (messages, tools, word) in probes.items():
        try:
            text = render(tokenizer, messages, tools, prompt=False)
        except TemplateError:
            continue
        if word in text:
            shown.add(part)
    return frozenset(shown)
