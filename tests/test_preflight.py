"""Bad rows are told before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maas_client.errors import DataError
from maas_client.preflight import check_rows
from maas_client.spec import JobSpec

GOOD = '{"text": "my card is gone", "label": "lost"}\n'


def job(folder: Path, rows: bytes, held_out: bytes | None = None) -> JobSpec:
    (folder / "rows.jsonl").write_bytes(rows)
    data: dict[str, Any] = {"train": str(folder / "rows.jsonl")}
    if held_out is not None:
        (folder / "held.jsonl").write_bytes(held_out)
        data["validation"] = {"file": str(folder / "held.jsonl")}
    return JobSpec.model_validate(
        {"name": "any-job", "task": "classification", "model": "tiny-phi3", "data": data}
    )


def test_good_rows_pass(tmp_path: Path) -> None:
    assert check_rows(job(tmp_path, GOOD.encode() * 3, GOOD.encode())) is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b'{"text": "\xff", "label": "lost"}\n', "not UTF-8"),
        (b'{"text": "gone"}\n', "label"),
        (b'{"messages": [{"role": "user", "content": "hi"}]}\n', "text/label"),
        (b"not json\n", "JSON"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: bytes, said: str) -> None:
    with pytest.raises(DataError, match="1 bad row; nothing was started") as raised:
        check_rows(job(tmp_path, GOOD.encode() + row))
    [problem] = raised.value.problems
    assert problem.startswith("rows.jsonl:2: ")
    assert said in problem
    assert "maas data check" in raised.value.hint


def test_the_held_out_rows_are_read_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"held\.jsonl has 1 bad row"):
        check_rows(job(tmp_path, GOOD.encode(), b'{"text": "", "label": "lost"}\n'))


def test_many_bad_rows_are_counted_not_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="500 bad rows") as raised:
        check_rows(job(tmp_path, GOOD.encode() + b"{}\n" * 500))
    assert len(raised.value.problems) < 30
    assert raised.value.problems[-1].endswith(" more")
