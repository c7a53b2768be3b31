"""YAML with the line of every key, so that an error can point at it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]
_TAG = "tag:yaml.org,2002:"
_MAX_DEPTH = 32
_NO_KEYS = "accepted: keys such as name, task, model, data"


class _Loader(yaml.SafeLoader):
    """The safe loader with the plain values of YAML 1.2: `5e-4` is a number, `1:30` and `yes` are text.

    Tags for other values (dates, sets, binary) and merge keys (`<<`) are not part of job files.
    """


_PLAIN_VALUES = (
    ("null", r"~$|null$|Null$|NULL$|$", ("~", "n", "N", "")),
    ("bool", r"(true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"[-+]?[0-9]+$", "-+0123456789"),
    (
        "float",
        r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        "-+0123456789.",
    ),
)
_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in _PLAIN_VALUES:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), list(_first))


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    try:
        return int(loader.construct_scalar(node))
    except ValueError as error:
        raise yaml.constructor.ConstructorError(
            None, None, "found a number that cannot be read", node.start_mark
        ) from error


_Loader.yaml_constructors = {
    _TAG + "null": yaml.SafeLoader.construct_yaml_null,
    _TAG + "bool": yaml.SafeLoader.construct_yaml_bool,
    _TAG + "int": _construct_int,
    _TAG + "float": yaml.SafeLoader.construct_yaml_float,
    _TAG + "str": yaml.SafeLoader.construct_yaml_str,
    _TAG + "seq": yaml.SafeLoader.construct_yaml_seq,
    _TAG + "map": yaml.SafeLoader.construct_yaml_map,
    None: yaml.SafeLoader.construct_undefined,
}


@dataclass
class Document:
    """A mapping read from YAML, the line of each key path (from 1), and problems of the YAML itself."""

    data: dict[str, Any]
    lines: dict[KeyPath, int]
    problems: list[tuple[int, KeyPath, str]] = field(default_factory=list)

    def line(self, key: KeyPath) -> int:
        """The line of a key; of the nearest key above it where it is not in the file."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)

    def value(self, key: KeyPath) -> Any:
        """The value at a key path, or None."""
        place: Any = self.data
        for part in key:
            place = place.get(part) if isinstance(place, dict) else None
        return place


def read_yaml(text: str) -> Document:
    """Read one YAML mapping. Raises yaml.YAMLError; repeated keys and a top without keys are problems."""
    loader = _Loader(text)
    try:
        node = _single_node(loader)
        if not isinstance(node, yaml.MappingNode):
            is_empty = node is None or node.tag == _TAG + "null"
            found = "the file is empty" if is_empty else "found no keys"
            return Document({}, {(): 1}, [(1, (), f"{found}; {_NO_KEYS}")])
        lines: dict[KeyPath, int] = {(): 1}
        problems = list(_walk(node, (), lines, set()))
        return Document(_construct(loader, node), lines, problems)
    finally:
        loader.dispose()


def read_yaml_value(text: str) -> Any:
    """Read one value, such as the right side of `--set key=value`. Raises yaml.YAMLError."""
    loader = _Loader(text)
    try:
        node = _single_node(loader)
        if node is None:
            return None
        list(_walk(node, (), {}, set()))
        return _construct(loader, node)
    finally:
        loader.dispose()


def _single_node(loader: _Loader) -> yaml.Node | None:
    try:
        return loader.get_single_node()
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deep") from error


def _construct(loader: _Loader, node: yaml.Node) -> Any:
    """The plain value of a node. A tag that does not fit its value (`!!float x`) is an error of the YAML."""
    try:
        return loader.construct_document(node)
    except (ValueError, KeyError, IndexError) as error:
        raise yaml.YAMLError("a value does not fit its tag") from error


def _walk(
    node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], walked: set[int]
) -> Iterator[tuple[int, KeyPath, str]]:
    """Note the line of every key below a node; yields keys that stand twice. Aliases are walked once."""
    if id(node) in walked:
        return
    if len(path) > _MAX_DEPTH:
        raise yaml.YAMLError(f"it is nested deeper than {_MAX_DEPTH} levels")
    walked.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = (*path, str(key_node.value))
            line = key_node.start_mark.line + 1
            if key_node.tag != _TAG + "str":
                yield line, key, "found a key that is not text; accepted: a word, or one in quotes"
            if key in lines:
                yield line, key, f"stands twice; the first is on line {lines[key]}"
            lines[key] = line
            yield from _walk(value_node, key, lines, walked)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            yield from _walk(item, (*path, index), lines, walked)


def dotted(key: KeyPath) -> str:
    """`training.epochs` for ("training", "epochs")."""
    return ".".join(str(part) for part in key)
