"""Tokens to text while they arrive: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_PATIENCE_TOKENS = (
    8  # a UTF-8 character has at most 4 bytes, so more undecodable tokens than this are no character
)


class TextStream:
    """Decodes one token at a time; holds a token back until the character that it belongs to is complete."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []  # tokens shown last (they give the spacing), then the tokens held back
        self._shown = 0
        self._shown_text = ""

    def feed(self, token: int) -> str:
        """The text that this token completes, often empty."""
        self._window.append(token)
        return self._advance(patience=_PATIENCE_TOKENS)

    def finish(self) -> str:
        """What is still held back; an incomplete character becomes a replacement character."""
        return self._advance(patience=0) if len(self._window) > self._shown else ""

    def _advance(self, patience: int) -> str:
        text = self._decode(self._window)
        if text.endswith(_BROKEN) and len(self._window) - self._shown <= patience:
            return ""
        new = text[len(self._shown_text) :]
        self._window = self._window[self._shown :]
        self._shown = len(self._window)
        self._shown_text = self._decode(self._window)
        return new


class StopText:
    """Lets text through until a stop string appears; holds back an end that may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """What of the text so far surely comes before any stop string. Sets `found` at a stop string."""
        if not self._stops:
            return text
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            return self._release(min(places), drop_rest=True)
        return self._release(len(self._held) - self._doubtful_end())

    def finish(self) -> str:
        """What was held back in doubt, once no more text can come."""
        return self._release(len(self._held))

    def _release(self, end: int, *, drop_rest: bool = False) -> str:
        out, self._held = self._held[:end], "" if drop_rest else self._held[end:]
        return out

    def _doubtful_end(self) -> int:
        longest = max(len(stop) for stop in self._stops) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
