"""Access tokens of the simulator's own directory: signed with its key, checked as strictly as Azure does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from typing import Any

from maas_client.simulator.replies import Refusal

_LIFETIME_S = 24 * 3600


class Tokens:
    """Issues and checks tokens. They live in real time: the packages that hold them look at that clock."""

    def __init__(self, key: bytes, tenant: str, audiences: tuple[str, ...]) -> None:
        self._key = key
        self._tenant = tenant
        self._audiences = audiences
        self._void_before = 0.0
        self.lifetime_s: float = _LIFETIME_S

    def issue(self, audience: str) -> tuple[str, float]:
        """A token for `audience` and the unix second at which it ends."""
        now = time.time()
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self._tenant}/",
            "iat": now,
            "nbf": int(now) - 5,
            "exp": int(now + self.lifetime_s),
            "tid": self._tenant,
            "oid": "00000000-0000-0000-0000-0000000051a1",
            "appid": "00000000-0000-0000-0000-0000000051a2",
            "jti": str(uuid.uuid4()),
        }
        head = _encode({"alg": "HS256", "typ": "JWT"}) + "." + _encode(claims)
        return f"{head}.{self._signature(head)}", now + self.lifetime_s

    def void_all(self) -> None:
        """Let every token that was issued until now count as expired."""
        self._void_before = time.time()

    def check(self, authorization: str) -> None:
        """Accept `Bearer TOKEN` or raise the 401 that ARM gives."""
        scheme, _, token = authorization.partition(" ")
        if not token or scheme.lower() != "bearer":
            raise self._refusal(
                "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing."
            )
        claims = self._claims(token.strip())
        if claims is None:
            raise self._refusal("InvalidAuthenticationToken", "The access token is invalid.")
        if claims["exp"] <= time.time() or claims["iat"] <= self._void_before:
            raise self._refusal(
                "ExpiredAuthenticationToken", "The access token expiry UTC time is in the past."
            )
        if str(claims["aud"]).rstrip("/") not in self._audiences:
            message = f"The access token has been obtained for wrong audience or resource '{claims['aud']}'."
            raise self._refusal("InvalidAuthenticationTokenAudience", message)

    def _claims(self, token: str) -> dict[str, Any] | None:
        head, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(head).encode()):
            return None
        payload = head.partition(".")[2]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return claims

    def _signature(self, head: str) -> str:
        return _strip(hmac.new(self._key, head.encode(), hashlib.sha256).digest())

    def _refusal(self, code: str, message: str) -> Refusal:
        challenge = (
            f'Bearer authorization_uri="https://login.windows.net/{self._tenant}", error="invalid_token"'
        )
        return Refusal(401, code, message, inner=None, headers={"WWW-Authenticate": challenge})


def _encode(value: dict[str, Any]) -> str:
    return _strip(json.dumps(value, separators=(",", ":")).encode())


def _strip(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
