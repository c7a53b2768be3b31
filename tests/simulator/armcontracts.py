"""Published contracts of Azure ML and AI services in Resource Manager: where a request or answer differs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

FOLDER = Path(__file__).parents[3] / "shared/azure/azure-rest-api-specs/specification"
_ML = FOLDER / "machinelearningservices/resource-manager/Microsoft.MachineLearningServices"
PREVIEW, STABLE = "2024-10-01-preview", "2024-10-01"
ML = _ML / "preview" / PREVIEW
FOLDERS: Mapping[str, Path] = {PREVIEW: ML, STABLE: _ML / "stable" / STABLE}
NEAREST: Mapping[str, str] = {
    "2023-04-01": STABLE,
    "2023-04-01-preview": PREVIEW,
    "2023-08-01-preview": PREVIEW,
    "2025-01-01-preview": PREVIEW,
}
"""Versions that azure-ai-ml asks for and that are not here, and the one that is held instead."""
FILES = ("mfe.json", "machineLearningServices.json", "workspaceRP.json")
_COGNITIVE = "cognitiveservices/resource-manager/Microsoft.CognitiveServices/stable/2024-10-01"
NEVER_ANSWERED = ".credentials.secrets is required"
"""The contract wants it in answers, too; recordings of the service never have it."""
_EVERYWHERE = {"api-version", "$skiptoken"}
"""Parameters that need no description: links to further pages are the service's own."""
KINDS: Mapping[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


@cache
def load(name: str) -> dict[str, Any]:
    """A file of the contracts by its path; empty where it is not here."""
    path = Path(name)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


@cache
def _operations(version: str) -> tuple[tuple[re.Pattern[str], str, dict[str, Any]], ...]:
    names = [str(FOLDERS[version] / file) for file in FILES]
    if version == STABLE:
        names.append(str(FOLDER / _COGNITIVE / "cognitiveservices.json"))
    return tuple(
        (re.compile(re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template)), re.IGNORECASE), name, operations)
        for name in names
        for template, operations in load(name)["paths"].items()
    )


def find_operation(method: str, path: str, version: str = PREVIEW) -> tuple[str, dict[str, Any]] | None:
    """The file and the operation that describe a request, None where no contract has it."""
    held = NEAREST.get(version, version)
    for pattern, name, operations in _operations(held) if held in FOLDERS else ():
        if pattern.fullmatch(path) and method.lower() in operations:
            return name, operations[method.lower()]
    return None


def operation_of(method: str, path: str, version: str = PREVIEW) -> tuple[str, dict[str, Any]]:
    """The same. Raises AssertionError where no contract has it."""
    found = find_operation(method, path, version)
    assert found is not None, f"No contract has {method} {path}"
    return found


def resolve(name: str, schema: Any) -> Any:
    """A schema with its reference followed; `__file` says where that leads. What is not here is {}."""
    if not isinstance(schema, dict) or "$ref" not in schema:
        return schema
    file, _, pointer = schema["$ref"].partition("#/")
    target = str((Path(name).parent / file).resolve()) if file else name
    found: Any = load(target)
    for part in pointer.split("/"):
        found = found.get(part, {})
    return {"__file": target, **found}


def problems(
    name: str, schema: Any, value: Any, at: str = "$", depth: int = 0, *, chosen: bool = False
) -> list[str]:
    """Where a value differs from its schema: types, required properties, enumerations of fixed words."""
    schema = resolve(name, schema)
    if not isinstance(schema, dict) or value is None or depth > 40:
        return []
    name = schema.get("__file", name)
    if not chosen and (concrete := concrete_schema(name, schema, value)):
        return problems(name, concrete, value, at, depth + 1, chosen=True)
    found = []
    for part in schema.get("allOf", []):
        found += problems(name, part, value, at, depth + 1, chosen=True)
    kind = schema.get("type")
    if kind in KINDS and (not isinstance(value, KINDS[kind]) or (kind != "boolean" and value is True)):
        return [*found, f"{at}: {type(value).__name__} where {kind} stands"]
    if isinstance(value, dict):
        missing = [key for key in schema.get("required", []) if value.get(key) is None]
        found += [f"{at}.{key} is required" for key in missing]
        for key, part in schema.get("properties", {}).items():
            if key in value:
                found += problems(name, part, value[key], f"{at}.{key}", depth + 1)
        rest = schema.get("additionalProperties")
        for key in value.keys() - schema.get("properties", {}).keys() if isinstance(rest, dict) else ():
            found += problems(name, rest, value[key], f"{at}.{key}", depth + 1)
    if isinstance(value, list):
        for number, item in enumerate(value):
            found += problems(name, schema.get("items", {}), item, f"{at}[{number}]", depth + 1)
    words = schema.get("enum")
    if words and value not in words:
        found.append(f"{at}: {value!r} is not one of {words}")
    return found


def concrete_schema(name: str, schema: dict[str, Any], value: Any) -> dict[str, Any] | None:
    """The schema that the discriminator of a value chooses, such as CommandJob for jobType Command."""
    key = schema.get("discriminator")
    if not key or not isinstance(value, dict) or key not in value:
        return None
    for each in load(name)["definitions"].values():
        if each.get("x-ms-discriminator-value") == value[key] and inherits(name, each, schema):
            return {**each, "__file": name}
    raise AssertionError(f"No definition for {key} {value[key]}")


def inherits(name: str, each: dict[str, Any], base: dict[str, Any]) -> bool:
    """Whether a definition has another one among those that it is made of."""
    base = {key: value for key, value in base.items() if key != "__file"}
    parents = [part.get("$ref", "").rpartition("/")[2] for part in each.get("allOf", [])]
    definitions = load(name)["definitions"]
    return any(
        parent in definitions and (definitions[parent] == base or inherits(name, definitions[parent], base))
        for parent in parents
    )


def unknown_keys(name: str, schema: Any, value: Any, at: str = "$") -> list[str]:
    """Keys that the contract does not have, at any depth."""
    if isinstance(value, list):
        items = resolve(name, schema)
        inner, name = items.get("items", {}), items.get("__file", name)
        return [
            each
            for number, one in enumerate(value)
            for each in unknown_keys(name, inner, one, f"{at}[{number}]")
        ]
    if not isinstance(value, dict):
        return []
    known, rest, name = members(name, schema, value)
    found = [f"{at}.{key} is not in the contract" for key in value if key not in known and rest is None]
    for key, inner in value.items():
        found += unknown_keys(name, known.get(key) or rest or {}, inner, f"{at}.{key}")
    return found


def members(name: str, schema: Any, value: Any) -> tuple[dict[str, Any], Any, str]:
    """All properties of a schema, with those it inherits and those of the kind that the value names; the
    schema of any other key (None: there is none); and the file of its references. What is in a file that is
    not here may be anything.
    """
    schema = dict(resolve(name, schema))
    name = schema.pop("__file", name)
    if not schema:
        return {}, {}, name
    schema = concrete_schema(name, schema, value) or schema
    found, rest = dict(schema.get("properties", {})), schema.get("additionalProperties") or None
    if not found and rest is None and not schema.get("allOf"):
        rest = {}  # an object of which nothing is said
    for part in schema.get("allOf", []):
        base = {key: each for key, each in resolve(name, part).items() if key != "discriminator"}
        more, more_rest, _ = members(base.get("__file", name), base, value)
        found = {**{key: _located(base.get("__file", name), each) for key, each in more.items()}, **found}
        rest = more_rest if rest is None and more else rest
    kind = schema.get("discriminator")
    return {**found, **({kind: {}} if kind else {})}, rest, name


def _located(name: str, schema: Any) -> Any:
    """A schema whose reference is read from its own file."""
    reference = schema.get("$ref", "") if isinstance(schema, dict) else ""
    return {**schema, "$ref": f"{name}{reference}"} if reference.startswith("#/") else schema


def body_schema(name: str, operation: Mapping[str, Any]) -> Any:
    """What the body of a request must be; None where it has none."""
    found = (resolve(name, each) for each in operation.get("parameters", ()))
    return next((each["schema"] for each in found if each.get("in") == "body"), None)


def request_problems(name: str, operation: Mapping[str, Any], body: Any, at: str) -> list[str]:
    """Where the body of a request differs."""
    return problems(name, body_schema(name, operation), body, at)


def query_problems(name: str, operation: Mapping[str, Any], url: str) -> list[str]:
    """Parameters of a request that the operation does not have."""
    known = {
        str(resolve(name, each).get("name", "api-version")).lower()
        for each in operation.get("parameters", ())
    }
    asked = [key for key, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)]
    return [f"query {key} is not in the contract" for key in asked if key.lower() not in known | _EVERYWHERE]


def status_problems(name: str, operation: Mapping[str, Any], status: int, body: Any, at: str) -> list[str]:
    """Where an answer differs; a refusal is held against the contract of errors."""
    declared = operation["responses"].get(str(status))
    if declared is None and status >= 400:
        declared = operation["responses"].get("default")
    if declared is None:
        return [f"{at}: status {status} is not declared: {str(body)[:300]}"]
    if "schema" not in declared:
        return []
    return _without(problems(name, declared["schema"], body, at))


def _without(found: Iterable[str]) -> list[str]:
    return [each for each in found if not each.endswith(NEVER_ANSWERED)]
