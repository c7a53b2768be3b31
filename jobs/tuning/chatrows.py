"""What one training row holds, and the strict reading of a chat row: roles, weights, tools and calls."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tuning.entities import MarkedText
from tuning.errors import InputError

ROLES = ("system", "user", "assistant", "tool")
_MESSAGE_KEYS = ("role", "content", "weight", "tool_calls", "tool_call_id", "name")


class RowError(InputError):
    """One bad row: `reason` says what is wrong with it, `line` where (1-based, None before it is known).

    `kind` is the short name under which such rows are counted.
    """

    def __init__(self, reason: str, line: int | None = None, kind: str = "wrong shape") -> None:
        super().__init__(reason if line is None else f"Line {line}: {reason}.")
        self.reason, self.line, self.kind = reason, line, kind


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `weight` 1 means that its tokens carry loss; only assistant turns can have it."""

    role: str
    content: str
    weight: int = 0
    tool_calls: tuple[dict[str, Any], ...] | None = None
    tool_call_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: a conversation, or plain `text` (then `messages` is empty).

    What its task measures answers with comes along: the `label`, all `answers` that are right, or the
    entities that are `marked`. Of a pair for learning from preferences, `rejected` is the same conversation
    with the worse answer.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] | None = None
    text: str | None = None
    label: str | None = None
    answers: tuple[str, ...] = ()
    marked: MarkedText | None = None
    rejected: tuple[Message, ...] = ()


def parse_chat(row: dict[str, Any]) -> Example:
    """Read a row with `messages`; raises RowError at the first thing that is wrong with it."""
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise RowError("'messages' must be a list with at least one message")
    tools = _tools(row.get("tools"))
    turns = tuple(_message(message, place) for place, message in enumerate(messages, 1))
    if turns[0].role == "assistant":
        raise RowError("the first message is from the assistant, so it answers nothing", kind="turn order")
    if not any(turn.weight for turn in turns):
        role_seen = any(turn.role == "assistant" for turn in turns)
        why = "every assistant turn has weight 0" if role_seen else "there is no assistant turn"
        raise RowError(f"no token carries loss: {why}", kind="no loss")
    _check_tool_turns(turns, tools)
    return Example(turns, tools)


def _message(message: object, place: int) -> Message:
    where = f"message {place}"
    if not isinstance(message, dict):
        raise RowError(f"{where} must be an object, found {type_name(message)}")
    role = message.get("role")
    if role not in ROLES:
        close = closest(role, ROLES) if isinstance(role, str) else None
        hint = f"did you mean '{close}'?" if close else f"accepted: {', '.join(ROLES)}"
        found = "no role" if role is None else f"role {quote(role)}"
        raise RowError(f"{where} has {found} ({hint})", kind="unknown role")
    for key, value in message.items():
        if key not in _MESSAGE_KEYS and value is not None:
            close = closest(key, _MESSAGE_KEYS)
            hint = f"; did you mean '{close}'?" if close else ""
            raise RowError(f"{where} has the unknown key {quote(key)}{hint}", kind="unknown key")
    calls = _tool_calls(message.get("tool_calls"), role, where)
    weight = _weight(message.get("weight"), role, where)
    content = _content(message.get("content"), where, may_be_missing=calls is not None)
    if weight and not calls and not content.strip():
        raise RowError(f"{where} is an empty answer (remove it or give it weight 0)", kind="empty answer")
    call_id, name = (_optional_text(message.get(key), key, where) for key in ("tool_call_id", "name"))
    return Message(role, content, weight, calls, call_id, name)


def _weight(weight: object, role: str, where: str) -> int:
    if weight is None:
        return 1 if role == "assistant" else 0
    if isinstance(weight, bool) or not isinstance(weight, int) or weight not in (0, 1):
        raise RowError(f"{where} has weight {quote(weight)}; accepted: 0 or 1", kind="wrong weight")
    if weight and role != "assistant":
        raise RowError(f"{where} has weight 1 but is not from the assistant", kind="wrong weight")
    return int(weight)


def _content(content: object, where: str, *, may_be_missing: bool) -> str:
    if isinstance(content, str):
        return encodable(content, where)
    if content is None and may_be_missing:
        return ""
    if isinstance(content, list):
        return "".join(_part(part, where) for part in content)
    found = "no content" if content is None else f"content of type {type_name(content)}"
    raise RowError(f"{where} has {found}; expected text", kind="no content")


def _part(part: object, where: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return encodable(part["text"], where)
    kind = part.get("type") if isinstance(part, dict) else type_name(part)
    raise RowError(f"{where} has a content part {quote(kind)}; only text parts can be trained on")


def _tools(tools: object) -> tuple[dict[str, Any], ...] | None:
    if tools is None:
        return None
    if not isinstance(tools, list):
        raise RowError(f"'tools' must be a list, found {type_name(tools)}", kind="wrong tools")
    for place, tool in enumerate(tools, 1):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RowError(f"tool {place} has no function with a name", kind="wrong tools")
    return tuple(tools) or None


def _tool_calls(calls: object, role: str, where: str) -> tuple[dict[str, Any], ...] | None:
    if calls is None or calls == []:
        return None
    if role != "assistant":
        raise RowError(f"{where} has tool_calls but is not from the assistant", kind="wrong tool call")
    if not isinstance(calls, list):
        raise RowError(
            f"{where}: 'tool_calls' must be a list, found {type_name(calls)}", kind="wrong tool call"
        )
    return tuple(_tool_call(call, f"{where}, tool call {place}") for place, call in enumerate(calls, 1))


def _tool_call(call: object, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if (
        not isinstance(call, dict)
        or not isinstance(function, dict)
        or not isinstance(function.get("name"), str)
    ):
        raise RowError(f"{where} has no function with a name", kind="wrong tool call")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise RowError(f"{where}: 'arguments' is not valid JSON", kind="wrong tool call") from None
    if not isinstance(arguments, dict):
        raise RowError(f"{where}: 'arguments' must be a JSON object", kind="wrong tool call")
    return {**call, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _check_tool_turns(turns: tuple[Message, ...], tools: tuple[dict[str, Any], ...] | None) -> None:
    offered = {tool["function"]["name"] for tool in tools} if tools else None
    asked: set[object] = set()
    called = False
    for place, turn in enumerate(turns, 1):
        for call in turn.tool_calls or ():
            called = True
            asked.add(call.get("id") if isinstance(call.get("id"), str) else None)
            name = call["function"]["name"]
            if offered is not None and name not in offered:
                raise RowError(
                    f"message {place} calls {quote(name)}, not one of 'tools'", kind="wrong tool call"
                )
        if turn.role == "tool" and not called:
            raise RowError(f"message {place} is a tool result that no tool call asked for", kind="turn order")
        if turn.role == "tool" and turn.tool_call_id is not None and turn.tool_call_id not in asked:
            reason = f"message {place} answers {quote(turn.tool_call_id)}, the id of no earlier tool call"
            raise RowError(reason, kind="wrong tool call")


def _optional_text(value: object, key: str, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise RowError(f"{where}: '{key}' must be text, found {type_name(value)}")
    return value


def encodable(text: str, where: str) -> str:
    """The text itself; raises RowError when it cannot be written as UTF-8."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        raise RowError(
            f"{where} has half of a surrogate pair, which is no character", kind="not UTF-8"
        ) from None
    return text


def type_name(value: object) -> str:
    """What a decoded JSON value is, in a person's words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number"}
    names[float] = "a number"
    return "null" if value is None else names.get(type(value), type(value).__name__)


def quote(value: object) -> str:
    """The value in quotes, cut after 40 characters."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"'{text[:40]}...'" if len(text) > 40 else f"'{text}'"


@lru_cache(maxsize=1024)
def closest(word: str, accepted: tuple[str, ...]) -> str | None:
    """The accepted word that `word` looks like a misspelling of, or None."""
    matches = difflib.get_close_matches(word, accepted, n=1, cutoff=0.75)
    return matches[0] if matches else None
