"""A place that is not on this machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CloudPath:
    """A file or folder that lies in the cloud already, by the service's own URI (azureml://...)."""

    uri: str

    def __str__(self) -> str:
        return self.uri
