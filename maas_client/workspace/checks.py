"""What must be so in Azure before a job can go all its way: asked at once, read only, never an exception.

Each `check_...` is one question and gives Checks; `ask_all` asks several at the same time, and turns a
question that could not be asked into a Check whose `ok` is None.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING

from maas_client.check import Check
from maas_client.errors import AccessDeniedError, MaasError, NotFoundError
from maas_client.transport.members import text_at
from maas_client.workspace.access import check_provider, check_rights, check_sign_in, check_subscription
from maas_client.workspace.offers import check_machines, check_region
from maas_client.workspace.quota import Machines
from maas_client.workspace.rights import Right
from maas_client.workspace.stores import check_images, check_storage

if TYPE_CHECKING:
    from maas_client.workspace.session import Workspace

__all__ = [
    "Machines",
    "Needs",
    "Question",
    "ask_all",
    "check_images",
    "check_machines",
    "check_needs",
    "check_provider",
    "check_region",
    "check_rights",
    "check_sign_in",
    "check_storage",
    "check_subscription",
    "check_workspace",
]

TIMEOUT_S = 20.0
ML_PROVIDER = "Microsoft.MachineLearningServices"
Question = Callable[[], Iterable[Check]]
"""Asks one thing, in one or a few requests; may raise MaasError where it cannot be asked."""


@dataclass(frozen=True)
class Needs:
    """What a plan needs, so that every step of it can succeed, the last too.

    `kinds` are the kinds of workspace that the route can use. `region` is (model, route) of the catalog;
    `endpoint_region` is asked for the same, where the endpoint is to be elsewhere. `storage`: the default
    datastore can be read and written from here. `pulls_image`: the workspace's identity can pull its images.
    """

    kinds: tuple[str, ...] = ("Default", "Hub", "Project")
    rights: tuple[Right, ...] = ()
    region: tuple[str, str] | None = None
    endpoint_region: str | None = None
    machines: tuple[Machines, ...] = ()
    providers: tuple[str, ...] = (ML_PROVIDER,)
    storage: bool = True
    pulls_image: bool = False


def check_needs(
    workspace: Workspace, needs: Needs, *, day: date | None = None, timeout_s: float = TIMEOUT_S
) -> tuple[Check, ...]:
    """Everything that a plan needs of a workspace. `day` (default: the workspace's clock) is for the catalog.

    Signing in comes first and the workspace next; where one of them fails, nothing further is asked and the
    rest is said to be unknown. Each of the three rounds takes at most `timeout_s` seconds.
    """
    day = day or datetime.fromtimestamp(workspace.clock(), UTC).date()
    rest = _questions(workspace, needs, day)
    first = ask_all({"Sign-in": lambda: _sign_in(workspace)}, timeout_s=timeout_s)
    if not all(one.ok for one in first):
        return (*first, *_not_asked(["Subscription", "Workspace", *rest]))
    second = ask_all(
        {
            "Subscription": lambda: check_subscription(workspace.arm, workspace.target.subscription_id),
            "Workspace": lambda: check_workspace(workspace, needs.kinds),
        },
        timeout_s=timeout_s,
    )
    if "facts" not in vars(workspace):
        return (*first, *second, *_not_asked(rest))
    return (*first, *second, *ask_all(rest, timeout_s=timeout_s))


def _questions(workspace: Workspace, needs: Needs, day: date) -> dict[str, Question]:
    """What is asked once the workspace is known, by the name of each question."""
    questions: dict[str, Question] = {}
    for provider in needs.providers:
        questions[f"Provider {provider}"] = partial(_provider, workspace, provider)
    if needs.rights:
        questions["Rights"] = lambda: check_rights(workspace.arm, workspace.path(), needs.rights)
    if needs.region is not None:
        model, route = needs.region
        regions = [needs.endpoint_region] if needs.endpoint_region else []
        questions["Region"] = lambda: check_region(workspace, model, route, day, regions)
    if needs.machines:
        questions["Machines"] = lambda: check_machines(workspace, needs.machines)
    if needs.storage:
        questions["Storage"] = lambda: check_storage(workspace)
    if needs.pulls_image:
        questions["Images"] = lambda: check_images(workspace)
    return questions


def _not_asked(names: Iterable[str]) -> tuple[Check, ...]:
    return tuple(Check(name, None, "not asked", "Mend what is above first.") for name in names)


def ask_all(questions: Mapping[str, Question], *, timeout_s: float = TIMEOUT_S) -> tuple[Check, ...]:
    """Ask at the same time, each question on a thread of its own; the answers come in the order of the names.

    A question that fails, or has no answer after `timeout_s` seconds, is a Check of its name with `ok` None.
    """
    answers: dict[str, tuple[Check, ...]] = {}
    threads = []
    for name, question in questions.items():
        thread = threading.Thread(target=_answer, args=(name, question, answers), daemon=True)
        thread.start()
        threads.append(thread)
    until = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = f"no answer within {timeout_s:.0f} s"
    found = dict(answers)  # a thread that answers from now on is too late
    return tuple(
        check
        for name in questions
        for check in found.get(name, (Check(name, None, late, "Check the network and try again."),))
    )


def _answer(name: str, question: Question, answers: dict[str, tuple[Check, ...]]) -> None:
    try:
        answers[name] = tuple(question())
    except MaasError as error:
        answers[name] = (Check(name, None, error.message, error.hint),)
    except Exception as error:  # noqa: BLE001  one question that breaks must not hide the answers to others
        what = f"cannot be told: {type(error).__name__}"
        answers[name] = (Check(name, None, what, "Try again; MAAS_DEBUG=1 shows more."),)


def _provider(workspace: Workspace, namespace: str) -> tuple[Check, ...]:
    return check_provider(workspace.arm, workspace.target.subscription_id, namespace)


def _sign_in(workspace: Workspace) -> tuple[Check, ...]:
    return check_sign_in(workspace.credential, workspace.cloud.arm_scope)


def check_workspace(workspace: Workspace, kinds: Sequence[str]) -> tuple[Check, ...]:
    """Whether the workspace is there and of a kind that can be used."""
    name, target = "Workspace", workspace.target
    try:
        facts = workspace.facts
    except NotFoundError as error:
        if account := _foundry_project(workspace):
            what = f"{target.workspace} is a Foundry project of {account}, where a workspace or hub is needed"
            hint = "Set AZUREML_WORKSPACE_NAME to a workspace or to a hub-based project."
            return (Check(name, False, what, hint),)
        return (Check(name, False, error.message, error.hint),)
    except AccessDeniedError as error:
        return (Check(name, False, error.message, error.hint),)
    shown = f"{target.workspace} ({facts.kind}) in {facts.location}"
    if facts.kind.lower() in {kind.lower() for kind in kinds}:
        return (Check(name, True, shown),)
    hint = f"Set AZUREML_WORKSPACE_NAME to a workspace of kind {' or '.join(kinds)}."
    return (Check(name, False, f"{shown}, where kind {' or '.join(kinds)} is needed", hint),)


def _foundry_project(workspace: Workspace) -> str:
    """The account that has a Foundry project of the workspace's name, "" where none is seen."""
    target = workspace.target
    try:
        rows = workspace.arm.paging(
            f"/subscriptions/{target.subscription_id}/resourceGroups/{target.resource_group}/resources",
            params={
                "api-version": "2021-04-01",
                "$filter": "resourceType eq 'Microsoft.CognitiveServices/accounts/projects'",
            },
            operation="look for a Foundry project",
        )
        names = [text_at(row, "name") for row in rows]
    except MaasError:
        return ""
    found = (name.partition("/") for name in names)
    return next((account for account, _, project in found if project == target.workspace), "")
