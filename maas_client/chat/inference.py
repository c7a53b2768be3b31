"""Chat through azure-ai-inference. The package is deprecated, so this file is the only one that knows it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

from azure.ai.inference import ChatCompletionsClient
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import (
    AzureError,
    DecodeError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import RequestsTransport

from maas_client.chat import failures
from maas_client.chat.certificates import certificate_file
from maas_client.chat.contract import Answer, ChatSettings, Message


class InferenceChat:
    """One endpoint through ChatCompletionsClient."""

    def __init__(self, url: str, key: str, model: str) -> None:
        self._url, self._model = url, model
        self._client = ChatCompletionsClient(
            url,
            AzureKeyCredential(key),
            transport=RequestsTransport(
                use_env_settings=not failures.is_loopback(url), connection_verify=certificate_file() or True
            ),
            retry_total=0,
            connection_timeout=failures.CONNECT_S,
            read_timeout=failures.ANSWER_S,
        )

    def complete(self, messages: Sequence[Message], **settings: Unpack[ChatSettings]) -> Answer:
        with self._failures():
            reply = self._client.complete(messages=[*messages], model=self._model, **settings)
        choices, usage = getattr(reply, "choices", None), getattr(reply, "usage", None)
        if not choices or usage is None:
            raise failures.not_a_chat(self._url)
        reason = choices[0].finish_reason or "stop"
        text = choices[0].message.content or ""
        return Answer(text, getattr(reason, "value", reason), usage.prompt_tokens, usage.completion_tokens)

    def stream(
        self, messages: Sequence[Message], **settings: Unpack[ChatSettings]
    ) -> Generator[str, None, None]:
        ended = ""
        with self._failures():
            reply = self._client.complete(messages=[*messages], model=self._model, stream=True, **settings)
            with reply:
                for update in reply:
                    for choice in update.choices or ():
                        ended = choice.finish_reason or ended
                        if choice.delta is not None and choice.delta.content:
                            yield choice.delta.content
        if not ended:
            raise failures.broken_off()
        if ended == "content_filter":
            raise failures.filtered()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except ServiceRequestError:
            raise failures.unreachable(self._url) from None
        except (IncompleteReadError, ServiceResponseError):
            raise failures.broken_off() from None
        except DecodeError:
            raise failures.not_a_chat(self._url) from None
        except HttpResponseError as error:
            raise _refusal(error) from None
        except (AzureError, ValueError, KeyError, AttributeError):
            raise failures.not_a_chat(self._url) from None


def _refusal(error: HttpResponseError) -> Exception:
    if not error.status_code or error.status_code < 400:  # it had begun to answer
        return failures.broken_off()
    said: Any = error.error
    request_id = error.response.headers.get("x-ms-request-id", "") if error.response is not None else ""
    message, code = (said.message, said.code) if said is not None else (error.reason, "")
    return failures.refused(error.status_code, message or "", code=code or "", request_id=request_id)
