"""The real azure-ai-ml, azure-identity and azure-storage-blob against the simulator, by environment only."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from maas_client.simulator import Simulator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:::marshmallow"),
    pytest.mark.filterwarnings("ignore:::azure"),
]
FINAL = {"Completed", "Failed", "Canceled"}
SCRIPT = """\
import json, os, pathlib, sys
print("rank", os.environ.get("RANK", "none"), "of", os.environ.get("WORLD_SIZE", "1"))
rows = open(sys.argv[1]).read()
out = pathlib.Path(sys.argv[2])
if os.environ.get("RANK", "0") == "0":
    (out / "model").mkdir(exist_ok=True)
    (out / "model" / "weights.txt").write_text(rows.upper() + sys.argv[3])
"""


def finish(client: Any, name: str, timeout_s: float = 90) -> Any:
    deadline = time.monotonic() + timeout_s
    while (job := client.jobs.get(name)).status not in FINAL:
        assert time.monotonic() < deadline, job.status
        time.sleep(0.2)
    return job


def logs(wire: httpx.Client, azure: Simulator, name: str) -> dict[str, str]:
    path = f"/history/v1.0{azure.world.names.workspace_id}/runs/{name}/details"
    files = wire.get(path).json()["logFiles"]
    return {file: httpx.get(url).text for file, url in files.items()}


def code_folder(tmp_path: Path, text: str = SCRIPT) -> Path:
    folder = tmp_path / "code"
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(text)
    return folder


def submit(client: Any, tmp_path: Path, line: str, text: str = SCRIPT, **more: Any) -> Any:
    from azure.ai.ml import command
    from azure.ai.ml.entities import Environment

    environment = Environment(name="tests", version="1", image="mcr.microsoft.com/x:1")
    more = {"instance_type": "Standard_DS3_v2", **more}
    job = command(code=str(code_folder(tmp_path, text)), command=line, environment=environment, **more)
    return client.jobs.create_or_update(job)


def test_the_workspace_is_found_with_a_default_credential(client: Any, azure: Simulator) -> None:
    found = client.workspaces.get(azure.world.names.workspace)
    assert found.location == "eastus2"
    assert client.datastores.get_default().name == "workspaceblobstore"


def test_a_command_job_really_runs(client: Any, azure: Simulator, wire: httpx.Client, tmp_path: Path) -> None:
    from azure.ai.ml import Input, Output

    (tmp_path / "rows.txt").write_text("some rows ")
    started = submit(
        client,
        tmp_path,
        "python main.py ${{inputs.rows}} ${{outputs.tuned}} ${{inputs.rate}} && echo $COLOR",
        inputs={"rows": Input(type="uri_file", path=str(tmp_path / "rows.txt")), "rate": 0.5},
        outputs={"tuned": Output(type="custom_model", name="tuned-model")},
        environment_variables={"COLOR": "blue"},
    )
    assert started.status == "Starting"
    assert finish(client, started.name).status == "Completed"
    assert logs(wire, azure, started.name) == {"user_logs/std_log.txt": "rank none of 1\nblue\n"}
    container = azure.world.storage.client.get_container_client("azureml-blobstore-simulated")
    blob = f"azureml/{started.name}/tuned/model/weights.txt"
    assert container.download_blob(blob).readall() == b"SOME ROWS 0.5"
    model = client.models.get("tuned-model", version="1")
    assert model.path.endswith(f"/paths/azureml/{started.name}/tuned/")
    assert started.name in [job.name for job in client.jobs.list()]


def test_an_unchanged_snapshot_is_not_uploaded_again(client: Any, azure: Simulator, tmp_path: Path) -> None:
    submit(client, tmp_path, "python -c 'print(1)'", text="print('unchanged')")
    azure.world.requests.clear()
    job = submit(client, tmp_path, "python -c 'print(2)'", text="print('unchanged')")
    assert not [each for each in azure.world.requests if "startPendingUpload" in each]
    assert finish(client, job.name).status == "Completed"


def test_ranks_are_started_by_the_service(
    client: Any, azure: Simulator, wire: httpx.Client, tmp_path: Path
) -> None:
    from azure.ai.ml import PyTorchDistribution

    job = submit(
        client,
        tmp_path,
        'python -c \'import os; print(os.environ["RANK"], os.environ["WORLD_SIZE"])\'',
        distribution=PyTorchDistribution(process_count_per_instance=2),
    )
    assert finish(client, job.name).status == "Completed"
    assert logs(wire, azure, job.name) == {
        "user_logs/std_log_process_00.txt": "0 2\n",
        "user_logs/std_log_process_01.txt": "1 2\n",
    }


def test_a_failing_command_fails_its_job_with_the_exit_code(
    client: Any, azure: Simulator, wire: httpx.Client, tmp_path: Path
) -> None:
    job = submit(client, tmp_path, "echo about to fail; exit 3")
    assert finish(client, job.name).status == "Failed"
    path = f"/history/v1.0{azure.world.names.workspace_id}/runs/{job.name}/details"
    details = wire.get(path).json()
    assert "exited with status code 3" in details["error"]["error"]["message"]
    assert logs(wire, azure, job.name)["user_logs/std_log.txt"] == "about to fail\n"


def test_a_job_that_takes_too_long_is_stopped(client: Any, azure: Simulator, tmp_path: Path) -> None:
    job = submit(client, tmp_path, "sleep 100", timeout=1)
    assert finish(client, job.name).status == "Failed"
    record = azure.world.runner.record(f"{azure.world.names.workspace_id}/jobs/{job.name}")
    assert "limits.timeout" in record["error"]["message"]


def running(azure: Simulator, name: str) -> Any:
    found = azure.world.store.get(f"{azure.world.names.workspace_id}/jobs/{name}")
    assert found is not None
    deadline = time.monotonic() + 60
    while found["properties"]["status"] != "Running":
        assert time.monotonic() < deadline, found["properties"]["status"]
        time.sleep(0.05)
    return found


def test_a_job_is_canceled_and_its_processes_are_gone(client: Any, azure: Simulator, tmp_path: Path) -> None:
    import psutil

    job = submit(client, tmp_path, "echo $$ > ${{outputs.where}}/pid; exec sleep 300", outputs={"where": {}})
    running(azure, job.name)
    client.jobs.begin_cancel(job.name).wait()
    assert finish(client, job.name).status == "Canceled"
    sleeping = [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "300"]]
    assert sleeping == []


RESUMING = """\
import os, sys, time
place = os.path.join(sys.argv[1], "step")
step = int(open(place).read()) if os.path.exists(place) else 0
print("from step", step)
open(place, "w").write(str(step + 1))
if step == 0:
    time.sleep(300)
"""


def test_a_preempted_job_goes_on_from_its_output(
    client: Any, azure: Simulator, wire: httpx.Client, tmp_path: Path
) -> None:
    job = submit(client, tmp_path, "python main.py ${{outputs.state}}", text=RESUMING, outputs={"state": {}})
    running(azure, job.name)
    blobs = azure.world.storage.client.get_container_client("azureml-blobstore-simulated")
    deadline = time.monotonic() + 60
    while not list(blobs.list_blobs(f"azureml/{job.name}/state/step")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    answer = wire.post(
        "/_simulator/preempt", json={"job": job.name}, headers={"x-simulator-key": azure.world.admin_key}
    )
    assert answer.status_code == 202
    assert finish(client, job.name).status == "Completed"
    assert blobs.download_blob(f"azureml/{job.name}/state/step").readall() == b"2"
    assert "from step 1" in logs(wire, azure, job.name)["user_logs/std_log.txt"]


def test_a_tuning_job_is_put_through_the_entities_and_trains(
    client: Any, azure: Simulator, wire: httpx.Client, tmp_path: Path
) -> None:
    from azure.ai.ml import Input, Output
    from azure.ai.ml.entities._job.finetuning.custom_model_finetuning_job import CustomModelFineTuningJob

    for name, word in (("train.jsonl", "Hello"), ("validation.jsonl", "Good morning")):
        turns = [{"role": "user", "content": word}, {"role": "assistant", "content": "Hi there"}]
        (tmp_path / name).write_text(f"{json.dumps({'messages': turns})}\n" * 12)
    job = CustomModelFineTuningJob(
        task="ChatCompletion",
        model=Input(
            type="mlflow_model", path="azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1"
        ),
        training_data=Input(type="uri_file", path=str(tmp_path / "train.jsonl")),
        validation_data=Input(type="uri_file", path=str(tmp_path / "validation.jsonl")),
        hyperparameters={
            "num_train_epochs": "1",
            "per_device_train_batch_size": "2",
            "learning_rate": "0.001",
        },
        outputs={"registered_model": Output(type="mlflow_model", name="phi-tuned")},
        name="tuning-1",
        display_name="tuning",
        experiment_name="tests",
    )
    made = client.jobs.create_or_update(job)
    assert made.status == "NotStarted"
    assert finish(client, made.name, 180).status == "Completed"
    model = client.models.get("phi-tuned", version="1")
    assert model.path.endswith(f"azureml/{made.name}/run/model/")
    metric = f"/metric/v2.0{azure.world.names.workspace_id}/runs/{made.name}"
    assert "train_loss" in [each["name"] for each in wire.post(f"{metric}/list", json={}).json()["value"]]
    values = wire.post(f"{metric}/full", json={"metricName": "train_loss"}).json()["value"]
    assert [each["step"] for each in values] == sorted(each["step"] for each in values)


def test_blobs_go_up_and_down_by_key_by_signature_and_by_identity(
    azure: Simulator, client: Any, wire: httpx.Client
) -> None:
    from azure.identity import DefaultAzureCredential
    from azure.storage.blob import BlobServiceClient

    store = client.datastores.get("workspaceblobstore")
    secrets = (
        f"{azure.world.names.workspace_id}/datastores/workspaceblobstore/listSecrets?api-version=2024-10-01"
    )
    key = wire.post(secrets, json={}).json()["key"]
    signed = wire.post(secrets, json={"expirableSecret": True}).json()["sasToken"]
    url = f"https://{store.account_name}.blob.{store.endpoint}"
    data = b"x" * 100_000
    for number, credential in enumerate((key, signed, DefaultAzureCredential())):
        service = BlobServiceClient(url, credential=credential)
        blob = service.get_blob_client(store.container_name, f"test-{number}")
        blob.upload_blob(data, overwrite=True)
        assert blob.download_blob().readall() == data


def test_a_cluster_is_made_and_its_family_is_counted(client: Any) -> None:
    from azure.ai.ml.entities import AmlCompute

    asked = AmlCompute(name="gpus", size="Standard_NC24ads_A100_v4", tier="low_priority", max_instances=2)
    made = client.compute.begin_create_or_update(asked).result()
    assert (str(made.provisioning_state), made.min_instances, made.max_instances) == (
        "ProvisioningState.SUCCEEDED",
        0,
        2,
    )
    sizes = {each.name: each for each in client.compute.list_sizes()}
    assert vars(sizes["Standard_NC24ads_A100_v4"])["vCPUs"] == 24
    assert {each.limit for each in client.compute.list_usage(location="eastus2")} == {200, -1}
    client.compute.begin_delete("gpus").wait()


def test_the_registry_knows_the_models_of_the_catalog(azure: Simulator) -> None:
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    registry = MLClient(DefaultAzureCredential(), registry_name="azureml")
    model = registry.models.get("Phi-4-mini-instruct", label="latest")
    assert "eastus2" in model.tags["maas-finetuning-deploy-regions"]
