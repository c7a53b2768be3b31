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
_HTML_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
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
    if isinstance(body, dict) and body:
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
    lowered = _lowered(body)
    error = lowered.get("error", lowered.get("odata.error", body))
    if isinstance(error, str):  # OAuth: {"error": "invalid_client", "error_description": "..."}
        described = lowered.get("error_description") or lowered.get("message") or error
        return ErrorWords((error,), one_line(described), _ids(body, {}))
    if not isinstance(error, dict):
        error = body
    nested = _nested(error)
    codes = tuple(dict.fromkeys(code for code in _codes(nested or error) if code))
    return ErrorWords(codes, _message(nested or error), _ids(body, error))


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
    code = lowered.get("code") or lowered.get("statuscode") or ""
    own = str(code) if isinstance(code, str | int) else ""
    yield own or str(lowered.get("type") or "")
    details = [one for one in _list(lowered.get("details")) if isinstance(one, dict)]
    if len(details) == 1 or own.lower() in _GENERIC_CODES:
        yield from (str(_lowered(one).get("code") or "") for one in details[:1])
    inner = lowered.get("innererror") or _additional(lowered).get("InnerError")
    for _ in range(_DEPTH):
        if not isinstance(inner, dict):
            return
        level = _lowered(inner)
        yield str(level.get("code") or "")
        inner = level.get("innererror")


def _message(error: dict[str, Any]) -> str:
    """The error's message, with those of its first two details where they say more."""
    lowered = _lowered(error)
    words = [_text_of(lowered.get("message") or lowered.get("detail") or "")]
    for detail in [one for one in _list(lowered.get("details")) if isinstance(one, dict)][:2]:
        more = _text_of(_lowered(detail).get("message") or "")
        if more and more not in words[0]:
            words.append(more)
    return one_line(": ".join(word.rstrip(". ") if word is not words[-1] else word for word in words if word))


def _text_of(message: Any) -> str:
    """A message that is text, OData's {lang, value}, or a list of findings."""
    if isinstance(message, dict):
        message = message.get("value") or json.dumps(message)
    if isinstance(message, list):
        message = "; ".join(
            str(one.get("msg", one)) if isinstance(one, dict) else str(one) for one in message
        )
    return str(message).split("\nRequestId:")[0].strip()


def _ids(body: dict[str, Any], error: dict[str, Any]) -> tuple[str, ...]:
    """Azure ML's correlation (operation and request), wherever it put it."""
    lowered = _lowered(body)
    places = (lowered.get("correlation"), _lowered(error).get("correlation"))
    found = _additional(_lowered(error)).get("Correlation")
    plain = (lowered.get("correlation_id"), lowered.get("requestid"), lowered.get("request_id"))
    ids = [
        str(place[name])
        for place in (*places, found)
        if isinstance(place, dict)
        for name in ("operation", "request")
        if place.get(name)
    ]
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
        return ErrorWords(message=one_line(title.group(1)) if title else "")
    return ErrorWords(message=one_line(text))
