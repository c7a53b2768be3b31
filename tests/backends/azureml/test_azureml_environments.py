"""The environments of Azure's machines hold what this machine's do, in the same versions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from maas_client.backends.azureml.environment import BundledEnvironment, bundled_environment

ROOT = Path(__file__).parents[3]
ON_CLUSTERS = ("local", "quantized", "deepspeed", "gpu", "tracking")
NOT_ON_CLUSTERS = {"starlette", "uvicorn"}
"""What only the local server needs."""
ONLY_THERE = {"azureml-mlflow", "azureml-inference-server-http"}
"""What only Azure's machines need."""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(environment: BundledEnvironment) -> dict[str, str]:
    """Versions of the packages that pip installs."""
    [packages] = [each["pip"] for each in environment.conda["dependencies"] if isinstance(each, dict)]
    split = [line.split("==") for line in packages if not line.startswith("--")]
    return {plain(name): version for name, version in split}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {plain(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}


@pytest.mark.parametrize("purpose", ["training", "serving"])
def test_versions_are_those_that_are_tested_here(purpose: str) -> None:
    known = constraints()
    for name, version in pins(bundled_environment(purpose)).items():  # type: ignore[arg-type]
        if name not in ONLY_THERE:
            assert known.get(name) == version, f"{name} in jobs/environments/{purpose}.yaml"


def test_the_training_environment_has_what_the_scripts_import() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = [line for name in ON_CLUSTERS for line in extras[name]]
    wanted = {plain(re.split(r"[<>=\[; ]", line)[0]) for line in lines} - NOT_ON_CLUSTERS
    missing = wanted - set(pins(bundled_environment("training")))
    assert not missing, "add to jobs/environments/training.yaml"


def test_the_image_is_pinned_and_the_version_follows_the_content() -> None:
    training, serving = bundled_environment("training"), bundled_environment("serving")
    for each in (training, serving):
        assert re.fullmatch(r"mcr\.microsoft\.com/azureml/[a-z0-9.-]+:\d{8}\.v\d+", each.image)
        assert re.fullmatch(rf"azureml:{each.name}:[0-9a-f]{{12}}", str(each))
    assert training.version != serving.version
    assert BundledEnvironment(training.name, "other", training.conda).version != training.version
