"""Which hosts may see a token: the service's own and those named with it, over TLS or on this machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import SplitResult, urljoin, urlsplit

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}
# Of a caller's own headers, what a host that is not trusted may see.
_HARMLESS = ("accept", "accept-encoding", "range", "user-agent", "content-type", "x-ms-client-request-id")
_HARMLESS_STARTS = ("if-", "x-ms-blob-", "x-ms-version", "x-ms-range")


class TrustedHosts:
    """The origin of `base_url`, and further hosts: `eastus.api.azureml.ms` for one, `.api.azureml.ms` for all
    below it. A further host needs TLS, unless it is this machine."""

    def __init__(self, base_url: str, further: Collection[str] = ()) -> None:
        self._base = parts_of(base_url)
        self._further = tuple(host.lower() for host in further)

    def __contains__(self, url: object) -> bool:
        parts = parts_of(str(url))
        if parts.username or parts.password or not parts.hostname:
            return False
        if _origin(parts) == _origin(self._base):
            return True
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            return False
        return any(_matches(parts, host) for host in self._further)


def parts_of(url: str) -> SplitResult:
    """The parts of a URL; without a host where it is none, such as http://[x."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", url, "", "")


def is_loopback(url: str) -> bool:
    """True for a URL on this machine."""
    return parts_of(url).hostname in _LOOPBACK


def absolute(base: str, url: str) -> str:
    """A URL that may be relative, a path or whole, seen from `base`. Whole ones come back as they are."""
    if url.lower().startswith(("http://", "https://")):
        return url
    try:
        return urljoin(base, url)
    except ValueError:
        return url


def harmless(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers without any that could carry a secret."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() in _HARMLESS or name.lower().startswith(_HARMLESS_STARTS)
    }


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    return parts.scheme.lower(), (parts.hostname or "").lower(), _port(parts)


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port or _PORTS.get(parts.scheme.lower())
    except ValueError:
        return None


def _matches(parts: SplitResult, trusted: str) -> bool:
    """`trusted` is a host, a host:port, or a suffix that starts with a dot."""
    host = (parts.hostname or "").lower()
    if trusted.startswith("."):
        return host.endswith(trusted) and _port(parts) == _PORTS["https"]
    name, _, port = trusted.partition(":")
    return host == name and _port(parts) == (int(port) if port else _PORTS.get(parts.scheme, 443))
