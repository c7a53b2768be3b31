"""What every chat client offers, in the same words whichever library speaks."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypedDict, Unpack

Message = Mapping[str, Any]
"""{"role": "system" | "user" | "assistant", "content": text}"""


class ChatSettings(TypedDict, total=False):
    """How to answer. What is absent is the endpoint's choice (the bundled server: greedy, 512 tokens)."""

    max_tokens: int
    temperature: float
    top_p: float
    stop: list[str]
    seed: int


@dataclass(frozen=True)
class Answer:
    """A whole answer. `finish_reason` is "stop", or "length" where it was cut at max_tokens."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self)


class Chat(Protocol):
    """A way into one endpoint. Nothing is retried here.

    Both calls block and raise UnavailableError (not reachable, overloaded, broken off: may be tried again),
    AccessDeniedError, NotFoundError, RejectedError (the request is wrong) or ServiceError.
    """

    def complete(self, messages: Sequence[Message], **settings: Unpack[ChatSettings]) -> Answer:
        """Wait for the whole answer."""
        ...

    def stream(
        self, messages: Sequence[Message], **settings: Unpack[ChatSettings]
    ) -> Generator[str, None, None]:
        """Yield the answer's text as it is written. Closing the generator stops the endpoint's work on it."""
        ...
