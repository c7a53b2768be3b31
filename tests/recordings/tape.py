"""Cassettes as people can read them: vcrpy records and plays, here is what is kept and what must be the same.

A cassette is YAML: requests and answers with their JSON as YAML, few headers, nothing secret. What follows
from our own files (the run's name, hashes of data and code, versions of environments) stands in it as
`<run>` and the like, and is filled in when it is played: so a changed script needs no new cassette.
"""

from __future__ import annotations

import difflib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

import httpx
import vcr.patch
import yaml
from vcr.cassette import Cassette
from vcr.filters import decode_response
from vcr.record_mode import RecordMode
from vcr.request import Request

from tests.recordings.scrubbing import Scrubber

REQUEST_HEADERS = frozenset(
    {
        *("content-type", "range", "x-ms-range", "if-match", "x-ms-blob-type"),
        "azureml-model-deployment",
    }
)
RESPONSE_HEADERS = frozenset(
    {
        *("content-type", "content-range", "location", "azure-asyncoperation", "retry-after", "etag"),
        *("last-modified", "x-ms-error-code", "x-ms-request-id", "x-ms-blob-type", "x-ms-meta-sha256"),
        *("x-ms-meta-name", "x-ms-meta-version", "x-ms-meta-upload_status"),
        "ms-azureml-model-error-statuscode",
    }
)
BROKEN = "x-recorded-failure"
"""The header of an answer that never came: the name of what httpx raised."""
_TOKENS = re.compile(
    r"/msi/token|/oauth2/|/\.well-known/openid|169\.254\.169\.254|/common/discovery/instance"
)
"""Signing in is not recorded: whoever plays a cassette needs no token."""
_APART = frozenset({"maas-expires-at", "maas-expires", "condaFile"})
"""Members that are not compared: tags that hold a moment, and the packages of jobs/environments/."""
_PACKAGES = "name: packages of jobs/environments\n"
"""Stands for the text of such an environment."""
_CODE_NAME = re.compile(r"(?<=/codes/)[0-9a-f-]{36}(?=/)")
"""azure-ai-ml names a snapshot anew each time."""
_PATCHED = ("httplib", "boto3", "httplib2", "tornado", "aiohttp")


class Tape(Cassette):
    """A cassette that several threads may play."""

    _turn = threading.Lock()

    def play_response(self, request: Request) -> Any:
        with self._turn:
            return super().play_response(request)

    @property
    def unplayed(self) -> list[str]:
        """Requests that were recorded and did not come."""
        left = [each for number, (each, _) in enumerate(self.data) if not self.play_counts[number]]
        return [f"{each.method} {each.uri}" for each in left]


class Format:
    """vcrpy's serializer: between its interactions and the file. `own` maps our values to their names."""

    def __init__(self, own: Mapping[str, str], scrubber: Scrubber | None = None) -> None:
        self._own = dict(sorted(own.items(), key=lambda item: -len(item[0])))
        self._scrubber = scrubber

    # -- writing

    def serialize(self, data: dict[str, Any]) -> str:
        """The file's text."""
        assert self._scrubber is not None
        interactions = [_readable(each) for each in data["interactions"]]
        self._scrubber.learn(interactions)
        kept = _without_packages(_swapped([self._scrubbed(each) for each in interactions], self._own))
        whole = {"metadata": data.get("metadata") or {}, "interactions": kept}
        return yaml.dump(whole, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)

    def _scrubbed(self, each: dict[str, Any]) -> dict[str, Any]:
        scrubber, request, response = self._scrubber, each["request"], each["response"]
        assert scrubber is not None
        asked = {
            "method": request["method"],
            "uri": scrubber.url(request["uri"]),
            "headers": _kept(request["headers"], REQUEST_HEADERS, scrubber),
            "body": scrubber.value(request["body"]),
        }
        answered = {
            "status": response["status"],
            "headers": _kept(response["headers"], RESPONSE_HEADERS | {BROKEN}, scrubber),
            "body": self._answer(response),
        }
        return {"request": _filled(asked), "response": _filled(answered)}

    def _answer(self, response: dict[str, Any]) -> Any:
        """What was answered. The ranges of a file tell of its length, which must not change."""
        assert self._scrubber is not None
        body = response["body"]
        if isinstance(body, str) and "content-range" in response["headers"]:
            return self._scrubber.file(body)
        return self._scrubber.value(body)

    # -- reading

    def deserialize(self, text: str) -> dict[str, Any]:
        """What vcrpy plays."""
        data = yaml.load(text, Loader=yaml.CSafeLoader)
        filled = _swapped(data["interactions"], {name: value for value, name in self._own.items()})
        return {**data, "interactions": [_playable(each) for each in filled]}


def _swapped(value: Any, table: Mapping[str, str]) -> Any:
    """JSON in whose texts one thing stands for another."""
    if isinstance(value, dict):
        return {_swapped(name, table): _swapped(inner, table) for name, inner in value.items()}
    if isinstance(value, list):
        return [_swapped(inner, table) for inner in value]
    if isinstance(value, str):
        for old, new in table.items():
            value = value.replace(old, new)
    return value


def _without_packages(value: Any) -> Any:
    """JSON without the text of environments, which follows from our files and helps no reader."""
    if isinstance(value, dict):
        return {
            name: _PACKAGES if name == "condaFile" else _without_packages(inner)
            for name, inner in value.items()
        }
    return [_without_packages(inner) for inner in value] if isinstance(value, list) else value


class _Dumper(yaml.CSafeDumper):
    """Texts of several lines as such; nothing is written by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent)


def _readable(each: dict[str, Any]) -> dict[str, Any]:
    request, response = each["request"], each["response"]
    return {
        "request": {
            "method": request["method"],
            "uri": request["uri"],
            "headers": _headers(request["headers"]),
            "body": _parsed(request["body"], _headers(request["headers"])),
        },
        "response": {
            "status": response["status"]["code"],
            "headers": _headers(response["headers"]),
            "body": _parsed(response["body"]["string"], _headers(response["headers"])),
        },
    }


def _headers(headers: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, values in headers.items():
        value = values[0] if isinstance(values, list) else values
        found[name.lower()] = value.decode() if isinstance(value, bytes) else str(value)
    return found


def _parsed(body: Any, headers: Mapping[str, str]) -> Any:
    """JSON as data, text as text; bytes that are no text are refused: weights belong into no cassette."""
    if isinstance(body, bytes):
        body = body.decode("utf-8")
    if not body or "json" not in headers.get("content-type", ""):
        return body or None
    try:
        return json.loads(body)
    except ValueError:
        return body


def _kept(headers: Mapping[str, str], names: frozenset[str], scrubber: Scrubber) -> dict[str, str]:
    return {name: scrubber.url(value) for name, value in headers.items() if name in names}


_NO_HEADERS: tuple[str, dict[str, str]] = ("headers", {})


def _filled(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if value is not None and (name, value) != _NO_HEADERS}


def _playable(each: dict[str, Any]) -> dict[str, Any]:
    request, response = each["request"], each["response"]
    return {
        "request": {
            "method": request["method"],
            "uri": request["uri"],
            "headers": {name: [value] for name, value in request.get("headers", {}).items()},
            "body": _sent(request.get("body")),
        },
        "response": {
            "status": {"code": response["status"], "message": ""},
            "headers": {name: [value] for name, value in response.get("headers", {}).items()},
            "body": {"string": _sent(response.get("body")).encode()},
        },
    }


def _sent(body: Any) -> str:
    if body is None or isinstance(body, str):
        return body or ""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)


# -- what must be the same


def same_place(one: Request, other: Request) -> bool:
    """Method, host, path and query; how azure-ai-ml names and hashes a snapshot apart."""
    return one.method == other.method and _place(one) == _place(other)


def same_range(one: Request, other: Request) -> bool:
    """Which bytes are asked for."""
    return _range(one) == _range(other)


def same_words(one: Request, other: Request) -> None:
    """What is said as JSON; bytes of files are not compared. Raises AssertionError with the difference."""
    said, recorded = _words(one), _words(other)
    assert said == recorded, "\n".join(difflib.unified_diff(_lines(recorded), _lines(said), n=0, lineterm=""))


def _place(request: Request) -> tuple[Any, ...]:
    parts = urlsplit(request.uri)
    query = sorted(pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "hash")
    return parts.scheme, parts.netloc, _CODE_NAME.sub("*", parts.path), query


def _range(request: Request) -> str:
    headers = _headers(request.headers)
    return headers.get("x-ms-range") or headers.get("range") or ""


def _words(request: Request) -> Any:
    body = request.body
    body = body if isinstance(body, bytes | str) else b"".join(body or ())
    if not body or "json" not in _headers(request.headers).get("content-type", ""):
        return None
    return _without_apart(json.loads(body))


def _lines(value: Any) -> list[str]:
    return yaml.safe_dump(value, sort_keys=True).splitlines()


def _without_apart(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: "*" if name in _APART else _without_apart(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_apart(inner) for inner in value]
    return _CODE_NAME.sub("*", value) if isinstance(value, str) else value


# -- recording and playing


def _unless_token(request: Request) -> Request | None:
    return None if _TOKENS.search(request.uri) else request


@contextmanager
def recording(path: Path, own: Mapping[str, str], scrubber: Scrubber, **about: Any) -> Iterator[Tape]:
    """Everything that is asked goes out, and is written to `path` in the end. `about` is kept beside it."""
    path.unlink(missing_ok=True)
    with _cassette(path, Format(own, scrubber), RecordMode.ALL) as tape:
        for name, value in about.items():
            tape.get_metadata(name, value)
        yield tape


@contextmanager
def playing(path: Path, own: Mapping[str, str]) -> Iterator[Tape]:
    """Everything that is asked is answered from `path`; what is not in it fails."""
    with _cassette(path, Format(own), RecordMode.NONE) as tape:
        yield tape


def about(path: Path) -> dict[str, Any]:
    """What was kept beside a conversation."""
    found: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["metadata"]
    return found


@contextmanager
def _cassette(path: Path, form: Format, mode: RecordMode) -> Iterator[Tape]:
    options = {
        "path": path,
        "serializer": form,
        "record_mode": mode,
        "match_on": (same_place, same_range, same_words),
        "before_record_request": _unless_token,
        "before_record_response": decode_response,
        "skip_patchers": _PATCHED,
    }
    # vcrpy puts the real classes back for moments, for the sake of http.client, which is not patched here:
    # what another thread asks in such a moment would go past the cassette.
    with mock.patch.object(vcr.patch, "force_reset", nullcontext), Tape.use(**options) as tape:  # noqa: SIM117
        with mock.patch.object(httpx.HTTPTransport, "handle_request", _with_failures(tape)):
            yield tape


def _with_failures(tape: Tape) -> Any:
    """httpx's transport as vcrpy left it, which also keeps and plays connections that broke."""
    inner = httpx.HTTPTransport.handle_request

    def handle_request(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        try:
            answer = inner(self, request)
        except httpx.TransportError as error:
            failure = {BROKEN: [type(error).__name__]}
            response = {"status": {"code": 599, "message": ""}, "headers": failure, "body": {"string": b""}}
            body = b"".join(request.stream)  # type: ignore[arg-type]
            asked = Request(request.method, str(request.url), body, dict(request.headers))
            tape.append(asked, response)
            raise
        if kind := answer.headers.get(BROKEN):
            answer.close()
            raise getattr(httpx, kind)(
                "The connection broke, as it did when this was recorded.", request=request
            )
        return answer

    return handle_request
