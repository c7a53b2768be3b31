"""GPU sizes of Azure and what an hour costs, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maas_client.catalog.facts import Source


@dataclass(frozen=True)
class Gpu:
    """One Azure size with GPUs. Memory in GiB, all GPUs together; `quota_family` None is unknown."""

    name: str
    gpu_model: str
    gpus: int
    gpu_memory_gib: int
    vcpus: int
    ram_gib: int
    quota_family: str | None
    sources: tuple[Source, ...]
    note: str = ""

    @property
    def bytes_each(self) -> int:
        """Memory of one GPU."""
        return (self.gpu_memory_gib << 30) // self.gpus

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "name": self.name,
            "gpu_model": self.gpu_model,
            "gpus": self.gpus,
            "gpu_memory_gib": self.gpu_memory_gib,
            "vcpus": self.vcpus,
            "ram_gib": self.ram_gib,
            "quota_family": self.quota_family,
            "sources": [source.to_dict() for source in self.sources],
            "note": self.note,
        }


@dataclass(frozen=True)
class Peak:
    """What a GPU multiplies at most: dense matrix products. `bf16_tflops` None: it does not multiply bf16.

    `fp32_tflops` counts products of fp32 numbers as the scripts make them: as TF32 where the GPU has that.
    """

    gpu_model: str
    bf16_tflops: float | None
    fp32_tflops: float
    source: Source
    note: str = ""


@dataclass(frozen=True)
class Price:
    """What one hour costs in USD: of a GPU size, or of a service such as `foundry-hosting`."""

    name: str
    usd_per_hour: float
    source: Source
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        price = {"name": self.name, "usd_per_hour": self.usd_per_hour}
        return {**price, "source": self.source.to_dict(), "note": self.note}


def read_gpu(data: Mapping[str, Any], sources: Mapping[str, Source]) -> Gpu:
    """One size of gpus.json."""
    return Gpu(**{**data, "sources": tuple(sources[key] for key in data["sources"])})


def read_peak(data: Mapping[str, Any], sources: Mapping[str, Source]) -> Peak:
    """One line of the peaks of gpus.json."""
    return Peak(**{**data, "source": sources[data["source"]]})


def read_price(data: Mapping[str, Any], sources: Mapping[str, Source]) -> Price | None:
    """One line of prices.json; None where the price is unknown."""
    if data["usd_per_hour"] is None:
        return None
    return Price(data["name"], data["usd_per_hour"], sources[data["source"]], data.get("note", ""))
