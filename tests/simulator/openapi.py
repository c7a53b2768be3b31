"""Microsoft's contracts of the Foundry route as JSON Schemas: where a request or an answer differs."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

FOLDER = Path(__file__).parents[3] / "shared/azure"
OPENAI = FOLDER / "AI-Gateway-specs/AIFoundryOpenAIV1.json"
COGNITIVE = (
    FOLDER / "azure-rest-api-specs/specification/cognitiveservices/resource-manager"
    "/Microsoft.CognitiveServices/stable/2024-10-01/cognitiveservices.json"
)


@cache
def contract(path: Path) -> dict[str, Any]:
    """A contract whose schemas a validator of JSON Schema understands."""
    read: dict[str, Any] = _plain(json.loads(path.read_text(encoding="utf-8")))
    return read


def _plain(value: Any) -> Any:
    """`nullable` as a type; what stands in other files is not looked at."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("$ref"), str) and not value["$ref"].startswith("#/"):
        return {}
    found = {key: _plain(item) for key, item in value.items() if key != "discriminator"}
    if found.pop("nullable", False) is True:
        return {"anyOf": [found, {"type": "null"}]}
    return found


def operation(path: Path, method: str, url: str) -> dict[str, Any]:
    """The description of a request by its path below the API."""
    for template, operations in contract(path)["paths"].items():
        pattern = re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, url) and method.lower() in operations:
            found: dict[str, Any] = operations[method.lower()]
            return found
    raise AssertionError(f"No contract has {method} {url}")


def differences(path: Path, schema: dict[str, Any], value: Any) -> set[str]:
    """Where a value differs from a schema of the contract, each as `place: what`; list positions are `*`."""
    whole = {**schema, **{key: contract(path).get(key, {}) for key in ("components", "definitions")}}
    found = set()
    for error in Draft202012Validator(whole).iter_errors(value):
        place = "/".join("*" if isinstance(part, int) else str(part) for part in error.absolute_path)
        words = re.sub(r"^('[^']*') is a required property", r"\1 is missing", error.message)
        found.add(f"{place}: {words[:120]}")
    return found


def request_schema(description: dict[str, Any]) -> dict[str, Any]:
    """What the body of a request must be."""
    if "requestBody" in description:
        content = description["requestBody"]["content"]
        found: dict[str, Any] = next(iter(content.values()))["schema"]
        return found
    bodies = [each["schema"] for each in description["parameters"] if each.get("in") == "body"]
    return dict(bodies[0])


def answer_schema(description: dict[str, Any], status: int) -> dict[str, Any] | None:
    """What an answer must be; None where it has no body that is described."""
    responses = description["responses"]
    declared = responses.get(str(status)) or (
        responses.get("200") if status < 300 else responses.get("default")
    )
    if declared is None:
        return None
    if "content" in declared:
        return declared["content"].get("application/json", {}).get("schema")
    return declared.get("schema")
