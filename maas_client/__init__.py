"""maas_client: fine-tune small language models from one job file, on the laptop or on Azure.

The names below are the public Python API. Each is imported when it is first used, so `import maas_client` is
nearly free; the command line is built from the same names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maas_client.backends import open_platform
    from maas_client.chat import Answer, Conversation, open_chat
    from maas_client.errors import MaasError
    from maas_client.following import Sight, follow, wait_until_ready
    from maas_client.journey import Journey, travel
    from maas_client.plan import Plan
    from maas_client.project import Project, open_project
    from maas_client.run import RunRef, RunState, RunStatus
    from maas_client.spec import DeploySpec, JobSpec
    from maas_client.specfile import load_spec

_HOMES = {
    "Answer": "chat",
    "Conversation": "chat",
    "DeploySpec": "spec",
    "JobSpec": "spec",
    "Journey": "journey",
    "MaasError": "errors",
    "Plan": "plan",
    "Project": "project",
    "RunRef": "run",
    "RunState": "run",
    "RunStatus": "run",
    "Sight": "following",
    "follow": "following",
    "load_spec": "specfile",
    "open_chat": "chat",
    "open_platform": "backends",
    "open_project": "project",
    "travel": "journey",
    "wait_until_ready": "following",
}

__all__ = [
    "Answer",
    "Conversation",
    "DeploySpec",
    "JobSpec",
    "Journey",
    "MaasError",
    "Plan",
    "Project",
    "RunRef",
    "RunState",
    "RunStatus",
    "Sight",
    "follow",
    "load_spec",
    "open_chat",
    "open_platform",
    "open_project",
    "travel",
    "wait_until_ready",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
