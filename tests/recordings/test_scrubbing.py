"""Nothing private gets into a cassette: secrets, ids, names, mails and hosts, planted wherever they occur."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.recordings.scrubbing import KEY, SIGNATURE, Scrubber, leaks
from tests.recordings.tape import Format

SUBSCRIPTION = "7a1bc3d4-1111-4abc-8def-0123456789ab"
TENANT = "9f8e7d6c-2222-4abc-8def-0123456789ab"
PRINCIPAL = "5e5e5e5e-3333-4abc-8def-0123456789ab"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJvaWQiOiIxMjM0NSJ9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
ACCOUNT_KEY = "Zm9vYmFy" * 10 + "Zm9vYg=="
API_KEY = "4f0a9c0d8e7b6a5f4e3d2c1b0a9f8e7d"
CLIENT_SECRET = "abc8Q~dEfGhIjKlMnOpQrStUvWxYz0123456789ab"
SAS = "sv=2024-11-04&sr=b&sig=Q2hhbmdlTWU%2FMTIz%3D&st=2026-11-26T00%3A00%3A00Z&se=2026-11-27&sp=r"
GROUP, WORKSPACE, RESOURCE, STORAGE = "contoso-research-rg", "contoso-ws", "contoso-openai", "contosostore123"
PERSON, MAIL, ADDRESS = "Erika Mustermann", "erika.mustermann@contoso.com", "20.121.4.77"
ARM = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.MachineLearningServices"
PLANTED = (
    *(SUBSCRIPTION, TENANT, PRINCIPAL, TOKEN, ACCOUNT_KEY, API_KEY, CLIENT_SECRET, "Q2hhbmdlTWU", GROUP),
    *(WORKSPACE, RESOURCE, STORAGE, PERSON, MAIL, ADDRESS, "localhost:41789", "localhost:38123"),
    *("signed-poll-secret", "contoso-kv", "contosoacr", "Mustermann"),
)


def interaction(method: str, uri: str, said: Any = None, answer: Any = None, **more: Any) -> dict[str, Any]:
    """As vcrpy hands it over: bodies as text, headers as they came."""
    kind = {"content-type": ["application/json"]}
    plain = isinstance(answer, str)
    return {
        "request": {
            "method": method,
            "uri": uri,
            "body": json.dumps(said) if said is not None else None,
            "headers": {**kind, "Authorization": [f"Bearer {TOKEN}"], **more.get("headers", {})},
        },
        "response": {
            "status": {"code": 200, "message": "OK"},
            "headers": {**({"content-type": ["text/plain"]} if plain else kind), **more.get("told", {})},
            "body": {"string": answer if plain else json.dumps(answer) if answer is not None else ""},
        },
    }


def conversation() -> list[dict[str, Any]]:
    """One of each place in which something private occurs."""
    arm = f"https://management.azure.com{ARM}/workspaces/{WORKSPACE}"
    blob = f"https://{STORAGE}.blob.core.windows.net/azureml-blobstore-{PRINCIPAL}"
    return [
        interaction(
            "GET",
            f"{arm}?api-version=2024-10-01",
            answer={
                "id": f"{ARM}/workspaces/{WORKSPACE}",
                "identity": {"principalId": PRINCIPAL, "tenantId": TENANT},
                "systemData": {"createdBy": MAIL, "lastModifiedBy": PERSON, "createdByType": "User"},
                "properties": {
                    "storageAccount": f"{ARM}/storageAccounts/{STORAGE}",
                    "keyVault": f"/subscriptions/{SUBSCRIPTION.upper()}/vaults/contoso-kv",
                    "containerRegistry": f"{ARM}/registries/contosoacr",
                    "friendlyName": WORKSPACE.upper(),
                },
            },
            told={
                "azure-asyncoperation": [
                    f"{arm}/operations/1?t=6&c=signed-poll-secret&s=signed-poll-secret&h=1"
                ],
                "set-cookie": [f"session={API_KEY}"],
                "x-ms-request-id": [PRINCIPAL],
            },
        ),
        interaction(
            "POST", f"{arm}/listSecrets", {"a": 1}, {"secretsType": "AccountKey", "key": ACCOUNT_KEY}
        ),
        interaction("POST", f"{arm}/listSecrets", {"a": 2}, {"secretsType": "Sas", "sasToken": f"?{SAS}"}),
        interaction("POST", f"{arm}/listKeys", None, {"primaryKey": API_KEY, "secondaryKey": API_KEY[::-1]}),
        interaction(
            "GET", f"{arm}/details", None, {"logFiles": {"user_logs/std_log.txt": f"{blob}/log.txt?{SAS}"}}
        ),
        interaction(
            "GET",
            f"{blob}/log.txt?{SAS}",
            answer=f"{PERSON} <{MAIL}> on {ADDRESS} uses {WORKSPACE} with {TOKEN} and {CLIENT_SECRET}\n",
        ),
        interaction("GET", f"{blob}?comp=list&prefix=a&{SAS}&restype=container", answer="<xml/>"),
        interaction(
            "POST",
            f"https://{RESOURCE}.openai.azure.com/openai/v1/chat/completions",
            {"user": MAIL, "metadata": {"secret": CLIENT_SECRET}},
            {"error": {"message": f"Client {ADDRESS} of tenant {TENANT} and api-key: {API_KEY}"}},
            headers={"api-key": [API_KEY]},
        ),
        interaction(
            "GET",
            f"https://localhost:41789/x?next={quote(f'https://localhost:38123{ARM}', safe='')}",
            answer={"createdBy": {"userName": PERSON, "userObjectId": PRINCIPAL, "userTenantId": TENANT}},
        ),
    ]


def written() -> str:
    names = {
        SUBSCRIPTION: "00000000-0000-0000-0000-000000000001",
        TENANT: "00000000-0000-0000-0000-000000000002",
        GROUP: "resource-group",
        WORKSPACE: "workspace",
        RESOURCE: "account",
    }
    form = Format({"contoso-run-1": "<run>"}, Scrubber(names, [CLIENT_SECRET]))
    return form.serialize({"interactions": conversation()})


@pytest.fixture(scope="module")
def text() -> str:
    return written()


@pytest.mark.parametrize("planted", PLANTED)
def test_what_was_planted_is_gone(text: str, planted: str) -> None:
    assert planted.lower() not in text.lower()
    assert quote(planted, safe="").lower() not in text.lower()


def test_the_guard_finds_nothing_more(text: str) -> None:
    assert leaks(text, PLANTED) == []


@pytest.mark.parametrize("secret", [SUBSCRIPTION, TOKEN, ACCOUNT_KEY, MAIL, ADDRESS, "localhost:41789"])
def test_the_guard_finds_what_is_left(secret: str) -> None:
    assert leaks(f"body: {secret} and more") == [secret]


def test_the_guard_finds_names_and_signatures() -> None:
    assert leaks(f"url: https://x.blob.core.windows.net/a?sv=1&sig=abc%3D and {GROUP}", [GROUP]) == [
        "&sig=abc%3D",
        GROUP,
    ]


def test_a_conversation_fits_together_afterwards(text: str) -> None:
    first, *_, last = yaml.safe_load(text)["interactions"]
    assert first["response"]["body"]["properties"]["storageAccount"].endswith(
        "/storageAccounts/storageaccount"
    )
    uris = [each["request"]["uri"] for each in yaml.safe_load(text)["interactions"]]
    details, log = yaml.safe_load(text)["interactions"][4:6]
    assert details["response"]["body"]["logFiles"]["user_logs/std_log.txt"] == log["request"]["uri"]
    assert log["request"]["uri"].startswith("https://storageaccount.blob.core.windows.net/azureml-blobstore-")
    assert log["request"]["uri"].endswith(f"/log.txt?{SIGNATURE}")
    assert f"comp=list&prefix=a&restype=container&{SIGNATURE}" in uris[6]
    principal = first["response"]["body"]["identity"]["principalId"]
    assert last["response"]["body"]["createdBy"]["userObjectId"] == principal
    assert principal.startswith("00000000-0000-0000-0000-")
    assert last["request"]["uri"].startswith("https://localhost:1/x?next=https%3A%2F%2Flocalhost%3A2%2F")


def test_keys_are_still_of_their_kind(text: str) -> None:
    import base64

    secrets = yaml.safe_load(text)["interactions"][1]["response"]["body"]
    assert secrets == {"secretsType": "AccountKey", "key": KEY}
    assert len(base64.b64decode(KEY, validate=True)) == 64
    assert yaml.safe_load(text)["interactions"][2]["response"]["body"]["sasToken"] == SIGNATURE


def test_only_headers_that_are_needed_stay(text: str) -> None:
    headers = yaml.safe_load(text)["interactions"][0]["response"]["headers"]
    assert set(headers) == {"content-type", "azure-asyncoperation", "x-ms-request-id"}
    assert headers["azure-asyncoperation"].endswith(
        "/operations/1?t=scrubbed&c=scrubbed&s=scrubbed&h=scrubbed"
    )
    assert all(
        set(each["request"]["headers"]) == {"content-type"} for each in yaml.safe_load(text)["interactions"]
    )


def test_what_stays_is_what_a_reader_needs(text: str) -> None:
    assert (
        "management.azure.com/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/resource-group"
        in text
    )
    assert "createdByType: User" in text
    assert "secretsType: AccountKey" in text


def test_twice_is_as_once() -> None:
    scrubber = Scrubber({GROUP: "resource-group"})
    once = scrubber.text(f"{GROUP} {PRINCIPAL} {MAIL} localhost:41789 {ADDRESS} {TOKEN} {ACCOUNT_KEY}")
    assert scrubber.text(once) == once
    assert Scrubber().text(once) == once


def test_ids_of_jobs_and_files_are_counted() -> None:
    scrubber = Scrubber()
    job, file = "ftjob-0123456789abcdef0123456789abcdef", "file-fedcba9876543210fedcba9876543210"
    said = scrubber.text(f"{job} {file} {job}").split()
    assert said == [f"ftjob-{1:032d}", f"file-{2:032d}", f"ftjob-{1:032d}"]


def test_of_a_file_every_byte_stays_where_it_was() -> None:
    scrubber = Scrubber({WORKSPACE: "workspace", "rg": "resource-group"}, [CLIENT_SECRET])
    lines = [f"{MAIL} at {ADDRESS}", f"{WORKSPACE} in rg for a@b.io", f"{TOKEN} {CLIENT_SECRET}", "Grüße, rg"]
    scrubbed = [scrubber.file(line) for line in lines]
    assert [len(line.encode()) for line in scrubbed] == [len(line.encode()) for line in lines]
    assert leaks("\n".join(scrubbed), [WORKSPACE, CLIENT_SECRET, "b.io"]) == []


def test_built_in_roles_are_no_secret() -> None:
    role = "7f951dda-4ed3-4680-a7ca-43fe172d538d"
    assert Scrubber().text(role) == role
    assert leaks(role) == []


def test_names_are_taken_out_as_words_only() -> None:
    scrubber = Scrubber({"ws": "workspace"})
    assert scrubber.text("/workspaces/ws/news ws-2 WS") == "/workspaces/workspace/news ws-2 workspace"


def test_bytes_that_are_no_text_are_refused() -> None:
    weights = interaction("GET", "https://x/weights", answer="x")
    weights["response"]["body"]["string"] = b"\xff\xfe\x00"
    with pytest.raises(UnicodeDecodeError):
        Format({}, Scrubber()).serialize({"interactions": [weights]})


def test_our_own_values_are_named_and_filled_in() -> None:
    said = {"name": "card-0123abcd-1", "tags": {"maas-run": "card-0123abcd-1"}}
    made = interaction("PUT", "https://management.azure.com/jobs/card-0123abcd-1", said, said)
    text = Format({"card-0123abcd-1": "<run>"}, Scrubber()).serialize({"interactions": [made]})
    assert "card-0123abcd-1" not in text
    (played,) = Format({"card-ffffffff-1": "<run>"}).deserialize(text)["interactions"]
    assert played["request"]["uri"].endswith("/jobs/card-ffffffff-1")
    assert json.loads(played["response"]["body"]["string"])["tags"] == {"maas-run": "card-ffffffff-1"}
