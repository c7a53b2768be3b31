"""Packages that libraries import because they are installed, and that take seconds: kept out of the way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast


@contextmanager
def spared(name: str) -> Iterator[None]:
    """Let libraries believe that a package is missing, unless it is loaded already."""
    modules = cast(dict[str, Any], sys.modules)
    if name in modules:
        yield
        return
    modules[name] = None  # Python's own sign for a module that is not there
    try:
        yield
    finally:
        del modules[name]
