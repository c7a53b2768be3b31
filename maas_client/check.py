"""One thing that is looked at before anything is started, here or at a service."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One thing looked at. `ok` is False where something must be done first (`hint` says what), None where
    it could not be learned.
    """

    name: str
    ok: bool | None
    detail: str
    hint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self)
