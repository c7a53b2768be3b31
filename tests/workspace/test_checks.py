"""What is asked before a job goes to Azure, against the simulated service and against services that fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from maas_client.check import Check
from maas_client.errors import AccessDeniedError, UnavailableError
from maas_client.simulator.datastores import make_datastores
from maas_client.simulator.world import World
from maas_client.transport.credential import AzureCredential
from maas_client.transport.rest import Rest
from maas_client.transport.workspace import Target
from maas_client.workspace import rights
from maas_client.workspace.checks import (
    Machines,
    Needs,
    ask_all,
    check_images,
    check_machines,
    check_needs,
    check_provider,
    check_region,
    check_rights,
    check_sign_in,
    check_storage,
    check_subscription,
    check_workspace,
)
from maas_client.workspace.session import Workspace
from tests.simulator.inprocess import BASE, CLOUD, InProcess, make_world, open_inprocess
from tests.transport.blobserver import BlobServer, blob_server, refusal

DAY = date(2026, 11, 26)
A100 = "Standard_NC24ads_A100_v4"
PHI = "Phi-4-mini-instruct"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.runner.stop()


@pytest.fixture
def workspace(world: World) -> Workspace:
    return open_inprocess(world)


def only(checks: tuple[Check, ...]) -> Check:
    (check,) = checks
    return check


def mocked(answer: Callable[[httpx.Request], httpx.Response]) -> Rest:
    return Rest(BASE, transport=httpx.MockTransport(answer), sleep=lambda _: None)


def replying(status: int, body: Any) -> Rest:
    return mocked(lambda _: httpx.Response(status, json=body))


# -- asking


def test_answers_come_in_the_order_of_the_names_and_failures_are_unknown() -> None:
    waits = threading.Event()

    def late() -> tuple[Check, ...]:
        waits.wait(5)
        return (Check("late", True, "too late"),)

    def refused() -> tuple[Check, ...]:
        raise AccessDeniedError("No.", hint="Ask.")

    def broken() -> tuple[Check, ...]:
        raise KeyError("secret-of-the-service")

    began = time.monotonic()
    checks = ask_all(
        {"Late": late, "Refused": refused, "Broken": broken, "Fine": lambda: [Check("two", True, "")] * 2},
        timeout_s=0.2,
    )
    assert time.monotonic() - began < 3
    waits.set()
    assert [(one.name, one.ok) for one in checks] == [
        ("Late", None),
        ("Refused", None),
        ("Broken", None),
        ("two", True),
        ("two", True),
    ]
    assert checks[1] == Check("Refused", None, "No.", "Ask.")
    assert "secret" not in checks[2].detail
    assert ask_all({}) == ()


def test_questions_are_asked_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=5)

    def ask() -> tuple[Check, ...]:
        together.wait()
        return (Check("x", True, ""),)

    assert all(one.ok for one in ask_all(dict.fromkeys("abcd", ask)))


# -- one by one


class Given:
    """A credential that gives one token, or raises."""

    def __init__(self, given: str | Exception) -> None:
        self._given = given

    def token(self, scope: str) -> str:
        if isinstance(self._given, Exception):
            raise self._given
        return self._given


def signed(**claims: str) -> str:
    import base64
    import json

    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{body}.topsecret"


@pytest.mark.parametrize(
    ("token", "who"),
    [
        (signed(oid="o-1", tid="t-1", upn="someone@example.com"), "object o-1 of tenant t-1"),
        (signed(oid="o-1", tid="t-1", idtyp="app", appid="a"), "application o-1 of tenant t-1"),
        (signed(sub="x"), "a token was given"),
        ("opaque", "a token was given"),
        ("a.b.c", "a token was given"),
        ("a.bnVsbA.c", "a token was given"),
    ],
)
def test_who_is_signed_in_and_never_the_token(token: str, who: str) -> None:
    check = only(check_sign_in(Given(token), "scope"))  # type: ignore[arg-type]
    assert (check.ok, check.detail) == (True, who)
    assert "topsecret" not in repr(check)
    assert "@" not in repr(check)


def test_nobody_is_signed_in() -> None:
    refused = AccessDeniedError("Cannot sign in to Azure: no.", hint="az login")
    check = only(check_sign_in(Given(refused), "scope"))  # type: ignore[arg-type]
    assert check == Check("Sign-in", False, "Cannot sign in to Azure: no.", "az login")


@pytest.mark.parametrize(
    ("state", "ok"),
    [
        ("Enabled", True),
        ("Warned", True),
        ("PastDue", None),
        ("Disabled", False),
        ("Deleted", False),
        ("New", None),
    ],
)
def test_states_of_a_subscription(state: str, ok: bool | None) -> None:
    check = only(check_subscription(replying(200, {"state": state, "displayName": "Pay"}), "s"))
    assert (check.ok, check.detail) == (ok, f"Pay is {state}")


def test_a_subscription_that_is_not_there(workspace: Workspace) -> None:
    check = only(check_subscription(workspace.arm, "00000000-0000-0000-0000-000000000000"))
    assert check.ok is False
    assert "AZURE_SUBSCRIPTION_ID" in check.hint


@pytest.mark.parametrize(
    ("state", "ok"), [("Registered", True), ("Registering", None), ("NotRegistered", False), ("", False)]
)
def test_states_of_a_provider(world: World, workspace: Workspace, state: str, ok: bool | None) -> None:
    world.grants.providers["microsoft.cognitiveservices"] = state
    target = workspace.target
    check = only(check_provider(workspace.arm, target.subscription_id, "Microsoft.CognitiveServices"))
    assert check.ok is ok
    assert "az provider register --namespace Microsoft.CognitiveServices" in check.hint


def test_kinds_of_a_workspace(workspace: Workspace) -> None:
    check = only(check_workspace(workspace, ("Default", "Hub")))
    assert (check.ok, check.detail) == (True, "simulated-ws (Hub) in eastus2")
    check = only(check_workspace(workspace, ("Default", "Project")))
    assert check.ok is False
    assert check.detail == "simulated-ws (Hub) in eastus2, where kind Default or Project is needed"


def test_a_workspace_that_is_not_there(world: World) -> None:
    check = only(check_workspace(open_inprocess(world, workspace="other"), ("Hub",)))
    assert check.ok is False
    assert "AZUREML_WORKSPACE_NAME" in check.hint


def test_a_foundry_project_where_a_hub_is_needed(world: World) -> None:
    account = f"{world.names.group_id}/providers/Microsoft.CognitiveServices/accounts/acc"
    world.store.put(account, {"id": account, "name": "acc", "type": "Microsoft.CognitiveServices/accounts"})
    project = f"{account}/projects/proj"
    kind = "Microsoft.CognitiveServices/accounts/projects"
    world.store.put(project, {"id": project, "name": "acc/proj", "type": kind})
    check = only(check_workspace(open_inprocess(world, workspace="proj"), ("Hub",)))
    assert check.ok is False
    assert check.detail == "proj is a Foundry project of acc, where a workspace or hub is needed"
    assert "hub-based project" in check.hint


def test_rights_that_are_there_missing_and_undecided(world: World, workspace: Workspace) -> None:
    wanted = (*rights.RUN_JOBS, *rights.MAKE_CLUSTERS, *rights.SERVE_SERVERLESS)
    check = only(check_rights(workspace.arm, workspace.path(), wanted))
    assert check.ok is True
    assert check.detail.startswith("on simulated-ws: start jobs, stop jobs, make clusters, ")
    ml = "Microsoft.MachineLearningServices/workspaces"
    world.grants.caller = [
        {"actions": ["*/read", f"{ml}/jobs/*"], "notActions": []},
        {
            "actions": [f"{ml}/*/write"],
            "notActions": [f"{ml}/computes/*/write", f"{ml}/serverlessEndpoints/*"],
        },
    ]
    granted, clusters, *missing = check_rights(workspace.arm, workspace.path(), wanted)
    assert (granted.ok, granted.detail) == (True, "on simulated-ws: start jobs, stop jobs")
    assert (clusters.ok, clusters.name) == (None, "Right to make clusters")
    assert [one.ok for one in missing] == [False, False, False]
    assert missing[0].detail == f"{ml}/serverlessEndpoints/write on simulated-ws is not granted"
    assert "AzureML Data Scientist" in missing[0].hint


def test_the_simulated_service_refuses_what_is_not_granted(world: World, workspace: Workspace) -> None:
    world.grants.caller = [{"actions": ["*/read"]}]
    workspace.arm.get(workspace.path(), params={"api-version": "2024-10-01"})
    place = workspace.path("serverlessEndpoints", "x")
    with pytest.raises(AccessDeniedError, match="serverlessEndpoints/write"):
        workspace.arm.put(place, {}, params={"api-version": "2024-10-01"})


# -- region


def test_the_registry_says_where_a_model_is_offered(workspace: Workspace) -> None:
    here, there = check_region(workspace, PHI, "foundry-classic", DAY, ["West Europe"])
    assert (here.ok, here.detail) == (True, f"{PHI} is offered in eastus2 (says its registry)")
    assert (there.ok, "westeurope" in there.detail, "eastus2" in there.hint) == (False, True, True)


def test_the_catalog_says_it_where_the_registry_cannot_be_asked(world: World, workspace: Workspace) -> None:
    world.faults.order({"kind": "status", "status": 403, "match": "registrymanagement", "times": 0})
    here, there = check_region(workspace, PHI, "foundry-classic", DAY, ["westeurope"])
    assert (here.ok, there.ok) == (True, False)
    assert "says the catalog: " in here.detail


def test_a_model_that_is_no_longer_taken_on_that_day(workspace: Workspace) -> None:
    check = only(check_region(workspace, "Phi-3-mini-4k-instruct", "foundry-classic", DAY))
    assert check.ok is False
    assert "2025-08-30" in check.detail
    assert "Phi-4-mini-instruct" in check.hint
    before = date(2025, 8, 1)
    assert only(check_region(workspace, "Phi-3-mini-4k-instruct", "foundry-classic", before)).ok is True


def test_a_model_that_nobody_knows_is_unknown(workspace: Workspace) -> None:
    check = only(check_region(workspace, "somebody/some-model", "azureml", DAY))
    assert check.ok is None


# -- machines


def test_machines_of_a_job_and_of_an_endpoint(world: World, workspace: Workspace) -> None:
    family = "family of Standard_NC24ads_A100_v4"
    world.quota[family] = 24
    job, endpoint = Machines(A100, 1, "dedicated"), Machines("Standard_D8s_v5", 1, "endpoint")
    checks = check_machines(workspace, [job, endpoint])
    assert [one.ok for one in checks] == [True, True, True, True]
    assert "needs 16 cores" in checks[3].detail
    world.quota[family] = 23
    checks = check_machines(workspace, [job, Machines("Standard_M", 1, "dedicated")])
    assert [one.ok for one in checks] == [True, False, False]
    assert "23 of 23 are left" in checks[1].detail


def test_low_priority_draws_on_a_pool_of_its_own(world: World, workspace: Workspace) -> None:
    world.quota["family of Standard_NC24ads_A100_v4"] = 0
    size, quota = check_machines(workspace, [Machines(A100, 8, "low")])
    assert (size.ok, quota.ok) == (True, True)
    assert "192 cores; 200 of 200 are left in Total Cluster LowPriority Regional vCPUs" in quota.detail
    world.quota["lowPriorityCores"] = 100
    assert check_machines(workspace, [Machines(A100, 8, "low")])[1].ok is False


def test_sizes_without_usages(world: World, workspace: Workspace) -> None:
    world.faults.order({"kind": "status", "status": 403, "match": "/usages", "times": 0})
    size, quota = check_machines(workspace, [Machines(A100, 1, "dedicated")])
    assert (size.ok, quota.name, quota.ok) == (True, "Quota", None)


# -- images


def test_who_may_pull_images(world: World) -> None:
    names, store = world.names, world.store
    assert only(check_images(open_inprocess(world))).ok is True
    registry = f"{names.group_id}/providers/Microsoft.ContainerRegistry/registries/reg"
    found = store.get(names.workspace_id)
    assert found is not None
    found["properties"]["containerRegistry"] = registry
    key = (registry.lower(), found["identity"]["principalId"])
    check = only(check_images(open_inprocess(world)))
    assert check.ok is False
    assert check.hint.startswith("az role assignment create --role AcrPull --assignee ")
    world.grants.assignments[key] = ["acdd72a7-3385-48ef-bd42-f606fba81ae7"]
    assert only(check_images(open_inprocess(world))).ok is False
    world.grants.assignments[key] = ["11111111-1111-1111-1111-111111111111"]
    assert only(check_images(open_inprocess(world))).ok is None
    world.grants.assignments[key] += ["7F951DDA-4ED3-4680-A7CA-43FE172D538D"]
    check = only(check_images(open_inprocess(world)))
    assert (check.ok, check.detail) == (True, "the workspace's identity is AcrPull on reg")


# -- all of it


NEEDS = Needs(
    rights=(*rights.RUN_JOBS, *rights.SERVE_SERVERLESS),
    region=(PHI, "foundry-classic"),
    machines=(Machines(A100, 1, "dedicated"),),
    storage=False,
    pulls_image=True,
)


def test_everything_at_once(workspace: Workspace) -> None:
    checks = check_needs(workspace, NEEDS, day=DAY)
    assert [one.name for one in checks] == [
        "Sign-in",
        "Subscription",
        "Workspace",
        "Provider Microsoft.MachineLearningServices",
        "Rights",
        "Region",
        f"Size {A100}",
        f"Quota for dedicated {A100}",
        "Images",
    ]
    assert all(one.ok for one in checks)


def test_nothing_is_sent_but_reads(world: World, workspace: Workspace) -> None:
    world.requests.clear()
    check_needs(workspace, NEEDS, day=DAY)
    assert {each.partition(" ")[0] for each in world.requests} == {"GET"}


def test_without_a_workspace_the_rest_is_not_asked(world: World) -> None:
    checks = check_needs(open_inprocess(world, workspace="other"), NEEDS, day=DAY)
    assert [one.ok for one in checks[:3]] == [True, True, False]
    assert {(one.ok, one.detail) for one in checks[3:]} == {(None, "not asked")}


def test_without_a_network_it_ends_soon_and_says_unknown() -> None:
    class Away:
        def token(self, scope: str, **_: Any) -> str:
            raise UnavailableError(
                "Cannot sign in to Azure: it cannot be reached.", hint="Check the network."
            )

    away: Any = Away()
    nowhere = Workspace(Target("s", "r", "w"), away, lambda: CLOUD, sleep=lambda _: None)
    checks = check_needs(nowhere, NEEDS, day=DAY)
    assert (checks[0].name, checks[0].ok) == ("Sign-in", None)
    assert all(one.ok is None for one in checks)
    assert len(checks) == 8


def test_a_refused_sign_in_is_false_and_the_rest_unknown(world: World) -> None:
    def refuse() -> Any:
        raise OSError("no")

    target = Target(world.names.subscription, world.names.resource_group, world.names.workspace)
    credential = AzureCredential(open_source=refuse)
    made = Workspace(target, credential, lambda: CLOUD, transport=InProcess(world))
    checks = check_needs(made, NEEDS, day=DAY)
    assert checks[0].ok in (False, None)
    assert all(one.ok is None for one in checks[1:])


# -- storage


@pytest.fixture
def blobs() -> Iterator[BlobServer]:
    with blob_server() as running:
        yield running


def stored(world: World, blobs: BlobServer, kind: str) -> Workspace:
    """The workspace over a server of blobs, its default datastore opened in that way."""
    world.storage.endpoint = blobs.account_url
    make_datastores(world, world.names.workspace_id, kind)
    return open_inprocess(world)


@pytest.mark.parametrize(("kind", "words"), [("AccountKey", "with its key"), ("Sas", "with a signed URL")])
def test_storage_that_can_be_used(world: World, blobs: BlobServer, kind: str, words: str) -> None:
    check = only(check_storage(stored(world, blobs, kind)))
    assert check == Check("Storage", True, f"datastore workspaceblobstore can be read {words}")
    assert {call.method for call in blobs.calls} <= {"GET", "HEAD"}


def test_storage_that_takes_no_keys(world: World, blobs: BlobServer) -> None:
    world.grants.storage = {"allowSharedKeyAccess": False}
    check = only(check_storage(stored(world, blobs, "AccountKey")))
    assert check.ok is False
    assert "Storage Blob Data Contributor" in check.hint
    assert blobs.calls == []


def test_storage_whose_secret_may_not_be_read(world: World, blobs: BlobServer) -> None:
    world.grants.caller = [{"actions": ["*/read"], "dataActions": ["*/read"]}]
    secret, write = check_storage(stored(world, blobs, "AccountKey"))
    assert (secret.ok, secret.name) == (False, "Right to read the datastore's secret")
    assert (write.ok, write.name) == (False, "Right to write blobs")
    assert blobs.calls == []


def test_storage_for_those_with_a_role_on_it(world: World, blobs: BlobServer) -> None:
    world.grants.caller = [{"actions": ["*"], "dataActions": ["*/read"]}]
    check = only(check_storage(stored(world, blobs, "None")))
    assert (check.ok, check.name) == (False, "Right to write blobs")
    assert "Storage Blob Data Contributor on simulatedws" in check.hint


def test_storage_that_refuses_and_storage_that_is_closed(world: World, blobs: BlobServer) -> None:
    blobs.trouble = lambda _: refusal(403, "AuthorizationFailure")
    refused = only(check_storage(stored(world, blobs, "AccountKey")))
    assert refused.ok is False
    world.grants.storage = {"publicNetworkAccess": "Disabled"}
    closed = only(check_storage(stored(world, blobs, "AccountKey")))
    assert (closed.ok, closed.hint) == (False, "Use a network that the storage account lets in.")


def test_storage_that_is_away_is_unknown(world: World, blobs: BlobServer) -> None:
    blobs.trouble = lambda _: refusal(503, "ServerBusy")
    asked = stored(world, blobs, "AccountKey")
    (check,) = ask_all({"Storage": lambda: check_storage(asked)}, timeout_s=1.0)
    assert (check.name, check.ok) == ("Storage", None)
