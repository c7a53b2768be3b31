"""What was seen of jobs and logs a moment ago, or does not change: asked once for all who need it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maas_client.backends.azureml.wire import log_lines
from maas_client.run import LogPage
from maas_client.transport.members import text_at
from maas_client.workspace.history import History
from maas_client.workspace.jobs import Jobs, state_of

if TYPE_CHECKING:
    from maas_client.workspace.session import Workspace

RECENT_S = 1.0
"""A look at a run reads its state, its log and its events; one answer serves all three."""
_MOST_JOBS = 256
_MOST_PAGES = 4
_EVENTS_TOO = 8
"""So many times more lines are read for a tail, since most may be events."""


class SeenJobs(Jobs):
    """Jobs of a workspace; those that have ended are remembered, for they do not change any more."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self._clock = workspace.clock
        self._seen: OrderedDict[str, tuple[float, Mapping[str, Any]]] = OrderedDict()

    def get(self, name: str) -> Mapping[str, Any] | None:
        """A job's body, None where there is none; asked for unless it was seen after its end."""
        return self._get(name, max_age_s=0.0)

    def recent(self, name: str) -> Mapping[str, Any] | None:
        """The same, but what was seen in the last second is given again."""
        return self._get(name, max_age_s=RECENT_S)

    def _get(self, name: str, *, max_age_s: float) -> Mapping[str, Any] | None:
        now = self._clock()
        if (seen := self._seen.get(name)) is not None:
            at, body = seen
            if now - at < max_age_s or state_of(text_at(body, "properties", "status")).is_final:
                return body
        found = super().get(name)
        if found is not None:
            self._seen[name] = now, found
            self._seen.move_to_end(name)
            while len(self._seen) > _MOST_JOBS:
                self._seen.popitem(last=False)
        return found


class RunLogs(History):
    """Run history of jobs that write their events among their log lines.

    Lines and events are read by the same cursors, so a page is fetched once for both.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self._pages: OrderedDict[tuple[str, str | None], LogPage] = OrderedDict()

    def log(self, name: str, after: str | None, *, ended: bool) -> LogPage:
        """See History.log. A page that held lines stays what comes after its cursor."""
        page = self._pages.get((name, after))
        if page is not None:
            return page
        page = super().log(name, after, ended=ended)
        if page.lines:
            self._pages[name, after] = page
            while len(self._pages) > _MOST_PAGES:
                self._pages.popitem(last=False)
        return page

    def tail(self, name: str, lines: int = 15) -> tuple[str, ...]:
        """The last lines that an ended job wrote, without its events."""
        return log_lines(super().tail(name, lines * _EVENTS_TOO))[-lines:]
