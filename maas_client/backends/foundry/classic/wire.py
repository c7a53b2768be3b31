"""What the classic route sends and reads: bodies of FineTuning jobs, serverless endpoints, subscriptions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from maas_client.endpoint import Billing, EndpointState
from maas_client.transport.members import text_at
from maas_client.workspace.datastores import DEFAULT, Place

if TYPE_CHECKING:
    from maas_client.trainingspec import TrainingSpec

TAG_RUN, TAG_JOB, TAG_FINGERPRINT = "maas-run", "maas-job", "maas-fingerprint"
OUTPUT = "registered_model"
"""The output under which the service registers the tuned model."""
FILE_LIMIT_BYTES = 512 << 20
"""The service takes files of rows below this size."""
TaskType = Literal["chatCompletion", "textCompletion"]


def hyperparameters(training: TrainingSpec) -> dict[str, str]:
    """What of the training a FineTuning job takes; the service wants every value as text."""
    return {
        "num_train_epochs": _number(training.epochs),
        "per_device_train_batch_size": str(training.batch_size),
        "learning_rate": _number(training.learning_rate),
    }


def _number(value: float) -> str:
    """A number without an exponent: 0.00002 rather than 2e-05, and 3 rather than 3.0."""
    text = f"{Decimal(str(value)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def input_place(name: str, sha256: str) -> Place:
    """Where a file of rows lies in the workspace's storage, by the hash of its content."""
    return Place(DEFAULT, f"maas/inputs/{sha256}/{name}")


def tuning_body(
    config: Mapping[str, Any],
    *,
    model_id: str,
    train: str,
    validation: str,
    tags: Mapping[str, str],
    asset: str,
    machines: Mapping[str, Any],
) -> dict[str, Any]:
    """A FineTuning job. `config` is that of the plan, `model_id` names a version, the files are URIs."""
    return {
        "properties": {
            "jobType": "FineTuning",
            "displayName": tags[TAG_JOB],
            "experimentName": tags[TAG_JOB],
            "tags": dict(tags),
            "fineTuningDetails": {
                "taskType": config["task_type"],
                "modelProvider": "Custom",
                "model": {"uri": model_id, "jobInputType": "mlflow_model"},
                "trainingData": {"uri": train, "jobInputType": "uri_file"},
                "validationData": {"uri": validation, "jobInputType": "uri_file"},
                "hyperParameters": dict(config["hyperparameters"]),
            },
            "outputs": {OUTPUT: {"assetName": asset, "jobOutputType": "mlflow_model"}},
            **machines,
        }
    }


# -- serverless endpoints

TAG_MODEL, TAG_TTL = "maas-model", "maas-ttl"
TAG_EXPIRES_AT, TAG_EXPIRES = "maas-expires-at", "maas-expires"
ENDPOINT_STATES: Mapping[str, EndpointState] = {
    "Unknown": EndpointState.UNKNOWN,
    "Creating": EndpointState.STARTING,
    "Reinstating": EndpointState.STARTING,
    "Online": EndpointState.READY,
    "Suspending": EndpointState.STOPPED,
    "Suspended": EndpointState.STOPPED,
    "Deleting": EndpointState.STOPPED,
    "CreationFailed": EndpointState.FAILED,
    "DeletionFailed": EndpointState.UNKNOWN,
}
"""Every word of ServerlessEndpointState; READY is then asked whether it really answers."""
_WORDS = {word.lower(): state for word, state in ENDPOINT_STATES.items()}
DELETING = "deleting"
_FAILED_PROVISIONING = {"failed", "canceled"}


def endpoint_body(
    model_id: str, location: str, *, model: str, ttl: str, expires_at: float, run: str
) -> dict[str, Any]:
    """A serverless endpoint with a key. azure-ai-ml leaves authMode out, which the contract requires."""
    return {
        "location": location,
        "sku": {"name": "Consumption"},
        "properties": {"authMode": "Key", "modelSettings": {"modelId": model_id}},
        "tags": {
            TAG_MODEL: model,
            TAG_RUN: run,
            TAG_TTL: ttl,
            TAG_EXPIRES_AT: str(int(expires_at)),
            TAG_EXPIRES: f"{datetime.fromtimestamp(int(expires_at), UTC):%Y-%m-%dT%H:%M:%SZ}",
        },
    }


def endpoint_state(body: Mapping[str, Any]) -> tuple[EndpointState, str]:
    """The state of an endpoint and the service's own word. An unmapped word is UNKNOWN."""
    word = text_at(body, "properties", "endpointState")
    provisioning = text_at(body, "properties", "provisioningState")
    if provisioning.lower() == DELETING:
        return EndpointState.STOPPED, provisioning
    if word.lower() in {"", "creating", "unknown"} and provisioning.lower() in _FAILED_PROVISIONING:
        return EndpointState.FAILED, provisioning
    return _WORDS.get(word.lower(), EndpointState.UNKNOWN), word or provisioning or "no state"


def billing_of(word: str) -> Billing:
    """Whether an endpoint bills, by the service's word: certain only while it is online."""
    return Billing.BILLING if word.lower() in {"online", "reinstating"} else Billing.UNKNOWN


def expires_at(tags: Mapping[str, Any]) -> float | None:
    """When an endpoint is to end, in unix seconds; None where no tag says it."""
    try:
        return float(tags[TAG_EXPIRES_AT])
    except (KeyError, ValueError, TypeError):
        return None
