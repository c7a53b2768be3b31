"""What actions tell of endpoints and models, also when they were cut off or refused."""

from __future__ import annotations

from typing import Any

import pytest

from maas_client.errors import ConflictError
from maas_client.ledger import Ledger
from maas_client.traces import DELETE, DEPLOY, REGISTER, endpoint_traces, registering_backends


@pytest.fixture
def ledger(tmp_path: Any) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite3")


def names(ledger: Ledger) -> list[tuple[str, str, str]]:
    return [(one.backend, one.name, one.model) for one in endpoint_traces(ledger.actions())]


def deploy(ledger: Ledger, backend: str | None, model: str = "m:1") -> None:
    intent = {"backend": backend, "target": "T"} if backend else {}
    with ledger.action(DEPLOY, "card", model=model, **intent) as result:
        result["expires_at"] = 100.0


def test_an_endpoint_is_known_until_its_deletion_went_well(ledger: Ledger) -> None:
    deploy(ledger, "azureml")
    deploy(ledger, "azureml", "m:2")
    (trace,) = endpoint_traces(ledger.actions())
    assert (trace.target, trace.expires_at, trace.model) == ("T", 100.0, "m:2")
    with pytest.raises(ConflictError), ledger.action(DELETE, "card", backend="azureml"):
        raise ConflictError("Busy.")
    assert names(ledger) == [("azureml", "card", "m:2")]
    with ledger.action(DELETE, "card", backend="local"):
        pass
    assert names(ledger) == [("azureml", "card", "m:2")]
    with ledger.action(DELETE, "card", backend="azureml"):
        pass
    assert names(ledger) == []


def test_a_deployment_that_was_cut_off_may_have_made_something(ledger: Ledger) -> None:
    with pytest.raises(KeyboardInterrupt), ledger.action(DEPLOY, "card", backend="foundry", model="m:1"):
        raise KeyboardInterrupt
    (trace,) = endpoint_traces(ledger.actions())
    assert (trace.backend, trace.expires_at) == ("foundry", None)


def test_a_refused_deployment_leaves_what_was_there(ledger: Ledger) -> None:
    deploy(ledger, "azureml")
    with pytest.raises(ConflictError), ledger.action(DEPLOY, "card", backend="azureml", model="other:1"):
        raise ConflictError("It serves m.")
    assert names(ledger) == [("azureml", "card", "m:1")]


def test_first_ledgers_knew_this_machine_only(ledger: Ledger) -> None:
    deploy(ledger, None)
    assert names(ledger) == [("local", "card", "m:1")]


def test_where_models_were_registered(ledger: Ledger) -> None:
    for name, backend in (("a", "azureml"), ("b", "foundry"), ("a", "azureml"), ("a", None)):
        with ledger.action(REGISTER, name, **({"backend": backend} if backend else {})):
            pass
    assert registering_backends(ledger.actions()) == ["azureml", "foundry", "local"]
    assert registering_backends(ledger.actions(), "a") == ["azureml", "local"]
    assert registering_backends(ledger.actions(), "c") == []
