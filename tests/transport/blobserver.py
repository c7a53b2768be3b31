"""Blob storage in memory behind a real socket: what azure-storage-blob asks for, and trouble when ordered."""

from __future__ import annotations

import hashlib
import ssl
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from tests.transport.loopback import Call, Loopback, Reply

ACCOUNT = "account"
PAGE = 3
MODIFIED = "Thu, 26 Nov 2026 01:02:03 GMT"
MODIFIED_AT = 1795654923.0


@dataclass
class Stored:
    """A blob."""

    content: bytes
    md5: bytes | None
    version: int
    metadata: Mapping[str, str] = field(default_factory=dict)


class BlobServer:
    """One container of one account. `trouble` is asked first; what it answers is given instead."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.blobs: dict[str, Stored] = {}
        self.trouble: Callable[[Call], Reply | None] = lambda _: None
        self._blocks: dict[str, dict[str, bytes]] = {}
        self._versions = 0
        self._lock = threading.Lock()
        self._server = Loopback(self._answer, tls)

    @property
    def account_url(self) -> str:
        return f"{self._server.url}/{ACCOUNT}"

    @property
    def calls(self) -> list[Call]:
        return self._server.calls

    @property
    def said(self) -> list[str]:
        """The requests so far, as METHOD name?what; `what` only where it says more than the method."""
        return [f"{call.method} {_name(call)}{_what(call)}" for call in self.calls]

    def close(self) -> None:
        self._server.close()

    def put(
        self, name: str, content: bytes, md5: bytes | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Place a blob as another program would; without hash unless it is given."""
        self._versions += 1
        self.blobs[name] = Stored(content, md5, self._versions, metadata or {})

    def _answer(self, call: Call) -> Reply:
        with self._lock:
            ordered = self.trouble(call)
        if ordered is not None:
            return ordered
        name, what = _name(call), _what(call)
        with self._lock:
            if what == "?list":
                return self._list(call)
            if call.method == "PUT":
                return self._put(name, what, call)
            return self._get(name, call)

    def _put(self, name: str, what: str, call: Call) -> Reply:
        digest = md5(call.content)
        if call.headers.get("content-md5", b64encode(digest).decode()) != b64encode(digest).decode():
            return refusal(400, "Md5Mismatch")
        noted = b64decode(call.headers.get("x-ms-blob-content-md5", "")) or None
        metadata = {
            name.removeprefix("x-ms-meta-"): value
            for name, value in call.headers.items()
            if name.startswith("x-ms-meta-")
        }
        if what == "?block":
            self._blocks.setdefault(name, {})[_query(call)["blockid"]] = call.content
            return Reply(201)
        if what == "?blocklist":
            blocks = self._blocks.pop(name, {})
            wanted = [each.text or "" for each in ElementTree.fromstring(call.content)]  # noqa: S314
            if any(each not in blocks for each in wanted):
                return refusal(400, "InvalidBlockList")
            self.put(name, b"".join(blocks[each] for each in wanted), noted, metadata)
        elif what == "?metadata":
            self.blobs[name].metadata = metadata
        else:
            self.put(name, call.content, noted or digest, metadata)
        return Reply(201 if what != "?metadata" else 200, headers=self._headers(name))

    def _get(self, name: str, call: Call) -> Reply:
        if name not in self.blobs:
            return refusal(404, "BlobNotFound", "The specified blob does not exist.")
        headers, content = self._headers(name), self.blobs[name].content
        if call.headers.get("if-match", headers["ETag"]) != headers["ETag"]:
            return refusal(412, "ConditionNotMet")
        wanted = call.headers.get("x-ms-range", call.headers.get("range", ""))
        if call.method == "HEAD" or not wanted:
            return Reply(200, content, headers)
        first, last = wanted.removeprefix("bytes=").split("-")
        if int(first) >= len(content):
            return refusal(416, "InvalidRange")
        end = min(int(last or len(content)), len(content) - 1)
        headers.pop("Content-MD5", None)
        headers["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
        return Reply(206, content[int(first) : end + 1], headers)

    def _headers(self, name: str) -> dict[str, str]:
        blob = self.blobs[name]
        headers = {"ETag": f'"{blob.version:#x}"', "Last-Modified": MODIFIED, "x-ms-blob-type": "BlockBlob"}
        headers |= {"Content-Type": "application/octet-stream", "x-ms-request-id": "r-1"}
        if blob.md5:
            headers["Content-MD5"] = b64encode(blob.md5).decode()
        return headers | {f"x-ms-meta-{key}": value for key, value in blob.metadata.items()}

    def _list(self, call: Call) -> Reply:
        query = _query(call)
        names = sorted(name for name in self.blobs if name.startswith(query.get("prefix", "")))
        start = int(query.get("marker", "0"))
        items = "".join(self._item(name) for name in names[start : start + PAGE])
        following = str(start + PAGE) if start + PAGE < len(names) else ""
        prefix = f"<Prefix>{escape(query.get('prefix', ''))}</Prefix>"
        listing = f"{prefix}<Blobs>{items}</Blobs><NextMarker>{following}</NextMarker>"
        text = f"<EnumerationResults>{listing}</EnumerationResults>"
        return Reply(200, text.encode(), {"Content-Type": "application/xml"})

    def _item(self, name: str) -> str:
        headers, blob = self._headers(name), self.blobs[name]
        md5 = f"<Content-MD5>{headers['Content-MD5']}</Content-MD5>" if blob.md5 else ""
        metadata = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in blob.metadata.items())
        return (
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{MODIFIED}</Last-Modified>"
            f"<Etag>{headers['ETag'].strip(chr(34))}</Etag><Content-Length>{len(blob.content)}</Content-Length>"
            f"{md5}<BlobType>BlockBlob</BlobType></Properties><Metadata>{metadata}</Metadata></Blob>"
        )


def md5(content: bytes) -> bytes:
    """As storage keeps it."""
    return hashlib.md5(content, usedforsecurity=False).digest()


def refusal(status: int, code: str, words: str = "Refused.") -> Reply:
    """What storage answers when it refuses."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{words}\nRequestId:r-2</Message></Error>"
    headers = {"Content-Type": "application/xml", "x-ms-error-code": code, "x-ms-request-id": "r-2"}
    return Reply(status, text.encode(), headers)


@contextmanager
def blob_server(tls: ssl.SSLContext | None = None) -> Iterator[BlobServer]:
    """A server for the length of a test."""
    server = BlobServer(tls)
    try:
        yield server
    finally:
        server.close()


def _query(call: Call) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(call.target.partition("?")[2]).items()}


def _name(call: Call) -> str:
    """The blob's name: what follows account and container."""
    return unquote(call.path).partition(f"/{ACCOUNT}/")[2].partition("/")[2]


def _what(call: Call) -> str:
    what = _query(call).get("comp", "")
    return f"?{what}" if what else ""
