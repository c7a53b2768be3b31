"""Whether a deployment answers: Azure may call it succeeded minutes before, and long after, it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from maas_client.errors import MaasError, UnavailableError
from maas_client.transport.errorwords import error_words

QUESTION = {"maas": "health"}
"""What score.py answers without its model."""
DEPLOYMENT_HEADER = "azureml-model-deployment"
_CONNECT_S, _READ_S, _WHOLE_S = 5.0, 20.0, 25.0
_BUSY = 429  # too many requests: it is there


@dataclass(frozen=True)
class Health:
    """`answers` is None where it could not be asked; `words` say why it does not answer."""

    answers: bool | None
    words: str = ""


Ask = Callable[[str, str, str], Health]
"""Asks a deployment by scoring URL, key and name."""


def ask_health(url: str, key: str, deployment: str) -> Health:
    """Ask one deployment whether it is there, whatever its share of the traffic. Takes at most 25 s."""
    from maas_client.transport.credential import KeyCredential
    from maas_client.transport.exchange import Exchange, Request, Timeouts
    from maas_client.transport.trust import TrustedHosts, is_loopback

    if not (url.startswith("https://") or is_loopback(url)):
        return Health(None, f"its address {url or 'is not known yet'} may not see a key")
    credential = KeyCredential(key, "Authorization", "Bearer ")
    exchange = Exchange(TrustedHosts(url), timeouts=Timeouts(_CONNECT_S, _READ_S, _WHOLE_S))
    request = Request("POST", url, QUESTION, headers={DEPLOYMENT_HEADER: deployment})
    try:
        answer = exchange.send(request, lambda: credential.headers(""))
    except UnavailableError as error:
        return Health(answers=False, words=error.message.rstrip("."))
    except MaasError as error:
        return Health(None, error.message.rstrip("."))
    finally:
        exchange.close()
    if answer.status == _BUSY:
        return Health(answers=True)
    if answer.status < 300 and isinstance(answer.body, dict) and answer.body.get("maas") == "health":
        return Health(answers=True)
    said = error_words(answer.body, answer.text, answer.headers)
    words = (
        ": ".join(part for part in (said.code, said.message.rstrip(". ")) if part) or "something else answers"
    )
    return Health(answers=False, words=f"{words} (HTTP {answer.status})")
