"""What the ledger's actions tell of endpoints and models: on which backend and in which target they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maas_client.ledger import Action

DEPLOY, DELETE, REGISTER, TRAFFIC = "deploy", "delete endpoint", "register", "set traffic"
"""Verbs of actions; their subject is a name."""
_LOCAL = "local"


@dataclass(frozen=True)
class EndpointTrace:
    """An endpoint that was meant to be made from here and was not deleted from here.

    Times are unix seconds; `expires_at` is None where that is not known. It may be gone: only its backend
    knows.
    """

    backend: str
    name: str
    model: str
    target: str
    expires_at: float | None


def endpoint_traces(actions: Iterable[Action]) -> list[EndpointTrace]:
    """The endpoints, oldest first."""
    found: dict[tuple[str, str], EndpointTrace] = {}
    for action in actions:
        key = (backend_of(action), action.subject)
        if action.verb == DEPLOY:
            found[key] = _trace(action, found.get(key))
        elif action.verb == DELETE and action.result is not None:
            found.pop(key, None)
    return list(found.values())


def _trace(action: Action, before: EndpointTrace | None) -> EndpointTrace:
    """A deployment that was refused leaves what was there."""
    if action.error is not None and before is not None:
        return before
    end = (action.result or {}).get("expires_at")
    return EndpointTrace(
        backend_of(action),
        action.subject,
        str(action.intent.get("model") or ""),
        str(action.intent.get("target") or ""),
        float(end) if isinstance(end, int | float) else None,
    )


def registering_backends(actions: Iterable[Action], name: str | None = None) -> list[str]:
    """The backends on which a model of that name (of any) was registered from here."""
    wanted = (one for one in actions if one.verb == REGISTER and name in (None, one.subject))
    return list(dict.fromkeys(backend_of(one) for one in wanted))


def backend_of(action: Action) -> str:
    """The backend of an action; those of the first ledgers were all on this machine."""
    return str(action.intent.get("backend") or _LOCAL)
