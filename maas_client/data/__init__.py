"""Data files before they are trained on: checked row by row, previewed token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maas_client.data.check import check_file
    from maas_client.data.preview import Preview, preview_row
    from maas_client.data.report import CheckReport

__all__ = ["CheckReport", "Preview", "check_file", "preview_row"]

_HOMES = {"check_file": "check", "CheckReport": "report", "Preview": "preview", "preview_row": "preview"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
