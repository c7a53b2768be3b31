"""One round of looks: a call a service, errors in their places; what a look at many does not know is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from maas_client.errors import NotFoundError, TargetError, UnavailableError
from maas_client.ledger import RunRecord
from maas_client.run import RunState, RunStatus
from tests.dashboard.stage import NOW, Stage, set_up


@pytest.fixture
def cloud(tmp_path: Path) -> Stage:
    return set_up(tmp_path, backend="azureml")


def look(stage: Stage, *records: RunRecord) -> dict[str, object]:
    return dict(stage.project.look_at_all([stage.project.find(record.id) for record in records]))


def test_what_was_seen_is_in_the_ledger(cloud: Stage) -> None:
    first, second = cloud.add("first"), cloud.add("second", RunState.SUCCEEDED, ended_at=NOW - 5)
    seen = look(cloud, first, second)
    assert cloud.play.rounds == [2]
    assert seen[first.id] == cloud.play.parts[first.id].status
    record = cloud.project.find(second.id)
    assert (record.state, record.ended_at, record.seen_at) == (RunState.SUCCEEDED, NOW - 5, NOW)


def test_nothing_to_look_at_asks_nobody(cloud: Stage) -> None:
    assert look(cloud) == {}
    assert cloud.play.rounds == []


def test_one_run_is_looked_at_closely(cloud: Stage) -> None:
    run = cloud.add("card")
    assert isinstance(look(cloud, run)[run.id], RunStatus)
    assert (cloud.play.rounds, cloud.play.parts[run.id].calls) == ([], ["status"])


def test_errors_stand_in_the_place_of_what_was_not_seen(cloud: Stage) -> None:
    here, gone = cloud.add("here"), cloud.add("gone")
    del cloud.play.parts[gone.id]
    seen = look(cloud, here, gone)
    assert isinstance(seen[here.id], RunStatus)
    assert isinstance(seen[gone.id], NotFoundError)
    cloud.play.parts[here.id].failures = 1
    assert {type(one) for one in look(cloud, here, gone).values()} == {UnavailableError}


def test_a_run_of_another_target_is_not_asked_for(cloud: Stage) -> None:
    runs = [cloud.add(name) for name in ("a", "b", "c")]
    records = [cloud.project.find(run.id) for run in runs]
    elsewhere = replace(records[1], plan={**records[1].plan, "target": "workspace x in y, subscription z"})
    seen = cloud.project.look_at_all([records[0], elsewhere, records[2]])
    assert isinstance(seen[elsewhere.id], TargetError)
    assert cloud.play.rounds == [2]


def test_runs_of_this_machine_fail_one_by_one(tmp_path: Path) -> None:
    stage = set_up(tmp_path)
    first, second = stage.add("first"), stage.add("second")
    stage.play.parts[first.id].failures = 1
    seen = look(stage, first, second)
    assert isinstance(seen[first.id], UnavailableError)
    assert isinstance(seen[second.id], RunStatus)


def test_what_a_closer_look_found_is_kept(cloud: Stage) -> None:
    runs = [cloud.add("a"), cloud.add("b", RunState.QUEUED)]
    running, queued = (cloud.play.parts[run.id] for run in runs)
    running.status = replace(running.status, started_at=NOW - 60)
    queued.status = replace(queued.status, message="No quota is left.")
    for run in runs:
        cloud.project.look(run)
    running.status = replace(running.status, started_at=None)
    queued.status = replace(queued.status, message="")
    look(cloud, *runs)
    assert cloud.project.find(runs[0].id).started_at == NOW - 60
    assert cloud.project.find(runs[1].id).message == "No quota is left."
    queued.becomes(RunState.RUNNING)
    look(cloud, *runs)
    assert cloud.project.find(runs[1].id).message == ""
