"""Jobs that only pretend: many at once, or days long, following the clock and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maas_client.simulator.clock import timestamp
from maas_client.simulator.state import Resource
from maas_client.simulator.world import World, resource

_DEFAULTS: Mapping[str, Any] = {"count": 1, "prefix": "scripted", "seconds": 3600.0, "queue_s": 60.0}
_DEFAULTS_LOGS: Mapping[str, Any] = {"log_every_s": 60.0, "events": False, "fail": False, "tags": {}}
LOG = "user_logs/std_log.txt"


class Scripted:
    """Plants such jobs and says what they look like at a given time."""

    def __init__(self, world: World) -> None:
        self._world = world

    def plant(self, order: Mapping[str, Any]) -> list[str]:
        """Make `count` jobs named PREFIX-N, each `queue_s` in the queue and `seconds` running; returns names.

        Each writes a log line every `log_every_s`, and with `events` the event of a step after it; `fail`
        lets them fail in the end. Raises ValueError.
        """
        known = {**_DEFAULTS, **_DEFAULTS_LOGS}
        if unknown := set(order) - set(known):
            raise ValueError(
                f"A scripted job has no {sorted(unknown)[0]!r}; it has {', '.join(sorted(known))}."
            )
        script = {**known, **order}
        names = [f"{script['prefix']}-{number}" for number in range(int(script["count"]))]
        for name in names:
            self._make(name, script)
        return names

    def _make(self, name: str, script: Mapping[str, Any]) -> None:
        from maas_client.simulator.jobs import command_defaults

        world = self._world
        path = f"{world.names.workspace_id}/jobs/{name}"
        properties = command_defaults(name)
        properties |= {"command": "scripted", "tags": dict(script["tags"]), "displayName": name}
        properties["environmentId"] = "azureml://registries/azureml/environments/scripted/versions/1"
        world.store.put(path, resource(path, "workspaces/jobs", properties, world.system_data()))
        record = world.runner.record(path)
        record |= {"script": dict(script), "created_at": world.clock.now(), "asked": {}, "attempt": 1}

    def look(self, job: Resource, record: dict[str, Any]) -> None:
        """Bring a scripted job up to now."""
        script = record.get("script")
        if not script or job["properties"]["status"] in {"Completed", "Failed", "Canceled"}:
            return
        now = self._world.clock.now()
        starts = record["created_at"] + script["queue_s"]
        ends = starts + script["seconds"]
        if now < starts:
            word = "Queued"
        elif now < ends:
            word = "Running"
            record["started_at"] = starts
        else:
            word = "Failed" if script["fail"] else "Completed"
            record |= {"started_at": starts, "ended_at": ends}
            if script["fail"]:
                record["error"] = {"code": "UserError", "message": "The script says that it fails."}
        job["properties"]["status"] = word

    def cancel(self, job: Resource, record: dict[str, Any]) -> None:
        """End a scripted job now."""
        record["ended_at"] = self._world.clock.now()
        job["properties"]["status"] = "Canceled"

    def log(self, record: Mapping[str, Any]) -> bytes:
        """Everything that the job has written until now."""
        script = record["script"]
        starts = record.get("started_at")
        if starts is None:
            return b""
        until = min(record.get("ended_at") or self._world.clock.now(), starts + script["seconds"])
        count = int((until - starts) // script["log_every_s"])
        return "".join(_lines(script, starts, number) for number in range(count)).encode()


def _lines(script: Mapping[str, Any], starts: float, number: int) -> str:
    """What a job writes at once: a line, and perhaps the event of a step as our scripts write it."""
    at = starts + number * script["log_every_s"]
    line = f"{timestamp(at)} line {number}\n"
    if not script["events"]:
        return line
    return f'{line}@maas {{"time": {at:.3f}, "event": "step", "step": {number}, "loss": 1.5}}\n'
