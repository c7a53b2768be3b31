"""FineTuning jobs: what the service answers, and the training that the simulator really does for them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maas_client import catalog
from maas_client.bundled import jobs_folder, model_folder
from maas_client.simulator.datastores import BLOB_STORE
from maas_client.simulator.execution import Execution, Order
from maas_client.simulator.places import STAND_IN
from maas_client.simulator.replies import user_error
from maas_client.simulator.routing import Call
from maas_client.simulator.world import World

_MODEL_NAME = re.compile(r"/models/([^/]+)")
_TASKS = {"chatcompletion": "ChatCompletion", "textcompletion": "TextCompletion"}
RUN, REGISTERED = "run", "registered_model"


def properties_of(call: Call, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Check a job as it was asked for, and fill in what the service adds. Raises Refusal."""
    details = asked.get("fineTuningDetails") or {}
    for key in ("taskType", "modelProvider", "model", "trainingData"):
        if not details.get(key):
            raise user_error(f"fineTuningDetails.{key} is missing.", "BadArgument", "ArgumentBlankOrEmpty")
    if str(details["taskType"]).lower() not in _TASKS:
        raise user_error(f"The simulator does not tune for {details['taskType']}.", "BadArgument")
    uri = details["model"]["uri"]
    match = _MODEL_NAME.search(uri)
    name = match[1] if match else uri
    managed = bool(asked.get("computeId") or asked.get("resources"))
    if not managed and details["modelProvider"] == "Custom":
        _check_region(name, call.world.names.location)
    output, registered = next(iter((asked.get("outputs") or {}).items()), (REGISTERED, {}))
    shown = {
        key: {"description": None, "mode": "ReadOnlyMount", **details[key]}
        for key in ("trainingData", "validationData", "model")
        if details.get(key)
    }
    return {
        "description": asked.get("description"),
        "tags": asked.get("tags") or {},
        "properties": {**(asked.get("properties") or {}), **_added(call, details, name, managed, registered)},
        "displayName": asked.get("displayName"),
        "status": "Running" if managed else "NotStarted",
        "experimentName": asked.get("experimentName") or "Default",
        "services": None,
        "computeId": asked.get("computeId"),
        "isArchived": False,
        "identity": asked.get("identity"),
        "componentId": None,
        "notificationSetting": None,
        "jobType": "FineTuning",
        "fineTuningDetails": {**details, "taskType": _TASKS[str(details["taskType"]).lower()], **shown},
        "resources": {"instanceTypes": [], **(asked.get("resources") or {})},
        "queueSettings": asked.get("queueSettings"),
        "outputs": {
            output: {"description": None, "uri": None, "mode": "ReadWriteMount", **registered},
        },
    }


def _check_region(name: str, location: str) -> None:
    """Refuse where a source says that the region does not tune this model, and only there."""
    model = catalog.lookup(name)
    route = next((each for each in model.routes if each.name == "foundry-classic"), None) if model else None
    if route is not None and not route.serves(location):
        raise user_error(
            f"{name} : Serverless FineTuning not supported in {location}.", "ModelNotSupportedByMaaS"
        )


def _added(
    call: Call, details: Mapping[str, Any], name: str, managed: bool, output: Mapping[str, Any]
) -> dict[str, str]:
    uri = details["model"]["uri"]
    added = {
        "PipelineType": "FineTuning",
        "original_model_id": uri,
        "azureml.ModelName": name,
        "azureml.PipelineType": "FineTuning",
        "azureml.original_model_id": uri,
        "azureml.trainingData.assetId": details["trainingData"]["uri"],
        "_fineTuningJobType": "MaaP" if managed else "MaaS",
        "_outputModelName": output.get("assetName") or call.params["job"],
        "StartTimeUtc": f"{datetime.fromtimestamp(call.world.clock.now(), UTC):%Y-%m-%d %H:%M:%S}",
    }
    if details.get("validationData"):
        added["azureml.validationData.assetId"] = details["validationData"]["uri"]
    return added


def order_of(world: World, execution: Execution, properties: Mapping[str, Any]) -> Order:
    """The bundled training script on the job's data, with the stand-in model and a cap on the steps."""
    details = properties["fineTuningDetails"]
    config = execution.folder / "config.json"
    config.write_text(json.dumps(script_config(world, details)), encoding="utf-8")
    words = [
        f"python train.py --config {config} --train ${{{{inputs.train}}}} --model {model_folder(STAND_IN)}"
    ]
    inputs = {"train": details["trainingData"]}
    if details.get("validationData"):
        inputs["validation"] = details["validationData"]
        words.append("--validation ${{inputs.validation}}")
    words.append("--output ${{outputs.run}}")
    return Order(" ".join(words), jobs_folder(), inputs, {RUN: {"uri": place_of_run(execution.job)}})


def place_of_run(job: str) -> str:
    """Where everything goes that the training leaves behind."""
    return f"azureml://datastores/{BLOB_STORE}/paths/azureml/{job}/{RUN}/"


def script_config(world: World, details: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of `taskType` and `hyperParameters` in the words of the bundled script."""
    asked = {str(key).lower(): value for key, value in (details.get("hyperParameters") or {}).items()}
    chat = details["taskType"] == "ChatCompletion"
    batch = asked.get("per_device_train_batch_size") or asked.get("batchsize") or 4
    return {
        "task": "chat" if chat else "text-generation",
        "method": {"name": "lora", "rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"},
        "training": {
            "epochs": float(asked.get("num_train_epochs") or asked.get("nepochs") or 1),
            "max_steps": world.timing.tuning_steps,
            "learning_rate": float(asked.get("learning_rate") or 5e-4),
            "batch_size": int(batch),
            "max_length": 256,
            "seed": 7,
        },
        "validation": {"split": 0.1},
        "evaluation": {"max_rows": 8, "max_new_tokens": 16},
        "distributed": {"strategy": "none", "processes": 1},
    }


def metrics_of(events: Path) -> list[dict[str, Any]]:
    """Training events as metrics of run history: name, step, value, unix second."""
    found = []
    for line in events.read_text(encoding="utf-8").splitlines() if events.is_file() else ():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # the last line, half written
        names = {"step": ("train_loss", "learning_rate"), "validation": ("eval_loss",)}.get(
            event["event"], ()
        )
        for name in names:
            value = event.get({"train_loss": "loss", "eval_loss": "loss"}.get(name, name))
            if value is not None:
                found.append(
                    {"name": name, "step": event.get("step", 0), "value": value, "time": event["time"]}
                )
    return found
