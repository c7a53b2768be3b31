"""What a service answered: status, headers, bytes and parsed JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from maas_client.errors import ServiceError, UnavailableError
from maas_client.transport.redaction import shown_url

_ID_HEADERS = (
    "x-ms-request-id",
    "x-ms-correlation-request-id",
    "apim-request-id",
    "x-request-id",
    "request-id",
)


@dataclass(frozen=True, repr=False)
class Answer:
    """One answer. Header names are lower-case; `body` is the parsed JSON, None where there is none."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    body: Any = None
    url: str = ""

    def __repr__(self) -> str:
        """Without headers and body, which may hold keys and signed URLs."""
        return f"Answer(status={self.status}, url={shown_url(self.url)!r})"

    @property
    def text(self) -> str:
        """The content as text, without a byte order mark."""
        return self.content.decode("utf-8-sig", errors="replace")

    @property
    def request_ids(self) -> tuple[str, ...]:
        """The ids by which the service's support finds this answer, the most telling first."""
        return tuple(dict.fromkeys(self.headers[name] for name in _ID_HEADERS if self.headers.get(name)))

    @property
    def mapping(self) -> dict[str, Any]:
        """The body as a JSON object. Raises ServiceError where it is anything else."""
        if isinstance(self.body, dict):
            return self.body
        raise ServiceError(
            f"{shown_url(self.url)} answered with something that is not a JSON object.",
            hint="Check the endpoint, and that no proxy or sign-in page stands between.",
            status=self.status,
            code="UnexpectedAnswer",
            request_id=", ".join(self.request_ids),
        )


def read_answer(status: int, headers: Mapping[str, str], content: bytes, url: str) -> Answer:
    """Parse an answer. Raises UnavailableError for a success whose JSON is cut off."""
    lowered = {name.lower(): value for name, value in headers.items()}
    answer = Answer(status, lowered, content, url=url)
    is_json = "json" in lowered.get("content-type", "")
    if not content.strip() or not (is_json or content.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] in {b"{", b"["}):
        return answer
    try:
        body = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        if status >= 400 or not is_json:
            return answer
        raise UnavailableError(
            f"The answer of {shown_url(url)} was cut off.",
            hint="Try again.",
            status=status,
            code="UnreadableAnswer",
            request_id=", ".join(answer.request_ids),
        ) from None
    return Answer(status, lowered, content, body, url)
