"""What the caller may do, as Azure's permissions say it, and what each step of a job needs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

_WORKSPACE = "Microsoft.MachineLearningServices/workspaces"
_ACCOUNT = "Microsoft.CognitiveServices/accounts"
_BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
_SCIENTIST = "AzureML Data Scientist"
_OPERATOR = "AzureML Compute Operator"
_BLOB_ROLE = "Storage Blob Data Contributor"
_OPENAI = "Cognitive Services OpenAI Contributor"


@dataclass(frozen=True)
class Right:
    """What one step needs. `what` goes on after "may", `role` is a built-in role that brings it; data actions
    are granted apart from others.
    """

    what: str
    action: str
    role: str
    is_data: bool = False


RUN_JOBS = (
    Right("start jobs", f"{_WORKSPACE}/jobs/write", _SCIENTIST),
    Right("stop jobs", f"{_WORKSPACE}/jobs/cancel/action", _SCIENTIST),
)
SEND_CODE = (
    Right("send code", f"{_WORKSPACE}/codes/versions/write", _SCIENTIST),
    Right("make environments", f"{_WORKSPACE}/environments/versions/write", _SCIENTIST),
)
MAKE_CLUSTERS = (Right("make clusters", f"{_WORKSPACE}/computes/write", _OPERATOR),)
REGISTER_MODELS = (Right("register models", f"{_WORKSPACE}/models/versions/write", _SCIENTIST),)
SERVE_ONLINE = (
    Right("make online endpoints", f"{_WORKSPACE}/onlineEndpoints/write", _SCIENTIST),
    Right("deploy to online endpoints", f"{_WORKSPACE}/onlineEndpoints/deployments/write", _SCIENTIST),
    Right("read keys of online endpoints", f"{_WORKSPACE}/onlineEndpoints/listKeys/action", _SCIENTIST),
    Right("delete online endpoints", f"{_WORKSPACE}/onlineEndpoints/delete", _SCIENTIST),
)
SERVE_SERVERLESS = (
    Right("make serverless endpoints", f"{_WORKSPACE}/serverlessEndpoints/write", _SCIENTIST),
    Right(
        "read keys of serverless endpoints", f"{_WORKSPACE}/serverlessEndpoints/listKeys/action", _SCIENTIST
    ),
    Right("delete serverless endpoints", f"{_WORKSPACE}/serverlessEndpoints/delete", _SCIENTIST),
)
SUBSCRIBE_MODELS = (
    Right("subscribe to a model's offer", f"{_WORKSPACE}/marketplaceSubscriptions/write", "Contributor"),
)
READ_SECRETS = (
    Right("read the datastore's secret", f"{_WORKSPACE}/datastores/listSecrets/action", _SCIENTIST),
)
WRITE_BLOBS = (
    Right("read blobs", f"{_BLOBS}/read", _BLOB_ROLE, is_data=True),
    Right("write blobs", f"{_BLOBS}/write", _BLOB_ROLE, is_data=True),
)
TUNE_OPENAI = (
    Right("send training files", f"{_ACCOUNT}/OpenAI/files/write", _OPENAI, is_data=True),
    Right("start tuning", f"{_ACCOUNT}/OpenAI/fine-tunes/write", _OPENAI, is_data=True),
)
DEPLOY_OPENAI = (
    Right("deploy models", f"{_ACCOUNT}/deployments/write", _OPENAI),
    Right("delete deployments", f"{_ACCOUNT}/deployments/delete", _OPENAI),
)


@dataclass(frozen=True)
class Grant:
    """What one role grants. What is in `not_actions` is only not granted here: another role may grant it.

    `is_conditional`: a condition that cannot be judged here narrows it.
    """

    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()
    is_conditional: bool = False


@dataclass(frozen=True)
class Permissions:
    """All that is granted at one place in Azure, from wherever it is inherited."""

    grants: tuple[Grant, ...]

    def allows(self, action: str) -> bool | None:
        """Whether an action such as Microsoft.X/y/write is granted; None where that cannot be told."""
        return _any(_granted(action, one.actions, one.not_actions, one) for one in self.grants)

    def allows_data(self, action: str) -> bool | None:
        """The same for a data action."""
        return _any(_granted(action, one.data_actions, one.not_data_actions, one) for one in self.grants)

    def gives(self, right: Right) -> bool | None:
        """Whether a right is granted; None where that cannot be told."""
        return self.allows_data(right.action) if right.is_data else self.allows(right.action)


def read_permissions(rows: Iterable[Any]) -> Permissions:
    """The permissions in the rows that `GET .../providers/Microsoft.Authorization/permissions` lists."""
    return Permissions(tuple(_read_grant(row) for row in rows if isinstance(row, Mapping)))


def _read_grant(row: Mapping[str, Any]) -> Grant:
    def names(key: str) -> tuple[str, ...]:
        found = row.get(key)
        return tuple(map(str, found)) if isinstance(found, Sequence) and not isinstance(found, str) else ()

    return Grant(
        names("actions"),
        names("notActions"),
        names("dataActions"),
        names("notDataActions"),
        bool(row.get("condition")),
    )


def _granted(action: str, wanted: Sequence[str], unwanted: Sequence[str], grant: Grant) -> bool | None:
    """Wanted and not unwanted, in three values; a condition leaves no plain yes."""
    yes, no = _matches(action, wanted), _matches(action, unwanted)
    if yes is False or no is True:
        return False
    return None if yes is None or no is None or grant.is_conditional else True


def _any(answers: Iterable[bool | None]) -> bool | None:
    found = set(answers)
    return True if True in found else None if None in found else False


def _matches(action: str, patterns: Sequence[str]) -> bool | None:
    """Whether a pattern names the action; None where only a loose reading of `/*/` does."""
    exact = any(_pattern(each).fullmatch(action) for each in patterns)
    loose = exact or any(_pattern(each.replace("/*/", "/")).fullmatch(action) for each in patterns)
    return True if exact else None if loose else False


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """`*` stands for any text, slashes included; letter case does not matter."""
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.IGNORECASE | re.DOTALL)
