"""What a service says about its refusal: codes, message and ids, out of any of Azure's error bodies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from maas_client.transport.redaction import redact

_LONGEST = 400
_MOST_READ = 8_000
_XML = re.compile(r"<(?P<name>code|message)>(?P<value>.*?)</(?P=name)>", re.IGNORECASE | re.DOTALL)
_XML_ID = re.compile(r"RequestId:\s*([0-9a-f-]{16,})", re.IGNORECASE)
_HTML_TITLE = re.compile(r"<(title|h1)\b[^>]*>\s*([^<]+?)\s*</\1>", re.IGNORECASE)
_CODE = re.compile(r"[A-Za-z0-9_.-]+")
_CODES = ("code", "errorcode", "error_code", "statuscode")
_MESSAGES = ("message", "detail", "errormessage", "error_message", "statusmessage", "title")
_TELLING = frozenset({*_MESSAGES, "code", "error", "innererror", "details"})
_ID_NAMES = ("correlation_id", "requestid", "request_id", "traceid")
_GENERIC_CODES = frozenset(
    {"usererror", "systemerror", "serviceerror", "badargument", "deploymentfailed", ""}
)
_DEPTH = 8


@dataclass(frozen=True)
class ErrorWords:
    """`codes` from the outermost to the most exact, `message` one redacted line, `ids` for the support."""

    codes: tuple[str, ...] = ()
    message: str = ""
    ids: tuple[str, ...] = ()

    @property
    def code(self) -> str:
        """The most exact code, "" where there is none."""
        return self.codes[-1] if self.codes else ""


def error_words(body: Any, text: str = "", headers: Mapping[str, str] | None = None) -> ErrorWords:
    """Read an error: ARM, Azure ML, OpenAI, API Management, OAuth, storage XML, HTML or plain text."""
    header_code = (headers or {}).get("x-ms-error-code", "")
    if isinstance(body, list):
        body = next((one for one in body if isinstance(one, dict | str)), {})
    if isinstance(body, dict):
        found = _of_mapping(body)
    elif isinstance(body, str):
        found = ErrorWords(message=one_line(body))
    else:
        found = _of_text(text)
    if header_code and not found.codes:
        return ErrorWords((header_code,), found.message, found.ids)
    return found


def one_line(text: object) -> str:
    """Text on one line, redacted, at most 400 characters."""
    line = redact(" ".join(str(text or "")[:_MOST_READ].split()))
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3].rstrip() + "..."


def _of_mapping(body: dict[str, Any]) -> ErrorWords:
    error = _error_in(body)
    if isinstance(error, str):  # OAuth: {"error": "invalid_client", "error_description": "..."}
        lowered = _lowered(body)
        described = lowered.get("error_description") or lowered.get("message") or error
        code = error if described != error and _CODE.fullmatch(error) else ""
        return ErrorWords((code,) if code else (), one_line(described), _ids(body, {}))
    codes = tuple(dict.fromkeys(code for code in _codes(error) if code))
    return ErrorWords(codes, _message(error), _ids(body, error))


def _error_in(body: dict[str, Any]) -> dict[str, Any] | str:
    """The error in a body: a member, however deep, the first of a list, JSON text, or the body itself."""
    error: dict[str, Any] = body
    for _ in range(_DEPTH):
        lowered = _lowered(error)
        inner = lowered.get("error") or lowered.get("odata.error") or _list(lowered.get("errors"))
        if isinstance(inner, list):
            inner = next((one for one in inner if isinstance(one, dict | str)), None)
        if isinstance(inner, str) and not lowered.get("code"):
            return inner
        if not isinstance(inner, dict) or not any(_lowered(inner).get(name) for name in _TELLING):
            break
        error = inner
    return _nested(error) or error


def _nested(error: dict[str, Any]) -> dict[str, Any] | None:
    """The error that some services write as JSON text into the message of another."""
    message = _lowered(error).get("message")
    if not isinstance(message, str) or not message.lstrip().startswith("{"):
        return None
    try:
        inner = json.loads(message)
    except (ValueError, RecursionError):
        return None
    found = _lowered(inner).get("error", inner) if isinstance(inner, dict) else None
    return found if isinstance(found, dict) and _lowered(found).get("message") else None


def _lowered(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key).lower(): value for key, value in mapping.items()}


def _codes(error: dict[str, Any]) -> Iterator[str]:
    """Codes from the outside in: the error, a detail where that code is generic, then the inner errors."""
    lowered = _lowered(error)
    own, kind = _first(lowered, _CODES), _first(lowered, ("type",))
    yield own or (kind if _CODE.fullmatch(kind) else "")
    details = _details(error)
    if len(details) == 1 or own.lower() in _GENERIC_CODES:
        yield from (str(_lowered(one).get("code") or "") for one in details[:1])
    yield from (str(_lowered(one).get("code") or "") for one in _inner_errors(error))


def _inner_errors(error: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is inside the error, level by level."""
    lowered = _lowered(error)
    inner = lowered.get("innererror") or _additional(lowered).get("InnerError")
    for _ in range(_DEPTH):
        if not isinstance(inner, dict):
            return
        yield inner
        inner = _lowered(inner).get("innererror")


def _message(error: dict[str, Any]) -> str:
    """The error's message, or an inner one's, with those of its first two details where they say more."""
    words = [_said(error) or next((said for one in _inner_errors(error) if (said := _said(one))), "")]
    for detail in _details(error)[:2]:
        more = _said(detail)
        if more and more not in words[0]:
            words.append(more)
    return one_line(": ".join(word.rstrip(". ") if word is not words[-1] else word for word in words if word))


def _said(error: dict[str, Any]) -> str:
    """What one level of an error says for people."""
    lowered = _lowered(error)
    return next((text for name in _MESSAGES if (text := _text_of(lowered.get(name) or ""))), "")


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    """The findings of an error: objects, plain texts, or texts by the field that they are about."""
    lowered = _lowered(error)
    found = lowered.get("details") or lowered.get("errors")
    if isinstance(found, dict):
        found = [{"message": f"{name}: {_text_of(said)}"} for name, said in found.items()]
    entries = [one if isinstance(one, dict) else {"message": str(one)} for one in _list(found) if one]
    return [_nested(one) or one for one in entries]


def _first(lowered: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of some members that is text or a number."""
    found = (lowered.get(name) for name in names)
    return next((str(one) for one in found if isinstance(one, str | int) and one), "")


def _text_of(message: Any) -> str:
    """A message that is text, an object that holds one (OData's {lang, value}), or a list of findings."""
    if isinstance(message, dict):
        lowered = _lowered(message)
        message = lowered.get("value") or lowered.get("msg") or lowered.get("message") or json.dumps(message)
    if isinstance(message, list):
        message = "; ".join(_text_of(one) for one in message)
    return str(message).split("\nRequestId:")[0].strip()


def _ids(body: dict[str, Any], error: dict[str, Any]) -> tuple[str, ...]:
    """Azure ML's correlation (operation and request) and other services' ids, wherever they put them."""
    outer, inner = _lowered(body), _lowered(error)
    places = (outer.get("correlation"), inner.get("correlation"), _additional(inner).get("Correlation"))
    ids = [
        str(place[name])
        for place in places
        if isinstance(place, dict)
        for name in ("operation", "request")
        if place.get(name)
    ]
    plain = (level.get(name) for level in (outer, inner) for name in _ID_NAMES)
    return tuple(dict.fromkeys([*ids, *(one for one in plain if isinstance(one, str) and one)]))


def _additional(error: Mapping[str, Any]) -> dict[str, Any]:
    """Azure ML's additionalInfo: [{type, info: {value}}] as a mapping."""
    found: dict[str, Any] = {}
    for entry in _list(error.get("additionalinfo")):
        if isinstance(entry, dict) and isinstance(entry.get("info"), dict):
            found[str(entry.get("type"))] = entry["info"].get("value", entry["info"])
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _of_text(text: str) -> ErrorWords:
    """Storage's XML, a proxy's HTML, or plain text."""
    text = text[:_MOST_READ]
    parts = {match["name"].lower(): match["value"] for match in _XML.finditer(text)}
    if parts:
        ids = tuple(dict.fromkeys(_XML_ID.findall(text)))
        codes = (parts["code"].strip(),) if parts.get("code", "").strip() else ()
        return ErrorWords(codes, one_line(_text_of(parts.get("message", ""))), ids)
    if text.lstrip("\ufeff \r\n\t").startswith("<"):
        title = _HTML_TITLE.search(text)
        return ErrorWords(message=one_line(title.group(2)) if title else "")
    return ErrorWords(message=one_line(text))
