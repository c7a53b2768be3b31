"""Reads published recordings of the live service and plays them back with other ids."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import httpx
import yaml

FOLDER = Path(__file__).parents[3] / "shared" / "azure"
_GUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_HEX = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{32}(?![0-9A-Za-z])")
_NUMBERED = re.compile(r"(?<=_)\d{9,12}(?!\d)")
# Bodies are kept decoded, so what describes their transfer no longer holds.
_TRANSFER = {"content-encoding", "content-length", "transfer-encoding"}


@dataclass(frozen=True)
class Exchange:
    """One recorded request and its answer. `body` is parsed where it is JSON, else text."""

    file: str
    method: str
    url: str
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def content(self) -> bytes:
        if self.body is None or self.body == "":
            return b""
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()

    def response(self) -> httpx.Response:
        kind = (
            {} if "content-type" in self.headers or not self.content else {"content-type": "application/json"}
        )
        return httpx.Response(self.status, headers={**kind, **self.headers}, content=self.content)


@cache
def conversations() -> dict[str, list[Exchange]]:
    """Every recording that holds exchanges, by its file."""
    found: dict[str, list[Exchange]] = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix == ".json":
            read = json.loads(path.read_text(encoding="utf-8-sig"))
            entries = list(_of_proxy(path.name, read)) if isinstance(read, dict) else []
        elif path.suffix in {".yaml", ".yml"}:
            read = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
            entries = list(_of_cassette(path.name, read)) if isinstance(read, dict) else []
        else:
            continue
        if entries:
            found[str(path.relative_to(FOLDER))] = entries
    return found


def _of_proxy(file: str, read: dict[str, Any]) -> Iterator[Exchange]:
    for entry in read.get("Entries") or []:
        body = entry.get("ResponseBody")
        body = (
            "".join(body) if isinstance(body, list) and all(isinstance(part, str) for part in body) else body
        )
        headers = _headers(entry.get("ResponseHeaders") or {})
        yield Exchange(
            file, entry["RequestMethod"], entry["RequestUri"], entry["StatusCode"], headers, _parsed(body)
        )


def _of_cassette(file: str, read: dict[str, Any]) -> Iterator[Exchange]:
    for entry in read.get("interactions") or []:
        request, response = entry["request"], entry["response"]
        status = response.get("status_code") or response["status"]["code"]
        body = response.get("parsed_body")
        if body is None:
            body = response.get("body")
            body = body.get("string") if isinstance(body, dict) else body
        body = body.decode(errors="replace") if isinstance(body, bytes) else body
        headers = _headers(response.get("headers") or {})
        yield Exchange(file, request["method"], request["uri"], status, headers, _parsed(body))


def _parsed(body: Any) -> Any:
    if not isinstance(body, str):
        return body
    try:
        return json.loads(body)
    except ValueError:
        return body


def _headers(headers: dict[str, Any]) -> dict[str, str]:
    return {
        name.lower(): str(value[0] if isinstance(value, list) else value)
        for name, value in headers.items()
        if name.lower() not in _TRANSFER
    }


def scrambled(exchanges: list[Exchange], chance: Random) -> list[Exchange]:
    """The same conversation with other ids (each old one always becomes the same new one) and JSON orders."""
    text = json.dumps([vars(one) for one in exchanges])
    for pattern, fresh in (
        (_GUID, lambda _: str(uuid.UUID(int=chance.getrandbits(128)))),
        (_HEX, lambda _: f"{chance.getrandbits(128):032x}"),
        (_NUMBERED, lambda old: "".join(chance.choice("0123456789") for _ in old)),
    ):
        new: dict[str, str] = {}
        for old in pattern.findall(text):
            new.setdefault(old, fresh(old))
        text = pattern.sub(lambda match, new=new: new[match.group()], text)
    return [Exchange(**{**one, "body": _shuffled(one["body"], chance)}) for one in json.loads(text)]


def _shuffled(value: Any, chance: Random) -> Any:
    """The same JSON with the members of its objects in another order."""
    if isinstance(value, dict):
        members = [(name, _shuffled(inner, chance)) for name, inner in value.items()]
        chance.shuffle(members)
        return dict(members)
    return [_shuffled(inner, chance) for inner in value] if isinstance(value, list) else value
