"""The error tree: its docstring is the tree, and every error says what it is as data."""

from __future__ import annotations

import re

import pytest

from maas_client import errors
from maas_client.errors import MaasError, ServiceError, SpecError

TREE = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, MaasError)
}


def lines_of_docstring() -> list[tuple[int, str, int | None]]:
    """Indentation, name and exit code of each class in the module's docstring."""
    found = re.findall(r"^( +)(\w+Error)(?: +(\d+)\b)?", errors.__doc__ or "", flags=re.MULTILINE)
    return [(len(indent), name, int(code) if code else None) for indent, name, code in found]


def test_the_docstring_names_every_error_once() -> None:
    assert sorted(name for _, name, _ in lines_of_docstring()) == sorted(TREE)


def test_the_docstring_is_the_tree() -> None:
    above: list[tuple[int, str]] = []
    for indent, name, _ in lines_of_docstring():
        above = [one for one in above if one[0] < indent]
        expected = TREE[above[-1][1]] if above else Exception
        assert TREE[name].__bases__ == (expected,)
        above.append((indent, name))


def test_the_docstring_gives_the_exit_codes() -> None:
    for _, name, code in lines_of_docstring():
        inherited = TREE[name].__bases__[0]
        expected = code if code is not None else getattr(inherited, "exit_code", None)
        assert TREE[name].exit_code == expected, name


def test_no_error_ends_with_success() -> None:
    assert all(kind.exit_code not in {0, 130} for kind in TREE.values())


@pytest.mark.parametrize("kind", TREE.values(), ids=TREE)
def test_every_error_is_a_sentence_and_data(kind: type[MaasError]) -> None:
    error = kind("It broke.", hint="Mend it.")
    assert str(error) == error.message == "It broke."
    data = error.to_dict()
    assert (data["error"], data["message"], data["hint"]) == (kind.__name__, "It broke.", "Mend it.")
    assert data["exit_code"] == kind.exit_code


def test_a_service_error_tells_what_it_knows_and_nothing_empty() -> None:
    error = ServiceError("No.", operation="submit", status=409, request_id="r-1")
    assert error.to_dict() == {
        "error": "ServiceError",
        "message": "No.",
        "hint": "",
        "exit_code": 3,
        "operation": "submit",
        "status": 409,
        "request_id": "r-1",
    }


def test_a_spec_error_carries_its_problems() -> None:
    assert SpecError("Bad.", problems=("job.yaml:1: x",)).to_dict()["problems"] == ["job.yaml:1: x"]
