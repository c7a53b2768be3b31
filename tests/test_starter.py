"""maas init: examples are copied whole or not at all, and never over a file that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from maas_client.errors import ConflictError, UsageError
from maas_client.specfile import load_spec
from maas_client.starter import STARTERS, write_starter


@pytest.mark.parametrize("example", STARTERS)
def test_an_example_can_be_read_where_it_is_written(tmp_path: Path, example: str) -> None:
    written = write_starter(tmp_path / "new" / "folder", example)
    job = tmp_path / "new" / "folder" / f"{example}.yaml"
    assert job in written
    assert load_spec(job).name == example
    assert sorted(path for path in (tmp_path / "new").rglob("*") if path.is_file()) == sorted(written)


@pytest.mark.parametrize("taken", ["card-support.yaml", "card-support/train.jsonl"])
def test_nothing_is_written_over(tmp_path: Path, taken: str) -> None:
    path = tmp_path / taken
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(ConflictError, match="is there already") as caught:
        write_starter(tmp_path, "card-support")
    assert "maas init" in caught.value.hint
    assert path.read_text() == "mine"
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]


@pytest.mark.parametrize(
    ("example", "hint"),
    [("card-suport", "Did you mean card-support?"), ("x", "Choose one of: " + ", ".join(STARTERS) + ".")],
)
def test_an_unknown_example(tmp_path: Path, example: str, hint: str) -> None:
    with pytest.raises(UsageError, match="There is no example") as caught:
        write_starter(tmp_path, example)
    assert caught.value.hint == hint
    assert list(tmp_path.iterdir()) == []
