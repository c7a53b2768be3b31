"""The seam between the server and whatever computes the answer: what an engine takes, gives and promises."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from serving.model_folder import ModelSource
from tuning.errors import InputError

FinishReason = Literal["stop", "length"]
Precision = Literal["auto", "fp32", "bf16"]

# Each module offers `load(source, precision) -> Engine`; it is imported when its engine is chosen.
ENGINES = {"transformers": "serving.transformers_engine"}


class PromptError(Exception):
    """The conversation cannot be put to this model. `code` is the protocol's word for the reason."""

    def __init__(self, message: str, *, code: str = "invalid_prompt") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Settings:
    """How to answer. Temperature 0 takes the likeliest token; `max_tokens` is cut to the context's room."""

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of an answer. `tokens` counts all so far; the last piece, and only it, has a reason."""

    text: str
    tokens: int
    finish_reason: FinishReason | None = None


class Engine(Protocol):
    """A loaded model. One answer at a time: callers do not run two `generate` at once."""

    context_length: int

    def encode(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int]:
        """Token ids of the conversation, ready for the answer. Raises PromptError."""
        ...

    def generate(self, prompt: Sequence[int], settings: Settings) -> Iterator[Piece]:
        """Yield a piece a token; pieces may be empty while a character or a stop string is incomplete.

        Blocks while computing. Abandoning the iterator abandons the answer. The prompt must leave room for at
        least one token (`len(prompt) < context_length`).
        """
        ...


def load_engine(name: str, source: ModelSource, precision: Precision = "auto") -> Engine:
    """Load the model into the named engine (one of ENGINES). Raises InputError with the reason."""
    if name not in ENGINES:
        raise InputError(f"There is no engine '{name}'; the engines are: {', '.join(ENGINES)}.")
    engine: Engine = importlib.import_module(ENGINES[name]).load(source, precision)
    return engine
