"""What a cassette may not hold, and what stands there instead: secrets, ids, names, mails, hosts.

What is taken out becomes the same thing wherever it stands, so that a conversation still fits together: the
account of one answer is the account of the next request.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

Fit = Callable[[str, str], str]
"""What is to stand in the place of a text, given that and what would."""
KEY = base64.b64encode(b"scrubbed" * 8).decode()
"""Stands for every key and token: as long as a storage account's key, and base64 as that must be."""
SIGNATURE = "sig=scrubbed"
MAIL, PERSON, ADDRESS = "someone@example.com", "someone", "203.0.113.1"
ZERO_ID = "00000000-0000-0000-0000-"
"""How every id starts that stands for another one."""
WELL_KNOWN_IDS = frozenset(
    {
        "7f951dda-4ed3-4680-a7ca-43fe172d538d",  # AcrPull
        "8311e382-0749-4cb8-b61a-304f252e45ec",  # AcrPush
        "b24988ac-6180-42a0-ab88-20f7382dd24c",  # Contributor
        "8e3af657-a8ff-443c-a75c-2fe8c4bcb635",  # Owner
        "acdd72a7-3385-48ef-bd42-f606fba81ae7",  # Reader
    }
)
"""Built-in roles of Azure, the same in every subscription."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_AFTER = r"(?:(?<![\w.-])|(?<=%[0-9A-Fa-f]{2}))"
"""Where a word begins; after what is percent-encoded, too."""
_GUID = re.compile(
    r"(?:(?<![0-9A-Za-z])|(?<=%[0-9A-Fa-f]{2}))"
    r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![0-9A-Za-z])"
)
_SERVICE_ID = re.compile(r"\b(?P<kind>ftjob|file|ftchkpt|ftevent)-(?P<id>[0-9a-f]{16,40})\b")
_LOOPBACK = re.compile(r"(?:localhost|127\.0\.0\.1)(?P<colon>:|%3A)(?P<port>\d{2,5})\b", re.IGNORECASE)
_MAIL = re.compile(r"[A-Za-z0-9._+-]+(?:@|%40)(?!example\.com\b)(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}\b")
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4 = re.compile(rf"{_AFTER}(?!127\.|0\.0\.0\.0|203\.0\.113\.)(?:{_OCTET}\.){{3}}{_OCTET}(?![\w.-])")
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?")
_STORAGE_KEY = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{86}==")
_QUERY = re.compile(r"(?P<start>https?://[^\s\"'?<>]+\?)(?P<query>[^\s\"'<>]+)")
_SAS = _words("sig se st sp sv sr spr sip ss srt skoid sktid skt ske sks skv")
"""Parameters of a shared access signature; all of them go with it."""
_POLL = frozenset("tcsh")
"""Parameters that sign the URLs of long-running operations."""
_SECRETS = _words(
    "primarykey secondarykey key1 key2 accountkey accesskey apikey api-key clientsecret secret password "
    "token accesstoken access_token refreshtoken refresh_token idtoken id_token connectionstring "
    "x-azureml-token instrumentationkey"
)
"""Members of JSON whose text is a secret; that of `key` is one where it looks so."""
_KEY = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9+/_=.~]{24,}")
_PEOPLE = _words("createdby lastmodifiedby submittedby owner")
"""Members that name a person, or hold one as an object."""
_PERSON = _PEOPLE | _words("username userprincipalname upn givenname surname principalname")
_NOBODY = frozenset({"maas simulate", PERSON})
_NEIGHBORS: Mapping[str, str] = {
    "storageaccount": "storageaccount",
    "accountname": "storageaccount",
    "keyvault": "keyvault",
    "containerregistry": "containerregistry",
    "applicationinsights": "appinsights",
    "customsubdomainname": "account",
}
"""Members that name a neighbor of the workspace, by ARM id or bare, and what it is called here."""
_SIGNING_HEADERS = frozenset({"authorization", "api-key", "x-azureml-token", "x-ms-authorization-auxiliary"})


class Scrubber:
    """Takes out of a conversation what may not be kept; one for each cassette.

    `names` are what the settings say (subscription, group, workspace, ...) and what stands for each;
    `secrets` are known by value.
    """

    def __init__(self, names: Mapping[str, str] | None = None, secrets: Iterable[str] = ()) -> None:
        self._names = {name: fake for name, fake in (names or {}).items() if name and name != fake}
        self._secrets: set[str] = set()
        self._ids: dict[str, str] = {}
        self._service_ids: dict[str, str] = {}
        self._ports: dict[str, str] = {}
        for secret in secrets:
            self._add_secret(secret)

    # -- what there is to hide

    def learn(self, interactions: Iterable[Mapping[str, Any]]) -> None:
        """Find tokens, people and names in what was recorded, before anything is replaced."""
        for each in interactions:
            for name, values in each["request"]["headers"].items():
                if name.lower() in _SIGNING_HEADERS:
                    for value in [values] if isinstance(values, str) else values:
                        self._add_secret(re.split(r"[ :]", value)[-1])
            self._learn(each["request"]["body"])
            self._learn(each["response"]["body"])

    def _add_secret(self, value: str) -> None:
        if len(value) >= 8 and value != KEY:
            self._secrets.add(value)

    def _learn(self, value: Any, *, key: str = "", is_person: bool = False) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                about = is_person or (name.lower() in _PEOPLE and isinstance(inner, dict))
                self._learn(inner, key=name.lower(), is_person=about)
        elif isinstance(value, list):
            for inner in value:
                self._learn(inner, key=key, is_person=is_person)
        elif isinstance(value, str) and value:
            if is_person or key in _PERSON:
                self._add_person(value)
            elif key in _NEIGHBORS:
                self._add_name(value, _NEIGHBORS[key])
            elif _is_secret(key, value):
                self._add_secret(value)

    def _add_person(self, value: str) -> None:
        is_other = _GUID.fullmatch(value) or _MAIL.search(value) or "://" in value
        if not is_other and len(value) > 3 and value.lower() not in _NOBODY:
            self._names.setdefault(value, PERSON)

    def _add_name(self, value: str, fake: str) -> None:
        name = value.rstrip("/").rpartition("/")[2]
        if name and "#" not in name:  # an emulator's address is no name
            self._names.setdefault(name, fake)

    # -- putting something else there

    def text(self, text: str, *, fit: Fit = lambda _, new: new) -> str:
        """A text without secrets, ids, names, mails and hosts. `fit` has the last word on each piece."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, fit(secret, KEY))
            text = text.replace(quote(secret, safe=""), fit(secret, quote(KEY, safe="")))
        rules: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [
            (_QUERY, lambda match: match["start"] + _unsigned(match["query"])),
            (_JWT, lambda _: KEY),
            (_STORAGE_KEY, lambda _: KEY),
            (_GUID, self._guid),
            (_SERVICE_ID, self._service_id),
            *((_word(name), lambda _, fake=fake: fake) for name, fake in self._longest_first()),
            (_LOOPBACK, self._port),
            (_MAIL, lambda _: MAIL),
            (_IPV4, lambda _: ADDRESS),
        ]
        for shape, instead in rules:
            text = shape.sub(lambda match, instead=instead: fit(match.group(), instead(match)), text)
        return text

    def file(self, text: str) -> str:
        """The same for a file of which ranges are read: every byte stays where it was."""
        return self.text(text, fit=_as_long)

    def _longest_first(self) -> list[tuple[str, str]]:
        return sorted(self._names.items(), key=lambda item: -len(item[0]))

    def value(self, value: Any, *, key: str = "") -> Any:
        """JSON without them; secrets are known by the member they stand in, too."""
        if isinstance(value, dict):
            return {self.text(name): self.value(inner, key=name.lower()) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner, key=key) for inner in value]
        if not isinstance(value, str):
            return value
        if key == "sastoken" and value:
            return SIGNATURE
        return KEY if _is_secret(key, value) else self.text(value)

    def url(self, url: str) -> str:
        """A URL without them; what it asks for otherwise stays."""
        start, mark, query = url.partition("?")
        return self.text(start) + mark + self.text(_unsigned(query))

    def _guid(self, match: re.Match[str]) -> str:
        found = match.group().lower()
        if is_harmless_id(found):
            return match.group()
        named = next((fake for name, fake in self._names.items() if name.lower() == found), None)
        if named is None and found not in self._ids:
            self._ids[found] = f"{ZERO_ID}{len(self._ids) + 101:012d}"
        return named or self._ids[found]

    def _service_id(self, match: re.Match[str]) -> str:
        found, known = match.group(), self._service_ids
        if found in known.values():
            return found
        return known.setdefault(found, f"{match['kind']}-{len(known) + 1:0{len(match['id'])}d}")

    def _port(self, match: re.Match[str]) -> str:
        fake = self._ports.setdefault(match["port"], str(len(self._ports) + 1))
        return f"localhost{match['colon']}{fake}"


def _word(name: str) -> re.Pattern[str]:
    """A name where it stands alone, as it is or percent-encoded."""
    forms = "|".join(map(re.escape, {name, quote(name, safe="")}))
    return re.compile(rf"{_AFTER}(?:{forms})(?![\w-])", re.IGNORECASE)


def _as_long(old: str, new: str) -> str:
    """What stands for something, in as many bytes as that has."""
    size = len(old.encode())
    return new.ljust(size, "_") if len(new) <= size else "x" * size


def is_harmless_id(guid: str) -> bool:
    """Whether a GUID is one that stands for others, or the same everywhere."""
    return guid.startswith(ZERO_ID) or guid.lower() in WELL_KNOWN_IDS


def _is_secret(key: str, value: str) -> bool:
    return bool(_KEY.fullmatch(value)) if key == "key" else key in _SECRETS and len(value) > 3


def _unsigned(query: str) -> str:
    """A query without the signature that it carries."""
    parts = [part.partition("=") for part in query.split("&")]
    names = {name.lower() for name, _, _ in parts}
    if "sig" in names:
        kept = [f"{name}{mark}{value}" for name, mark, value in parts if name.lower() not in _SAS]
        return "&".join([*kept, SIGNATURE])
    if {"c", "s"} <= names:
        hidden = {name for name in names if name in _POLL}
        return "&".join(
            f"{name}=scrubbed" if name.lower() in hidden else f"{name}{mark}{value}"
            for name, mark, value in parts
        )
    return query


def leaks(text: str, known: Iterable[str] = ()) -> list[str]:
    """What should not stand in a finished cassette: shapes of secrets and ids, and the values `known`."""
    left = text.replace(KEY, "").replace(quote(KEY, safe=""), "").replace(SIGNATURE, "")
    found = [value for value in known if value and value.lower() in unquote(left).lower()]
    for shape in (_JWT, _STORAGE_KEY, _MAIL, _IPV4, _LOOPBACK, re.compile(r"[?&;]sig=[^&\s\"'<]+")):
        found += [match.group() for match in shape.finditer(left)]
    found += [match.group() for match in _GUID.finditer(left) if not is_harmless_id(match.group())]
    return sorted(set(found))
