"""The JSON Schema of a job file, for editors and for docs/job-file.md."""

from __future__ import annotations

from typing import Any

from maas_client.spec import JobSpec


def job_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what a job file may hold; keys as they are written in the file."""
    schema = JobSpec.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "maas_client job file",
    }
