"""One answer at a time, first come, first served: the engine's thread here, the event loop there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from serving.engine import Engine, Piece, Settings


class BusyError(Exception):
    """More answers are waiting than the server takes on."""


class Turns:
    """Runs an engine in one thread of its own; requests beyond the first wait for their turn."""

    def __init__(self, engine: Engine, *, waiting_limit: int = 32) -> None:
        self.engine = engine
        self._waiting_limit = waiting_limit
        self._open = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    def require_room(self) -> None:
        """Raise BusyError while as many answers are open as may be."""
        if self._open > self._waiting_limit:
            raise BusyError(f"{self._open} answers are being written or waiting; try again in a moment.")

    async def encode(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int]:
        """The engine's `encode`, off the event loop: a long conversation takes a while."""
        return await asyncio.to_thread(self.engine.encode, messages, tools)

    async def answer(self, prompt: Sequence[int], settings: Settings) -> AsyncGenerator[Piece, None]:
        """The pieces of the answer; what piled up while the reader was busy comes as one piece.

        Closing or canceling the iterator stops the engine at its next token. Raises what the engine raises.
        """
        pieces: asyncio.Queue[Piece | BaseException] = asyncio.Queue()
        loop, left = asyncio.get_running_loop(), threading.Event()

        def work() -> None:
            try:
                for piece in _until(left, self.engine.generate(prompt, settings)):
                    loop.call_soon_threadsafe(pieces.put_nowait, piece)
            except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the reader
                loop.call_soon_threadsafe(pieces.put_nowait, error)

        self._open += 1
        try:
            self._thread.submit(work)
            while True:
                piece = await _next_joined(pieces)
                yield piece
                if piece.finish_reason:
                    return
        finally:
            self._open -= 1
            left.set()

    def close(self) -> None:
        """Take no more turns. The thread ends with the answer that it is writing."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _until(left: threading.Event, pieces: Iterator[Piece]) -> Iterator[Piece]:
    while not left.is_set() and (piece := next(pieces, None)) is not None:
        yield piece


async def _next_joined(pieces: asyncio.Queue[Piece | BaseException]) -> Piece:
    """Wait for the next piece and join to it those that already lie behind it."""
    texts: list[str] = []
    while True:
        piece = await pieces.get()
        if isinstance(piece, BaseException):
            raise piece
        texts.append(piece.text)
        if pieces.empty() or piece.finish_reason:
            return Piece("".join(texts), piece.tokens, piece.finish_reason)
