"""Chat templates: rendering a conversation, and what has to be known of a template before it is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from tuning.chatrows import Example, Message
from tuning.errors import InputError

_MARK = "zqxjk"  # a word that no template writes of its own
_PROBE_CALL = {"id": "call_1", "type": "function", "function": {"name": f"{_MARK}_call", "arguments": {}}}
_PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": f"{_MARK}_tool",
        "description": "a probe",
        "parameters": {"type": "object", "properties": {}},
    },
}


class TemplateError(InputError):
    """The chat template of the model cannot show the conversation as it is."""


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """What one template does: how an answer ends, and which parts of a row it shows at all.

    `suffix` is all that follows the last answer, `end_token` the part of it that the model must learn.
    """

    template: object
    suffix: str
    end_token: str
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


_known: WeakKeyDictionary[Any, TemplateFacts] = WeakKeyDictionary()


def template_facts(tokenizer: Any) -> TemplateFacts:
    """What the chat template of this tokenizer does, learned once from small conversations.

    Raises TemplateError when the tokenizer has no template, or when the template writes no end token.
    """
    facts = _known.get(tokenizer)
    if facts is None or facts.template != tokenizer.chat_template:
        facts = _known[tokenizer] = _learn(tokenizer)
    return facts


def render(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None, *, prompt: bool
) -> str:
    """The conversation as the template writes it; `prompt` adds the start of the assistant's next answer."""
    turns = [_as_dict(message) for message in messages]
    try:
        text = tokenizer.apply_chat_template(
            turns, tools=list(tools) if tools else None, tokenize=False, add_generation_prompt=prompt
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
            "The tokenizer of this model has no chat template; take an instruction-tuned model"
        )
    asked = Message("user", "question")
    text = render(tokenizer, [asked, Message("assistant", _MARK)], None, prompt=False)
    _, found, suffix = text.rpartition(_MARK)
    if not found:
        raise TemplateError("The chat template of this model leaves out the answers of the assistant")
    added = tokenizer.get_added_vocab()
    return TemplateFacts(
        template=tokenizer.chat_template,
        suffix=suffix,
        end_token=_end_token(suffix, [str(token) for token in added]),
        added_ids=frozenset(added.values()),
        shows=_shown_parts(tokenizer),
    )


def _end_token(suffix: str, special: list[str]) -> str:
    """The start of the suffix up to its first special token, which is what generation stops at."""
    found = [(suffix.index(token), -len(token)) for token in special if token and token in suffix]
    if found:
        place, negative_length = min(found)
        return suffix[: place - negative_length]
    if suffix.strip():
        return suffix.rstrip()
    raise TemplateError(
        "The chat template of this model writes no end token after an answer: a tuned model would never stop"
    )


def _shown_parts(tokenizer: Any) -> frozenset[str]:
    user, answer = Message("user", "question"), Message("assistant", "answer", 1)
    call = Message("assistant", "", 1, (_PROBE_CALL,))
    result = Message("tool", f"{_MARK}_result", tool_call_id="call_1", name=f"{_MARK}_call")
    probes = {
        "system messages": ([Message("system", f"{_MARK}_system"), user, answer], None, f"{_MARK}_system"),
        "tools": ([Message("system", "rules"), user, answer], [_PROBE_TOOL], f"{_MARK}_tool"),
        "tool calls": ([user, call], [_PROBE_TOOL], f"{_MARK}_call"),
        "tool results": ([user, call, result, answer], [_PROBE_TOOL], f"{_MARK}_result"),
    }
    shown = set()
    for part, (messages, tools, word) in probes.items():
        try:
            text = render(tokenizer, messages, tools, prompt=False)
        except TemplateError:
            continue
        if word in text:
            shown.add(part)
    return frozenset(shown)
