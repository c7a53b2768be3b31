"""Chat through the openai package: the only file that knows it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

from openai import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    DefaultHttpxClient,
    OpenAI,
    Timeout,
)
from openai.types.chat import ChatCompletion

from maas_client.chat import failures
from maas_client.chat.certificates import ssl_context
from maas_client.chat.contract import Answer, ChatSettings, Message


class OpenAIChat:
    """One endpoint through the chat completions of the OpenAI v1 protocol.

    `base_url` ends in /v1; `key` may be a function that gives the token of the moment.
    """

    def __init__(self, base_url: str, key: str | Callable[[], str], model: str) -> None:
        self._url, self._model = base_url, model
        timeout = Timeout(failures.ANSWER_S, connect=failures.CONNECT_S)
        self._client = OpenAI(
            base_url=base_url,
            api_key=key,
            max_retries=0,
            http_client=DefaultHttpxClient(
                timeout=timeout, trust_env=not failures.is_loopback(base_url), verify=ssl_context()
            ),
        )

    def complete(self, messages: Sequence[Message], **settings: Unpack[ChatSettings]) -> Answer:
        with self._failures():
            reply = self._client.chat.completions.create(
                messages=_plain(messages), model=self._model, **settings
            )
        if not isinstance(reply, ChatCompletion) or not reply.choices or reply.usage is None:
            raise failures.not_a_chat(self._url)
        choice, usage = reply.choices[0], reply.usage
        message: Any = getattr(choice, "message", None)  # a filtered answer of Azure has none
        text = message.content or "" if message is not None else ""
        return Answer(text, choice.finish_reason, usage.prompt_tokens, usage.completion_tokens)

    def stream(
        self, messages: Sequence[Message], **settings: Unpack[ChatSettings]
    ) -> Generator[str, None, None]:
        ended = ""
        with self._failures():
            reply = self._client.chat.completions.create(
                messages=_plain(messages), model=self._model, stream=True, **settings
            )
        with reply, self._failures(in_answer=True):
            for update in reply:
                for choice in update.choices:
                    ended = choice.finish_reason or ended
                    if choice.delta is not None and choice.delta.content:
                        yield choice.delta.content
        if not ended:
            raise failures.broken_off()
        if ended == "content_filter":
            raise failures.filtered()

    @contextmanager
    def _failures(self, *, in_answer: bool = False) -> Iterator[None]:
        try:
            yield
        except APIConnectionError:
            raise (failures.broken_off() if in_answer else failures.unreachable(self._url)) from None
        except APIStatusError as error:
            code, request_id = str(error.code or ""), error.request_id or ""
            raise failures.refused(
                error.status_code, _said(error), code=code, request_id=request_id
            ) from None
        except APIResponseValidationError:
            raise failures.not_a_chat(self._url) from None
        except APIError:
            raise failures.broken_off() from None


def _plain(messages: Sequence[Message]) -> Any:
    return [dict(message) for message in messages]


def _said(error: APIStatusError) -> str:
    """The endpoint's own sentence, without the library's wrapping."""
    body: Any = error.body
    return str(body.get("message", "")) if isinstance(body, dict) else error.response.reason_phrase
