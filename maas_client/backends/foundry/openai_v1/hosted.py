"""What is asked about a deployment beside Resource Manager's own word, and the leases that the home keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.backends.foundry.openai_v1.deployments import Deployment, Lease, read_deployment
from maas_client.backends.local.wire import write_text
from maas_client.errors import (
    AccessDeniedError,
    NotFoundError,
    RejectedError,
    ServiceError,
    SettingsError,
    UnavailableError,
)
from maas_client.transport.errorwords import ErrorWords, error_words
from maas_client.transport.members import mapping_at, text_at

if TYPE_CHECKING:
    from maas_client.backends.foundry.openai_v1.account import Account

_BUSY = 429


class Leases:
    """The leases of this home, for a service that shows no tags; each may be read by its owner only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, name: str, lease: Lease) -> None:
        """Keep the lease of a deployment. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_text(self._at(name), json.dumps(asdict(lease), indent=2), mode=0o600)

    def drop(self, name: str) -> None:
        """Forget it, where there is one. Raises OSError."""
        self._at(name).unlink(missing_ok=True)

    def read(self, body: Mapping[str, Any]) -> Deployment:
        """Read a deployment, with the lease that is kept for it."""
        name = str(body.get("name") or "")
        kept = None
        if name and "/" not in name:
            try:
                kept = Lease.read(self._at(name))
            except ServiceError:
                kept = None
        return read_deployment(body, kept)

    def _at(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def key_of(account: Account) -> str:
    """A key of the resource: the one of the settings, else its own where that may be read, else ""."""
    if account.key:
        return account.key
    try:
        if account.facts.keys_disabled:
            return ""
        keys = account.arm.post(
            account.path("listKeys"),
            params=account.params,
            operation="read the resource's keys",
            idempotent=True,
        ).mapping
    except (AccessDeniedError, NotFoundError, RejectedError, SettingsError):
        return ""
    return text_at(keys, "key1") or text_at(keys, "key2")


def why_failed(account: Account, there: Deployment) -> str:
    """Why Azure could not make a deployment, as far as the operation still tells."""
    if there.lease is None or not there.lease.operation:
        return ""
    try:
        body = account.arm.get(there.lease.operation, operation=f"look at {there.name}").body
    except ServiceError:
        return ""
    words = error_words(body) if mapping_at(body, "error") else ErrorWords()
    return words.message or words.code


def why_silent(account: Account, name: str) -> str:
    """Why a deployment does not answer, "" where it does. Raises UnavailableError where that is open.

    It is asked nothing: only one that is there says what is wrong with that, and it costs no token.
    """
    try:
        account.service.ask(
            f"ask {name}",
            lambda api: api.chat.completions.with_raw_response.create(model=name, messages=[]),
            repeat=False,
        )
    except NotFoundError as error:
        return error.message
    except UnavailableError as error:
        if error.status is None:
            raise
        return "" if error.status == _BUSY else error.message
    except (RejectedError, AccessDeniedError):
        return ""
    return ""
