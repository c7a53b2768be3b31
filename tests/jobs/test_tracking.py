"""What MLflow is told: by its own client in stores on the disk, and nothing that it does ends a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_stage import Done, losses, read_events

from tuning.tracking import metrics

Write = Callable[..., Path]
Train = Callable[..., Done]
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ({"event": "step", "time": 1.0, "step": 3, "loss": 0.5}, {"loss": 0.5}),
        ({"event": "step", "time": 1.0, "step": 3, "loss": float("nan"), "rows": [1]}, {}),
        ({"event": "validation", "time": 1.0, "step": 3, "loss": 2}, {"validation_loss": 2.0}),
        (
            {"event": "evaluation", "time": 1.0, "when": "after", "metrics": {"accuracy": 1.0}, "rows": 8},
            {"after_accuracy": 1.0},
        ),
        ({"event": "checkpoint", "time": 1.0, "step": 3, "path": "checkpoints"}, {}),
    ],
)
def test_numbers_of_events_become_metrics(event: dict[str, Any], told: dict[str, float]) -> None:
    assert dict(metrics(event)) == told


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of MLflow on the disk, named as Azure ML names its own."""
    uri = (tmp_path / "store").as_uri()
    for name in ("MLFLOW_RUN_ID", "MAAS_TRACKING", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def runs_in(uri: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return list(client.search_runs([one.experiment_id for one in client.search_experiments()]))


@slow
@pytest.mark.parametrize("method", [{"name": "lora", "rank": 4}, {"name": "full"}], ids=["lora", "full"])
def test_a_run_is_told_whole(
    store: str, train: Train, write_config: Write, mini_model: Path, tmp_path: Path, method: dict[str, Any]
) -> None:
    import torch
    from mlflow import MlflowClient, transformers

    from tuning.models import load_adapter, load_model, load_tokenizer

    done = train(write_config(method=method))
    assert done.returncode == 0, done.stderr
    output = tmp_path / "run"
    (run,) = runs_in(store)
    assert run.info.status == "FINISHED"
    assert run.data.params["training.learning_rate"] == "0.01"
    assert (run.data.params["method.name"], run.data.params["precision"]) == (method["name"], "fp32")
    client = MlflowClient(tracking_uri=store)
    assert [one.value for one in client.get_metric_history(run.info.run_id, "loss")] == losses(output)
    result = json.loads((output / "result.json").read_text())
    assert run.data.metrics["after_accuracy"] == result["after"]["accuracy"]
    named = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert named == {"result.json", "config.json", "samples.jsonl", "events.jsonl", "capsule.json", "model"}
    assert not (output / ".mlflow-model.tmp").exists()

    loaded = transformers.load_model(f"{run.info.artifact_uri}/model", return_type="components")
    tokenizer = load_tokenizer(str(output / "model"))
    assert loaded["tokenizer"].chat_template == tokenizer.chat_template
    ids = tokenizer("the ball is red", return_tensors="pt").input_ids
    base = load_model(str(mini_model if "rank" in method else output / "model"), torch.float32)
    model = load_adapter(base, output / "model") if "rank" in method else base
    assert torch.equal(loaded["model"].eval()(ids).logits, model.eval()(ids).logits)


@slow
def test_a_run_that_goes_on_is_one_run(store: str, train: Train, write_config: Write, tmp_path: Path) -> None:
    config = write_config(max_steps=2)
    assert train(config).returncode == 0
    (tmp_path / "run" / "result.json").unlink()
    assert train(config).returncode == 0
    (run,) = runs_in(store)
    assert run.info.status == "FINISHED"


@slow
def test_a_run_of_azure_ml_keeps_its_status_and_a_failure_is_told(
    store: str, train: Train, write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    theirs = client.create_run(client.create_experiment("cluster")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs)
    diverging = {"method": {"name": "full"}, "learning_rate": 1e30, "warmup_ratio": 0.0, "max_steps": 4}
    config = write_config(**diverging)
    assert train(config, "theirs").returncode == 1
    monkeypatch.delenv("MLFLOW_RUN_ID")
    assert train(config, "ours").returncode == 1
    status = {run.info.run_id: run.info.status for run in runs_in(store)}
    assert status.pop(theirs) == "RUNNING"
    assert list(status.values()) == ["FAILED"]
    assert client.get_run(theirs).data.metrics["loss"] == losses(tmp_path / "theirs")[-1]


@slow
@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://somebody:secret@127.0.0.1:1", "MLflow at http://127.0.0.1:1 cannot be told ("),
        ("azureml://127.0.0.1:1/mlflow/v1.0", "azureml-mlflow is not here (pip install azureml-mlflow)"),
    ],
)
def test_who_cannot_be_reached_is_said_once_and_the_run_goes_on(
    train: Train, write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, words: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = train(write_config(max_steps=2))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").is_file()
    warnings = [event["message"] for event in read_events(tmp_path / "run", "warning")]
    assert len([message for message in warnings if words in message]) == 1
    assert "secret" not in done.stderr + "".join(warnings)


@slow
def test_a_store_beside_the_run_and_none_at_all(
    store: str, train: Train, write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAAS_TRACKING", "off")
    assert train(write_config(max_steps=1), "off").returncode == 0
    assert not (tmp_path / "off" / "tracking.json").exists()
    assert not (tmp_path / "store").exists()
    monkeypatch.setenv("MAAS_TRACKING", "local")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert train(write_config(max_steps=1), "local").returncode == 0
    (run,) = runs_in((tmp_path / "local" / "mlruns").as_uri())
    assert run.info.status == "FINISHED"
