"""Chat with a managed online endpoint of Azure ML: its scoring URI takes a chat request, answers it whole."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Unpack

from maas_client.chat import failures
from maas_client.chat.contract import Answer, ChatSettings, Message
from maas_client.errors import ServiceError, UnavailableError
from maas_client.transport.answer import Answer as Reply
from maas_client.transport.credential import KeyCredential
from maas_client.transport.errorwords import error_words
from maas_client.transport.exchange import Exchange, Request, Timeouts
from maas_client.transport.trust import TrustedHosts

_MODEL_STATUS = "ms-azureml-model-error-statuscode"
"""What the model's own status was where the service answers 424 in its place."""
_NEVER_BEGUN = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ReadTimeout", "WriteTimeout"}


class ScoreChat:
    """One endpoint by its scoring URI. Each request carries its own headers and is sent once."""

    def __init__(self, url: str, key: str, model: str) -> None:
        self._url, self._model = url, model
        timeouts = Timeouts(failures.CONNECT_S, failures.ANSWER_S, failures.ANSWER_S)
        self._exchange = Exchange(TrustedHosts(url), timeouts=timeouts)
        self._credential = KeyCredential(key, "Authorization", "Bearer ")

    def complete(self, messages: Sequence[Message], **settings: Unpack[ChatSettings]) -> Answer:
        body = {"messages": [dict(message) for message in messages], "model": self._model, **settings}
        reply = self._send(body)
        _require_success(reply)
        try:
            choice, usage = reply.body["choices"][0], reply.body["usage"]
            text = str(choice["message"]["content"] or "")
            counts = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
            return Answer(text, str(choice["finish_reason"] or "stop"), *counts)
        except (KeyError, IndexError, TypeError, ValueError):
            raise failures.not_a_chat(self._url) from None

    def stream(
        self, messages: Sequence[Message], **settings: Unpack[ChatSettings]
    ) -> Generator[str, None, None]:
        """Yield the whole answer as one part: the service does not stream."""
        if text := self.complete(messages, **settings).text:
            yield text

    def _send(self, body: dict[str, Any]) -> Reply:
        request = Request("POST", self._url, body, headers={"Accept": "application/json"})
        try:
            return self._exchange.send(request, lambda: self._credential.headers(""))
        except UnavailableError as error:
            if error.code in _NEVER_BEGUN:
                raise failures.unreachable(self._url) from None
            raise failures.broken_off() from None
        except ServiceError as error:
            error.operation = failures.OPERATION
            raise


def _require_success(reply: Reply) -> None:
    """Raise the refusal that an answer is, whichever way its status came."""
    status = reply.status
    if status == 424 and reply.headers.get(_MODEL_STATUS, "").isdecimal():
        status = int(reply.headers[_MODEL_STATUS])
    if status < 300 and isinstance(reply.body, dict) and "error" in reply.body:
        status = int(reply.body.get("status") or 500)
    if status >= 300:
        words = error_words(reply.body, reply.text, reply.headers)
        ids = ", ".join(reply.request_ids)
        raise failures.refused(status, words.message, code=_code(reply, words.code), request_id=ids)


def _code(reply: Reply, code: str) -> str:
    error = reply.body.get("error") if isinstance(reply.body, dict) else None
    own = error.get("code") if isinstance(error, dict) else None
    return own if isinstance(own, str) else code
