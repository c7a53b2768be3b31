"""YAML with the line of every key, so that an error can point at it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """The safe loader with numbers as in YAML 1.2: `5e-4` is a number, `1:30` and `yes` are text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith((":float", ":int", ":bool", ":timestamp"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
    list("-+0123456789."),
)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _int)


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
    """Read one YAML mapping. Raises yaml.YAMLError; repeated keys and a top that is no mapping become problems."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Document({}, {(): 1}, [(1, (), "the file is empty; accepted: keys such as name, task, model, data")])
        if not isinstance(node, yaml.MappingNode):
            return Document({}, {(): 1}, [(1, (), f"found a {node.id}; accepted: keys such as name, task, model, data")])
        lines: dict[KeyPath, int] = {(): 1}
        problems = list(_walk(node, (), lines, set()))
        return Document(loader.construct_document(node), lines, problems)
    finally:
        loader.dispose()


def read_yaml_value(text: str) -> Any:
    """Read one value, such as the right side of `--set key=value`. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader


def _walk(
    node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], walked: set[int]
) -> Iterator[tuple[int, KeyPath, str]]:
    """Note the line of every key below a node; yields keys that stand twice. Aliased nodes are walked once."""
    if id(node) in walked:
        return
    walked.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = (*path, str(key_node.value))
            line = key_node.start_mark.line + 1
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
