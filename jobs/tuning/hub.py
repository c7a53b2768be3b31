"""Models by their Hugging Face id: one that is out of reach is said at once, not after a minute."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from tuning.errors import InputError

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
PATIENCE_S = 5.0


def require_within_reach(name: str) -> None:
    """Raise InputError for a model that is neither in the cache here nor can be downloaded now."""
    if _is_cached(name):
        return
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        reason = "HF_HUB_OFFLINE is set"
    elif unreachable := _why_unreachable():
        reason = f"Hugging Face cannot be reached ({unreachable})"
    else:
        return
    raise InputError(
        f"{name} is no folder here and not in the Hugging Face cache, and {reason}; download it where there "
        f"is a network (`hf download {name}`), or give its folder."
    )


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def _why_unreachable() -> str:
    """Why no connection can be made; "" if one can, or if that is a proxy's business."""
    if any(os.environ.get(name) for name in PROXIES):
        return ""
    place = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    port = place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection((place.hostname or "", port), timeout=PATIENCE_S).close()
    except OSError as error:
        return str(error.strerror or error)
    return ""
