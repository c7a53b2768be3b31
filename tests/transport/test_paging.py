"""Lists come whole and in order, whatever the pages look like, and never for ever."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas_client.errors import ServiceError
from maas_client.transport.credential import KeyCredential
from maas_client.transport.paging import with_params
from maas_client.transport.rest import Rest

BASE = "https://management.azure.com"
LINKS = ("nextLink", "NextLink", "@odata.nextLink", "odata.nextLink", "nextPageLink")


def paged(pages: list[list[int]], link: str, form: str, empty: Any) -> httpx.MockTransport:
    """A service that gives these pages; `form` of the links: whole, path or query."""

    def answer(request: httpx.Request) -> httpx.Response:
        at = int(parse_qs(request.url.query.decode()).get("$skipToken", ["0"])[0])
        following = f"/jobs?api-version=1&$skipToken={at + 1}"
        links = {"whole": BASE + following, "path": following, "query": "?" + following.partition("?")[2]}
        more = {link: links[form]} if at + 1 < len(pages) else empty
        return httpx.Response(200, json={"value": pages[at], **more})

    return httpx.MockTransport(answer)


@given(
    pages=st.lists(st.lists(st.integers(), max_size=5), min_size=1, max_size=12),
    link=st.sampled_from(LINKS),
    form=st.sampled_from(["whole", "path", "query"]),
    end=st.sampled_from([None, "", "absent"]),
)
def test_every_item_comes_once_and_in_order(pages: list[list[int]], link: str, form: str, end: Any) -> None:
    empty = {} if end == "absent" else {link: end}
    rest = Rest(BASE, transport=paged(pages, link, form, empty))
    found = list(rest.paging("/jobs", params={"api-version": "1"}, operation="list jobs"))
    assert found == [item for page in pages for item in page]
    assert len(list(rest.pages("/jobs"))) == len(pages)


def test_a_page_is_read_when_it_is_needed() -> None:
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(200, json={"value": [1, 2], "nextLink": f"{BASE}/jobs?page={len(calls)}"})

    items = Rest(BASE, transport=httpx.MockTransport(answer)).paging("/jobs")
    assert [next(items), next(items)] == [1, 2]
    assert len(calls) == 1


@pytest.mark.parametrize("length", [1, 2, 5])
def test_links_in_a_circle_are_an_error(length: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        at = int(parse_qs(request.url.query.decode()).get("at", ["0"])[0])
        return httpx.Response(200, json={"value": [at], "nextLink": f"/jobs?at={(at + 1) % length}"})

    rest = Rest(BASE, transport=httpx.MockTransport(answer))
    with pytest.raises(ServiceError) as caught:
        list(rest.paging("/jobs?at=0", operation="list jobs"))
    assert caught.value.code == "PagingLoop"


def test_a_next_page_elsewhere_gets_no_key() -> None:
    seen: dict[str, bool] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        seen[request.url.host] = "api-key" in request.headers
        more = {} if request.url.host == "evil.example" else {"nextLink": "https://evil.example/jobs"}
        return httpx.Response(200, json={"value": [], **more})

    list(Rest(BASE, KeyCredential("k"), transport=httpx.MockTransport(answer)).paging("/jobs"))
    assert seen == {"management.azure.com": True, "evil.example": False}


@pytest.mark.parametrize("link", ["http://[x", "https://management.azure.com:port/x"])
def test_a_link_that_is_none_is_refused(link: str) -> None:
    answers = iter([{"value": [1], "nextLink": link}])
    with Rest(BASE, transport=httpx.MockTransport(lambda _: httpx.Response(200, json=next(answers)))) as rest:
        found = rest.paging("/jobs", operation="list jobs")
        assert next(found) == 1
        with pytest.raises(ServiceError, match="no web address"):
            next(found)


def test_lists_of_the_openai_kind_go_on_after_the_last_id() -> None:
    ids = [f"ft-{number}" for number in range(5)]

    def answer(request: httpx.Request) -> httpx.Response:
        after = parse_qs(request.url.query.decode()).get("after", [""])[0]
        start = ids.index(after) + 1 if after else 0
        page = [{"id": one} for one in ids[start : start + 2]]
        return httpx.Response(200, json={"object": "list", "data": page, "has_more": start + 2 < len(ids)})

    rest = Rest(BASE, transport=httpx.MockTransport(answer))
    assert [one["id"] for one in rest.paging("/fine_tuning/jobs", params={"limit": 2})] == ids


def test_a_bare_list_is_a_page_and_text_is_none() -> None:
    rest = Rest(BASE, transport=httpx.MockTransport(lambda _: httpx.Response(200, json=[1, 2])))
    assert list(rest.paging("/x")) == [1, 2]
    plain = Rest(BASE, transport=httpx.MockTransport(lambda _: httpx.Response(200, text="hello")))
    with pytest.raises(ServiceError, match="not a JSON object"):
        list(plain.paging("/x"))


@given(st.text("abc%2B+=/-_.~&;", max_size=60), st.text(min_size=1, max_size=20))
def test_setting_a_parameter_keeps_the_rest_as_it_was(query: str, value: str) -> None:
    query = "&".join(piece for piece in query.replace("%", "%2B").split("&") if piece)
    url = with_params(f"https://h/p?{query}", {"new": value, "left": None})
    before, _, last = urlsplit(url).query.rpartition("&") if query else ("", "", urlsplit(url).query)
    assert before == query
    assert parse_qs(last, keep_blank_values=True) == {"new": [value]}
    assert with_params(url, {"new": "2"}).endswith("new=2")
