"""A conversation: the turns so far, so that each question is asked in their light."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Unpack

from maas_client.chat.contract import Answer, Chat, ChatSettings, Message


class Conversation:
    """Keeps the history of a chat. A turn that failed or was broken off is forgotten, question included."""

    def __init__(self, chat: Chat, *, system: str | None = None) -> None:
        self._chat = chat
        self._start: list[Message] = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._start)

    @property
    def messages(self) -> tuple[Message, ...]:
        """Every message so far, the system message first."""
        return tuple(self._messages)

    def ask(self, text: str, **settings: Unpack[ChatSettings]) -> Answer:
        """Ask, wait for the whole answer and remember both. Raises what Chat.complete raises."""
        question = {"role": "user", "content": text}
        answer = self._chat.complete([*self._messages, question], **settings)
        self._remember(question, answer.text)
        return answer

    def stream(self, text: str, **settings: Unpack[ChatSettings]) -> Generator[str, None, None]:
        """Ask and yield the answer as it is written; both are remembered once it is complete."""
        question = {"role": "user", "content": text}
        said: list[str] = []
        with closing(self._chat.stream([*self._messages, question], **settings)) as parts:
            for part in parts:
                said.append(part)
                yield part
        self._remember(question, "".join(said))

    def reset(self) -> None:
        """Forget every turn; the system message stays."""
        self._messages = list(self._start)

    def _remember(self, question: Message, answer: str) -> None:
        self._messages += [question, {"role": "assistant", "content": answer}]
