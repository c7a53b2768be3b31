"""What ARM promises, without storage and without a server: sign-in, versions, errors, pages, operations."""

from __future__ import annotations

import time
import urllib.parse
from typing import Any

import httpx
import pytest

from maas_client.simulator.world import World

COMMAND = {
    "properties": {
        "jobType": "Command",
        "command": "echo hello",
        "environmentId": "azureml://registries/azureml/environments/some/versions/1",
        "resources": {"instanceType": "Standard_DS3_v2"},
    }
}
STORE = "azureml://datastores/workspaceblobstore/paths/"
MODEL = "azureml://registries/azureml/models/Phi-4-mini-instruct"


def test_a_request_without_token_is_refused_with_a_challenge(ask: Any) -> None:
    answer = ask("GET", "", headers={"Authorization": ""})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer authorization_uri=")
    assert answer.json()["error"]["code"] == "AuthenticationFailed"
    assert answer.headers["x-ms-request-id"]


def test_forged_expired_and_misdirected_tokens_are_refused(ask: Any, world: World) -> None:
    good, _ = world.tokens.issue(world.base_url)
    head, _, tail = good.rpartition(".")
    other, _ = world.tokens.issue("https://storage.azure.com")
    codes = [
        ask("GET", "", headers={"Authorization": f"Bearer {token}"}).json()["error"]["code"]
        for token in (f"{head}.{tail[::-1]}", other)
    ]
    assert codes == ["InvalidAuthenticationToken", "InvalidAuthenticationTokenAudience"]
    assert ask("GET", "", headers={"Authorization": f"Bearer {good}"}).status_code == 200
    time.sleep(0.01)
    world.tokens.void_all()
    answer = ask("GET", "", headers={"Authorization": f"Bearer {good}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "ExpiredAuthenticationToken")


def test_the_api_version_is_required(ask: Any) -> None:
    answer = ask("GET", "", query={"api-version": None})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "MissingApiVersionParameter"


def test_what_is_missing_is_named_from_the_outside_in(ask: Any, world: World) -> None:
    names = world.names
    paths = {
        "SubscriptionNotFound": names.workspace_id.replace(names.subscription, "0" * 36),
        "ResourceGroupNotFound": names.workspace_id.replace(names.resource_group, "elsewhere"),
        "ResourceNotFound": f"{names.workspace_id}-other",
    }
    for code, path in paths.items():
        answer = ask("GET", f"{path}/jobs")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, code)
        assert "additionalInfo" not in answer.json()["error"]


def test_letter_case_of_arm_ids_does_not_matter(ask: Any, world: World) -> None:
    path = world.names.workspace_id.replace("resourceGroups", "resourcegroups").replace(
        "Microsoft.MachineLearningServices", "microsoft.machinelearningservices"
    )
    assert ask("GET", path).json()["id"] == world.names.workspace_id
    ask("PUT", "/jobs/Card-1", COMMAND)
    assert ask("GET", "/jobs/card-1").json()["name"] == "Card-1"


def test_a_missing_job_has_the_error_of_the_service(ask: Any) -> None:
    error = ask("GET", "/jobs/nothing").json()["error"]
    assert error["code"] == "UserError"
    kinds = {each["type"]: each["info"]["value"] for each in error["additionalInfo"]}
    assert kinds["InnerError"] == {"code": "NotFoundError", "innerError": None}
    assert len(kinds["Correlation"]["operation"]) == 32


def test_the_same_job_again_is_the_same_job_and_another_body_is_a_conflict(ask: Any) -> None:
    first = ask("PUT", "/jobs/card-1", COMMAND)
    again = ask("PUT", "/jobs/card-1", COMMAND)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["systemData"]["createdAt"] == again.json()["systemData"]["createdAt"]
    other = {"properties": {**COMMAND["properties"], "command": "echo other"}}
    answer = ask("PUT", "/jobs/card-1", other)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "Conflict")
    tagged = {"properties": {**ask("GET", "/jobs/card-1").json()["properties"], "tags": {"a": "b"}}}
    assert ask("PUT", "/jobs/card-1", tagged).json()["properties"]["tags"] == {"a": "b"}


def test_the_default_output_is_spelled_as_the_service_spells_it(ask: Any) -> None:
    outputs = ask("PUT", "/jobs/card-1", COMMAND).json()["properties"]["outputs"]
    place = "azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.card-1"
    assert outputs == {
        "default": {
            "description": None,
            "uri": place,
            "mode": "ReadWriteMount",
            "jobOutputType": "uri_folder",
        }
    }


def test_pages_follow_next_links_and_survive_new_jobs(ask: Any, world: World) -> None:
    world.runner.scripted.plant({"count": 7, "prefix": "old"})
    seen: list[str] = []
    answer = ask("GET", "/jobs", query={"listViewType": "ActiveOnly"}).json()
    while True:
        seen += [each["name"] for each in answer["value"]]
        if "nextLink" not in answer:
            break
        world.runner.scripted.plant({"count": 1, "prefix": f"new-{len(seen)}"})
        path, _, query = answer["nextLink"].removeprefix(world.base_url).partition("?")
        answer = ask("GET", path, query=dict(urllib.parse.parse_qsl(query))).json()
    assert seen == [f"old-{number}" for number in reversed(range(7))]


def test_jobs_are_chosen_by_kind_tag_and_view(ask: Any, world: World) -> None:
    world.runner.scripted.plant({"count": 1, "prefix": "tagged", "tags": {"team": "cards"}})
    ask("PUT", "/jobs/plain", COMMAND)
    names = {
        query: [each["name"] for each in ask("GET", "/jobs", query=dict([query])).json()["value"]]
        for query in (("tag", "team=cards"), ("tag", "team=other"), ("jobType", "FineTuning"))
    }
    assert list(names.values()) == [["tagged-0"], [], []]


def test_a_long_operation_is_polled_to_its_end(ask: Any, world: World) -> None:
    body = {
        "location": "eastus2",
        "properties": {"modelSettings": {"modelId": MODEL}},
        "sku": {"name": "Consumption"},
    }
    answer = ask("PUT", "/serverlessEndpoints/tuned", body)
    assert answer.status_code == 201
    assert answer.json()["properties"]["provisioningState"] == "Creating"
    poll = answer.headers["azure-asyncoperation"].removeprefix(world.base_url)
    assert len(poll) > 3000
    assert int(answer.headers["retry-after"]) >= 1
    assert ask("GET", poll).json()["status"] == "InProgress"
    assert ask("GET", answer.headers["location"].removeprefix(world.base_url)).status_code == 202
    world.clock.move_on(61)
    done = ask("GET", poll).json()
    assert (done["status"], done["percentComplete"]) == ("Succeeded", 100.0)
    assert ask("GET", "/serverlessEndpoints/tuned").json()["properties"]["endpointState"] == "Online"


def test_operations_fail_and_take_long_when_told_to(ask: Any, world: World) -> None:
    world.faults.order({"kind": "lro_fail", "match": "PUT .*/onlineEndpoints/", "code": "Broken"})
    body = {"location": "eastus2", "properties": {"authMode": "Key"}}
    poll = ask("PUT", "/onlineEndpoints/cards", body).headers["azure-asyncoperation"]
    world.clock.move_on(61)
    done = ask("GET", poll.removeprefix(world.base_url)).json()
    assert (done["status"], done["error"]["code"]) == ("Failed", "Broken")
    assert ask("GET", "/onlineEndpoints/cards").json()["properties"]["provisioningState"] == "Failed"
    world.faults.order({"kind": "lro_slow", "seconds": 7200})
    poll = (
        ask("PUT", "/onlineEndpoints/slow", body).headers["azure-asyncoperation"].removeprefix(world.base_url)
    )
    world.clock.move_on(7000)
    assert ask("GET", poll).json()["status"] == "InProgress"


def test_quota_is_checked_for_deployments_with_a_fifth_on_top(ask: Any, world: World) -> None:
    ask("PUT", "/onlineEndpoints/cards", {"location": "eastus2", "properties": {"authMode": "Key"}})
    world.clock.move_on(61)
    world.quota["standardDSv2Family"] = 7
    body = {
        "location": "eastus2",
        "sku": {"name": "Default", "capacity": 1},
        "properties": {"endpointComputeType": "Managed", "instanceType": "Standard_DS3_v2"},
    }
    poll = ask("PUT", "/onlineEndpoints/cards/deployments/blue", body).headers["azure-asyncoperation"]
    world.clock.move_on(61)
    error = ask("GET", poll.removeprefix(world.base_url)).json()["error"]
    assert error["code"] == "OutOfQuota"
    assert "Additional needed: 8." in error["message"]
    world.quota["standardDSv2Family"] = 8
    ask("PUT", "/onlineEndpoints/cards/deployments/blue", body)
    world.clock.move_on(61)
    state = ask("GET", "/onlineEndpoints/cards/deployments/blue").json()["properties"]["provisioningState"]
    assert state == "Succeeded"
    provider = f"/subscriptions/{world.names.subscription}/providers/Microsoft.MachineLearningServices"
    rows = ask("GET", f"{provider}/locations/eastus2/usages").json()["value"]
    used = {(row["name"]["value"], row["type"].split("/")[2]): row["currentValue"] for row in rows}
    assert used["standardDSv2Family", "dedicatedCores"] == 8


def test_traffic_must_name_deployments_and_add_up(ask: Any, world: World) -> None:
    body: dict[str, Any] = {
        "location": "eastus2",
        "properties": {"authMode": "Key", "traffic": {"blue": 100}},
    }
    answer = ask("PUT", "/onlineEndpoints/cards", body)
    assert answer.status_code == 400
    assert "blue" in answer.json()["error"]["message"]


def test_deleting_what_is_not_there_says_nothing(ask: Any) -> None:
    for path in ("/onlineEndpoints/x", "/serverlessEndpoints/x", "/computes/x", "/models/x/versions/1"):
        assert ask("DELETE", path).status_code == 204


def test_one_deployment_for_a_custom_model(ask: Any, world: World) -> None:
    guid = world.workspace_guid(world.names.workspace_id)
    model = f"azureml://locations/eastus2/workspaces/{guid}/models/tuned/versions/1"
    uri = f"{STORE}tuned/"
    ask("PUT", "/models/tuned/versions/1", {"properties": {"modelUri": uri, "modelType": "custom_model"}})
    body = {
        "location": "eastus2",
        "properties": {"modelSettings": {"modelId": model}},
        "sku": {"name": "Consumption"},
    }
    assert ask("PUT", "/serverlessEndpoints/one", body).status_code == 201
    assert ask("PUT", "/serverlessEndpoints/two", body).status_code == 409


def test_models_of_other_publishers_need_a_subscription(ask: Any, world: World) -> None:
    model = "azureml://registries/azureml-mistral/models/Ministral-3B"
    body = {"location": "eastus2", "properties": {"modelSettings": {"modelId": model}}}
    refused = ask("PUT", "/serverlessEndpoints/mini", body)
    assert refused.status_code == 400
    assert "marketplace subscription" in refused.json()["error"]["message"]
    ask("PUT", "/marketplaceSubscriptions/mini", {"properties": {"modelId": model}})
    world.clock.move_on(61)
    assert ask("PUT", "/serverlessEndpoints/mini", body).status_code == 201


def test_tuning_is_refused_in_a_region_that_does_not_offer_it(ask: Any, world: World) -> None:
    details = {
        "taskType": "chatCompletion",
        "modelProvider": "Custom",
        "model": {"uri": f"{MODEL}/versions/1", "jobInputType": "mlflow_model"},
        "trainingData": {
            "uri": f"{STORE}x.jsonl",
            "jobInputType": "uri_file",
        },
    }
    outputs = {"registered_model": {"assetName": "tuned", "jobOutputType": "mlflow_model"}}
    body = {"properties": {"jobType": "FineTuning", "fineTuningDetails": details, "outputs": outputs}}
    made = ask("PUT", "/jobs/there", body)
    assert made.status_code == 201
    assert made.json()["properties"]["properties"]["_fineTuningJobType"] == "MaaS"
    object.__setattr__(world.names, "location", "westeurope")
    error = ask("PUT", "/jobs/elsewhere", body).json()["error"]
    assert error["message"] == "Phi-4-mini-instruct : Serverless FineTuning not supported in westeurope."
    assert error["additionalInfo"][-1]["info"]["value"]["code"] == "ModelNotSupportedByMaaS"


def test_ordered_statuses_carry_retry_after_and_end(ask: Any, world: World) -> None:
    order = {"kind": "status", "status": 429, "retry_after": 7, "match": "GET .*/jobs$"}
    world.faults.order({**order, "times": 2, "after": 1})
    answers = [ask("GET", "/jobs") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 429, 429, 200]
    assert answers[1].headers["retry-after"] == "7"
    assert ask("GET", "/_simulator/faults").json()["struck"] == {"status": 2}


@pytest.mark.parametrize("status", [400, 403, 404, 409, 412, 500, 502, 503, 504])
def test_every_ordered_status_has_an_error_body(ask: Any, world: World, status: int) -> None:
    world.faults.order({"kind": "status", "status": status})
    answer = ask("GET", "/jobs")
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_orders_that_make_no_sense_are_refused_in_one_sentence(ask: Any) -> None:
    for order, words in (
        ({"kind": "earthquake"}, "There is no fault 'earthquake'"),
        ({"kind": "reset", "color": 1}, "no parameter 'color'"),
        ({"kind": "reset", "match": "("}, "no regular expression"),
    ):
        answer = ask("POST", "/_simulator/faults", order)
        assert answer.status_code == 400
        assert words in answer.json()["error"]["message"]


def test_quota_is_set_by_family_or_size_and_never_for_nothing(ask: Any, world: World) -> None:
    assert ask("POST", "/_simulator/quota", {"standard_nc6s_V3": 0}).json() == {"standardNCSv3Family": 0}
    for order, words in (({"NCSv3": 0}, "'NCSv3' is no family"), ({"lowPriorityCores": "many"}, "a number")):
        answer = ask("POST", "/_simulator/quota", order)
        assert answer.status_code == 400
        assert words in answer.json()["error"]["message"]
    assert world.quota == {"standardNCSv3Family": 0}


def test_the_admin_routes_want_the_key(ask: Any) -> None:
    assert ask("GET", "/_simulator/bill", headers={"x-simulator-key": "guess"}).status_code == 401


def test_a_job_shows_an_unknown_word_for_a_while(ask: Any, world: World) -> None:
    world.runner.scripted.plant({"count": 1, "queue_s": 0, "seconds": 1000})
    world.faults.order({"kind": "job_status", "match": "scripted-0", "word": "Defrosting", "seconds": 50})
    assert ask("GET", "/jobs/scripted-0").json()["properties"]["status"] == "Defrosting"
    world.clock.move_on(51)
    assert ask("GET", "/jobs/scripted-0").json()["properties"]["status"] == "Running"


def test_a_scripted_job_lives_by_the_clock_and_logs_by_range(ask: Any, world: World) -> None:
    world.runner.scripted.plant({"count": 1, "queue_s": 60, "seconds": 86400, "log_every_s": 60})
    start = f"/history/v1.0{world.names.workspace_id}/runs/scripted-0/details"
    assert ask("GET", start).json()["logFiles"] == {}
    world.clock.move_on(60 + 12 * 3600)
    place = ask("GET", start).json()["logFiles"]["user_logs/std_log.txt"].removeprefix(world.base_url)
    path, _, query = place.partition("?sig=")

    def read(signature: str, span: str) -> httpx.Response:
        answer: httpx.Response = ask(
            "GET", world.base_url + path, query={"sig": signature}, headers={"Range": span}
        )
        return answer

    whole = read(query, "")
    assert whole.text.count("\n") == 720
    part = read(query, "bytes=100-199")
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert part.headers["content-range"].startswith("bytes 100-199/")
    assert read(query, f"bytes={len(whole.content) + 1000}-").status_code == 416
    assert read("wrong", "").status_code == 403
    world.clock.move_on(86400)
    assert ask("GET", "/jobs/scripted-0").json()["properties"]["status"] == "Completed"


def test_the_bill_says_what_is_unknown(ask: Any, world: World) -> None:
    body = {"location": "eastus2", "properties": {"modelSettings": {"modelId": MODEL}}}
    ask("PUT", "/serverlessEndpoints/tuned", body)
    ask("PUT", "/onlineEndpoints/cards", {"location": "eastus2", "properties": {"authMode": "Key"}})
    world.clock.move_on(61)
    size = {"endpointComputeType": "Managed", "instanceType": "Standard_NC24ads_A100_v4"}
    body = {"location": "eastus2", "sku": {"name": "Default", "capacity": 2}, "properties": size}
    ask("PUT", "/onlineEndpoints/cards/deployments/blue", body)
    world.clock.move_on(61)
    ask("GET", "")
    world.clock.move_on(3600)
    bill = ask("GET", "/_simulator/bill").json()
    deployment = next(line for line in bill["lines"] if line["what"].startswith("deployment"))
    assert deployment["quantity"] == pytest.approx(2, rel=0.01)
    assert deployment["usd"] == pytest.approx(2 * 3.673, rel=0.01)
    hosting = next(line for line in bill["lines"] if line["what"].startswith("serverless endpoint"))
    assert hosting["usd"] is None
    assert bill["lines_of_unknown_price"] == 1
    assert bill["known_usd"] == pytest.approx(deployment["usd"], abs=0.01)
    assert "price unknown" in world.bill.text()


def test_the_clock_can_be_moved_and_sped_up(ask: Any, world: World) -> None:
    before = ask("GET", "/_simulator/clock").json()["unix_s"]
    after = ask("POST", "/_simulator/clock", {"move_on_s": 3600, "speed": 10}).json()
    assert after["unix_s"] - before == pytest.approx(3600, abs=5)
    assert after["speed"] == 10
    assert ask("POST", "/_simulator/clock", {"speed": 0}).status_code == 400


def test_tokens_come_only_for_the_identity_header(ask: Any) -> None:
    query = {"resource": "https://management.azure.com"}
    good = ask("GET", "/msi/token", query=query, headers={"X-IDENTITY-HEADER": "secret"})
    assert good.json()["token_type"] == "Bearer"
    assert int(good.json()["expires_on"]) > time.time()
    assert ask("GET", "/msi/token", headers={"X-IDENTITY-HEADER": "guess"}).status_code == 401


def test_state_survives_on_disk(world: World, tmp_path: Any) -> None:
    from maas_client.simulator.state import Store

    store = Store(tmp_path / "state.json")
    for path in world.store.collections("/datastores"):
        for each in world.store.members(path):
            store.put(each["id"], each)
    store.save()
    again = Store(tmp_path / "state.json")
    assert again.get(f"{world.names.workspace_id}/datastores/workspaceblobstore") is not None
