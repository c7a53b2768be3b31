"""What maas writes on an endpoint to know it again: which model it is wanted for, and until when.

Azure ends no endpoint by itself: `maas reap` deletes those whose time is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

TAG_MODEL = "maas-model"
TAG_DEPLOYMENT = "maas-deployment"
"""The deployment that is to get the requests; others are older, or serve until it is ready."""
TAG_TTL = "maas-ttl"
TAG_EXPIRES_AT = "maas-expires-at"
TAG_EXPIRES = "maas-expires"
_LATEST_S = 253_402_300_799  # the last second of the year 9999


def lease_tags(ttl: str, expires_at: float) -> dict[str, str]:
    """The tags of an end: unix seconds for us, and the same in UTC for people."""
    moment = datetime.fromtimestamp(min(expires_at, _LATEST_S), UTC)
    return {
        TAG_TTL: ttl,
        TAG_EXPIRES_AT: str(int(expires_at)),
        TAG_EXPIRES: moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def expires_at_of(tags: Mapping[str, str]) -> float | None:
    """When the endpoint's time is over, in unix seconds; None where its tags do not say so."""
    text = tags.get(TAG_EXPIRES_AT) or ""
    return float(text) if text.isdecimal() and len(text) < 20 else None


def is_over(tags: Mapping[str, str], now: float) -> bool:
    """Whether the endpoint's time is over."""
    end = expires_at_of(tags)
    return end is not None and now >= end
