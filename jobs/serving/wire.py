"""The chat protocol of OpenAI and Azure AI as data: requests checked and read, answers and errors written."""

from __future__ import annotations

import json
import time
import uuid
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from serving.engine import FinishReason, Settings

# Fields that change nothing here and may be sent all the same.
_IGNORED = {"user", "metadata", "store", "parallel_tool_calls", "safety_identifier", "prompt_cache_key"}
_SHOWN_PROBLEMS = 3


class RequestError(Exception):
    """The request cannot be served: HTTP `status`, the protocol's word (`code`) and the field (`param`)."""

    def __init__(
        self, message: str, *, status: int = 400, code: str = "invalid_request", param: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


def _whole_characters(text: str) -> str:
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("holds half of a surrogate pair, which is no character")
    return text


_Text = Annotated[str, AfterValidator(_whole_characters)]


class _Part(BaseModel):
    type: Literal["text"]
    text: _Text


class _Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: _Text | list[_Part] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _ResponseFormat(BaseModel):
    type: Literal["text"]


_Stop = Annotated[str, Field(min_length=1, max_length=200)]
_Count = Annotated[int, Field(ge=1)]


class ChatRequest(BaseModel):
    """One chat request, checked. A field that cannot be honored takes only its neutral value."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    messages: Annotated[list[_Message], Field(min_length=1)]
    model: str | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    tools: list[dict[str, Any]] | None = None
    n: Literal[1] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    response_format: _ResponseFormat | None = None
    logprobs: Literal[False] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None

    def settings(self) -> Settings:
        """How to answer, with the engine's defaults where the request says nothing."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        default = Settings()
        return Settings(
            max_tokens=self.max_completion_tokens or self.max_tokens or default.max_tokens,
            temperature=default.temperature if self.temperature is None else self.temperature,
            top_p=default.top_p if self.top_p is None else self.top_p,
            stop=stop,
            seed=self.seed,
        )

    def conversation(self) -> list[dict[str, Any]]:
        """The messages as plain data, without absent fields."""
        return [message.model_dump(exclude_none=True) for message in self.messages]

    def offered_tools(self) -> list[dict[str, Any]]:
        """The tools to show to the model; none when the request says so."""
        return [] if self.tool_choice == "none" else self.tools or []

    def require_model(self, name: str) -> None:
        """Raise RequestError where the request names another model than the one called `name`."""
        if self.model is not None and self.model != name:
            message = f"There is no model '{self.model}' here; this endpoint serves '{name}'."
            raise RequestError(message, status=404, code="model_not_found", param="model")

    def wants_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


def require_context(prompt_tokens: int, context_length: int) -> None:
    """Raise RequestError where a prompt leaves no room for an answer."""
    if prompt_tokens >= context_length:
        message = (
            f"The messages have {prompt_tokens} tokens; "
            f"the model's context is {context_length} with the answer."
        )
        raise RequestError(message, code="context_length_exceeded", param="messages")


def read_request(body: bytes, *, drop_unknown: bool) -> ChatRequest:
    """Parse and check a request body. Raises RequestError with every problem in one sentence."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise RequestError("The body must be a JSON object with 'messages'.", code="invalid_json")
    try:
        request = ChatRequest.model_validate(data)
    except ValidationError as error:
        raise _problems(error) from None
    unknown = sorted(set(request.model_extra or ()) - _IGNORED)
    if unknown and not drop_unknown:
        close = get_close_matches(unknown[0], ChatRequest.model_fields, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise RequestError(f"Unknown field '{unknown[0]}'{hint}", code="unknown_field", param=unknown[0])
    return request


def _problems(error: ValidationError) -> RequestError:
    found: dict[str, str] = {}
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        place = ".".join(str(part) for part in problem["loc"] if not _is_type_name(part))
        found.setdefault(place, problem["msg"].removeprefix("Value error, "))
    sentence = "; ".join(f"'{place}': {message}" for place, message in list(found.items())[:_SHOWN_PROBLEMS])
    return RequestError(f"The request is wrong at {sentence}", param=next(iter(found)))


def _is_type_name(part: int | str) -> bool:
    """Whether a part of a problem's place names the branch of a union, not a field."""
    return isinstance(part, str) and (part in {"str", "constrained-str"} or "[" in part)


def error_body(message: str, *, status: int, code: str, param: str = "") -> dict[str, Any]:
    """An error in the shape that both client libraries read."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "code": code, "param": param or None}}


class AnswerWriter:
    """Writes one answer in the protocol's shapes: whole, or as chunks of a stream."""

    def __init__(self, model: str, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, text: str, tokens: int, reason: FinishReason) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage(tokens)}

    def opening(self) -> bytes:
        """The first event of a stream: who speaks."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def delta(self, text: str) -> bytes:
        """The event for the next part of the text."""
        return self._chunk({"content": text}, None)

    def closing(self, tokens: int, reason: FinishReason, *, with_usage: bool) -> bytes:
        """The last events: why the answer ended, the token counts if asked for, and the end mark."""
        usage = {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage(tokens)}
        return self._chunk({}, reason) + (event(usage) if with_usage else b"") + b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, str], reason: FinishReason | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return event({**self._head, "object": "chat.completion.chunk", "choices": [choice]})

    def _usage(self, tokens: int) -> dict[str, int]:
        total = self._prompt_tokens + tokens
        return {"prompt_tokens": self._prompt_tokens, "completion_tokens": tokens, "total_tokens": total}


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"
