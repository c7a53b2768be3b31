"""Lists that come in pages: where the items are, and where the next page is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlunsplit

from maas_client.transport.answer import Answer
from maas_client.transport.trust import absolute, parts_of

_LINKS = ("nextlink", "@odata.nextlink", "odata.nextlink", "nextpagelink", "next")
_LISTS = ("value", "data", "items")


def items_of(answer: Answer) -> list[Any]:
    """The items of one page. Raises ServiceError where the body holds no list."""
    if isinstance(answer.body, list):
        return answer.body
    lowered = {str(name).lower(): value for name, value in answer.mapping.items()}
    for name in _LISTS:
        if isinstance(lowered.get(name), list):
            return list(lowered[name])
    return []


def next_url(answer: Answer, url: str) -> str:
    """The URL of the next page, "" after the last. `url` is that of this page.

    Links are taken as they are, whole or relative. Lists of the OpenAI kind (has_more) go on after the last
    id.
    """
    if not isinstance(answer.body, dict):
        return ""
    lowered = {str(name).lower(): value for name, value in answer.body.items()}
    for name in _LINKS:
        link = lowered.get(name)
        if isinstance(link, str) and link.strip():
            return absolute(url, link.strip())
    last = last_item(answer)
    return with_params(url, {"after": last}) if last else ""


def last_item(answer: Answer) -> str:
    """The id after which the next page of a list of the OpenAI kind (has_more) begins, "" after the last."""
    if not isinstance(answer.body, dict) or answer.body.get("has_more") is not True:
        return ""
    items = items_of(answer)
    last = answer.body.get("last_id") or (
        items[-1].get("id") if items and isinstance(items[-1], dict) else ""
    )
    return str(last or "")


def with_params(url: str, params: Mapping[str, str | int | None]) -> str:
    """The URL with query parameters set; the rest of its query stays as it is, byte for byte."""
    kept = {name: str(value) for name, value in params.items() if value is not None}
    if not kept:
        return url
    parts = parts_of(url)
    old = [piece for piece in parts.query.split("&") if piece and not _is_named(piece, kept)]
    new = [f"{quote(name, safe='$')}={quote(value, safe='')}" for name, value in kept.items()]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "&".join([*old, *new]), parts.fragment))


def _is_named(piece: str, names: dict[str, str]) -> bool:
    pairs = parse_qsl(piece, keep_blank_values=True)
    return bool(pairs) and pairs[0][0] in names
