"""The target is found where Azure ML looks; the real azure-ai-ml opens on loopback; imports cost nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from loopback import Call, Reply, in_turn, loopback

from maas_client.errors import NotFoundError, SettingsError
from maas_client.settings import Settings
from maas_client.transport.cloud import CHINA, PUBLIC, Cloud, open_arm, open_cloud
from maas_client.transport.credential import AzureCredential, KeyCredential
from maas_client.transport.sdkfailures import sdk_calls
from maas_client.transport.workspace import Target, Workspace, find_target

CONFIG = {"subscription_id": "sub", "resource_group": "rg", "workspace_name": "ws"}


@pytest.mark.parametrize("place", ["config.json", ".azureml/config.json", "aml_config/config.json"])
@pytest.mark.parametrize("depth", [0, 2])
def test_config_json_is_found_upward(place: str, depth: int, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(json.dumps(CONFIG), encoding="utf-8-sig")
    start = tmp_path.joinpath(*["below"] * depth)
    start.mkdir(parents=True, exist_ok=True)
    assert find_target(Settings(), start=start) == Target("sub", "rg", "ws")


def test_the_environment_wins_over_the_file_part_by_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.setenv("AZUREML_WORKSPACE_NAME", "other")
    assert find_target(Settings()) == Target("sub", "rg", "other")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"task": "chat"}', '{"subscription_id": 1, "resource_group": "r"}']
)
def test_another_config_json_is_passed_over(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (below / "config.json").write_text(text)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert find_target(Settings(), start=below).workspace == "ws"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", "rg")
    with pytest.raises(SettingsError) as caught:
        find_target(Settings())
    assert caught.value.message == (
        "The Azure ML workspace is not set: AZURE_SUBSCRIPTION_ID, AZUREML_WORKSPACE_NAME."
    )


def test_a_target_says_what_it_is() -> None:
    target = Target("s1", "rg1", "ws1")
    assert str(target) == "workspace ws1 in rg1, subscription s1"
    assert target.path.endswith(
        "/resourceGroups/rg1/providers/Microsoft.MachineLearningServices/workspaces/ws1"
    )


def metadata(url: str) -> list[dict[str, Any]]:
    return [
        {"name": "Elsewhere", "portal": "https://portal.azure.com", "resourceManager": "https://elsewhere"},
        {
            "name": "LoopbackCloud",
            "portal": "https://portal.azure.com",
            "resourceManager": f"{url}/",
            "authentication": {"loginEndpoint": "https://login.microsoftonline.com/", "audiences": [url]},
            "suffixes": {"storage": "core.windows.net"},
        },
    ]


def test_which_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_cloud(Settings()) == PUBLIC
    assert PUBLIC.arm_scope == "https://management.azure.com/.default"
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureChinaCloud")
    assert open_cloud(Settings()) == CHINA
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureMoonCloud")
    with pytest.raises(SettingsError, match="AzureMoonCloud"):
        open_cloud(Settings())


def test_a_cloud_that_describes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback(lambda _: Reply(200, metadata(server.url))) as server:
        monkeypatch.setenv("ARM_CLOUD_METADATA_URL", f"{server.url}/metadata/endpoints")
        cloud = open_cloud(Settings())
        assert cloud.name == "LoopbackCloud"
        assert cloud.resource_manager == server.url
        assert cloud.is_loopback
        server.answer = in_turn(Reply(200, {"ok": 1}))
        with open_arm(cloud, KeyCredential("k")) as arm:
            assert arm.get("/subscriptions").body == {"ok": 1}
    assert "api-key" not in server.calls[0].headers
    assert server.calls[1].headers["api-key"] == "k"


@pytest.mark.parametrize(
    "body", [None, [], {}, [{"name": 1}], "x", metadata("https://a") + metadata("https://b")]
)
def test_metadata_that_names_no_cloud(body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback(in_turn(Reply(200, body))) as server:
        monkeypatch.setenv("ARM_CLOUD_METADATA_URL", f"{server.url}/metadata/endpoints")
        with pytest.raises(SettingsError, match="names no cloud"):
            open_cloud(Settings())


class Source:
    """Tokens for azure-ai-ml."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return AccessToken("t0ken", 4_000_000_000)


def test_the_real_client_opens_when_used_and_reads_a_datastore() -> None:
    store = {
        "id": "x",
        "name": "blobs",
        "type": "t",
        "properties": {
            "datastoreType": "AzureBlob",
            "accountName": "acct",
            "containerName": "c",
            "credentials": {"credentialsType": "None"},
        },
    }
    missing = {"error": {"code": "UserError", "message": "Could not find datastore: none."}}

    def arm(call: Call) -> Reply:
        return Reply(200, store) if call.path.endswith("/datastores/blobs") else Reply(404, missing)

    with loopback(arm) as server:
        cloud = Cloud(
            "Loopback",
            server.url,
            "https://login.microsoftonline.com",
            "core.windows.net",
            "https://ml.azure.com",
        )
        workspace = Workspace(Target("s", "r", "w"), AzureCredential(open_source=Source), cloud)
        assert server.calls == []
        assert workspace.client.datastores.get("blobs").account_name == "acct"
        with pytest.raises(NotFoundError) as caught, sdk_calls("get datastore none"):
            workspace.client.datastores.get("none")
    assert (
        caught.value.message
        == "Cannot get datastore none: Could not find datastore: none (UserError, HTTP 404)."
    )
    assert {call.headers["authorization"] for call in server.calls} == {"Bearer t0ken"}
    assert server.calls[0].path.startswith(Target("s", "r", "w").path)


def test_importing_the_wire_loads_no_network_library() -> None:
    code = """
import importlib, pkgutil, sys
import maas_client.transport
for module in pkgutil.iter_modules(maas_client.transport.__path__):
    if module.name not in ("exchange", "openai_client"):
        importlib.import_module(f"maas_client.transport.{module.name}")
from maas_client.transport.rest import Rest
from maas_client.transport.credential import AzureCredential
Rest("https://a", AzureCredential())
print([name for name in sys.modules if name.split(".")[0] in ("httpx", "azure", "requests", "msal")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"
