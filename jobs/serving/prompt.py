"""From chat messages to the text that the model was trained on: the tokenizer's own chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jinja2
import jinja2.meta

from serving.engine import PromptError
from tuning.errors import InputError

END_OF_TURN = ("<|end|>", "<|im_end|>", "<|endoftext|>")


class ChatPrompt:
    """Renders and encodes conversations with one tokenizer. Raises InputError if it has no chat template."""

    def __init__(self, tokenizer: Any) -> None:
        if not isinstance(tokenizer.chat_template, str):
            raise InputError("The tokenizer has no chat template; add chat_template.jinja to its folder.")
        self._tokenizer = tokenizer
        self._takes_tools = "tools" in _template_inputs(tokenizer.chat_template)
        # Phi-4-mini's template reads the tools from the system message instead.
        self._takes_system_tools = "message['tools']" in tokenizer.chat_template

    def encode(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int]:
        """Token ids of the conversation with the opening of the assistant's turn. Raises PromptError."""
        conversation = [_for_template(message) for message in messages]
        given: dict[str, Any] = {}
        if tools and self._takes_tools:
            given["tools"] = list(tools)
        elif tools:
            conversation = self._with_system_tools(conversation, tools)
        try:
            ids = self._tokenizer.apply_chat_template(
                conversation, add_generation_prompt=True, return_dict=True, **given
            )["input_ids"]
        except (jinja2.TemplateError, TypeError) as error:
            raise PromptError(f"The model's chat template refuses these messages: {error}") from None
        return [int(token) for token in ids]

    def _with_system_tools(
        self, conversation: list[dict[str, Any]], tools: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        if not self._takes_system_tools:
            raise PromptError("This model's chat template takes no tools; send the request without 'tools'.")
        text = json.dumps([tool.get("function", tool) for tool in tools])
        if conversation[0]["role"] == "system":
            return [{**conversation[0], "tools": text}, *conversation[1:]]
        return [{"role": "system", "content": "", "tools": text}, *conversation]


def end_tokens(tokenizer: Any, generation_config: Any) -> frozenset[int]:
    """Every token that ends an answer: those of both configs and the end marks that the vocabulary has."""
    ids: set[int] = set()
    for configured in (tokenizer.eos_token_id, generation_config.eos_token_id):
        ids.update([configured] if isinstance(configured, int) else configured or [])
    vocabulary = tokenizer.get_vocab()
    ids.update(vocabulary[mark] for mark in END_OF_TURN if mark in vocabulary)
    return frozenset(ids)


def _template_inputs(template: str) -> set[str]:
    try:
        parsed = jinja2.Environment(autoescape=False, extensions=["jinja2.ext.loopcontrols"]).parse(template)  # noqa: S701
    except jinja2.TemplateSyntaxError:
        return {"tools"} if "tools" in template else set()
    return jinja2.meta.find_undeclared_variables(parsed)


def _for_template(message: dict[str, Any]) -> dict[str, Any]:
    """A message as training saw it: text content, tool arguments as objects, 'developer' as 'system'."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    shown = {
        **message,
        "role": "system" if message["role"] == "developer" else message["role"],
        "content": content,
    }
    if calls := message.get("tool_calls"):
        shown["tool_calls"] = [_with_parsed_arguments(call) for call in calls]
    return {key: value for key, value in shown.items() if value is not None}


def _with_parsed_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        raise PromptError("The 'arguments' of a tool call are not valid JSON.") from None
    return {**call, "function": {**function, "arguments": arguments}}
