"""Metrics that a job reported to the workspace, as events: each value once, those of a step together."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from maas_client.errors import NotFoundError, UsageError
from maas_client.run import Event, MetricPage
from maas_client.transport.members import as_number, mapping_at, member, number_at, text_at, time_at

if TYPE_CHECKING:
    from maas_client.workspace.session import Workspace

_VERSION = "met1."
_SETTLED_S = 30.0
"""After so long, no further value of a step is waited for."""
_MARGIN_S = 1.0
_STEP = {
    "train_loss": "loss",
    "training_loss": "loss",
    "train/loss": "loss",
    "lr": "learning_rate",
    "train/learning_rate": "learning_rate",
    "train/grad_norm": "grad_norm",
    "train/epoch": "epoch",
}
"""Names of other training scripts, and what the same is called in our events."""
_TAKEN = {"event", "step", "time"}
_VALIDATION = {"eval_loss", "eval/loss", "validation_loss", "val_loss", "valid_loss", "full_valid_loss"}


@dataclass(frozen=True)
class _Value:
    """One value of a metric. `at` is unix seconds."""

    name: str
    step: int
    at: float
    value: float


@dataclass(frozen=True)
class _Read:
    """How far a metric was read: its newest time, and how many values of that very time were given."""

    at: float = -math.inf
    count: int = 0

    def after(self, values: Sequence[_Value]) -> _Read:
        """The place after some more values, oldest first."""
        if not values:
            return self
        newest = values[-1].at
        count = sum(1 for one in values if one.at == newest)
        return _Read(newest, count + (self.count if newest == self.at else 0))


def read_metrics(workspace: Workspace, name: str, after: str | None, *, ended: bool) -> MetricPage:
    """The values of a run's metrics after a cursor, as events of steps and validations, oldest first.

    While the run goes on, the newest step waits until another one begins or half a minute has passed: its
    values do not arrive together. `next` is None once the run has `ended` and all was given. Raises
    UsageError for a cursor of another run, and ServiceError.
    """
    read = _read_cursor(name, after)
    source = _Source(workspace, name)
    values = {metric: source.values(metric, read.get(metric, _Read())) for metric in source.names()}
    if not ended:
        values = _settled(values, workspace.clock())
    read |= {metric: read.get(metric, _Read()).after(found) for metric, found in values.items()}
    events = tuple(_events(value for found in values.values() for value in found))
    return MetricPage(events, None if ended else _write_cursor(name, read))


def _settled(values: Mapping[str, list[_Value]], now: float) -> dict[str, list[_Value]]:
    """The values without those at the end that belong to the newest step, unless that is long ago."""
    last = max((found[-1] for found in values.values() if found), key=lambda one: one.at, default=None)
    if last is None or now - last.at > _SETTLED_S:
        return dict(values)
    kept = {}
    for name, found in values.items():
        end = len(found)
        while end and found[end - 1].step == last.step:
            end -= 1
        kept[name] = found[:end]
    return kept


def _events(values: Iterable[_Value]) -> Sequence[Event]:
    """Values of one step and kind as one event; a second value of the same metric begins another."""
    events: list[dict[str, Any]] = []
    current: dict[tuple[str, int], tuple[dict[str, Any], set[str]]] = {}
    for one in sorted(values, key=lambda value: value.at):
        is_validation = one.name.lower() in _VALIDATION
        kind = "validation" if is_validation else "step"
        key = "loss" if is_validation else _STEP.get(one.name.lower(), one.name)
        key = f"metric {key}" if key in _TAKEN else key
        event, metrics = current.get((kind, one.step), ({}, {one.name}))
        if one.name in metrics:
            event, metrics = {"event": kind, "step": one.step}, set()
            current[(kind, one.step)] = event, metrics
            events.append(event)
        event |= {one.name if key in event else key: one.value} | {"time": one.at}
        metrics.add(one.name)
    return events


class _Source:
    """The metric service, asked about one run."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._rest = workspace.api
        self._path = f"/metric/v2.0{workspace.path()}/runs/{quote(name, safe='')}"
        self._operation = f"read the metrics of run {name}"

    def names(self) -> Sequence[str]:
        """The names of the run's metrics; none where it has reported nothing yet."""
        found: dict[str, None] = {}
        for page in self._pages("list", {}):
            for each in _items(page):
                name = text_at(each, "name") or text_at(each, "metricKey", "name")
                found |= {name: None} if name else {}
        return list(found)

    def values(self, metric: str, read: _Read) -> list[_Value]:
        """Values of a metric that were not read yet, oldest first."""
        asked: dict[str, Any] = {"metricName": metric}
        if math.isfinite(read.at):
            since = datetime.fromtimestamp(read.at - _MARGIN_S, UTC)
            asked["startTime"] = since.isoformat().replace("+00:00", "Z")
        rows = (row for page in self._pages("full", asked) for row in _items(page))
        found = [value for row in rows if (value := _value(metric, row)) is not None]
        found.sort(key=lambda value: value.at)
        same = [value for value in found if value.at == read.at][read.count :]
        return [*same, *(value for value in found if value.at > read.at)]

    def _pages(self, verb: str, asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The pages of an answer, each asked for with the token of the one before."""
        token, tokens = "", set[str]()
        while True:
            body = {**asked, "continuationToken": token} if token else dict(asked)
            try:
                page = self._rest.post(
                    f"{self._path}/{verb}", body, operation=self._operation, idempotent=True
                ).mapping
            except NotFoundError:
                return
            yield page
            token = text_at(page, "continuationToken")
            if not token or token in tokens:
                return
            tokens.add(token)


def _items(page: Mapping[str, Any]) -> Sequence[Any]:
    found = member(page, "value")
    return found if isinstance(found, list) else []


def _value(metric: str, row: Any) -> _Value | None:
    """A row as one number; None for tables, images and what has no time."""
    data = mapping_at(row, "data")
    told = data.get(metric, next(iter(data.values())) if len(data) == 1 else None)
    found = told if isinstance(told, float) else as_number(told)  # a loss that is no number any more is news
    at, step = time_at(row, "createdUtc"), number_at(row, "step")
    return None if at is None or found is None else _Value(metric, int(step or 0), at, found)


# -- cursors


def _write_cursor(run: str, read: Mapping[str, _Read]) -> str:
    told = {name: [one.at, one.count] for name, one in read.items() if math.isfinite(one.at)}
    text = json.dumps([zlib.crc32(run.encode()), told], separators=(",", ":"))
    return _VERSION + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(run: str, after: str | None) -> dict[str, _Read]:
    """How far each metric was read. Raises UsageError for a cursor that is not of this run's metrics."""
    if after is None:
        return {}
    sign, read = None, {}
    packed = after.removeprefix(_VERSION)
    try:
        sign, told = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        read = {str(name): _Read(float(at), int(count)) for name, (at, count) in told.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        sign = None
    if packed == after or sign != zlib.crc32(run.encode()):
        raise UsageError(
            f"{after!r} is not a cursor of this run's metrics.",
            hint="Pass the `next` of the page before, or nothing.",
        )
    return read
