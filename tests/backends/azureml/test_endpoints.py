"""Managed online endpoints: the way to READY step by step, newer versions, failures, leases, deletion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from maas_client.backends.azureml.health import Health
from maas_client.endpoint import Billing, EndpointRef, EndpointState
from maas_client.errors import ConflictError, NotFoundError, PlanError, RejectedError, ServiceError
from maas_client.model import ModelRef
from tests.backends.azureml.online_stage import FAMILY, NAME, REF, SIZE, OnlineStage, wanted

V1, V2 = "v1-fd3b", "v2-fd3b"
SILENT = Health(answers=False, words="DeploymentNotReady (HTTP 503)")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[OnlineStage]:
    made = OnlineStage(tmp_path)
    yield made
    made.world.runner.stop()


def changes(sent: list[str]) -> list[str]:
    """What changes something at Azure, by verb and the last names of the path."""
    kept = [text for text in sent if not text.startswith("GET") and "listKeys" not in text]
    return [f"{text.split()[0]} {text.rpartition('/onlineEndpoints/')[2]}" for text in kept]


def test_each_call_does_the_next_step_and_returns(stage: OnlineStage) -> None:
    serving, wire = stage.open()
    made = serving.deploy(stage.v1, wanted())
    assert (made.state, made.model, made.billing) == (EndpointState.STARTING, "card:1", Billing.FREE)
    assert "Azure says Creating" in made.message
    assert "run the same deploy again" in made.message
    assert changes(wire.sent) == ["PUT card-end"]
    assert serving.deploy(stage.v1, wanted()).state is EndpointState.STARTING
    assert changes(wire.sent) == ["PUT card-end"]
    stage.pass_time()
    put = serving.deploy(stage.v1, wanted())
    assert changes(wire.sent) == ["PUT card-end", f"PUT card-end/deployments/{V1}"]
    assert (put.state, put.billing) == (EndpointState.STARTING, Billing.BILLING)
    assert f"Deployment {V1} of card:1 is Creating" in put.message
    assert serving.deploy(stage.v1, wanted()).state is EndpointState.STARTING
    stage.pass_time()
    shifted = serving.deploy(stage.v1, wanted())
    assert changes(wire.sent)[2:] == ["PUT card-end"]
    assert shifted.state is EndpointState.STARTING
    stage.pass_time()
    ready = serving.deploy(stage.v1, wanted())
    assert (ready.state, ready.message, ready.traffic) == (EndpointState.READY, "", {})
    assert ready.url == stage.endpoint()["properties"]["scoringUri"]
    assert len(changes(wire.sent)) == 3
    assert stage.traffic() == {V1: 100}
    again = serving.deploy(stage.v1, wanted())
    assert replace(serving.status(REF), seen_at=0) == replace(again, seen_at=0) == replace(ready, seen_at=0)
    assert len(changes(wire.sent)) == 3


def test_what_is_being_deleted_is_told_apart_from_what_the_endpoint_costs(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    ready = stage.ready(stage.v2)
    assert ready.cost.startswith(f"$3.67 an hour for 1 x {SIZE} (")
    assert ready.cost.endswith(f"Until {V1} is deleted, its machines bill too.")
    stage.pass_time()
    assert "Until" not in stage.open()[0].status(REF).cost


def test_what_it_costs_and_until_when(stage: OnlineStage) -> None:
    serving, _ = stage.open()
    model = stage.open()[0]._models.get("card", 1)
    told = serving.cost(model, wanted(instances=2))
    assert told.startswith(f"$7.35 an hour for 2 x {SIZE}, $29.38 for 4h (")
    assert told.endswith("Azure does not end it: `maas reap` deletes it when its time is over.")
    unknown = serving.cost(model, wanted(size="Standard_DS3_v2"))
    assert unknown.startswith("unknown: no source tells the price of 1 x Standard_DS3_v2.")
    before = stage.world.clock.now()
    ready = stage.ready(stage.v1)
    assert ready.cost.startswith(f"$3.67 an hour for 1 x {SIZE} (")
    assert ready.expires_at == pytest.approx(before + 4 * 3600, abs=10)
    tags = stage.endpoint()["tags"]
    assert (tags["maas-model"], tags["maas-ttl"], tags["maas-deployment"]) == ("card:1", "4h", V1)
    assert tags["maas-expires-at"] == str(int(ready.expires_at or 0))
    assert tags["maas-expires"].endswith("Z")
    assert stage.deployments()[V1]["tags"] == {"maas-model": "card:1", "maas-run": "run-0"}


def test_a_look_changes_nothing(stage: OnlineStage) -> None:
    first, _ = stage.open()
    for _ in range(8):
        first.deploy(stage.v1, wanted())
        serving, wire = stage.open()
        serving.status(REF)
        serving.list()
        assert changes(wire.sent) == []
        stage.pass_time()


def test_the_name_of_a_deployment_is_one_that_azure_takes(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    (name,) = stage.deployments()
    assert 3 <= len(name) <= 32
    assert name.replace("-", "").isalnum()


def test_what_azure_would_refuse_is_refused_before_anything_is_made(stage: OnlineStage) -> None:
    serving, wire = stage.open()
    with pytest.raises(PlanError, match=r"deploy\.size is missing"):
        serving.deploy(stage.v1, wanted(size=None))
    for name in ("ab", "card--end"):
        with pytest.raises(PlanError, match="takes no endpoint named"):
            serving.deploy(stage.v1, wanted(name=name))
    with pytest.raises(NotFoundError):
        serving.deploy(ModelRef("none", 1), wanted())
    assert changes(wire.sent) == []


def test_a_newer_version_takes_over_when_it_answers_and_the_older_goes(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    stage.health[V2] = SILENT
    serving, wire = stage.open()
    serving.deploy(stage.v2, wanted())
    stage.pass_time()
    waiting = serving.deploy(stage.v2, wanted())
    assert (waiting.state, waiting.model) == (EndpointState.STARTING, "card:2")
    assert "does not answer yet: DeploymentNotReady" in waiting.message
    assert stage.traffic() == {V1: 100}
    assert waiting.traffic == {V1: 100, V2: 0}
    stage.health[V2] = Health(answers=True)
    ready = stage.drive(serving, stage.v2)
    assert (ready.state, ready.model) == (EndpointState.READY, "card:2")
    assert changes(wire.sent) == [
        "PATCH card-end",
        f"PUT card-end/deployments/{V2}",
        "PUT card-end",
        f"DELETE card-end/deployments/{V1}",
    ]
    stage.pass_time()
    assert list(stage.deployments()) == [V2]
    assert stage.traffic() == {V2: 100}


def test_the_older_version_can_be_asked_while_the_newer_is_made(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    serving, _ = stage.open()
    serving.deploy(stage.v2, wanted())
    access = serving.access(REF)
    assert (access.url, access.model, access.speaks) == (
        stage.endpoint()["properties"]["scoringUri"],
        NAME,
        "score",
    )
    assert access.key not in repr(access)
    stage.health[V1] = SILENT
    with pytest.raises(ConflictError, match="is starting"):
        serving.access(REF)


def test_a_newer_version_that_fails_leaves_the_older_one(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    stage.world.faults.order(
        {"kind": "lro_fail", "match": f"PUT .*{V2}", "code": "ImageBuildFailure", "message": "No space left."}
    )
    stage.logs.text = "Loading\nCannot load the model\n\n"
    serving, wire = stage.open()
    told = stage.drive(serving, stage.v2)
    assert (told.state, told.model) == (EndpointState.READY, "card:1")
    assert f"Deployment {V2} of card:2 has failed: ImageBuildFailure: No space left" in told.message
    assert "its log ends with: Cannot load the model" in told.message
    assert "card:1 goes on" in told.message
    assert stage.traffic() == {V1: 100}
    assert len([text for text in changes(wire.sent) if "PUT card-end/deployments" in text]) == 1
    again = stage.drive(serving, stage.v2)  # the next command tries again
    assert (again.state, again.model) == (EndpointState.READY, "card:2")


def test_the_first_deployment_fails_with_azures_words_and_is_retried_by_the_next_call(
    stage: OnlineStage,
) -> None:
    stage.world.quota[FAMILY] = 0
    serving, _ = stage.open()
    told = stage.drive(serving, stage.v1)
    assert (told.state, told.billing) == (EndpointState.FAILED, Billing.UNKNOWN)
    assert "OutOfQuota: Not enough quota available" in told.message
    assert stage.open()[0].status(REF).state is EndpointState.FAILED
    stage.world.quota[FAMILY] = 24 * 2
    assert stage.drive(serving, stage.v1).state is EndpointState.READY


def test_an_endpoint_that_cannot_be_made_is_made_anew(stage: OnlineStage) -> None:
    stage.world.faults.order({"kind": "lro_fail", "match": "PUT .*/card-end$", "message": "No address."})
    serving, wire = stage.open()
    told = stage.drive(serving, stage.v1)
    assert (told.state, told.billing) == (EndpointState.FAILED, Billing.FREE)
    assert "Azure says Failed: InternalServerError: No address." in told.message
    assert stage.drive(serving, stage.v1).state is EndpointState.READY
    assert changes(wire.sent)[:3] == ["PUT card-end", "DELETE card-end", "PUT card-end"]


def test_an_endpoint_whose_last_change_failed_is_put_again_as_it_was(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    stage.endpoint()["properties"]["description"] = "mine"
    stage.endpoint()["properties"]["provisioningState"] = "Failed"
    serving, wire = stage.open()
    assert serving.status(REF).state is EndpointState.READY
    assert stage.drive(serving, stage.v1).state is EndpointState.READY
    assert changes(wire.sent) == ["PUT card-end"]
    assert stage.endpoint()["properties"]["description"] == "mine"
    assert stage.traffic() == {V1: 100}


def test_another_size_is_another_deployment_and_another_number_is_not(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    serving, wire = stage.open()
    ready = stage.drive(serving, stage.v1, wanted(instances=2))
    assert ready.cost.startswith("$7.35 an hour for 2 x")
    assert changes(wire.sent) == [f"PATCH card-end/deployments/{V1}"]
    stage.drive(serving, stage.v1, wanted(size="Standard_NC48ads_A100_v4"))
    stage.pass_time()
    (name,) = stage.deployments()
    assert name != V1
    assert stage.traffic() == {name: 100}


def test_scaling_that_fails_is_told_and_the_endpoint_goes_on(stage: OnlineStage) -> None:
    """It must not look like one that has failed: `maas reap` deletes those."""
    stage.ready(stage.v1)
    stage.world.quota[FAMILY] = 24
    serving, _ = stage.open()
    with pytest.raises(ServiceError, match=r"OutOfQuota: .* it goes on as it was"):
        stage.drive(serving, stage.v1, wanted(instances=5))
    assert stage.traffic() == {V1: 100}
    assert serving.status(REF).state is EndpointState.READY
    stage.health[V1] = SILENT
    assert serving.status(REF).state is EndpointState.FAILED


def test_an_endpoint_whose_traffic_cannot_be_changed_says_so(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    stage.world.faults.order({"kind": "lro_fail", "match": "PUT .*/card-end$", "message": "No way."})
    words = "The last change of the endpoint has failed: InternalServerError: No way."
    with pytest.raises(ServiceError, match=words):
        stage.drive(stage.open()[0], stage.v2)
    assert stage.open()[0].status(REF).message == words
    ready = stage.drive(stage.open()[0], stage.v2)
    assert (ready.state, ready.model, ready.message) == (EndpointState.READY, "card:2", "")


def test_names_that_are_taken(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    serving, wire = stage.open()
    with pytest.raises(ConflictError, match="serves card:1, another model"):
        serving.deploy(stage.other, wanted())
    stage.endpoint()["tags"] = {"by": "hand"}
    with pytest.raises(ConflictError, match="that maas did not make"):
        serving.deploy(stage.v1, wanted())
    assert serving.list() == ()
    for call in (serving.status, serving.access, serving.traffic):
        with pytest.raises(NotFoundError):
            call(REF)
    serving.delete(REF)
    assert changes(wire.sent) == []
    with pytest.raises(NotFoundError):
        stage.open("another-home")[0].delete(REF)


def test_the_time_is_over(stage: OnlineStage) -> None:
    ready = stage.ready(stage.v1)
    stage.pass_time(4 * 3600)
    serving, wire = stage.open()
    over = serving.status(REF)
    assert (over.state, over.billing) == (EndpointState.EXPIRED, Billing.BILLING)
    assert "Its time of 4h is over." in over.message
    assert "maas reap" in over.message
    with pytest.raises(ConflictError, match="is expired"):
        serving.access(REF)
    renewed = stage.drive(serving, stage.v1)
    assert renewed.state is EndpointState.READY
    assert renewed.expires_at is not None
    assert renewed.expires_at - (ready.expires_at or 0) >= 4 * 3600
    assert changes(wire.sent) == ["PATCH card-end"]
    longer = stage.drive(serving, stage.v1, wanted(ttl="2d"))
    assert longer.expires_at == pytest.approx(stage.world.clock.now() + 2 * 86400, abs=10)


def test_delete_is_begun_and_may_be_repeated(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    serving, wire = stage.open()
    serving.delete(REF)
    serving.delete(REF)
    assert changes(wire.sent) == ["DELETE card-end"]
    assert serving.list() == ()
    with pytest.raises(NotFoundError):
        serving.status(REF)
    again = serving.deploy(stage.other, wanted())  # the name is free as soon as the old one is gone
    assert again.state is EndpointState.STARTING
    assert "is being deleted" in again.message
    stage.pass_time()
    assert stage.endpoints() == []
    serving.delete(REF)
    assert stage.drive(serving, stage.other).state is EndpointState.READY


def test_unknown_endpoints_are_not_found(stage: OnlineStage) -> None:
    serving, _ = stage.open()
    for ref in (EndpointRef("azureml", "no-such-end"), EndpointRef("local", NAME)):
        for call in (serving.status, serving.access, serving.delete, serving.traffic, serving.log):
            with pytest.raises(NotFoundError):
                call(ref)


def test_every_endpoint_of_maas_is_listed_over_pages(stage: OnlineStage) -> None:
    serving, _ = stage.open()
    names = [f"end-{number}" for number in range(5)]
    for name in names:
        stage.ready(stage.v1, wanted(name=name))
    path = f"{stage.world.names.workspace_id}/onlineEndpoints/foreign"
    foreign = {**stage.endpoint("end-0"), "id": path, "name": "foreign", "tags": {}}
    stage.world.store.put(path, foreign)
    assert [status.ref.name for status in serving.list()] == names
    assert {status.state for status in serving.list()} == {EndpointState.READY}
    stage.world.faults.order(
        {"kind": "status", "status": 400, "match": "GET .*/end-3/deployments", "times": 0}
    )
    listed = {status.ref.name: status for status in serving.list()}
    assert (listed["end-3"].state, listed["end-3"].billing) == (EndpointState.UNKNOWN, Billing.UNKNOWN)
    assert listed["end-4"].state is EndpointState.READY


@pytest.mark.parametrize(
    ("health", "state", "words"),
    [
        (SILENT, EndpointState.STARTING, "does not answer yet: DeploymentNotReady (HTTP 503)"),
        (Health(None, "no role"), EndpointState.UNKNOWN, "whether it answers is not known: no role"),
    ],
)
def test_succeeded_is_not_ready_before_it_answers(
    stage: OnlineStage, health: Health, state: EndpointState, words: str
) -> None:
    stage.ready(stage.v1)
    stage.health[V1] = health
    serving, _ = stage.open()
    status = serving.status(REF)
    assert (status.state, status.billing) == (state, Billing.BILLING)
    assert words in status.message
    with pytest.raises(ConflictError):
        serving.access(REF)


def test_without_the_right_to_the_key_nobody_says_ready(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    stage.world.faults.order({"kind": "status", "status": 403, "match": "listKeys", "times": 0})
    status = stage.open()[0].status(REF)
    assert status.state is EndpointState.UNKNOWN
    assert "whether it answers is not known" in status.message


def test_what_is_stuck_says_its_last_words(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    stage.health[V1] = SILENT
    stage.logs.text = "Invoking user's init function\nInputError: no config.json\n"
    serving, _ = stage.open()
    assert "no config.json" not in serving.status(REF).message
    stage.pass_time(16 * 60)
    assert "its log ends with: InputError: no config.json" in serving.status(REF).message
    assert serving.log(REF, lines=1) == ("InputError: no config.json",)
    stage.world.faults.order({"kind": "status", "status": 404, "match": "getLogs"})
    assert "does not answer yet" in serving.status(REF).message


def test_a_deployment_that_is_made_for_too_long_says_so(stage: OnlineStage) -> None:
    stage.world.faults.order({"kind": "lro_slow", "match": f"PUT .*{V1}", "seconds": 7200})
    serving, _ = stage.open()
    for _ in range(3):
        serving.deploy(stage.v1, wanted())
        stage.pass_time()
    stage.logs.text = "Downloading 1 of 4\n"
    assert "Downloading" not in serving.status(REF).message
    stage.pass_time(16 * 60)
    status = serving.status(REF)
    assert status.state is EndpointState.STARTING
    assert "for a long time: its log ends with: Downloading 1 of 4" in status.message


def test_a_word_that_nobody_knows_is_unknown(stage: OnlineStage) -> None:
    stage.ready(stage.v1)
    stage.deployments()[V1]["properties"]["provisioningState"] = "Hibernating"
    status = stage.open()[0].status(REF)
    assert status.state is EndpointState.UNKNOWN
    assert "Hibernating" in status.message
    assert "Hibernating" in status.native_state


def test_a_workspace_that_is_not_there_is_no_missing_endpoint(stage: OnlineStage) -> None:
    serving, _ = stage.open()
    stage.world.store.delete(stage.world.names.workspace_id)
    with pytest.raises(NotFoundError, match="simulated-ws"):
        serving.status(REF)
    with pytest.raises(NotFoundError):
        serving.deploy(stage.v1, wanted())


def test_a_refusal_of_the_service_is_told(stage: OnlineStage) -> None:
    serving, _ = stage.open()
    with pytest.raises(RejectedError, match="not supported"):
        stage.drive(serving, stage.v1, wanted(size="Standard_Unknown_v9"))
    stage.drive(serving, stage.v1)
    stage.world.faults.order({"kind": "status", "status": 409, "match": "PATCH", "times": 0})
    with pytest.raises(ConflictError):
        serving.deploy(stage.v2, wanted())
