"""What each key of a job file accepts, in words: for error messages and for docs/job-file.md."""

from __future__ import annotations

import ast
import inspect
from enum import EnumType
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from maas_client.spec import DURATION_PATTERN, NAME_PATTERN

_PLAIN = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true, false",
    Path: "a path",
    type(None): "null",
}
_PATTERNS = {
    NAME_PATTERN: "2 to 32 lower-case letters, digits and hyphens, starting with a letter",
    DURATION_PATTERN: "a number and s, m, h or d, such as 30m or 4h",
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def field_of(model: type[BaseModel], key: str | int) -> FieldInfo | None:
    """The field behind a key as it is written in the file."""
    for name, info in model.model_fields.items():
        if (info.alias or name) == key:
            return info
    return None


def known_keys(model: type[BaseModel] | None) -> list[str]:
    """The keys of a part, as they are written in the file."""
    return [info.alias or name for name, info in model.model_fields.items()] if model else []


def child_model(model: type[BaseModel] | None, location: tuple[str | int, ...]) -> type[BaseModel] | None:
    """The part at a key path, or None where a plain value stands there."""
    for key in location:
        info = field_of(model, key) if model else None
        model = next((part for part in _members(info.annotation) if _is_part(part)), None) if info else None
    return model


def accepted(model: type[BaseModel], location: tuple[str | int, ...]) -> str:
    """What the key at a path accepts, in words."""
    owner = child_model(model, location[:-1])
    info = field_of(owner, location[-1]) if owner and location else None
    return field_words(info) if info else "nothing here"


def field_words(info: FieldInfo) -> str:
    """What a field accepts, in words: its kinds of value, then its bounds."""
    for rule in info.metadata:
        if (pattern := getattr(rule, "pattern", None)) in _PATTERNS:
            return _PATTERNS[str(pattern)]
    kinds = ", ".join(_kind(member) for member in _members(info.annotation) if member is not type(None))
    bounds = [
        f"{word} {getattr(rule, name)}"
        for name, word in _BOUNDS.items()
        for rule in info.metadata
        if hasattr(rule, name)
    ]
    return ", ".join([kinds, *bounds])


def description(model: type[BaseModel], key: str) -> str:
    """What a key is for: the text below its field in spec.py."""
    return _field_texts(model)[
        next(name for name, info in model.model_fields.items() if key in (name, info.alias))
    ]


@cache
def _field_texts(model: type[BaseModel]) -> dict[str, str]:
    """The texts below the fields of a part, on one line each."""
    body = cast(ast.ClassDef, ast.parse(inspect.getsource(model)).body[0]).body
    texts = {}
    for statement, below in pairwise(body):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts


def choices(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The words that a key takes, where it takes only some."""
    owner = child_model(model, location[:-1])
    info = field_of(owner, location[-1]) if owner and location else None
    members = _members(info.annotation) if info else ()
    worded = [one for one in members if get_origin(one) is Literal or isinstance(one, EnumType)]
    return [word for one in worded for word in _kind(one).split(", ")]


def found(value: Any) -> str:
    """A value as it stood in the file, short enough for one line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        text = "keys " + ", ".join(map(str, list(value)[:4])) if value else "an empty mapping"
    else:
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_part(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return ", ".join(
            "true" if one is True else "false" if one is False else str(one) for one in get_args(annotation)
        )
    if isinstance(annotation, EnumType):
        return ", ".join(annotation.__members__[name].value for name in annotation.__members__)
    if _is_part(annotation):
        return "keys " + ", ".join(known_keys(annotation))
    if get_origin(annotation) is list:
        return "a list of names"
    return _PLAIN.get(annotation, str(annotation))
