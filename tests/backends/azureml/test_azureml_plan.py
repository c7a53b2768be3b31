"""What a run in a workspace would do and cost, decided without a network, and what is refused before that."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from maas_client.backends.azureml.planning import plan_run
from maas_client.backends.azureml.wire import body_again, job_body
from maas_client.cloudpath import CloudPath
from maas_client.command import CommandJob, evaluation_command
from maas_client.errors import DataError, PlanError, UsageError
from maas_client.plan import Plan
from maas_client.spec import JobSpec
from maas_client.transport.workspace import Target

TARGET = Target("sub", "rg", "ws")
DAY = date(2026, 11, 26)
A100 = "Standard_NC24ads_A100_v4"
Planner = Callable[..., Plan]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": "b"}\n')
    return path


@pytest.fixture
def specify(rows: Path) -> Callable[..., JobSpec]:
    def make(**parts: Any) -> JobSpec:
        wanted = {
            "name": "card",
            "task": "classification",
            "model": "tiny-phi3",
            "backend": "azureml",
            "data": {"train": str(rows)},
            "compute": {"size": A100},
        }
        return JobSpec.model_validate({**wanted, **parts})

    return make


@pytest.fixture
def planner(specify: Callable[..., JobSpec]) -> Planner:
    def plan(*, job: CommandJob | None = None, **parts: Any) -> Plan:
        return plan_run(specify(**parts), TARGET, job, on=DAY)

    return plan


def body_of(plan: Plan) -> dict[str, Any]:
    """The job's body that the plan shows in its last step."""
    step = plan.steps[-1]
    assert (step.verb, step.what) == ("start", f"job {plan.run_id}")
    read: dict[str, Any] = json.loads(step.detail)
    return read


def refused(planner: Planner, error: type[UsageError] = PlanError, **parts: Any) -> UsageError:
    with pytest.raises(error) as raised:
        planner(**parts)
    assert raised.value.hint
    assert "\n" not in raised.value.message
    return raised.value


def test_a_plan_names_its_workspace_and_every_step(planner: Planner) -> None:
    plan = planner()
    assert (plan.backend, plan.target) == ("azureml", "workspace ws in rg, subscription sub")
    assert [step.verb for step in plan.steps] == ["upload"] * 4 + ["make", "use", "train", "start"]
    assert not plan.is_free
    assert plan.warnings == ()
    assert set(plan.hashes) == {"code", "config", "train", "model", "environment", "compute"}


def test_the_job_is_python_on_mounted_places_named_by_their_content(planner: Planner) -> None:
    plan = planner()
    body = body_of(plan)
    assert body["command"].startswith("python train.py --config ${{inputs.config}}")
    assert body["tags"] == {
        "maas-run": plan.run_id,
        "maas-job": "card",
        "maas-fingerprint": plan.fingerprint,
    }
    store = "azureml://datastores/workspaceblobstore/paths/maas"
    digest = plan.hashes["train"].removeprefix("sha256:")
    assert body["inputs"]["train"] == {
        "jobInputType": "uri_file",
        "mode": "Download",
        "uri": f"{store}/inputs/{digest}/train.jsonl",
    }
    assert body["inputs"]["model"]["jobInputType"] == "uri_folder"
    assert body["outputs"]["run"] == {
        "jobOutputType": "uri_folder",
        "mode": "ReadWriteMount",
        "uri": f"{store}/{plan.run_id}/run/",
    }
    assert body["resources"] == {"instanceCount": 1, "shmSize": "16g", "instanceType": A100}
    assert body["environmentVariables"]["MAAS_EVENTS"] == "stdout"
    assert body["environmentVariables"]["HF_HUB_OFFLINE"] == "1"
    assert not {"distribution", "limits", "identity", "queueSettings", "computeId"} & set(body)


def test_machines_processes_time_and_rights_are_the_service_s_to_give(planner: Planner) -> None:
    compute = {
        "name": "gpus",
        "size": "Standard_NC48ads_A100_v4",
        "instances": 2,
        "shared_memory": "32g",
        "timeout": "90m",
        "identity": "managed",
    }
    plan = planner(compute=compute, distributed={"strategy": "ddp", "processes": 2})
    body = body_of(plan)
    assert body["computeId"] == f"{TARGET.path}/computes/gpus"
    assert body["resources"] == {"instanceCount": 2, "shmSize": "32g"}
    assert body["distribution"] == {"distributionType": "PyTorch", "processCountPerInstance": 2}
    assert body["limits"] == {"jobLimitsType": "Command", "timeout": "PT1H30M"}
    assert body["identity"] == {"identityType": "Managed"}
    assert "torch.distributed" not in body["command"]
    assert plan.job.inputs["config"].value["distributed"]["processes"] == 4  # type: ignore[union-attr]
    [cluster] = [step for step in plan.steps if "cluster" in step.what]
    assert (cluster.verb, cluster.what) == ("make", "cluster gpus")
    assert "up to 2 x Standard_NC48ads_A100_v4" in cluster.detail


def test_low_priority_without_a_cluster_is_a_spot_job(planner: Planner) -> None:
    plan = planner(compute={"size": A100, "priority": "low", "identity": "user"})
    assert body_of(plan)["queueSettings"] == {"jobTier": "Spot"}
    assert body_of(plan)["identity"] == {"identityType": "UserIdentity"}
    assert any("may be taken away" in warning for warning in plan.warnings)
    safe = {"checkpoint_every_steps": 10}
    assert planner(compute={"size": A100, "priority": "low"}, training=safe).warnings == ()


@pytest.mark.parametrize(
    ("compute", "cost"),
    [
        ({"size": A100}, "$3.67 an hour for 1 x Standard_NC24ads_A100_v4 (skypilot-catalog"),
        ({"size": A100, "instances": 2}, "$7.35 an hour for 2 x"),
        ({"size": A100}, "how many hours is unknown"),
        ({"size": A100, "name": "gpus"}, "and up to 2 minutes after it"),
        ({"size": A100, "priority": "low"}, "unknown: dedicated ones are $3.67 an hour"),
        ({"size": "Standard_NC6s_v3"}, "unknown: no source tells the price of 1 x Standard_NC6s_v3"),
        ({"name": "gpus"}, "unknown: the machines of cluster gpus bill while the job runs"),
    ],
)
def test_what_it_costs_has_a_source_or_is_said_to_be_unknown(
    planner: Planner, compute: dict[str, Any], cost: str
) -> None:
    ddp = {"strategy": "ddp"} if compute.get("instances") else {}
    assert cost in planner(compute=compute, distributed=ddp).cost


def test_what_the_endpoint_costs_is_said_before_the_training(planner: Planner) -> None:
    deploy = {"name": "cards", "size": A100, "ttl": "2h"}
    cost = planner(compute={"size": A100}, register={"name": "cards"}, deploy=deploy).cost
    assert "how many hours is unknown. Then endpoint cards: $3.67 an hour for 1 x " in cost
    assert "$7.35 for 2h" in cost
    assert "maas reap" in cost


def test_a_job_without_machines_is_refused(planner: Planner) -> None:
    assert "neither a cluster nor a size" in refused(planner, compute={}).message


def test_more_processes_than_gpus_are_refused(planner: Planner) -> None:
    error = refused(planner, distributed={"strategy": "ddp", "processes": 2})
    assert "has 1 GPU, but 2 processes" in error.message
    assert "2 machines" in refused(planner, compute={"size": A100, "instances": 2}).message


def test_idle_gpus_and_sizes_that_nobody_knows_are_warned_of(planner: Planner) -> None:
    idle = planner(compute={"size": "Standard_NC96ads_A100_v4"}).warnings
    assert any("has 4 GPUs, of which 1 would work" in warning for warning in idle)
    unknown = planner(compute={"size": "Standard_DS3_v2"}, distributed={"strategy": "ddp", "processes": 2})
    assert any("does not know Standard_DS3_v2" in warning for warning in unknown.warnings)


@pytest.mark.parametrize(
    ("model", "source"),
    [
        ("Phi-3-mini-4k-instruct", "microsoft/Phi-3-mini-4k-instruct"),
        ("phi-4", "microsoft/phi-4"),
        ("somebody/small-model", "somebody/small-model"),
    ],
)
def test_a_model_from_hugging_face_is_fetched_by_the_machines(
    planner: Planner, model: str, source: str
) -> None:
    plan = planner(model=model)
    body = body_of(plan)
    assert body["inputs"]["model"] == {"jobInputType": "literal", "value": source}
    assert "HF_HUB_OFFLINE" not in body["environmentVariables"]
    assert any(step.verb == "download" and step.what == source for step in plan.steps)


def test_weights_in_a_datastore_are_used_in_place(planner: Planner) -> None:
    place = "azureml://datastores/weights/paths/phi-4/"
    plan = planner(model=place)
    assert plan.job.inputs["model"] == CloudPath(place)
    assert body_of(plan)["inputs"]["model"]["uri"] == place


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("phi-9000", "no model named 'phi-9000'"),
        ("gpt-4o", "not known to be offered on azureml"),
        ("./none", "no model folder"),
        ("a/b/c", "no model folder"),
    ],
)
def test_a_model_that_no_machine_can_get_is_refused(planner: Planner, model: str, words: str) -> None:
    assert words in refused(planner, model=model).message


def test_data_and_layers_are_looked_at_before_anything_is_sent(planner: Planner, tmp_path: Path) -> None:
    missing = {"train": str(tmp_path / "none.jsonl")}
    assert "no data file" in refused(planner, DataError, data=missing).message
    assert (
        "names v_proj, which the model does not have"
        in refused(planner, method={"target_modules": ["v_proj"]}).message
    )


def test_another_machine_is_another_run_and_the_same_job_the_same(planner: Planner, rows: Path) -> None:
    plan = planner()
    assert planner().fingerprint == plan.fingerprint
    assert planner(compute={"size": A100, "timeout": "1h"}).fingerprint != plan.fingerprint
    own = {"size": A100, "environment": "azureml:mine:3"}
    assert planner(compute=own).fingerprint != plan.fingerprint
    rows.write_text('{"text": "a", "label": "c"}\n')
    assert planner().fingerprint != plan.fingerprint


def test_an_environment_of_the_user_s_is_passed_on(planner: Planner) -> None:
    curated = "azureml://registries/azureml/environments/acpt-pytorch-2.8/versions/1"
    plan = planner(compute={"size": A100, "environment": curated})
    assert body_of(plan)["environmentId"] == curated
    assert any(step.verb == "use" and curated in step.what for step in plan.steps)


def test_an_endpoint_that_azure_would_refuse_is_refused_before_the_training(
    planner: Planner,
) -> None:
    wanted = {"register": {"name": "card"}, "deploy": {"name": "card-end"}}
    assert "deploy.size is missing" in refused(planner, **wanted).message
    wanted["deploy"]["size"] = A100
    assert planner(**wanted).spec.deploy is not None
    wanted["deploy"]["name"] = "ab"
    assert "Azure takes no endpoint named 'ab'" in refused(planner, **wanted).message


@pytest.mark.parametrize("name", ["mine", "azureml:mine", "azureml://mine/1", "azureml:mine:"])
def test_a_name_that_is_no_environment_s_is_refused(planner: Planner, name: str) -> None:
    assert "names no environment" in refused(planner, compute={"size": A100, "environment": name}).message


def test_a_scoring_reads_the_model_where_it_lies_and_takes_one_machine(
    specify: Callable[..., JobSpec], rows: Path
) -> None:
    spec = specify(compute={"name": "gpus", "instances": 2}, distributed={"strategy": "ddp", "processes": 2})
    model = CloudPath("azureml://datastores/workspaceblobstore/paths/maas/card-1/run/model/")
    job = evaluation_command(spec, model, rows, is_adapter=True)
    plan = plan_run(spec, TARGET, job, on=DAY)
    body = body_of(plan)
    assert body["inputs"]["model"]["uri"] == str(model)
    assert body["inputs"]["base"]["jobInputType"] == "uri_folder"
    assert body["resources"]["instanceCount"] == 1
    assert "distribution" not in body
    assert any("Scoring uses one machine" in warning for warning in plan.warnings)


def test_the_next_attempt_asks_for_what_the_first_did(planner: Planner) -> None:
    asked = body_of(planner())
    added = {
        "status": "Failed",
        "services": {"Studio": {}},
        "outputs": {**asked["outputs"], "default": {"uri": "x"}},
    }
    assert body_again({"name": "card", "properties": {**asked, **added}}) == asked


def test_the_body_is_the_same_however_often_it_is_made(planner: Planner) -> None:
    plan = planner()
    again = job_body(plan, environment_id=body_of(plan)["environmentId"], workspace_path=TARGET.path)
    assert again == body_of(plan)


def test_planning_loads_nothing_heavy(rows: Path, tmp_path: Path) -> None:
    script = f"""
import sys
from datetime import date
from maas_client.backends.azureml.planning import plan_run
from maas_client.spec import JobSpec
from maas_client.transport.workspace import Target
spec = JobSpec.model_validate({{"name": "card", "task": "classification", "model": "tiny-phi3",
    "backend": "azureml", "data": {{"train": {str(rows)!r}}}, "compute": {{"size": "{A100}"}}}})
plan_run(spec, Target("s", "r", "w"), on=date(2026, 11, 26))
heavy = {{"azure", "httpx", "torch", "requests", "transformers"}}
print(sorted(heavy & {{name.partition(".")[0] for name in sys.modules}}))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
