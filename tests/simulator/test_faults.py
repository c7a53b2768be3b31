"""Misbehavior that only shows on a real connection, seen by a real client."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from maas_client.simulator import Simulator

pytestmark = pytest.mark.slow
JOBS = "/jobs?api-version=2024-10-01-preview"


def jobs_url(azure: Simulator) -> str:
    return azure.world.names.workspace_id + JOBS


def test_a_reset_does_nothing_and_breaks_the_connection(azure: Simulator, wire: httpx.Client) -> None:
    azure.fault("reset", match="PUT .*/jobs/reset-1")
    path = azure.world.names.workspace_id + "/jobs/reset-1"
    with pytest.raises(httpx.TransportError):
        wire.put(path + "?api-version=2024-10-01-preview", json=command("echo 1"))
    assert azure.world.store.get(path) is None
    assert wire.get(jobs_url(azure)).status_code == 200


def command(line: str) -> dict[str, Any]:
    return {
        "properties": {
            "jobType": "Command",
            "command": line,
            "environmentId": "azureml://registries/azureml/environments/some/versions/1",
            "resources": {"instanceType": "Standard_DS3_v2"},
        }
    }


def test_a_lost_reply_has_done_what_was_asked(azure: Simulator, wire: httpx.Client) -> None:
    azure.fault("lost_reply", match="PUT .*/jobs/lost-1")
    path = azure.world.names.workspace_id + "/jobs/lost-1"
    with pytest.raises(httpx.TransportError):
        wire.put(path + "?api-version=2024-10-01-preview", json=command("echo 1"))
    assert wire.get(path + "?api-version=2024-10-01-preview").status_code == 200


def test_a_truncated_body_is_an_error_of_the_transport(azure: Simulator, wire: httpx.Client) -> None:
    azure.fault("truncate", match="GET .*/jobs$", bytes=5)
    with pytest.raises(httpx.TransportError):
        wire.get(jobs_url(azure))


def test_a_slow_body_arrives_whole_but_late(azure: Simulator, wire: httpx.Client) -> None:
    azure.fault("slow", match="GET .*/jobs$", seconds=0.6, pieces=3)
    began = time.monotonic()
    answer = wire.get(jobs_url(azure))
    assert time.monotonic() - began > 0.5
    assert "value" in answer.json()


def test_a_token_expires_in_the_middle_and_the_next_one_works(azure: Simulator, wire: httpx.Client) -> None:
    azure.fault("expired_token", match="GET .*/jobs$")
    answer = wire.get(jobs_url(azure))
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "ExpiredAuthenticationToken")
    assert wire.get(jobs_url(azure)).status_code == 401
    headers = {"X-IDENTITY-HEADER": azure.environment["IDENTITY_HEADER"]}
    again = wire.get("/msi/token", params={"resource": azure.url}, headers=headers).json()
    headers = {"Authorization": f"Bearer {again['access_token']}"}
    assert wire.get(jobs_url(azure), headers=headers).status_code == 200


def wait_for_end(azure: Simulator, name: str) -> dict[str, Any]:
    path = f"{azure.world.names.workspace_id}/jobs/{name}"
    deadline = time.monotonic() + 60
    while (found := azure.world.store.get(path)) and found["properties"]["status"] not in (
        "Failed",
        "Completed",
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return azure.world.runner.record(path)


def test_a_job_fails_for_want_of_quota_or_because_it_was_told_to(
    azure: Simulator, wire: httpx.Client
) -> None:
    azure.fault("quota", match="no-quota")
    azure.fault("job_fail", match="unlucky", message="The node became unhealthy.")
    for name in ("no-quota", "unlucky"):
        path = f"{azure.world.names.workspace_id}/jobs/{name}?api-version=2024-10-01-preview"
        assert wire.put(path, json=command("echo 1")).status_code == 201
    assert "not enough quota" in wait_for_end(azure, "no-quota")["error"]["message"]
    assert wait_for_end(azure, "unlucky")["error"]["message"] == "The node became unhealthy."


def test_the_real_sdk_survives_what_it_promises_to_survive(azure: Simulator, client: Any) -> None:
    azure.fault("status", status=503, retry_after=0, times=2, match="GET .*/datastores/workspaceblobstore")
    assert client.datastores.get("workspaceblobstore").name == "workspaceblobstore"
    azure.world.faults.clear()
