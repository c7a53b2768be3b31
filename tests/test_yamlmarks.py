"""YAML with lines: which values are numbers, where keys stand, and what hostile files get."""

from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from maas_client.yamlmarks import dotted, read_yaml, read_yaml_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("5.0e-4", 5e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("012", 12),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("2026-11-24", "2026-11-24"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'8'", "8"),
        ('"a: b"', "a: b"),
        ("4h", "4h"),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
        ("${HOME}", "${HOME}"),
        ("<<", "<<"),
    ],
)
def test_plain_values(text: str, value: object) -> None:
    read = read_yaml_value(text)
    assert read == value
    assert type(read) is type(value)


def test_every_key_has_its_line() -> None:
    document = read_yaml(
        "name: a\ndata:\n  train: x\n  validation: {split: 0.1,\n    file: y}\nlist:\n- 1\n- b: 2\n"
    )
    assert {dotted(key): line for key, line in document.lines.items()} == {
        "": 1,
        "name": 1,
        "data": 2,
        "data.train": 3,
        "data.validation": 4,
        "data.validation.split": 4,
        "data.validation.file": 5,
        "list": 6,
        "list.0": 7,
        "list.1": 8,
        "list.1.b": 8,
    }


def test_a_key_that_is_not_there_has_the_line_of_what_holds_it() -> None:
    document = read_yaml("name: a\ndata:\n  train: x\n")
    assert document.line(("data", "validation", "split")) == 2
    assert document.line(("deploy",)) == 1
    assert document.value(("data", "train")) == "x"
    assert document.value(("data", "train", "deeper")) is None


def test_repeated_keys_are_named_with_both_lines() -> None:
    document = read_yaml("a: 1\nb: {c: 1, c: 2}\n'a': 3\n")
    assert document.problems == [
        (2, ("b", "c"), "stands twice; the first is on line 2"),
        (3, ("a",), "stands twice; the first is on line 1"),
    ]


def test_keys_that_are_not_text_are_problems() -> None:
    assert [line for line, _, _ in read_yaml("1: a\nb: 2\nnull: c\ntrue: d\n'5': e\n").problems] == [1, 3, 4]


@pytest.mark.parametrize("text", ["", "# only words\n", "---\n", "\n\n"])
def test_an_empty_file_is_a_problem(text: str) -> None:
    assert "empty" in read_yaml(text).problems[0][2]


@pytest.mark.parametrize("text", ["[a, b]", "- a\n- b", "word", "3"])
def test_a_top_without_keys_is_a_problem(text: str) -> None:
    assert "found no keys" in read_yaml(text).problems[0][2]


@pytest.mark.parametrize(
    "text",
    [
        "a: 'b",
        "a:\n\tb: 1",
        "a: 1\n---\nb: 1",
        "? [a]\n: 1",
        "a: *nowhere",
        "a: !!python/object/apply:os.system [id]",
        "a: !!float x",
        "a: !!int 1:3",
        "a: !!bool x",
        "a: !!timestamp x",
        "a: !!set {a}",
        "a: " + "9" * 5000,
        "a: \x00",
        "[" * 5000,
        "a: " + "{a: " * 200 + "1" + "}" * 200,
        "%YAML 9.9\n---\na: 1",
        "{" * 60000,
    ],
)
def test_what_is_not_a_job_file_is_a_yaml_error(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        read_yaml(text)


def test_aliases_are_values_and_loops_end() -> None:
    document = read_yaml("a: &x {k: 1}\nb: *x\nc: &loop {c: *loop}\n")
    assert document.data["b"] == {"k": 1}
    assert document.line(("b", "k")) == 2


@pytest.mark.parametrize("joint", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merge keys"])
def test_a_billion_laughs_end_fast(joint: str) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} " + joint.format(", ".join([f"*a{n - 1}"] * 9)) for n in range(1, 25)]
    began = time.perf_counter()
    read_yaml("\n".join(lines))
    assert time.perf_counter() - began < 2


@given(st.text(max_size=200))
def test_any_text_gives_a_document_or_a_yaml_error(text: str) -> None:
    try:
        document = read_yaml(text)
    except yaml.YAMLError:
        return
    assert isinstance(document.data, dict)


PLAIN = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=12)
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), NESTED, min_size=1, max_size=4))
def test_what_is_written_with_quotes_comes_back(data: dict[str, object]) -> None:
    text = yaml.safe_dump(data, default_style='"', allow_unicode=True)
    assert read_yaml(text).problems == []
    written_and_read = yaml.load(text, Loader=yaml.SafeLoader)
    assert read_yaml(text).data == written_and_read
