"""The JSON Schema of a job file, for editors and for docs/job-file.md."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from maas_client.spec import JobSpec
from maas_client.specwords import child_model, description, known_keys


def job_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what a job file may hold; keys as they are written in the file."""
    schema = JobSpec.model_json_schema(by_alias=True)
    _describe(JobSpec, schema, schema["$defs"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "maas_client job file",
    }


def _describe(part: type[BaseModel], schema: dict[str, Any], parts: dict[str, Any]) -> None:
    """Put what each key is for into the schema of a part and of the parts inside it."""
    for key in known_keys(part):
        schema["properties"][key]["description"] = description(part, key)
        if (inner := child_model(part, (key,))) is not None:
            _describe(inner, parts[inner.__name__], parts)
