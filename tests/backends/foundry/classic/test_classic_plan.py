"""A FineTuning job planned: what is sent, what it costs, what is left out and refused, without Azure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from maas_client.backends.foundry import open_here
from maas_client.backends.foundry.classic.planning import plan_run
from maas_client.backends.foundry.classic.wire import hyperparameters
from maas_client.command import JsonFile
from maas_client.errors import DataError, PlanError, SettingsError
from maas_client.plan import Plan
from maas_client.spec import JobSpec
from maas_client.trainingspec import TrainingSpec
from maas_client.transport.workspace import Target

TARGET = Target("sub", "rg", "hub-project")
DAY = date(2026, 11, 26)
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
SETTINGS = {
    "AZURE_SUBSCRIPTION_ID": "sub",
    "AZURE_RESOURCE_GROUP": "rg",
    "AZUREML_WORKSPACE_NAME": "hub-project",
    "AZURE_LOCATION": "eastus2",
}
CHAT = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
Specify = Callable[..., JobSpec]


@pytest.fixture
def specify(tmp_path: Path) -> Specify:
    def make(*, rows: str = CHAT, **parts: Any) -> JobSpec:
        path = tmp_path / "rows.jsonl"
        path.write_text(rows)
        wanted = {
            "name": "card",
            "task": "chat",
            "model": "Phi-4-mini-instruct",
            "backend": "foundry",
            "data": {"train": str(path)},
        }
        return JobSpec.model_validate({**wanted, **parts})

    return make


def planned(spec: JobSpec, *, region: str | None = "eastus2", on: date = DAY) -> Plan:
    return plan_run(spec, TARGET, on=on, region=region)


def config(plan: Plan) -> dict[str, Any]:
    source = plan.job.inputs["config"]
    assert isinstance(source, JsonFile)
    return dict(source.value)


def body(plan: Plan) -> dict[str, Any]:
    sent = next(step for step in plan.steps if step.verb == "start")
    return dict(json.loads(sent.detail)["properties"])


def test_the_body_is_the_one_that_the_service_was_seen_to_take(specify: Specify) -> None:
    found = body(planned(specify(register={"name": "card-support"})))
    assert found["jobType"] == "FineTuning"
    assert found["fineTuningDetails"] == {
        "taskType": "chatCompletion",
        "modelProvider": "Custom",
        "model": {
            "uri": "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/<newest>",
            "jobInputType": "mlflow_model",
        },
        "trainingData": {
            "uri": "azureml://datastores/workspaceblobstore/paths/maas/inputs/<sha256>/train.jsonl",
            "jobInputType": "uri_file",
        },
        "validationData": {
            "uri": "azureml://datastores/workspaceblobstore/paths/maas/inputs/<sha256>/validation.jsonl",
            "jobInputType": "uri_file",
        },
        "hyperParameters": {
            "num_train_epochs": "3",
            "per_device_train_batch_size": "8",
            "learning_rate": "0.0002",
        },
    }
    assert found["outputs"] == {
        "registered_model": {"assetName": "card-support", "jobOutputType": "mlflow_model"}
    }
    assert not {"computeId", "resources", "queueSettings"} & set(found)


def test_tags_name_run_job_and_fingerprint(specify: Specify) -> None:
    plan = planned(specify())
    assert body(plan)["tags"] == {
        "maas-run": "<run>",
        "maas-job": "card",
        "maas-fingerprint": plan.fingerprint,
    }


@pytest.mark.parametrize(
    ("value", "text"), [(3.0, "3"), (2e-5, "0.00002"), (1.5, "1.5"), (100.0, "100"), (1e-7, "0.0000001")]
)
def test_numbers_are_text_without_an_exponent(value: float, text: str) -> None:
    assert hyperparameters(TrainingSpec(epochs=value))["num_train_epochs"] == text


def test_a_size_asks_for_machines_of_the_subscription(specify: Specify) -> None:
    found = body(planned(specify(compute={"size": "Standard_NC24ads_A100_v4", "priority": "low"})))
    assert found["resources"] == {"instanceTypes": ["Standard_NC24ads_A100_v4"]}
    assert found["queueSettings"] == {"jobTier": "Spot"}


def test_a_cluster_is_named_by_its_whole_id(specify: Specify) -> None:
    found = body(planned(specify(compute={"name": "gpus"})))
    assert found["computeId"] == (
        "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.MachineLearningServices"
        "/workspaces/hub-project/computes/gpus"
    )
    assert "resources" not in found


@pytest.mark.parametrize(
    ("task", "rows", "kind"),
    [
        ("chat", CHAT, "chatCompletion"),
        ("chat", '{"prompt": "a", "completion": "b"}\n', "chatCompletion"),
        ("classification", '{"text": "a", "label": "b"}\n', "chatCompletion"),
        ("text-generation", '{"prompt": "a", "completion": "b"}\n', "textCompletion"),
    ],
)
def test_tasks_become_the_two_that_the_service_knows(
    specify: Specify, task: str, rows: str, kind: str
) -> None:
    assert config(planned(specify(task=task, rows=rows)))["task_type"] == kind


def test_a_task_s_prompt_is_said_where_an_endpoint_is_asked_for(specify: Specify) -> None:
    parts = {
        "task": "summarization",
        "rows": '{"document": "a", "summary": "b"}\n',
        "register": {"name": "c1"},
    }
    said = " ".join(planned(specify(**parts, deploy={"name": "c1"})).warnings)
    assert "goes before the text" in said
    assert "goes before the text" not in " ".join(planned(specify(**parts)).warnings)
    assert "goes before" not in " ".join(
        planned(specify(register={"name": "c1"}, deploy={"name": "c1"})).warnings
    )


def test_plain_text_is_refused_before_anything_is_sent(specify: Specify) -> None:
    with pytest.raises(DataError, match="line 1: plain text has no prompt") as caught:
        planned(specify(task="text-generation", rows='{"text": "Once"}\n'))
    assert "azureml or local" in caught.value.hint


def test_preference_rows_are_refused(specify: Specify) -> None:
    answer = [{"role": "assistant", "content": "b"}]
    row = {"input": {"messages": [{"role": "user", "content": "a"}]}, "preferred_output": answer}
    with pytest.raises(DataError, match="pairs of a better and a worse answer"):
        planned(specify(rows=json.dumps({**row, "non_preferred_output": answer}) + "\n"))


def test_a_file_at_the_limit_is_refused(specify: Specify, tmp_path: Path) -> None:
    spec = specify()
    with (tmp_path / "rows.jsonl").open("ab") as file:
        file.truncate(512 << 20)
    with pytest.raises(DataError, match="takes files under 512 MB"):
        planned(spec)


def test_what_decides_the_result_is_in_the_fingerprint(specify: Specify) -> None:
    first = planned(specify())
    assert planned(specify()).run_id == first.run_id
    for other in (
        specify(training={"epochs": 4}),
        specify(training={"seed": 8}),
        specify(data={"train": str(first.spec.data.train), "validation": {"split": 0.2}}),
        specify(model="Phi-4"),
        specify(compute={"name": "gpus"}),
        specify(rows=CHAT * 2),
    ):
        assert planned(other).fingerprint != first.fingerprint
    assert (
        plan_run(specify(), Target("sub", "rg", "other"), on=DAY, region=None).fingerprint
        != first.fingerprint
    )


def test_what_does_not_decide_it_is_not(specify: Specify) -> None:
    first = planned(specify())
    later = planned(specify(register={"name": "x1"}, deploy={"name": "x1"}, method={"rank": 4}))
    assert later.fingerprint == first.fingerprint


def test_the_plan_says_what_the_service_cannot_carry(specify: Specify) -> None:
    spec = specify(
        method={"name": "lora", "rank": 8},
        training={"epochs": 1, "packing": False, "max_length": 128, "seed": 3, "learning_rate": 1e-4},
        compute={"timeout": "2h"},
        foundry={"learning_rate_multiplier": 0.5},
    )
    said = " ".join(planned(spec).warnings)
    for key in (
        "method.name",
        "method.rank",
        "training.packing",
        "training.max_length",
        "compute.timeout",
        "foundry.learning_rate_multiplier",
    ):
        assert key in said
    for key in ("training.epochs", "training.seed", "training.learning_rate", "foundry.route"):
        assert key not in said
    assert "nothing before and after" in said


def test_a_job_file_without_such_keys_gets_no_report_of_them(specify: Specify) -> None:
    assert not any("not sent" in one for one in planned(specify(training={"epochs": 2})).warnings)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"compute": {"priority": "low"}}, "compute.priority (it needs compute.size, and no name)"),
        (
            {"compute": {"name": "gpus", "size": "Standard_NC24ads_A100_v4"}},
            "compute.size (the cluster has its own)",
        ),
        ({"register": {"name": "c1"}, "deploy": {"name": "c1", "instances": 2, "port": 8080}}, "deploy.port"),
        ({"training": {"epochs": 1.5}}, "whole epochs"),
        (
            {"compute": {"name": "gpus"}, "register": {"name": "c1"}, "deploy": {"name": "c1"}},
            "may be refused",
        ),
    ],
)
def test_combinations_that_may_disappoint_are_said(
    specify: Specify, parts: dict[str, Any], said: str
) -> None:
    assert said in " ".join(planned(specify(**parts)).warnings)


def test_nothing_is_free_and_unknown_prices_are_unknown(specify: Specify) -> None:
    plan = planned(specify(register={"name": "c1"}, deploy={"name": "c1", "ttl": "2h"}))
    assert not plan.is_free
    assert "by token" in plan.cost
    assert plan.cost.count("unknown") == 2
    assert "even while nobody asks it" in plan.cost
    assert "After 2h" in plan.cost
    assert "`maas reap`" in plan.cost


def test_a_known_price_comes_with_its_source(specify: Specify) -> None:
    cost = planned(specify(compute={"size": "Standard_NC24ads_A100_v4"})).cost
    assert "$3.673 an hour (skypilot-catalog" in cost


def test_the_steps_go_all_the_way(specify: Specify) -> None:
    plan = planned(specify(register={"name": "c1"}, deploy={"name": "c1"}))
    assert [step.verb for step in plan.steps] == [
        "convert",
        "upload",
        "upload",
        "look up",
        "start",
        "register",
        "deploy",
    ]
    assert "10% of the rows held out by seed 7" in plan.steps[0].detail
    assert "eastus2" in plan.steps[-1].detail
    assert "10 %" not in str(plan.to_dict())


def test_a_pinned_version_is_said_and_kept(specify: Specify) -> None:
    pinned = "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/7"
    plan = planned(specify(model=pinned))
    assert "pinned" in next(step.detail for step in plan.steps if step.verb == "look up")
    assert body(plan)["fineTuningDetails"]["model"]["uri"] == pinned


def test_a_model_of_another_publisher_needs_a_subscription(specify: Specify) -> None:
    spec = specify(model="Ministral-3B", register={"name": "c1"}, deploy={"name": "c1"})
    step = next(step for step in planned(spec).steps if step.verb == "subscribe")
    assert step.what == "azureml://registries/azureml-mistral/models/Ministral-3B"


def test_a_model_without_a_registry_is_refused(specify: Specify) -> None:
    with pytest.raises(PlanError, match="no registry that holds"):
        planned(specify(model="Qwen-32B", compute={"size": "Standard_NC24ads_A100_v4"}))


def test_another_objective_is_refused(specify: Specify) -> None:
    spec = specify()
    training = spec.training.model_copy(update={"objective": "dpo"})
    with pytest.raises(PlanError, match=r"training.objective is dpo"):
        planned(spec.model_copy(update={"training": training}))


def test_the_endpoint_s_region_is_checked_too(specify: Specify) -> None:
    spec = specify(register={"name": "c1"}, deploy={"name": "c1", "location": "West Europe"})
    with pytest.raises(PlanError, match="West Europe"):
        planned(spec)


def test_without_a_region_the_check_is_announced(specify: Specify) -> None:
    assert any("shows in the check" in one for one in planned(specify(), region=None).warnings)


# -- through the backend, on a clock


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    for name in ("FOUNDRY_PROJECT_ENDPOINT", "AZURE_OPENAI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def backend_plan(spec: JobSpec, tmp_path: Path, at: float = NOON) -> Plan:
    return open_here(tmp_path / "home", lambda: at).jobs.plan(spec)


def test_phi_3_mini_is_refused_today(specify: Specify, settings: Any, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no longer taken on foundry-classic since 2025-08-30") as caught:
        backend_plan(specify(model="Phi-3-mini-4k-instruct"), tmp_path)
    assert "Phi-4-mini-instruct" in caught.value.hint


def test_phi_3_mini_is_refused_without_any_setting(
    specify: Specify, settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in SETTINGS:
        settings.delenv(name)
    with pytest.raises(PlanError, match="no longer taken"):
        backend_plan(specify(model="Phi-3-mini-4k-instruct"), tmp_path)


def test_another_day_overrules(specify: Specify, settings: Any, tmp_path: Path) -> None:
    before = datetime(2025, 8, 1, tzinfo=UTC).timestamp()
    plan = backend_plan(specify(model="Phi-3-mini-4k-instruct"), tmp_path, before)
    assert any("until 2025-08-30" in one for one in plan.warnings)


def test_machines_of_the_subscription_are_not_the_service_s(
    specify: Specify, settings: Any, tmp_path: Path
) -> None:
    spec = specify(model="Phi-3-mini-4k-instruct", compute={"size": "Standard_NC24ads_A100_v4"})
    assert any("may still tune it" in one for one in backend_plan(spec, tmp_path).warnings)


def test_phi_4_mini_is_planned_in_a_listed_region(specify: Specify, settings: Any, tmp_path: Path) -> None:
    plan = backend_plan(specify(), tmp_path)
    assert plan.backend == "foundry"
    assert plan.target == "workspace hub-project in rg, subscription sub"
    assert list(tmp_path.glob("home/**")) == []


def test_a_region_that_is_not_listed_is_refused(
    specify: Specify, settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings.setenv("AZURE_LOCATION", "westeurope")
    with pytest.raises(PlanError, match="not offered on foundry-classic in westeurope"):
        backend_plan(specify(), tmp_path)


def test_a_foundry_project_is_no_hub(specify: Specify, settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in SETTINGS:
        settings.delenv(name)
    settings.setenv("FOUNDRY_PROJECT_ENDPOINT", "https://r.services.ai.azure.com/api/projects/p")
    with pytest.raises(SettingsError, match="hub-based project or workspace") as caught:
        backend_plan(specify(), tmp_path)
    assert "AZUREML_WORKSPACE_NAME" in caught.value.hint


def test_scoring_is_not_offered(specify: Specify, settings: Any, tmp_path: Path) -> None:
    plan = backend_plan(specify(), tmp_path)
    with pytest.raises(PlanError, match="cannot score a model"):
        open_here(tmp_path, lambda: NOON).jobs.plan(plan.spec, plan.job)


def test_planning_loads_nothing_that_talks_to_a_network(
    specify: Specify, settings: Any, tmp_path: Path
) -> None:
    script = """
import sys
from pathlib import Path
from maas_client.backends.foundry import open_here
from maas_client.spec import JobSpec
spec = JobSpec.model_validate_json(Path(sys.argv[1]).read_text())
plan = open_here(Path(sys.argv[2]), lambda: 1795660000.0).jobs.plan(spec)
print(plan.run_id)
heavy = {"azure", "httpx", "requests", "openai", "torch", "numpy"}
sys.exit(str(heavy & {name.partition(".")[0] for name in sys.modules} or ""))
"""
    file = tmp_path / "spec.json"
    spec = specify(register={"name": "c1"}, deploy={"name": "c1"})
    file.write_text(spec.model_dump_json(by_alias=True))
    command = [sys.executable, "-c", script, str(file), str(tmp_path / "home")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stderr.strip() == ""
    assert ended.stdout.startswith("card-")
