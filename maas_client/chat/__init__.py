"""Chat with an endpoint: one contract, two client libraries behind it, and a conversation that remembers."""

from __future__ import annotations

from maas_client.chat.contract import Answer, Chat, ChatSettings, Message
from maas_client.chat.conversation import Conversation

CLIENTS = ("inference", "openai")

__all__ = ["CLIENTS", "Answer", "Chat", "ChatSettings", "Conversation", "Message", "open_chat"]


def open_chat(url: str, key: str, model: str, client: str = "inference") -> Chat:
    """Open a chat with the endpoint at `url`; nothing is sent yet.

    `client` is the library that speaks: "inference" (azure-ai-inference) or "openai". Raises UsageError.
    """
    if client == "inference":
        from maas_client.chat.inference import InferenceChat

        return InferenceChat(url, key, model)
    if client == "openai":
        from maas_client.chat.openai_v1 import OpenAIChat

        return OpenAIChat(url, key, model)
    from maas_client.errors import UsageError

    raise UsageError(f"There is no chat client '{client}'.", hint=f"Take one of: {', '.join(CLIENTS)}.")
