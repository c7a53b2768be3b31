"""Generated pages are up to date, links lead somewhere, and every public name has a docstring."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import maas_client

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "docs/make_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", maas_client.__all__)
def test_public_names_have_docstrings(name: str) -> None:
    assert getattr(maas_client, name).__doc__


def test_dir_lists_the_public_names() -> None:
    assert set(maas_client.__all__) <= set(dir(maas_client))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'folow'"):
        _ = maas_client.folow
