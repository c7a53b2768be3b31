"""Read a job file: YAML -> JobSpec, with every problem of the file found at once and named by line and key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from maas_client.errors import SpecError
from maas_client.specwords import accepted, child_model, found, known_keys
from maas_client.spec import DeploySpec, JobSpec
from maas_client.yamlmarks import Document, KeyPath, dotted, read_yaml, read_yaml_value

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a job file: where (line 0 = an override on the command line), which key, and what to write."""

    line: int
    key: str
    text: str


def load_spec(path: Path, overrides: Iterable[str] = ()) -> JobSpec:
    """Read and check a job file. `overrides` are `key.path=value` texts that win over the file.

    Relative paths in the result are joined to the file's folder. Raises SpecError that lists every problem.
    """
    document = _document(path)
    problems = [Problem(line, dotted(key), text) for line, key, text in document.problems]
    overridden = _apply(document, overrides, problems)
    spec, more = _validate(document, overridden)
    problems += more
    problems += _missing_files(path.parent, document, overridden)
    if problems or spec is None:
        raise _spec_error(path, problems)
    return _resolve_paths(spec, path.parent)


def deploy_spec(name: str, ttl: str, port: int) -> DeploySpec:
    """A DeploySpec from words of the command line. Raises SpecError with one sentence."""
    try:
        return DeploySpec(name=name, ttl=ttl, port=port)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        key = tuple(detail["loc"])
        wanted = accepted(DeploySpec, key)
        raise SpecError(f"--{dotted(key)}: found {found(detail['input'])}; accepted: {wanted}.") from error


def _document(path: Path) -> Document:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SpecError(f"{path} is larger than 1 MiB: that is not a job file.", hint="Pass the YAML file, not the data.")
        return read_yaml(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        near = difflib.get_close_matches(path.name, _names_beside(path), n=1)
        hint = f"Did you mean {path.parent / near[0]}?" if near else "maas init writes one."
        raise SpecError(f"There is no job file {path}.", hint=hint) from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text (byte {error.start}).", hint="Is this the job file?") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"{path}:{line}: not valid YAML: {error.problem}.", hint="Check indentation and quotes.") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is not valid YAML: {error}.", hint="Is this the job file?") from error
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}.", hint="Pass the path of a job file.") from error


def _names_beside(path: Path) -> list[str]:
    return [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []


def _apply(document: Document, overrides: Iterable[str], problems: list[Problem]) -> frozenset[KeyPath]:
    """Put the overrides into the document's data; returns their key paths."""
    applied: set[KeyPath] = set()
    for text in overrides:
        key, equals, value = text.partition("=")
        parts: KeyPath = tuple(part.strip() for part in key.split("."))
        if not equals or not all(parts):
            problems.append(Problem(0, key, f"found --set {text!r}; accepted: --set key.path=value"))
            continue
        try:
            parsed = read_yaml_value(value)
        except yaml.YAMLError:
            problems.append(Problem(0, key, f"found a value that is not YAML: {value!r}; accepted: a plain value"))
            continue
        place = document.data
        for part in parts[:-1]:
            if not isinstance(place.get(part), dict):
                place[part] = {}
            place = place[part]
        place[parts[-1]] = parsed
        applied.add(parts)
    return frozenset(applied)


def _validate(document: Document, overridden: frozenset[KeyPath]) -> tuple[JobSpec | None, list[Problem]]:
    try:
        return JobSpec.model_validate(document.data, by_name=False), []
    except ValidationError as error:
        problems: dict[KeyPath, Problem] = {}
        for detail in error.errors(include_url=False):
            key, text = _explain(detail)
            line = 0 if any(key[: len(one)] == one for one in overridden) else document.line(key)
            problems.setdefault(key, Problem(line, dotted(key), text))
        return None, list(problems.values())


def _explain(detail: Mapping[str, Any]) -> tuple[KeyPath, str]:
    """The key that a pydantic error is about, and one clause: what was found and what is accepted."""
    location: KeyPath = tuple(detail["loc"])
    if detail["type"] == "extra_forbidden":
        owner = child_model(JobSpec, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known_keys(owner), n=1, cutoff=0.5)
        meant = f"; did you mean {near[0]}?" if near else ""
        return location, f"unknown key {str(location[-1])!r}; accepted: {', '.join(known_keys(owner))}{meant}"
    if detail["type"] == "missing":
        return location, f"is missing; accepted: {accepted(JobSpec, location)}"
    if detail["type"] == "value_error":
        return location, str(detail["ctx"]["error"])
    key = _real_key(location)
    wanted = accepted(JobSpec, key)
    near = difflib.get_close_matches(str(detail["input"]), wanted.split(", "), n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]}?" if near and isinstance(detail["input"], str) else ""
    return key, f"found {found(detail['input'])}; accepted: {wanted}{meant}"


def _real_key(location: KeyPath) -> KeyPath:
    """The location without the names of union members that pydantic adds behind the last real key."""
    for end in range(len(location), 0, -1):
        owner = child_model(JobSpec, location[: end - 1])
        if owner is not None and location[end - 1] in known_keys(owner):
            return location[:end]
    return location


_FILE_KEYS: tuple[KeyPath, ...] = (("data", "train"), ("data", "validation", "file"))


def _missing_files(folder: Path, document: Document, overridden: frozenset[KeyPath]) -> list[Problem]:
    """Data files that the job names and that are not there."""
    problems = []
    for key in _FILE_KEYS:
        value = document.value(key)
        if not isinstance(value, str) or (path := folder / Path(value).expanduser()).is_file():
            continue
        near = difflib.get_close_matches(path.name, _names_beside(path), n=1)
        meant = f"; did you mean {Path(value).parent / near[0]}?" if near else ""
        what = "is a folder" if path.is_dir() else "does not exist"
        line = 0 if key in overridden else document.line(key)
        problems.append(Problem(line, dotted(key), f"found {value!r}, which {what}; accepted: a file, relative to {folder or '.'}{meant}"))
    return problems


def _resolve_paths(spec: JobSpec, folder: Path) -> JobSpec:
    """The spec with its paths joined to the folder of its file."""
    validation = spec.data.validation
    if validation.file is not None:
        validation = validation.model_copy(update={"file": folder / validation.file.expanduser()})
    data = spec.data.model_copy(update={"train": folder / spec.data.train.expanduser(), "validation": validation})
    model = Path(spec.model).expanduser()
    local = str(folder / model) if (folder / model).is_dir() or spec.model.startswith((".", "~", "/")) else spec.model
    return spec.model_copy(update={"data": data, "model": local})


def _spec_error(path: Path, problems: list[Problem]) -> SpecError:
    lines = []
    for problem in sorted(problems, key=lambda one: (one.line, one.key)):
        place = f"{path}:{problem.line}" if problem.line else "--set"
        lines.append(f"{place}: {problem.key}: {problem.text}" if problem.key else f"{place}: {problem.text}")
    count = f"{len(lines)} problems" if len(lines) != 1 else "a problem"
    return SpecError(f"{path} has {count}.", hint="maas schema prints what a job file may hold.", problems=tuple(lines))
