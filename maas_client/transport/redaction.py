"""Take secrets out of text and URLs before they are shown, logged or raised."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from urllib.parse import quote

from maas_client.transport.trust import parts_of

HIDDEN = "***"

# Names whose value is a secret wherever they stand: in a query, a header, JSON, or a connection string.
_NAMES = (
    r"api[-_]?key|ocp-apim-subscription-key|subscription-key|account[-_]?key|shared[-_]?access[-_]?key"
    r"|sharedaccesssignature|primary[-_]?key|secondary[-_]?key|key[12]|access[-_]?token|refresh[-_]?token"
    r"|id[-_]?token|sas[-_]?token|client[-_]?secret|client[-_]?assertion|secret[-_]?text|secret|passwd|pwd"
    r"|[a-z]*password|instrumentationkey|x-ms-encryption-key"
    r"|signature|sig|x-azureml-token|x-identity-header|identity_header|x-ms-authorization-auxiliary"
)
_BETWEEN = r"""\\?["']?\s*(?:=|:|%3[aA]|%3[dD])\s*"""
_QUOTED = r"""(?P<quote>\\?["'])(?:(?!(?P=quote)).)*"""
_LABELED = re.compile(
    rf"""(?<![A-Za-z0-9])(?P<label>(?:{_NAMES}){_BETWEEN})(?:{_QUOTED}|[^\s"'&;,<>{{}}\[\]()\\]+)""",
    re.IGNORECASE | re.DOTALL,
)
# Names that are secrets only in a URL's query; the single letters are those of Azure's signed poll URLs.
_QUERY = re.compile(r"(?P<label>[?&](?:key|code|token|[csh])=)[^&\s\"'<>#]+", re.IGNORECASE)
_JSON_TOKEN = re.compile(
    r"""(?P<label>["']token["']\s*:\s*)(?P<quote>["'])(?:(?!(?P=quote)).)*""", re.I | re.S
)
_JSON_KEY = re.compile(r"""(?P<label>["']key["']\s*:\s*)(?P<quote>["'])[\w+/=-]{32,}""", re.IGNORECASE)
# Environment variables by the ends of their names.
_VARIABLE = re.compile(r"(?P<label>\b[A-Z][A-Z0-9_]*_(?:TOKEN|KEY|SECRET|PASSWORD)\s*[=:]\s*)[^\s\"',;]+")
_PLAIN_WORDS = r"(?:auth\w*|credentials?|tokens?|scheme|access|error|challenge|realm)\b(?![.\-_~+/=])"
_SCHEMES = re.compile(
    rf"(?P<label>\b(?:bearer|sharedkey|sharedkeylite|sharedaccesssignature)\s+)(?!{_PLAIN_WORDS})[^\s\"',;<>]+",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(
    r"""(?P<label>\bauthorization\\?["']?\s*[:=]\s*\\?["']?(?:(?:basic|bearer|\w+)\s+)?)[^\s"',;<>\\]+""",
    re.IGNORECASE,
)
_USER_INFO = re.compile(r"(?P<label>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://)[^/\s@\"'?#]+(?=@)", re.IGNORECASE)
_SHAPES = re.compile(
    r"eyJ[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*){0,4}"  # JSON web tokens
    r"|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{86}=="  # storage account keys: 64 bytes
    r"|[A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,37}"  # client secrets of Microsoft Entra
    r"|[A-Za-z0-9]{40,70}JQQJ99[A-Za-z0-9]{16,40}"  # keys of Azure AI services
    r"|\bsk-[A-Za-z0-9_-]{16,}"  # keys of OpenAI
    r"|\bhf_[A-Za-z0-9]{30,}"  # tokens of Hugging Face
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text with every secret in it replaced by `***`.

    Knows tokens, API keys, SAS signatures, account keys, connection strings and client secrets by their names
    and shapes; `secrets` are further ones that are known by value.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, HIDDEN).replace(quote(secret, safe=""), HIDDEN)
    text = _USER_INFO.sub(rf"\g<label>{HIDDEN}", text)
    text = _AUTHORIZATION.sub(rf"\g<label>{HIDDEN}", text)
    text = _SCHEMES.sub(rf"\g<label>{HIDDEN}", text)
    text = _LABELED.sub(_hide_value, text)
    text = _JSON_KEY.sub(_hide_value, _JSON_TOKEN.sub(_hide_value, text))
    text = _VARIABLE.sub(rf"\g<label>{HIDDEN}", text)
    text = _QUERY.sub(rf"\g<label>{HIDDEN}", text)
    return _SHAPES.sub(HIDDEN, text)


def _hide_value(match: re.Match[str]) -> str:
    """The label and its opening quote, without the value."""
    return f"{match['label']}{match['quote'] or ''}{HIDDEN}"


def shown_url(url: str) -> str:
    """A URL fit for logs and errors: scheme, host and path; no query, no user, no fragment."""
    parts = parts_of(url)
    return redact(
        f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else parts.path
    )


class RedactingFilter(logging.Filter):
    """Redacts what another library logs: its URLs whole without their query, its text by `redact`."""

    _urls = re.compile(r"(https?://[^\s\"'?]+)\?[^\s\"']*")

    def filter(self, record: logging.LogRecord) -> bool:
        text = self._urls.sub(r"\1?" + HIDDEN, record.getMessage())
        record.msg, record.args = redact(text), None
        return True


def quiet_sdk_logs() -> None:
    """Keep the Azure packages' log records off stderr; who sets up logging still gets them, without secrets.

    azure-ai-ml gives its loggers handlers of their own when it is imported: call this after that, too.
    """
    for name in ("azure", "msal"):
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
    for name in list(logging.root.manager.loggerDict):
        if name == "azure.ai.ml" or name.startswith("azure.ai.ml."):
            logger = logging.getLogger(name)
            for handler in [each for each in logger.handlers if type(each) is logging.StreamHandler]:
                logger.removeHandler(handler)
            logger.propagate = True
    _redact_logs("urllib3.connectionpool", "urllib3.util.retry")


def quiet_http_logs() -> None:
    """Keep queries and tokens out of the log records of httpx and httpcore, whoever listens to them."""
    _redact_logs("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy")


def _redact_logs(*names: str) -> None:
    for name in names:
        logger = logging.getLogger(name)
        if not any(isinstance(one, RedactingFilter) for one in logger.filters):
            logger.addFilter(RedactingFilter())
