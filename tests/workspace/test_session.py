"""A workspace is opened without a request; what it is told is kept, and no token goes where it must not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from maas_client.errors import AccessDeniedError, NotFoundError, PlanError, ServiceError, SettingsError
from maas_client.settings import Settings
from maas_client.simulator.world import World
from maas_client.transport.cloud import PUBLIC
from maas_client.transport.credential import AzureCredential
from maas_client.transport.workspace import Target
from maas_client.workspace.session import Workspace, WorkspaceFacts, open_workspace
from tests.simulator.inprocess import make_world, open_inprocess
from tests.workspace.wired import Wired

TARGET = Target("s", "r", "w")
REGION = "https://eastus2.api.azureml.ms"
BODY = {
    "location": "eastus2",
    "kind": "Hub",
    "tags": {"team": "cards"},
    "identity": {"type": "SystemAssigned", "principalId": "p-1"},
    "properties": {
        "workspaceId": "guid-1",
        "discoveryUrl": f"{REGION}/discovery",
        "storageAccount": "/storage/1",
        "containerRegistry": "/registry/1",
        "publicNetworkAccess": "Disabled",
    },
}


class Source:
    """Signs in without asking anybody."""

    def get_token(self, *scopes: str, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(token=f"token for {scopes[0]}", expires_on=4e9)


class Azure:
    """Answers by path, and keeps what was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        found = self.answers.get(request.url.path.rpartition("/")[2])
        return httpx.Response(404, json={}) if found is None else httpx.Response(200, json=found)


def workspace(azure: Azure, target: Target = TARGET) -> Workspace:
    return Workspace(
        target, AzureCredential(open_source=Source), lambda: PUBLIC, transport=httpx.MockTransport(azure)
    )


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZUREML_WORKSPACE_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_the_facts_are_asked_for_once() -> None:
    azure = Azure(w=BODY)
    opened = workspace(azure)
    assert azure.asked == []
    expected = WorkspaceFacts(
        location="eastus2",
        kind="Hub",
        guid="guid-1",
        discovery_url=f"{REGION}/discovery",
        storage_account_id="/storage/1",
        container_registry_id="/registry/1",
        tags={"team": "cards"},
        principal_id="p-1",
        public_network_access="Disabled",
    )
    assert (opened.facts, opened.facts) == (expected, expected)
    assert [(one.method, one.url.path) for one in azure.asked] == [("GET", TARGET.path)]
    assert azure.asked[0].headers["authorization"] == "Bearer token for https://management.azure.com/.default"


def test_facts_of_a_workspace_that_says_little() -> None:
    facts = workspace(
        Azure(w={"properties": {"containerRegistry": ""}, "identity": None, "tags": None})
    ).facts
    assert facts == WorkspaceFacts("", "Default", "", "", "", None, {})


def test_a_workspace_that_is_not_there() -> None:
    with pytest.raises(NotFoundError) as caught:
        _ = workspace(Azure()).facts
    assert caught.value.message.startswith("Cannot look at workspace w in r, subscription s: ")


def test_the_data_plane_is_that_of_the_region_and_discovery_sees_no_token() -> None:
    azure = Azure(w=BODY, discovery={"api": REGION, "history": "https://elsewhere"}, details={"a": 1})
    opened = workspace(azure)
    assert opened.api.get("history/v1.0/details").body == {"a": 1}
    assert opened.api is opened.api
    urls = [str(one.url).partition("?")[0] for one in azure.asked]
    assert urls[1:] == [f"{REGION}/discovery", f"{REGION}/history/v1.0/details"]
    assert ["authorization" in one.headers for one in azure.asked] == [True, False, True]


@pytest.mark.parametrize("answer", [{}, {"api": ""}, {"api": "http://a"}, {"api": "a"}, {"api": None}])
def test_a_data_plane_that_may_see_no_token(answer: dict[str, Any]) -> None:
    with pytest.raises(ServiceError, match="no address that may see a token"):
        _ = workspace(Azure(w=BODY, discovery=answer)).api


@pytest.mark.parametrize("place", ["", "http://a.example/discovery", "ftp://a"])
def test_a_discovery_that_anybody_could_answer(place: str) -> None:
    azure = Azure(w={**BODY, "properties": {"discoveryUrl": place}}, discovery={"api": REGION})
    with pytest.raises(ServiceError, match="no address that may see a token"):
        _ = workspace(azure).api
    assert len(azure.asked) == 1


def test_paths_are_quoted_part_by_part() -> None:
    opened = workspace(Azure())
    assert opened.path() == TARGET.path
    assert opened.path("jobs", "a b/../c?") == f"{TARGET.path}/jobs/a%20b%2F..%2Fc%3F"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.runner.stop()


def test_the_simulated_workspace(world: World) -> None:
    opened = open_inprocess(world)
    assert (opened.facts.kind, opened.facts.location) == ("Hub", world.names.location)
    assert opened.facts.guid == world.workspace_guid(world.names.workspace_id)
    assert opened.api.base_url == world.base_url


def test_opening_names_what_is_not_set(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("AZURE_RESOURCE_GROUP", "r")
    with pytest.raises(SettingsError, match="AZURE_SUBSCRIPTION_ID, AZUREML_WORKSPACE_NAME"):
        open_workspace(Settings())


def test_opening_takes_the_file_of_the_folder_that_is_given(
    clean: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = {"subscription_id": "s", "resource_group": "r", "workspace_name": "w"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "below").mkdir()
    opened = open_workspace(Settings(), start=tmp_path / "below")
    assert opened.target == TARGET
    assert repr(opened) == "Workspace(workspace w in r, subscription s)"


def set_target(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AZURE_SUBSCRIPTION_ID", "s")
    patch.setenv("AZURE_RESOURCE_GROUP", "r")
    patch.setenv("AZUREML_WORKSPACE_NAME", "w")


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ((), "azure-identity, azure-ai-ml, azure-storage-blob"),
        (("azure/identity", "azure/storage/blob"), "azure-ai-ml"),
        (("azure/identity", "azure/ai/ml"), "azure-storage-blob"),
    ],
)
def test_opening_names_the_packages_that_are_missing(
    there: tuple[str, ...], missing: str, clean: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package in there:
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
    set_target(clean)
    clean.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(PlanError) as caught:
        open_workspace(Settings())
    assert caught.value.message == f"Azure needs packages that are not installed: {missing}."
    assert caught.value.hint == "pip install 'maas-client[azure]'"


def test_opening_sends_nothing_and_loads_nothing_heavy(clean: pytest.MonkeyPatch) -> None:
    """Not even the address of the cloud is asked for: that of this one would be refused."""
    set_target(clean)
    clean.setenv("ARM_CLOUD_METADATA_URL", "http://localhost:1/metadata/endpoints")
    code = """
import sys
from maas_client.settings import Settings
from maas_client.workspace.files import Files
from maas_client.workspace.session import open_workspace
Files(open_workspace(Settings()))
print([name for name in sys.modules if name.split(".")[0] in ("azure", "httpx", "requests", "msal")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stdout.strip() == "[]"


def test_a_token_that_azure_ai_ml_holds_and_the_service_refuses_is_renewed_once() -> None:
    from azure.core.exceptions import ClientAuthenticationError

    workspace, seen = Wired().workspace, list[Any]()
    first = workspace.credential.source

    def do(client: Any) -> str:
        seen.append(client)
        if len(seen) in refused:
            error = ClientAuthenticationError("The access token expiry UTC time is in the past")
            error.status_code = 401
            raise error
        return "done"

    refused = {1}
    assert workspace.with_client("make it", do) == "done"
    assert len(set(map(id, seen))) == 2
    assert workspace.credential.source is not first
    seen, refused = [], {1, 2}
    with pytest.raises(AccessDeniedError, match="Cannot make it"):
        workspace.with_client("make it", do)
    assert len(seen) == 2
