"""Run history whose last words are words for people."""

from __future__ import annotations

from maas_client.backends.azureml.wire import log_lines
from maas_client.workspace.history import History

_EVENTS_TOO = 8
"""So many times more lines are read for a tail, since most may be events."""


class RunLogs(History):
    """Run history of jobs that write their events among their log lines."""

    def tail(self, name: str, lines: int = 15) -> tuple[str, ...]:
        """The last lines that an ended job wrote, without its events."""
        return log_lines(super().tail(name, lines * _EVENTS_TOO))[-lines:]
