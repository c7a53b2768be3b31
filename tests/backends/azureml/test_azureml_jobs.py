"""Submissions on a simulated workspace: what is sent, clusters, refusals, and where azure-ai-ml fails."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from maas_client.backends.azureml.clusters import ensure_cluster
from maas_client.check import Check
from maas_client.errors import ConflictError, PlanError, QuotaError, RejectedError, UsageError
from maas_client.plan import Plan
from maas_client.run import RunRef, RunState
from maas_client.simulator.datastores import make_datastores
from tests.backends.azureml.stage import SIZE, AzuremlStage
from tests.contract import all_lines, ended

pytestmark = pytest.mark.slow

GPU = "Standard_NC48ads_A100_v4"
SERVICE_ADDS = {"isArchived": False, "properties": {}}


def asked(stage: AzuremlStage, name: str) -> dict[str, Any]:
    """The properties with which a job was asked for, as they came over the wire."""
    record = stage.azure.world.runner.record(f"{stage.target.path}/jobs/{name}")
    body: dict[str, Any] = json.loads(json.dumps(record["asked"]))
    return body


def planned(plan: Plan) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(plan.steps[-1].detail)
    return body


def cluster(stage: AzuremlStage, name: str) -> dict[str, Any] | None:
    return stage.azure.world.store.get(f"{stage.target.path}/computes/{name}")


FULL = {"name": "gpus", "size": GPU, "instances": 2, "timeout": "90m", "identity": "managed"}


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"compute": FULL, "distributed": {"strategy": "ddp", "processes": 2}},
        {"compute": {"size": GPU, "priority": "low", "identity": "user", "shared_memory": "8g"}},
        {
            "compute": {
                "size": SIZE,
                "environment": "azureml://registries/azureml/environments/any/versions/3",
            }
        },
        {"model": "microsoft/phi-4"},
    ],
    ids=["least", "cluster", "spot", "environment", "hub"],
)
def test_what_the_plan_shows_is_what_the_service_gets(stage: AzuremlStage, parts: dict[str, Any]) -> None:
    plan = stage.plan("succeed", **parts)
    ref = stage.platform.jobs.submit(plan)
    stage.platform.jobs.cancel(ref)
    sent = asked(stage, ref.id)
    assert sent.pop("codeId").startswith(f"{stage.target.path}/codes/")
    assert sent["resources"].pop("properties", {}) == {}
    expected = {**planned(plan), **SERVICE_ADDS}
    del expected["codeId"]
    assert sent == expected


def test_what_is_unchanged_is_not_sent_again(stage: AzuremlStage) -> None:
    jobs, box = stage.platform.jobs, "azureml-blobstore-simulated"
    jobs.submit(stage.plan("succeed"))
    inputs = stage.azure.world.storage.client.get_container_client(box)

    def written() -> dict[str, datetime]:
        return {blob.name: blob.last_modified for blob in inputs.list_blobs("maas/inputs/")}

    before, seen = written(), len(stage.requests)
    again = stage.plan("succeed", training={"seed": 8})
    jobs.submit(again)
    digest = again.hashes["config"].removeprefix("sha256:")
    new = set(written()) - set(before)
    assert new == {f"maas/inputs/{digest}/config.json"}
    assert {name: at for name, at in written().items() if name not in new} == before
    assert not [each for each in stage.requests[seen:] if "startPendingUpload" in each]


@pytest.mark.parametrize("kind", ["Sas", "None"])
def test_a_workspace_without_account_keys_takes_runs_too(stage: AzuremlStage, kind: str) -> None:
    make_datastores(stage.azure.world, stage.target.path, kind)
    ref = stage.platform.jobs.submit(stage.plan("succeed"))
    assert ended(stage, ref).state is RunState.SUCCEEDED
    assert stage.platform.jobs.artifact(ref).result["adapter"] is True


def test_nothing_is_printed_while_a_job_is_sent(
    stage: AzuremlStage, capfd: pytest.CaptureFixture[str]
) -> None:
    stage.platform.jobs.submit(stage.plan("succeed", compute={"name": "small", "size": SIZE}))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("what", ["data", "code"])
def test_what_changed_since_the_plan_is_not_sent(stage: AzuremlStage, what: str) -> None:
    plan = stage.plan("succeed")
    if what == "data":
        stage.data.write_text('{"text": "other", "label": "b"}\n')
    else:
        (plan.job.code / "train.py").write_text("print('other')")
    with pytest.raises(PlanError, match="changed since the plan was made"):
        stage.platform.jobs.submit(plan)
    assert stage.jobs() == []


def test_a_plan_for_another_workspace_is_refused(
    stage: AzuremlStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = stage.plan("succeed")
    monkeypatch.setenv("AZUREML_WORKSPACE_NAME", "elsewhere")
    with pytest.raises(PlanError, match="The plan is for workspace ws-"):
        stage.open().jobs.submit(plan)
    assert stage.jobs() == []


def test_a_job_of_our_name_that_is_not_ours_is_left_alone(stage: AzuremlStage) -> None:
    plan = stage.plan("succeed")
    stage.platform.jobs.submit(plan)
    job = stage.azure.world.store.get(f"{stage.target.path}/jobs/{plan.run_id}")
    assert job is not None
    job["properties"]["tags"] = {"owner": "somebody"}
    with pytest.raises(ConflictError, match="it is not this plan's"):
        stage.open("other").jobs.submit(plan)
    assert job["properties"]["tags"] == {"owner": "somebody"}


def test_many_runs_are_looked_at_in_one_request(stage: AzuremlStage) -> None:
    jobs = stage.platform.jobs
    refs = [jobs.submit(stage.plan("succeed", name=f"card-{number}")) for number in range(4)]
    jobs.cancel(refs[0])
    for ref in refs:
        ended(stage, ref)
    jobs.resume(refs[0])
    ended(stage, refs[0])
    seen = len(stage.requests)
    found = jobs.statuses([*refs, RunRef("azureml", "no-such-run-1")])
    assert {ref: status.state for ref, status in found.items()} == dict.fromkeys(refs, RunState.SUCCEEDED)
    listed = [each for each in stage.requests[seen:] if each.startswith("GET /jobs")]
    assert listed[0] == "GET /jobs"
    assert not any(ref.id in each for ref in refs for each in listed)


def test_a_cursor_of_another_attempt_or_run_is_foreign(stage: AzuremlStage) -> None:
    jobs = stage.platform.jobs
    ref, other = (jobs.submit(stage.plan("endless", name=name)) for name in ("one", "two"))
    deadline = time.monotonic() + 60
    while not jobs.logs(ref, after=None).lines:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cursor = jobs.logs(ref, after=None).next
    for foreign in ("2.", "0.x", "x", "1.log", str(cursor).replace("1.", "1.x")):
        with pytest.raises(UsageError):
            jobs.logs(ref, after=foreign)
    with pytest.raises(UsageError):
        jobs.metrics(other, after=cursor)


def test_a_run_without_a_result_has_no_artifact(stage: AzuremlStage, tmp_path: Path) -> None:
    ref = stage.platform.jobs.submit(stage.plan("no_result"))
    assert ended(stage, ref).state is RunState.SUCCEEDED
    with pytest.raises(ConflictError, match="left no result"):
        stage.platform.jobs.artifact(ref)


def test_the_last_words_of_a_failed_run_are_words(stage: AzuremlStage) -> None:
    ref = stage.platform.jobs.submit(stage.plan('told_failure("row 7 has no label")'))
    status = ended(stage, ref)
    assert status.tail == ("Traceback: much",)
    assert [one["message"] for one in stage.platform.jobs.metrics(ref, after=None).events] == [
        "row 7 has no label"
    ]


def test_the_checks_ask_for_every_step(stage: AzuremlStage) -> None:
    size = "Standard_NC12s_v3"
    plan = stage.plan("succeed", compute={"size": size})
    checks = stage.platform.jobs.check(plan)
    assert [one for one in checks if one.ok is False] == []
    stage.azure.world.quota["standardNCSv3Family"] = 0
    try:
        failed = [one for one in stage.platform.jobs.check(plan) if one.ok is False]
        assert any(size in f"{one.name} {one.detail}" for one in failed)
    finally:
        stage.azure.world.quota.clear()
    assert stage.jobs() == []


def test_an_endpoint_s_name_that_is_taken_is_seen_before_the_training(stage: AzuremlStage) -> None:
    def endpoint(**deploy: object) -> Check:
        plan = stage.plan("succeed", register={"name": "card"}, deploy={"size": SIZE, **deploy})
        return next(one for one in stage.platform.jobs.check(plan) if one.name == "Endpoint")

    assert endpoint(name="card-end").detail == "the name card-end is free"
    path = f"{stage.target.path}/onlineEndpoints/card-end"
    for tags, ok, words in (
        ({}, False, "the name card-end is taken: it serves something else"),
        ({"maas-model": "other:3"}, False, "the name card-end is taken: it serves other:3"),
        ({"maas-model": "card:3"}, True, "card-end serves card:3, and will serve the new version"),
    ):
        body = {"location": "eastus2", "tags": tags, "properties": {"provisioningState": "Succeeded"}}
        stage.azure.world.store.put(path, body)
        assert (endpoint(name="card-end").ok, endpoint(name="card-end").detail) == (ok, words)


# -- clusters


def test_a_cluster_is_made_once_and_scales_to_zero(stage: AzuremlStage) -> None:
    jobs, compute = stage.platform.jobs, {"name": "gpus", "size": GPU, "priority": "low"}
    ref = jobs.submit(stage.plan("succeed", compute=compute))
    made = cluster(stage, "gpus")
    assert made is not None
    properties = made["properties"]["properties"]
    assert properties["vmPriority"] == "LowPriority"
    assert properties["scaleSettings"] == {
        "minNodeCount": 0,
        "maxNodeCount": 1,
        "nodeIdleTimeBeforeScaleDown": "PT2M",
    }
    assert made["properties"]["provisioningState"] == "Succeeded"
    again = jobs.submit(stage.plan("succeed", name="other", compute=compute))
    puts = [each for each in stage.requests if each.startswith("PUT /computes/")]
    assert puts == ["PUT /computes/gpus"]
    assert asked(stage, ref.id)["computeId"] == made["id"]
    assert {ended(stage, each).state for each in (ref, again)} == {RunState.SUCCEEDED}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"size": SIZE}, "has machines of size STANDARD_NC48ADS_A100_V4"),
        ({"priority": "low"}, "is dedicated"),
        ({"instances": 2}, "has at most 1 machines"),
    ],
)
def test_a_cluster_that_is_another_one_is_left_alone(
    stage: AzuremlStage, wanted: dict[str, Any], words: str
) -> None:
    compute = {"name": "gpus", "size": GPU}
    stage.platform.jobs.submit(stage.plan("succeed", compute=compute))
    other = stage.plan(
        "succeed", name="other", compute={**compute, **wanted}, distributed={"strategy": "ddp"}
    )
    with pytest.raises(ConflictError, match=words) as refused:
        stage.platform.jobs.submit(other)
    assert "compute.size" in refused.value.hint
    assert len(stage.jobs()) == 1


def test_a_cluster_without_quota_is_said_to_be_so_and_made_when_there_is_some(stage: AzuremlStage) -> None:
    stage.azure.fault("quota", match="PUT .*/computes/gpus")
    plan = stage.plan("succeed", compute={"name": "gpus", "size": GPU})
    with pytest.raises(QuotaError):
        stage.platform.jobs.submit(plan)
    assert stage.jobs() == []
    ref = stage.platform.jobs.submit(plan)
    assert ended(stage, ref).state is RunState.SUCCEEDED


def test_two_commands_that_want_a_new_cluster_share_it(stage: AzuremlStage) -> None:
    stage.azure.fault("lro_slow", match="PUT .*/computes/gpus", seconds=600)
    plans = [stage.plan("succeed", name=name, compute={"name": "gpus", "size": GPU}) for name in ("ab", "cd")]
    platforms = [stage.open(), stage.open("other")]
    errors: list[Exception] = []

    def submit(number: int) -> None:
        try:
            platforms[number].jobs.submit(plans[number])
        except Exception as error:  # noqa: BLE001  shown below
            errors.append(error)

    first = threading.Thread(target=submit, args=(0,))
    first.start()
    deadline = time.monotonic() + 60
    while cluster(stage, "gpus") is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    submit(1)
    first.join(60)
    assert errors == []
    assert len(stage.jobs()) == 2
    assert [each for each in stage.requests if each.startswith("PUT /computes/")] == ["PUT /computes/gpus"]


def test_a_named_cluster_that_is_not_there_is_said_to_be_missing(stage: AzuremlStage) -> None:
    with pytest.raises(RejectedError, match="computes/none"):
        stage.platform.jobs.submit(stage.plan("succeed", compute={"name": "none"}))


def test_serverless_jobs_ask_for_no_cluster(stage: AzuremlStage) -> None:
    ensure_cluster(stage.platform.jobs._workspace, stage.spec())  # type: ignore[attr-defined]
    assert stage.requests == []


# -- where azure-ai-ml fails


def sdk_client(stage: AzuremlStage) -> Any:
    """The real MLClient, opened without any of our code."""
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    target = stage.target
    return MLClient(DefaultAzureCredential(), target.subscription_id, target.resource_group, target.workspace)


def output_of(call: Callable[[], object]) -> str:
    """What a call of the package prints; what it raises is told in the text."""
    said = io.StringIO()
    with redirect_stdout(said):
        try:
            call()
        except Exception as error:  # noqa: BLE001  this is about packages that fail
            said.write(f"raised {type(error).__name__}")
    return said.getvalue()


def test_azure_ai_ml_streams_no_line_of_a_job_where_ours_come(stage: AzuremlStage) -> None:
    ref = stage.platform.jobs.submit(stage.plan("print('line 0', flush=True); time.sleep(6); finish()"))
    said = output_of(lambda: sdk_client(stage).jobs.stream(ref.id))
    assert ended(stage, ref).state is RunState.SUCCEEDED
    assert "line 0" not in said, "azure-ai-ml streams again: see whether ours is still needed"
    assert "line 0" in all_lines(stage, ref)


def test_azure_ai_ml_downloads_nothing_of_an_output_where_ours_is_whole(
    stage: AzuremlStage, tmp_path: Path
) -> None:
    ref = stage.platform.jobs.submit(stage.plan("succeed"))
    ended(stage, ref)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    ours.mkdir()
    output_of(lambda: sdk_client(stage).jobs.download(ref.id, download_path=str(theirs), output_name="run"))
    assert not list(theirs.rglob("result.json")), "azure-ai-ml downloads again: see whether ours is needed"
    stage.platform.jobs.download(ref, ours)
    found = {path.relative_to(ours).as_posix() for path in ours.rglob("*") if path.is_file()}
    assert found == {
        "events.jsonl",
        "result.json",
        "model/adapter_config.json",
        "model/adapter_model.safetensors",
    }
