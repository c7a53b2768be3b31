"""Read a job file: YAML -> JobSpec; every problem of the file is found at once and named by line and key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from maas_client.errors import SpecError
from maas_client.spec import DeploySpec, JobSpec
from maas_client.specwords import accepted, child_model, choices, found, known_keys
from maas_client.yamlmarks import Document, KeyPath, dotted, read_yaml, read_yaml_value

_MAX_BYTES = 64 << 10


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a job file: where (line 0 = a --set override), which key, and what to write."""

    line: int
    key: str
    text: str


def load_spec(path: Path | str, overrides: Iterable[str] = ()) -> JobSpec:
    """Read and check a job file. `overrides` are `key.path=value` texts that win over the file.

    Relative paths are joined to the file's folder; the result holds absolute ones. Raises SpecError, which
    lists every problem.
    """
    path = Path(path)
    document = _document(path)
    problems = [Problem(line, dotted(key), text) for line, key, text in document.problems]
    overridden = _apply(document, overrides, problems)
    spec, more = _validate(document, overridden)
    problems += more
    problems += _missing_files(path.parent, document, overridden)
    if problems or spec is None:
        raise _spec_error(path, problems)
    return _resolve_paths(spec, path.parent.absolute())


def deploy_spec(name: str, **words: Any) -> DeploySpec:
    """A DeploySpec from words of the command line; None leaves one out. Raises SpecError in one sentence."""
    try:
        return DeploySpec(name=name, **{key: word for key, word in words.items() if word is not None})
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        key = tuple(detail["loc"])
        wanted = accepted(DeploySpec, key)
        what = f"--{dotted(key)}: found {found(detail['input'])}; accepted: {wanted}."
        raise SpecError(what, hint="maas deploy --help shows the options.") from error


def _document(path: Path) -> Document:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            what = f"{path} is larger than {_MAX_BYTES >> 10} KiB: that is not a job file."
            raise SpecError(what, hint="Pass the YAML file, not the data.")
        return read_yaml(raw.decode("utf-8-sig"))
    except FileNotFoundError as error:
        near = _nearest(path.name, _names_beside(path))
        hint = f"Did you mean {path.parent / near}?" if near else "maas init writes one."
        raise SpecError(f"There is no job file {path}.", hint=hint) from error
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror}."
        raise SpecError(what, hint="Pass the path of a job file.") from error
    except UnicodeDecodeError as error:
        what = f"{path} is not UTF-8 text (byte {error.start})."
        raise SpecError(what, hint="Is this the job file?") from error
    except yaml.YAMLError as error:
        raise _yaml_error(path, error) from error


def _yaml_error(path: Path, error: yaml.YAMLError) -> SpecError:
    """The parser's words in one sentence, with the line where it knows it."""
    if isinstance(error, yaml.MarkedYAMLError):
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        words = ", ".join(filter(None, (error.context, error.problem)))
        return SpecError(f"{path}:{line}: not valid YAML: {words}.", hint="Check indentation and quotes.")
    words = str(error).partition("\n")[0]
    return SpecError(f"{path} is not valid YAML: {words}.", hint="Is this the job file?")


def _nearest(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str:
    """The choice that is most like a word, or nothing."""
    import difflib

    return next(iter(difflib.get_close_matches(word, list(choices), n=1, cutoff=cutoff)), "")


def _names_beside(path: Path) -> list[str]:
    try:
        return [entry.name for entry in path.parent.iterdir()]
    except (OSError, ValueError):
        return []


def _apply(document: Document, overrides: Iterable[str], problems: list[Problem]) -> frozenset[KeyPath]:
    """Put the overrides into the document's data; returns their key paths."""
    applied: set[KeyPath] = set()
    for text in overrides:
        key, equals, value = text.partition("=")
        parts = tuple(part.strip() for part in key.split("."))
        if not equals or not all(parts):
            problems.append(Problem(0, key, f"found --set {text!r}; accepted: --set key.path=value"))
            continue
        try:
            parsed = read_yaml_value(value)
        except yaml.YAMLError:
            what = f"found a value that is not YAML: {value!r}; accepted: a plain value, or one in quotes"
            problems.append(Problem(0, key, what))
            continue
        _put(document.data, parts, parsed)
        applied.add(parts)
    return frozenset(applied)


def _put(place: dict[str, Any], parts: tuple[str, ...], value: Any) -> None:
    """Set a value at a key path. Parts on the way are made or copied: an alias in the file may share them."""
    for part in parts[:-1]:
        old = place.get(part)
        place[part] = dict(old) if isinstance(old, dict) else {}
        place = place[part]
    place[parts[-1]] = value


def _validate(document: Document, overridden: frozenset[KeyPath]) -> tuple[JobSpec | None, list[Problem]]:
    try:
        return JobSpec.model_validate(document.data, by_name=False), []
    except ValidationError as error:
        problems: dict[KeyPath, Problem] = {}
        for detail in error.errors(include_url=False):
            key, text = _explain(detail)
            line = 0 if any(_within(key, one) for one in overridden) else document.line(key)
            if line and detail["type"] == "invalid_key":
                continue  # the document has named it already
            problems.setdefault(key, Problem(line, dotted(key), text))
        return None, list(problems.values())


def _within(key: KeyPath, other: KeyPath) -> bool:
    """True where one of two key paths lies at or below the other."""
    both = min(len(key), len(other))
    return key[:both] == other[:both]


def _explain(detail: Mapping[str, Any]) -> tuple[KeyPath, str]:
    """The key that a pydantic error is about, and one clause: what was found and what is accepted."""
    location: KeyPath = tuple(detail["loc"])
    if detail["type"] == "extra_forbidden":
        keys = known_keys(child_model(JobSpec, location[:-1]))
        near = _nearest(str(location[-1]), keys, cutoff=0.5)
        meant = f"; did you mean {near}?" if near else ""
        return location, f"unknown key {str(location[-1])!r}; accepted: {', '.join(keys)}{meant}"
    if detail["type"] == "missing":
        return location, f"is missing; accepted: {accepted(JobSpec, location)}"
    if detail["type"] == "value_error":
        return location, str(detail["ctx"]["error"])
    key = _real_key(location)
    near = _nearest(detail["input"], choices(JobSpec, key), 0.5) if isinstance(detail["input"], str) else ""
    meant = f"; did you mean {near}?" if near else ""
    return key, f"found {found(detail['input'])}; accepted: {accepted(JobSpec, key)}{meant}"


def _real_key(location: KeyPath) -> KeyPath:
    """The location without the names of union members that pydantic adds behind the last real key."""
    for end in range(len(location), 0, -1):
        owner = child_model(JobSpec, location[: end - 1])
        if owner is not None and location[end - 1] in known_keys(owner):
            return location[:end]
    return location


_FILE_KEYS: tuple[KeyPath, ...] = (
    ("data", "train"),
    ("data", "validation", "file"),
    ("data", "chat_template"),
)


def _missing_files(folder: Path, document: Document, overridden: frozenset[KeyPath]) -> list[Problem]:
    """Data files that the job names and that are not there."""
    problems = []
    for key in _FILE_KEYS:
        value = document.value(key)
        if not isinstance(value, str):
            continue
        path = _joined(folder, value)
        if _is_there(path, Path.is_file):
            continue
        near = _nearest(path.name, _names_beside(path))
        meant = f"; did you mean {Path(value).parent / near}?" if near else ""
        what = "is a folder" if _is_there(path, Path.is_dir) else "does not exist"
        line = 0 if key in overridden else document.line(key)
        text = f"found {value!r}, which {what}; accepted: a file, relative to {folder}{meant}"
        problems.append(Problem(line, dotted(key), text))
    return problems


def _joined(folder: Path, text: str) -> Path:
    """A path of the file, joined to the file's folder; `~` is the home folder."""
    try:
        return folder / Path(text).expanduser()
    except RuntimeError:
        return folder / text


def _is_there(path: Path, kind: Callable[[Path], bool]) -> bool:
    """Whether a path is of a kind; one that the system cannot even look up is not there."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False


def _resolve_paths(spec: JobSpec, folder: Path) -> JobSpec:
    """The spec with its paths joined to the folder of its file, so that they hold wherever they are used."""
    validation = spec.data.validation
    if validation.file is not None:
        validation = validation.model_copy(update={"file": _joined(folder, str(validation.file))})
    paths: dict[str, Any] = {"train": _joined(folder, str(spec.data.train)), "validation": validation}
    if spec.data.chat_template is not None:
        paths["chat_template"] = _joined(folder, str(spec.data.chat_template))
    data = spec.data.model_copy(update=paths)
    model = _joined(folder, spec.model)
    is_local = spec.model.startswith((".", "~", "/")) or _is_there(model, Path.is_dir)
    return spec.model_copy(update={"data": data, "model": str(model) if is_local else spec.model})


def _spec_error(path: Path, problems: list[Problem]) -> SpecError:
    lines = []
    for problem in sorted(problems, key=lambda one: (one.line, one.key)):
        place = f"{path}:{problem.line}" if problem.line else "--set"
        words = f"{problem.key}: {problem.text}" if problem.key else problem.text
        lines.append(f"{place}: {''.join(map(_printable, words))}")
    count = f"{len(lines)} problems" if len(lines) != 1 else "a problem"
    return SpecError(
        f"{path} has {count}.", hint="maas schema prints what a job file may hold.", problems=tuple(lines)
    )


def _printable(character: str) -> str:
    """A character, escaped where it would break the line or the terminal."""
    return character if character.isprintable() else repr(character)[1:-1]
