"""maas init, doctor and schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.shell import maas

pytestmark = pytest.mark.usefixtures("empty_home")


def test_init_writes_a_job_that_can_be_planned(empty_home: Path) -> None:
    ended = maas("init")
    assert ended.returncode == 0
    assert ended.stdout.splitlines()[0] == "card-support.yaml"
    assert "maas run card-support.yaml" in ended.stderr
    planned = maas("plan", "card-support.yaml", "-o", "json")
    assert planned.returncode == 0
    assert json.loads(planned.stdout)["backend"] == "local"
    again = maas("init")
    assert again.returncode == 3
    assert again.stderr.startswith("error: card-support.yaml is there already.")


def test_what_init_says_to_type_can_be_typed(empty_home: Path) -> None:
    assert "maas run 'my job/card-support.yaml'" in maas("init", "my job").stderr


def test_init_where_nothing_can_be_written(empty_home: Path) -> None:
    (empty_home / "file").touch()
    ended = maas("init", "file/below")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: Not a directory: file/below")


def test_doctor_looks_and_touches_nothing(empty_home: Path) -> None:
    ended = maas("doctor", "-o", "json")
    checks = {check["name"]: check for check in json.loads(ended.stdout)}
    assert {"Python", "torch", "Memory", "Disk", "Home", "Bundled scripts", "Ledger"} <= set(checks)
    assert ended.returncode == (0 if all(check["ok"] for check in checks.values()) else 2)
    assert checks["Ledger"]["detail"] == "none yet"
    assert list(empty_home.iterdir()) == []


def test_doctor_names_what_is_wrong(empty_home: Path) -> None:
    (empty_home / ".maas").mkdir()
    (empty_home / ".maas" / "ledger.sqlite3").write_bytes(b"junk" * 500)
    ended = maas("doctor")
    assert ended.returncode == 2
    assert "is not a readable ledger" in ended.stdout
    assert "Traceback" not in ended.stderr


def test_schema_is_json_that_describes_every_key(empty_home: Path) -> None:
    schema = json.loads(maas("schema").stdout)
    assert schema["properties"]["register"]["description"] == "Keep the result in the model registry."
    parts = [schema, *schema["$defs"].values()]
    keys = [key for part in parts for key in part.get("properties", {}).values()]
    assert len(keys) > 40
    assert all(key["description"] for key in keys)
    assert yaml.safe_load(maas("schema", "-o", "yaml").stdout) == schema
    ended = maas("schema", "--to", "schema.json")
    assert json.loads((empty_home / "schema.json").read_text()) == schema
    assert "yaml-language-server: $schema=schema.json" in ended.stderr
    assert ended.stdout == ""
