"""Nothing is changed in another place than the settings name: the sentences for it. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

from maas_client.errors import TargetError

_WORKSPACE = re.compile(
    r"workspace (?P<workspace>\S+) in (?P<group>[^,]+), subscription (?P<subscription>[0-9A-Za-z-]+)"
)
_RESOURCE = re.compile(
    r"(?:project (?P<project>\S+) of )?Foundry resource \S+ \((?:https://)?(?P<host>[^)/]+)[^)]*\)"
)


def require_target(what: str, made_in: str, named: Collection[str]) -> None:
    """Raise TargetError unless the target in which something was made is one that the settings name.

    `what` begins the sentence ("Run card-1"); `named` are the targets of the settings, none where they are
    not set.
    """
    if made_in in named or not made_in:
        return
    now = f"the settings name {' and '.join(named)}" if named else "the settings name none"
    raise TargetError(f"{what} is in {made_in}, and {now}; nothing was sent.", hint=switch_hint(made_in))


def switch_hint(target: str) -> str:
    """How to make the settings name a target."""
    if found := _WORKSPACE.search(target):
        return (
            f"Set AZURE_SUBSCRIPTION_ID={found['subscription']} AZURE_RESOURCE_GROUP={found['group']} "
            f"AZUREML_WORKSPACE_NAME={found['workspace']} in the environment or in .env."
        )
    if found := _RESOURCE.search(target):
        if found["project"]:
            return f"Set FOUNDRY_PROJECT_ENDPOINT=https://{found['host']}/api/projects/{found['project']}."
        return f"Set AZURE_OPENAI_ENDPOINT=https://{found['host']} in the environment or in .env."
    return "Set the variables of .env.example for it."
