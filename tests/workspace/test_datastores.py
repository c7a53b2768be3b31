"""Places round trip through their URIs; datastores as the service describes them; secrets are renewed."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.errors import AccessDeniedError, NotFoundError, RejectedError, ServiceError, UsageError
from maas_client.transport.cloud import PUBLIC
from maas_client.transport.credential import AzureCredential
from maas_client.transport.workspace import Target
from maas_client.workspace.datastores import (
    DEFAULT,
    Datastore,
    Place,
    Secret,
    SignedQuery,
    ask_secret,
    get_datastore,
    parse_place,
)
from maas_client.workspace.session import Workspace
from tests.transport.recorded import FOLDER, conversations

TARGET = Target("sub", "rg", "ws")
LONG = "azureml://subscriptions/SUB/resourcegroups/rg/workspaces/ws/datastores"
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
steps = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1).filter(
    lambda step: step not in {".", ".."}
)
paths = st.builds(
    lambda found, end: "/".join(found) + end, st.lists(steps, min_size=1), st.sampled_from(["", "/"])
)


@given(names, st.one_of(st.just(""), paths))
def test_places_round_trip(name: str, path: str) -> None:
    place = Place(name, path)
    assert parse_place(str(place)) == place
    assert parse_place(f"{LONG}/{name}/paths/{path}", TARGET) == place


@given(st.text())
def test_any_text_is_a_place_or_refused(text: str) -> None:
    for uri in (text, f"azureml://datastores/{text}", f"azureml://datastores/d/paths/{text}"):
        try:
            place = parse_place(uri)
        except UsageError:
            continue
        assert parse_place(str(place)) == place
        assert not {".", ".."} & set(place.path.split("/"))


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("azureml://datastores/d/paths/a/b.txt", Place("d", "a/b.txt")),
        ("azureml://datastores/d/paths/a%20b?#/", Place("d", "a%20b?#/")),
        ("azureml://datastores/d/paths/", Place("d", "")),
        ("azureml://datastores/d/paths", Place("d", "")),
        ("azureml://datastores/d", Place("d", "")),
        (f"{LONG}/d/paths/a", Place("d", "a")),
        (
            "azureml://subscriptions/s/resourceGroups/r/providers/Microsoft.MachineLearningServices/workspaces/w"
            "/datastores/d/paths/a",
            Place("d", "a"),
        ),
    ],
)
def test_places_as_azure_writes_them(uri: str, place: Place) -> None:
    assert parse_place(uri) == place


@pytest.mark.parametrize(
    "uri",
    [
        "azureml://datastores//paths/a",
        "azureml://datastores/d/a",
        "azureml://datastores/d/paths//a",
        "azureml://datastores/d/paths/a/../b",
        "azureml://datastores/d/paths/..",
        "azureml://datastores/a b/paths/c",
        "azureml:data:1",
        "azureml://jobs/j/outputs/o/paths/p",
        "https://a.blob.core.windows.net/c/b",
        "",
    ],
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_place(uri)
    assert "datastores/NAME/paths/PATH" in caught.value.hint


def test_a_place_of_another_workspace_is_refused() -> None:
    with pytest.raises(UsageError, match="another workspace than workspace ws in rg, subscription sub"):
        parse_place(LONG.replace("/rg/", "/other/") + "/d/paths/a", TARGET)
    assert parse_place(LONG.replace("/rg/", "/other/") + "/d/paths/a") == Place("d", "a")


Answer = Callable[[httpx.Request], httpx.Response]
PROPERTIES = {
    "credentials": {"credentialsType": "AccountKey"},
    "datastoreType": "AzureBlob",
    "accountName": "acct",
    "containerName": "box",
    "endpoint": "core.windows.net",
    "protocol": "https",
}


class Source:
    """Signs in without asking anybody."""

    def get_token(self, *scopes: str, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(token="t", expires_on=4e9)


def workspace(answer: Answer, clock: Callable[[], float] = lambda: 0.0) -> Workspace:
    credential = AzureCredential(open_source=Source, clock=clock)
    transport = httpx.MockTransport(answer)
    return Workspace(
        TARGET, credential, lambda: PUBLIC, transport=transport, clock=clock, sleep=lambda _: None
    )


def store(**changes: Any) -> Answer:
    return lambda _: httpx.Response(200, json={"properties": {**PROPERTIES, **changes}})


def test_a_datastore() -> None:
    found = get_datastore(workspace(store()))
    assert found == Datastore(DEFAULT, "https://acct.blob.core.windows.net", "box", "AccountKey")


def test_a_datastore_of_an_emulator() -> None:
    """The account's name ends in #, so that the suffix is no part of the address."""
    found = get_datastore(
        workspace(store(accountName="localhost:7/emulated#", endpoint="core.simulated")), "d"
    )
    assert found.account_url == "https://localhost:7/emulated"


def test_storage_without_tls_is_not_used() -> None:
    with pytest.raises(ServiceError, match="not reached over https"):
        get_datastore(workspace(store(protocol="http")))
    assert get_datastore(workspace(store(protocol="http", accountName="localhost:7/e#"))).account_url


def test_other_kinds_of_storage_are_refused() -> None:
    with pytest.raises(RejectedError, match="of type AzureFile, not blob storage"):
        get_datastore(workspace(store(datastoreType="AzureFile")))


def test_a_datastore_that_is_not_there() -> None:
    missing = {"error": {"code": "UserError", "message": "Could not find datastore: x."}}
    with pytest.raises(NotFoundError, match="Cannot get datastore x: Could not find"):
        get_datastore(workspace(lambda _: httpx.Response(404, json=missing)), "x")


KEYED = Datastore("d", "https://acct.blob.core.windows.net", "box", "AccountKey")


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        ({"secretsType": "AccountKey", "key": "a2V5"}, "AccountKey", "a2V5"),
        ({"secretsType": "Sas", "sasToken": "?sv=1&sig=x"}, "Sas", "sv=1&sig=x"),
        ({"secretsType": "Sas", "sasToken": "sv=1&sig=x"}, "Sas", "sv=1&sig=x"),
    ],
)
def test_secrets(body: dict[str, str], kind: str, value: str) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.path, json.loads(request.content)))
        return httpx.Response(200, json=body)

    secret = ask_secret(workspace(answer), KEYED)
    assert secret is not None
    assert (secret.kind, secret.value) == (kind, value)
    assert value not in f"{secret!r} {secret}"
    path = f"{TARGET.path}/datastores/d/listSecrets"
    assert asked == [("POST", path, {"expirableSecret": True, "expireAfterHours": 1})]


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_secret_that_this_caller_does_not_get(status: int) -> None:
    refused = {"error": {"code": "AuthorizationFailed", "message": "No."}}
    assert ask_secret(workspace(lambda _: httpx.Response(status, json=refused)), KEYED) is None


def test_a_datastore_without_secret_is_not_asked() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise AssertionError("nothing to ask")

    assert ask_secret(workspace(answer), Datastore("d", "https://a", "box", "None")) is None


def test_a_service_that_fails_is_no_answer() -> None:
    with pytest.raises(ServiceError, match="Cannot get the secret of datastore d"):
        ask_secret(workspace(lambda _: httpx.Response(500, json={})), KEYED)


def test_a_signed_query_is_renewed_before_it_ends() -> None:
    now = [0.0]
    given_out = iter(range(1, 10))
    opened = workspace(
        lambda _: httpx.Response(200, json={"sasToken": f"?sig={next(given_out)}"}), lambda: now[0]
    )
    query = SignedQuery(opened, KEYED, Secret("Sas", "sig=0"))
    seen = []
    for now[0] in (0, 2990, 3000, 3600, 5990, 6010):
        seen.append(query())
    assert seen == ["sig=0", "sig=0", "sig=1", "sig=1", "sig=1", "sig=2"]


def test_a_signed_query_that_cannot_be_renewed() -> None:
    now = [0.0]
    opened = workspace(lambda _: httpx.Response(403, json={}), lambda: now[0])
    query = SignedQuery(opened, KEYED, Secret("Sas", "sig=0"))
    now[0] = 3600.0
    with pytest.raises(AccessDeniedError, match="gives no signed URL any more"):
        query()


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the recordings are not here")
def test_what_the_live_service_said() -> None:
    """Every blob datastore in the recordings can be opened, and every secret of one is taken."""
    said = [one for entries in conversations().values() for one in entries if "/datastores/" in one.url]
    seen = set()
    for one in said:
        if one.status != 200 or not isinstance(one.body, dict):
            continue
        opened = workspace(lambda _, one=one: one.response())
        if one.url.partition("?")[0].endswith("/listSecrets"):
            secret = ask_secret(opened, KEYED)
            assert secret is not None
            seen.add(secret.kind)
        elif one.body["properties"]["datastoreType"] == "AzureBlob":
            found = get_datastore(opened)
            assert found.account_url.endswith(".blob.core.windows.net")
            assert found.container
            seen.add(f"datastore {found.kind}")
    assert seen == {"AccountKey", "Sas", "datastore AccountKey", "datastore None"}
