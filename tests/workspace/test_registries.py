"""Models of registries: the newest version, found where each Azure says, and no token to strange places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from maas_client.errors import NotFoundError, RejectedError, ServiceError
from maas_client.simulator.world import World
from maas_client.transport.cloud import CHINA, PUBLIC, US_GOVERNMENT, Cloud
from maas_client.workspace.registries import find_registry_model
from tests.simulator.boundaries import open_with_boundaries
from tests.simulator.inprocess import make_world
from tests.workspace.wired import Wired

PHI = "azureml://registries/azureml/models/Phi-4-mini-instruct"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.runner.stop()


def test_the_newest_version_is_found_with_its_tags(world: World) -> None:
    workspace, wire = open_with_boundaries(world)
    found = find_registry_model(workspace, PHI)
    assert (found.id, found.version) == (f"{PHI}/versions/1", "1")
    assert "eastus2" in found.tags["maas-finetuning-deploy-regions"]
    assert [text.split("/")[-1] for text in wire.sent[-2:]] == ["discovery", "versions"]


def test_a_named_version_is_looked_at_itself(world: World) -> None:
    workspace, wire = open_with_boundaries(world)
    assert find_registry_model(workspace, f"{PHI}/versions/7").id == f"{PHI}/versions/7"
    assert wire.sent[-1].endswith("/versions/7")


def test_what_is_not_there_is_not_found(world: World) -> None:
    workspace, _ = open_with_boundaries(world)
    with pytest.raises(NotFoundError):
        find_registry_model(workspace, "azureml://registries/azureml/models/none-such")


@pytest.mark.parametrize("name", ["Phi-4", "azureml://datastores/x/paths/y", f"{PHI}/labels/latest", ""])
def test_what_names_no_model_of_a_registry_is_refused(world: World, name: str) -> None:
    workspace, wire = open_with_boundaries(world)
    with pytest.raises(RejectedError, match="names no model of a registry"):
        find_registry_model(workspace, name)
    assert wire.sent == []


class Live:
    """The live services, as far as registries go."""

    def __init__(self, cloud: Cloud, home: str, rows: list[dict[str, Any]]) -> None:
        self.home, self.rows, self.asked = home, rows, []
        self.workspace = Wired().workspace
        self.workspace._find_cloud = lambda: cloud
        self.workspace._transport = httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.url.path.endswith("/discovery"):
            body = {
                "registryName": "azureml",
                "primaryRegionResourceProviderUri": self.home,
                "subscriptionId": "s",
                "resourceGroup": "g",
            }
            return httpx.Response(200, json=body)
        return httpx.Response(200, json={"value": self.rows})


ROW = {"name": "9", "properties": {"tags": {"a": "b"}, "properties": {"c": "d"}}}


@pytest.mark.parametrize(
    ("cloud", "host"),
    [
        (PUBLIC, "eastus.api.azureml.ms"),
        (US_GOVERNMENT, "usgovarizona.api.ml.azure.us"),
        (CHINA, "chinaeast2.api.ml.azure.cn"),
    ],
)
def test_each_azure_has_its_own_place_to_ask(cloud: Cloud, host: str) -> None:
    live = Live(cloud, "https://westus2.api.azureml.ms/", [ROW])
    found = find_registry_model(live.workspace, PHI)
    assert (found.version, found.tags, found.properties) == ("9", {"a": "b"}, {"c": "d"})
    first, second = live.asked
    assert first.url.host == host
    assert second.url.host == "westus2.api.azureml.ms"
    assert second.url.path.startswith("/mferp/managementfrontend/subscriptions/s/resourceGroups/g/")
    assert second.url.params["$top"] == "1"
    assert second.headers["authorization"].startswith("Bearer ")


@pytest.mark.parametrize(
    "home", ["http://westus2.api.azureml.ms", "http://127.0.0.1:9", "", "ftp://x", "https://"]
)
def test_no_token_goes_to_an_address_that_is_not_safe(home: str) -> None:
    live = Live(PUBLIC, home, [ROW])
    with pytest.raises(ServiceError, match="no address that may see a token"):
        find_registry_model(live.workspace, PHI)
    assert len(live.asked) == 1


def test_a_registry_without_the_model_is_said(world: World) -> None:
    live = Live(PUBLIC, "https://westus2.api.azureml.ms", [])
    with pytest.raises(NotFoundError, match="Registry azureml has no model Phi-4-mini-instruct"):
        find_registry_model(live.workspace, PHI)


def test_another_azure_is_asked_on_the_workspace_s_own_data_plane(world: World) -> None:
    world.names = replace(world.names)
    workspace, wire = open_with_boundaries(world)
    find_registry_model(workspace, PHI)
    assert [text for text in wire.sent if text == "GET /discovery"] == ["GET /discovery"]
