"""`maas chat`: ask an endpoint once, or talk to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from maas_client.cli.output import Output, OutputFormat, complain, emit, machine_readable, say
from maas_client.errors import MaasError, UsageError

if TYPE_CHECKING:
    from maas_client.chat import ChatSettings, Conversation

WORDS = "/reset forgets the conversation, /exit or Ctrl-D leaves, Ctrl-C stops an answer."


class Client(StrEnum):
    """The library that speaks to the endpoint."""

    INFERENCE = "inference"
    OPENAI = "openai"


def chat(
    name: Annotated[str, typer.Argument(help="Name of the endpoint.", show_default=False)],
    message: Annotated[
        str | None,
        typer.Option("--message", "-m", help="Ask this and print the answer; - reads it from stdin."),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="What the model should know before the first question.")
    ] = None,
    client: Annotated[
        Client | None,
        typer.Option(help="The library that speaks to the endpoint.", show_default="the one that fits"),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="0 answers the same each time; more varies more.")
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Ask an endpoint with -m, or talk to it."""
    from maas_client.chat import Conversation, open_chat
    from maas_client.project import open_project

    question = _question(message)
    access = open_project().endpoint_access(name)
    library = client.value if client else None
    opened = open_chat(access.url, access.key, access.model, library, speaks=access.speaks)
    conversation = Conversation(opened, system=system)
    settings = _settings(max_tokens, temperature)
    if question is None:
        _talk(conversation, settings)
    else:
        _ask_once(name, conversation, question, settings)


def _question(message: str | None) -> str | None:
    """The question of a single call; None for a conversation."""
    if message is None:
        if machine_readable() or not sys.stdin.isatty():
            raise UsageError("There is no terminal to talk at.", hint='Pass -m "...", or -m - to read stdin.')
        return None
    text = sys.stdin.read() if message == "-" else message
    if not text.strip():
        raise UsageError("The message is empty.", hint='Pass -m "...", or -m - to read stdin.')
    return text


def _settings(max_tokens: int | None, temperature: float | None) -> ChatSettings:
    settings: ChatSettings = {}
    if max_tokens is not None:
        settings["max_tokens"] = max_tokens
    if temperature is not None:
        settings["temperature"] = temperature
    return settings


def _ask_once(name: str, conversation: Conversation, question: str, settings: ChatSettings) -> None:
    answer = conversation.ask(question, **settings)
    if machine_readable():
        emit({"endpoint": name, **answer.to_dict()})
    else:
        print(_shown(answer.text), flush=True)
    if answer.finish_reason == "length":
        say(f"The answer was cut at {answer.completion_tokens} tokens; --max-tokens allows more.")


def _talk(conversation: Conversation, settings: ChatSettings) -> None:
    say(WORDS, style="dim")
    for question in _questions():
        if question == "/reset":
            conversation.reset()
            say("Forgotten.", style="dim")
            continue
        try:
            for part in conversation.stream(question, **settings):
                print(_shown(part), end="", flush=True)
            print()
        except KeyboardInterrupt:
            print()
            say("Stopped; that turn is forgotten.", style="dim")
        except MaasError as error:
            complain(error)


def _questions() -> Iterator[str]:
    """What the person types, line by line, until /exit or Ctrl-D."""
    import readline  # noqa: F401 - input() edits lines and keeps their history once this is loaded

    while True:
        try:
            line = input("> ").strip()
        except KeyboardInterrupt:
            print()
            say(WORDS, style="dim")
            continue
        except EOFError:
            print()
            return
        if line == "/exit":
            return
        if line == "/help":
            say(WORDS, style="dim")
            continue
        if line:
            yield line


def _shown(text: str) -> str:
    """Text for stdout: a terminal gets no control characters, which could recolor or rewrite it."""
    if not sys.stdout.isatty():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
