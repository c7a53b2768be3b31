"""What all this would have cost on Azure, by what is known; unknown prices are said to be unknown."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from maas_client import catalog
from maas_client.simulator.machines import find_size, size_of_job
from maas_client.simulator.state import Resource
from maas_client.simulator.world import World

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Line:
    """One line: what, how much of it in which unit, and the price of a unit in USD (None: unknown)."""

    what: str
    quantity: float
    unit: str
    usd_per_unit: float | None
    note: str = ""

    @property
    def usd(self) -> float | None:
        """The amount; None when the price is unknown."""
        return None if self.usd_per_unit is None else self.quantity * self.usd_per_unit

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {**vars(self), "usd": self.usd}


class Bill:
    """Collects what is charged: ended jobs at once, endpoints for as long as they are there."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lines: list[Line] = []
        self._since: dict[str, tuple[float, str, int, str]] = {}
        self._lock = threading.Lock()

    def add_job(self, job: Resource, record: dict[str, Any], *, preemptible: bool) -> None:
        """Charge a job that has ended: nodes by the simulated time, serverless tuning by its tokens."""
        started = record.get("started_at")
        if started is None:
            return
        properties = job["properties"]
        size = size_of_job(self._world, properties)
        hours = (record["ended_at"] - started) / _HOUR_S
        if size is not None:
            count = (properties.get("resources") or {}).get("instanceCount") or 1
            note = "low priority is cheaper, by how much is unknown" if preemptible else ""
            price = None if preemptible else _price(size.name)
            self.add(
                Line(f"job {job['name']} on {count} x {size.name}", hours * count, "node hours", price, note)
            )
        elif properties["jobType"] == "FineTuning":
            model = properties["properties"]["azureml.ModelName"]
            note = "the stand-in model trained; tokens are not comparable"
            self.add(Line(f"job {job['name']}: serverless tuning of {model}", 1, "jobs", None, note))
        else:
            self.add(Line(f"job {job['name']} on an unknown size", hours, "node hours", None))

    def add(self, line: Line) -> None:
        """Charge once."""
        with self._lock:
            self._lines.append(line)

    def open_account(self, path: str, what: str, price_name: str = "", instances: int = 1) -> None:
        """Charge by the hour from now on, or with another number of instances.

        `price_name` is a size or a service of the catalog; without it the price is unknown, as it is for the
        hosting of serverless endpoints.
        """
        self.close_account(path)
        with self._lock:
            self._since[path.lower()] = (self._world.clock.now(), what, instances, price_name)

    def close_account(self, path: str) -> None:
        """Stop charging for something."""
        with self._lock:
            if (open_one := self._since.pop(path.lower(), None)) is not None:
                self._lines.append(self._line(*open_one))

    def _line(self, since: float, what: str, instances: int, price_name: str) -> Line:
        hours = (self._world.clock.now() - since) / _HOUR_S * instances
        return Line(what, hours, "hours", _price(price_name))

    def lines(self) -> list[Line]:
        """Every line until now."""
        with self._lock:
            return [*self._lines, *(self._line(*each) for each in self._since.values())]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: lines, the sum of what is known, and how many lines have no known price."""
        lines = self.lines()
        known = [line.usd for line in lines if line.usd is not None]
        unknown = len(lines) - len(known)
        return {
            "lines": [line.to_dict() for line in lines],
            "known_usd": round(sum(known), 4),
            "lines_of_unknown_price": unknown,
            "speed": self._world.clock.speed,
        }

    def text(self) -> str:
        """The bill for a person."""
        data = self.to_dict()
        rows = [
            f"  {line.what}: {line.quantity:.3g} {line.unit}, "
            + (f"{line.usd:.2f} USD" if line.usd is not None else "price unknown")
            + (f" ({line.note})" if line.note else "")
            for line in self.lines()
        ]
        end = f"Known: {data['known_usd']:.2f} USD"
        if data["lines_of_unknown_price"]:
            end += f", and {data['lines_of_unknown_price']} lines whose price is unknown"
        head = f"What Azure would have charged (simulated time, speed {self._world.clock.speed:g}):"
        return "\n".join([head, *(rows or ["  nothing"]), end + "."])


def _price(name: str) -> float | None:
    if not name:
        return None
    size = find_size(name)
    found = catalog.price(size.name if size else name)
    return found.usd_per_hour if found else None
