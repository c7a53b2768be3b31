"""Answers as no contract has them: every reader gives what it can, and never anything but our own errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maas_client.backends.azureml.online import read_deployment, read_endpoint
from maas_client.backends.azureml.rollout import Seen
from maas_client.backends.azureml.sight import to_status as online_status
from maas_client.backends.azureml.wire import body_again, run_of
from maas_client.backends.foundry.classic.marketplace import ensure_subscription
from maas_client.backends.foundry.classic.results import find_tuned_model
from maas_client.backends.foundry.classic.wire import billing_of, endpoint_state
from maas_client.backends.foundry.openai_v1.deployments import read_deployment as read_hosted
from maas_client.backends.foundry.openai_v1.wire import read_event, read_file, read_job
from maas_client.backends.foundry.openai_v1.wire import to_status as tuning_status
from maas_client.endpoint import Billing, EndpointRef, EndpointState
from maas_client.errors import MaasError
from maas_client.run import RunState
from maas_client.workspace.datastores import get_datastore
from maas_client.workspace.jobs import newest_attempts, to_status
from maas_client.workspace.metrics import read_metrics
from maas_client.workspace.models import WorkspaceModels
from maas_client.workspace.quota import read_sizes, read_usages
from maas_client.workspace.registries import find_registry_model
from tests.workspace.wired import NOW, Wired

NAMES = [
    *(
        "id",
        "name",
        "type",
        "kind",
        "location",
        "tags",
        "identity",
        "sku",
        "capacity",
        "properties",
        "status",
    ),
    *("provisioningState", "endpointState", "systemData", "createdAt", "value", "data", "error", "code"),
    *("message", "details", "limit", "currentValue", "vCPUs", "instanceType", "traffic", "outputs", "step"),
    *("status", "modelId", "credentials", "accountName", "datastoreType", "createdUtc", "metadata"),
]
ODD = st.sampled_from([None, "", "x", 0, -1, 1.5, True, "7", [], {}, ["a"], {"a": 1}, [{"name": "x"}]])
BODIES = st.dictionaries(
    st.sampled_from(NAMES + [name.title() for name in NAMES]),
    st.recursive(
        ODD, lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=5), max_leaves=10
    ),
    max_size=8,
)
FEW = settings(max_examples=20, deadline=None)


def look_at_endpoint(body: dict[str, Any]) -> None:
    seen = Seen(read_endpoint(body), (read_deployment(body),))
    online_status(EndpointRef("azureml", "e"), seen, None, now=NOW)
    seen.endpoint.again(traffic={}, tags={})


READERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "job": lambda body: to_status(body, seen_at=NOW, details=body),
    "details": lambda body: to_status({"properties": {"status": "Failed"}}, seen_at=NOW, details=body),
    "attempts": lambda body: newest_attempts([body, body]),
    "command job": lambda body: (run_of(body), body_again(body)),
    "online endpoint": look_at_endpoint,
    "serverless endpoint": endpoint_state,
    "hosted deployment": lambda body: read_hosted(body, None).billing,
    "tuning job": lambda body: tuning_status(read_job(body), seen_at=NOW),
    "tuning event": read_event,
    "tuning file": read_file,
    "quota": lambda body: (read_sizes([body]), read_usages([body])),
}
ASKED: dict[str, Callable[[Wired], object]] = {
    "datastore": lambda wired: get_datastore(wired.workspace),
    "model": lambda wired: WorkspaceModels(lambda: wired.workspace).get("m", 1),
    "models": lambda wired: WorkspaceModels(lambda: wired.workspace).list("m"),
    "registry": lambda wired: find_registry_model(wired.workspace, "azureml://registries/r/models/m"),
    "subscription": lambda wired: ensure_subscription(wired.workspace, "azureml://registries/r/models/m"),
    "metrics": lambda wired: read_metrics(wired.workspace, "r", None, ended=True),
    "facts": lambda wired: wired.workspace.facts,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@FEW
@given(body=BODIES)
def test_every_body_is_read(reader: Callable[[dict[str, Any]], object], body: dict[str, Any]) -> None:
    reader(json.loads(json.dumps(body)))


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
@FEW
@given(body=BODIES, listed=st.booleans())
def test_every_answer_is_read_or_refused(
    ask: Callable[[Wired], object], body: dict[str, Any], listed: bool
) -> None:
    wired = Wired(trouble=lambda _: httpx.Response(200, json={"value": [body]} if listed else body))
    with suppress(MaasError):
        ask(wired)


@FEW
@given(body=BODIES)
def test_the_tuned_model_is_none_where_nothing_names_it(body: dict[str, Any]) -> None:
    wired = Wired(trouble=lambda _: httpx.Response(200, json={"value": [{**body, "name": None}]}))
    job = {"name": "card-1", "properties": {"outputs": {"registered_model": {"assetName": "card"}}}}
    assert find_tuned_model(wired.workspace, job) is None


@pytest.mark.parametrize("word", ["Frobnicating", "", None, 7])
def test_a_word_that_nobody_knows_is_never_an_end(word: object) -> None:
    properties = {"status": word, "provisioningState": word, "endpointState": word}
    assert to_status({"properties": properties}, seen_at=NOW).state is RunState.UNKNOWN
    assert read_hosted({"properties": properties}, None).state is EndpointState.UNKNOWN
    assert read_hosted({"properties": properties}, None).billing is Billing.UNKNOWN
    assert endpoint_state({"properties": properties})[0] is EndpointState.UNKNOWN
    assert read_job({"status": word}).state is RunState.UNKNOWN


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_words_mean_the_same_in_any_case(change: Callable[[str], str]) -> None:
    def seen(word: str, **more: str) -> tuple[EndpointState, str]:
        return endpoint_state({"Properties": {"endpointState": change(word), **more}})

    assert seen("Online") == (EndpointState.READY, change("Online"))
    assert billing_of(change("Online")) is Billing.BILLING
    assert seen("CreationFailed")[0] is EndpointState.FAILED
    assert seen("Online", provisioningState=change("Deleting"))[0] is EndpointState.STOPPED
    assert seen("Creating", provisioningState=change("Failed"))[0] is EndpointState.FAILED
