"""Chat with an endpoint: one contract, three ways in behind it, and a conversation that remembers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from maas_client.chat.contract import Answer, Chat, ChatSettings, Message
from maas_client.chat.conversation import Conversation

CLIENTS = ("inference", "openai")
"""Libraries that speak to an endpoint; which of them fit depends on what the endpoint speaks."""
_FITTING = {"chat": CLIENTS, "openai": ("openai",), "score": ()}
_ENTRA_SCOPE = "https://ai.azure.com/.default"

__all__ = ["CLIENTS", "Answer", "Chat", "ChatSettings", "Conversation", "Message", "open_chat"]


def open_chat(
    url: str,
    key: str,
    model: str,
    client: str | None = None,
    *,
    speaks: Literal["chat", "openai", "score"] = "chat",
) -> Chat:
    """Open a chat with the endpoint at `url`; nothing is sent yet.

    `speaks` is how the endpoint is asked (EndpointAccess.speaks). `client` is the library that asks:
    "inference" (azure-ai-inference), "openai", or None for the one that fits. An empty key signs in with
    Microsoft Entra (speaks "openai" only). Raises UsageError.
    """
    _require_fitting(client, speaks)
    if speaks == "score":
        from maas_client.chat.scoring import ScoreChat

        return ScoreChat(url, key, model)
    if speaks == "openai" or client == "openai":
        from maas_client.chat.openai_v1 import OpenAIChat

        base_url = url if speaks == "openai" else f"{url.rstrip('/')}/v1"
        return OpenAIChat(base_url, key or _entra_token(), model)
    from maas_client.chat.inference import InferenceChat

    return InferenceChat(url, key, model)


def _require_fitting(client: str | None, speaks: str) -> None:
    from maas_client.errors import UsageError

    if client is not None and client not in CLIENTS:
        raise UsageError(f"There is no chat client '{client}'.", hint=f"Take one of: {', '.join(CLIENTS)}.")
    fitting = _FITTING[speaks]
    if client is not None and client not in fitting:
        words = f"This endpoint cannot be asked through '{client}'."
        hint = (
            f"Take {' or '.join(fitting)}." if fitting else "Leave the client out: it takes plain requests."
        )
        raise UsageError(words, hint=hint)


def _entra_token() -> Callable[[], str]:
    """Gives a token of the settings' credential whenever one is needed; renews it before it ends."""
    from maas_client.settings import settings
    from maas_client.transport.credential import open_credential

    credential = open_credential(settings())
    return lambda: credential.token(_ENTRA_SCOPE)
