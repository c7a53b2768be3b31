"""Whose certificates are trusted: those that the environment names, for an endpoint on this machine too.

An endpoint on this machine is asked without a proxy, and with the proxies the libraries would leave out the
certificates of the environment.
"""

from __future__ import annotations

import os
import ssl

_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def certificate_file() -> str | None:
    """The file that the environment names, None for the library's own."""
    return next((value for name in _VARIABLES if (value := os.environ.get(name))), None)


def ssl_context() -> ssl.SSLContext | bool:
    """The same for libraries that take a context; True for the library's own."""
    place = certificate_file()
    return True if place is None else ssl.create_default_context(cafile=place)
