"""What the caller is granted, roles of identities, and which providers are registered."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from maas_client.simulator.replies import Refusal

OWNER: dict[str, Any] = {"actions": ["*"], "notActions": [], "dataActions": ["*"], "notDataActions": []}
_ENDS = {"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}
_ALWAYS = re.compile(r"microsoft\.(authorization|resources)/", re.IGNORECASE)


@dataclass
class Grants:
    """What is granted to the caller (`caller`), roles of identities by (scope, principal), states of
    providers, and what differs in the properties of the storage account.
    """

    caller: list[dict[str, Any]] = field(default_factory=lambda: [dict(OWNER)])
    assignments: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    providers: dict[str, str] = field(default_factory=dict)
    storage: dict[str, Any] = field(default_factory=dict)

    def may(self, action: str) -> bool:
        """Whether the caller is granted an action; `*` stands for any text."""
        return any(
            _named(action, grant.get("actions") or ()) and not _named(action, grant.get("notActions") or ())
            for grant in self.caller
        )

    def check(self, method: str, path: str) -> None:
        """Raise the refusal of ARM for a request that the caller is not granted."""
        action = action_of(method, path)
        if action and not _ALWAYS.match(action) and not self.may(action):
            text = (
                "The client 'simulated' with object id '00000000-0000-0000-0000-0000000051a1' does not have "
                f"authorization to perform action '{action}' over scope '{path}' or the scope is invalid. "
                "If access was recently granted, please refresh your credentials."
            )
            raise Refusal(403, "AuthorizationFailed", text, inner=None)


def _named(action: str, patterns: Any) -> bool:
    texts = (".*".join(map(re.escape, str(each).split("*"))) for each in patterns)
    return any(re.fullmatch(text, action, re.IGNORECASE) for text in texts)


def action_of(method: str, path: str) -> str:
    """The action that a request to ARM is: Microsoft.X/things/parts/write; "" for other paths."""
    if not path.lower().startswith("/subscriptions/") or "/providers/" not in path:
        return ""
    provider, *parts = path.rpartition("/providers/")[2].split("/")
    if not parts:
        return ""
    if method == "POST":
        return "/".join([provider, *parts[:-1:2], *parts[-1:], "action"])
    return "/".join([provider, *parts[::2], _ENDS.get(method, "read")])
