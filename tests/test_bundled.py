"""The files that travel with the package are where the package says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from maas_client.bundled import jobs_folder, model_folder, tuning_module


def test_the_scripts_are_there() -> None:
    for name in (
        "train.py",
        "evaluate.py",
        "merge.py",
        "serve.py",
        "tuning/__init__.py",
        "serving/__init__.py",
    ):
        assert (jobs_folder() / name).is_file(), name


def test_the_tiny_model_is_there() -> None:
    folder = model_folder("tiny-phi3")
    assert folder is not None
    assert (folder / "config.json").is_file()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "text", "no-such", "../jobs", "a/b", "a\\b", "/etc", "microsoft/Phi-4"]
)
def test_other_names_are_not_shipped_models(name: str) -> None:
    assert model_folder(name) is None


def test_the_client_reads_rows_as_the_script_does(tmp_path: Path) -> None:
    module = tuning_module("rows")
    assert Path(str(module.__file__)) == jobs_folder() / "tuning" / "rows.py"
    script = "from maas_client.bundled import tuning_module; print(tuning_module('rows').__file__)"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == str(module.__file__)
