"""Chat completions of the Foundry resource: a deployment answers with its model, whole or in a stream."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from maas_client.simulator.cognitive import find_deployment
from maas_client.simulator.foundry import operations, refusal
from maas_client.simulator.places import STAND_IN
from maas_client.simulator.provisioning import not_ready
from maas_client.simulator.replies import Refusal
from maas_client.simulator.routing import Call
from maas_client.simulator.servers import Deployed
from maas_client.simulator.state import Resource

_REGISTRY = "azureml://registries/azureml/models/"
_SAFE = {
    name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")
}
_HIGH = {**_SAFE, "hate": {"filtered": True, "severity": "high"}}


async def complete(call: Call) -> Response:
    """POST of a conversation to the deployment that `model` names."""
    body = call.body if isinstance(call.body, dict) else {}
    deployment = _deployment(call, str(body.get("model") or ""))
    if not body.get("messages"):
        words = "[] is too short - 'messages'"
        raise refusal(400, "invalid_request_error", words, type="invalid_request_error", param="messages")
    if fault := call.world.faults.take("content_filter", f"{call.method} {call.path}"):
        return _filtered(deployment, str(fault["where"]))
    deployed = Deployed(deployment["id"], "", _weights(deployment), str(body["model"]))
    answer = await call.world.servers.ask(call, deployed, "v1/chat/completions")
    answer.headers["apim-request-id"] = str(uuid.uuid4())
    return _with_prompt_results(answer) if body.get("stream") else await _with_results(answer)


async def _with_results(answer: Response) -> Response:
    """A whole answer with what the filter found, and without a refusal, as the service gives it."""
    if not isinstance(answer, StreamingResponse) or answer.status_code != 200:
        return answer
    said = json.loads(b"".join([_bytes(piece) async for piece in answer.body_iterator]))
    for choice in said["choices"]:
        choice["content_filter_results"] = _SAFE
        choice["message"].setdefault("refusal", None)
    headers = {"apim-request-id": answer.headers["apim-request-id"]}
    return JSONResponse({**said, "prompt_filter_results": _prompt_results()}, headers=headers)


def _bytes(piece: str | bytes | memoryview) -> bytes:
    return piece.encode() if isinstance(piece, str) else bytes(piece)


def _deployment(call: Call, name: str) -> Resource:
    """The deployment, if it answers already. Raises Refusal."""
    found = find_deployment(call.world, name)
    if found is None or found["properties"]["provisioningState"] != "Succeeded":
        words = (
            "The API deployment for this resource does not exist. If you created the deployment within the "
        )
        words += "last 5 minutes, please wait a moment and try again."
        raise refusal(404, "DeploymentNotFound", words)
    try:
        not_ready(call.world, f"{call.method} {call.path}")
    except Refusal as error:
        raise refusal(error.status, error.code, error.message) from None
    return found


def _weights(deployment: Resource) -> str:
    """Where the model lies: what a job made, or the stand-in of a base model."""
    name = deployment["properties"]["model"]["name"]
    job = name.partition(".ft-")[2][:32]
    return f"foundry://jobs/ftjob-{job}" if job else f"{_REGISTRY}{STAND_IN}"


def _filtered(deployment: Resource, where: str) -> Response:
    """What the content filter answers: it refuses the prompt, or takes the completion away."""
    if where == "prompt":
        words = "The response was filtered due to the prompt triggering Azure OpenAI's content management "
        words += "policy. Please modify your prompt and retry."
        inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": _HIGH}
        raise refusal(400, "content_filter", words, param="prompt", type=None, innererror=inner)
    choice = {
        "content_filter_results": _HIGH,
        "finish_reason": "content_filter",
        "index": 0,
        "logprobs": None,
    }
    return JSONResponse(
        {
            "choices": [choice],
            "created": 0,
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "model": deployment["properties"]["model"]["name"],
            "object": "chat.completion",
            "prompt_filter_results": _prompt_results(),
            "system_fingerprint": None,
            "usage": {"completion_tokens": 19, "prompt_tokens": 15, "total_tokens": 34},
        }
    )


def _prompt_results() -> list[dict[str, Any]]:
    return [{"prompt_index": 0, "content_filter_results": _SAFE}]


def _with_prompt_results(answer: Response) -> Response:
    """The stream behind the piece without choices that the service begins every stream with."""
    if not isinstance(answer, StreamingResponse) or answer.status_code != 200:
        return answer
    first = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
    start = json.dumps({**first, "prompt_filter_results": _prompt_results()})
    rest = answer.body_iterator

    async def body() -> AsyncIterator[str | bytes | memoryview]:
        yield f"data: {start}\n\n"
        async for piece in rest:
            yield piece

    answer.body_iterator = body()
    return answer


OPERATIONS = operations("POST", "/chat/completions", complete)
