"""The wheel works outside the checkout: built, installed into a fresh environment, run from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [made] = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def maas(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`maas` from the wheel in a fresh environment that finds the dependencies of this one."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.EnvBuilder(with_pip=False).create(folder)
    python = folder / "bin" / "python"
    words = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [site] = (folder / "lib").glob("python*/site-packages")
    here = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    # A plain path line: modules of this environment are found; its own .pth files (the editable checkout)
    # are not read.
    (site / "dependencies.pth").write_text(f"{here}\n", encoding="utf-8")
    return folder / "bin" / "maas"


def call(maas: Path, *words: str, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "MAAS_HOME": str(cwd / "maas"), "LANG": "C.UTF-8"}
    return subprocess.run(
        [str(maas), *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout
    )


@pytest.mark.slow
def test_the_wheel_holds_scripts_model_and_catalog(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        "maas_client/py.typed",
        "maas_client/_bundled/jobs/train.py",
        "maas_client/_bundled/jobs/tuning/rows.py",
        "maas_client/_bundled/jobs/examples/card-support.yaml",
        "maas_client/_bundled/models/tiny-phi3/model.safetensors",
        "maas_client/catalog/models.json",
    }
    assert wanted <= names
    assert wheel.stat().st_size < 8_000_000


@pytest.mark.slow
def test_it_is_the_wheel_that_runs(maas: Path, tmp_path: Path) -> None:
    script = "import maas_client, pathlib; print(pathlib.Path(maas_client.__file__).parent / '_bundled')"
    done = subprocess.run(
        [str(maas.with_name("python")), "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert Path(done.stdout.strip()).is_dir(), done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_init_check_plan_and_train_from_the_wheel(maas: Path, tmp_path: Path) -> None:
    assert call(maas, "init", ".", cwd=tmp_path).returncode == 0
    checked = call(maas, "data", "check", "card-support/train.jsonl", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    planned = call(maas, "plan", "card-support.yaml", "-o", "json", cwd=tmp_path)
    assert json.loads(planned.stdout)["cost"].startswith("free")
    words = [
        "submit",
        "card-support.yaml",
        "--watch",
        "--set",
        "training.max_steps=3",
        "--set",
        "evaluation.max_rows=8",
    ]
    trained = call(maas, *words, "-o", "json", cwd=tmp_path, timeout=500)
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["state"] == "succeeded"
