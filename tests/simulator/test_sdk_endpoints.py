"""Serverless and online endpoints with the real azure-ai-ml, answered by the models that were put there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from maas_client.bundled import model_folder
from maas_client.simulator import Simulator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:::marshmallow"),
    pytest.mark.filterwarnings("ignore:::azure"),
]
SCORE = """\
import json, os
def init():
    global place
    place = os.environ["AZUREML_MODEL_DIR"]
    print("loaded", os.listdir(place))
def run(raw):
    return {"said": json.loads(raw)["text"].upper(), "color": os.environ["COLOR"]}
"""


@pytest.fixture(scope="module")
def tiny(client: Any) -> str:
    """The bundled model, registered from a local folder; its id for serverless endpoints."""
    from azure.ai.ml.entities import Model

    model = client.models.create_or_update(
        Model(name="tiny", path=str(model_folder("tiny-phi3")), type="custom_model")
    )
    return str(model.version)


@pytest.fixture
def serverless(azure: Simulator, client: Any, tiny: str) -> Iterator[Any]:
    from azure.ai.ml.entities import ServerlessEndpoint

    guid = azure.world.workspace_guid(azure.world.names.workspace_id)
    model = f"azureml://locations/eastus2/workspaces/{guid}/models/tiny/versions/{tiny}"
    yield client.serverless_endpoints.begin_create_or_update(
        ServerlessEndpoint(name="tiny-served", model_id=model)
    ).result()
    client.serverless_endpoints.begin_delete("tiny-served").wait()


def test_a_serverless_endpoint_answers_with_its_key(azure: Simulator, client: Any, serverless: Any) -> None:
    assert serverless.provisioning_state.lower() == "succeeded"
    key = client.serverless_endpoints.get_keys("tiny-served").primary_key
    url = f"{serverless.scoring_uri}/v1/chat/completions"
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    assert httpx.post(url, json=body).status_code == 401
    answer = httpx.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["role"] == "assistant"
    assert httpx.get(f"{serverless.scoring_uri}/info", headers={"api-key": key}).status_code == 200
    azure.fault("not_ready", match="/serverless/")
    assert httpx.post(url, json=body, headers={"api-key": key}).status_code == 503
    assert [each.name for each in client.serverless_endpoints.list()] == ["tiny-served"]


def test_the_inference_package_talks_to_it(client: Any, serverless: Any) -> None:
    from azure.ai.inference import ChatCompletionsClient
    from azure.core.credentials import AzureKeyCredential

    key = client.serverless_endpoints.get_keys("tiny-served").primary_key
    chat = ChatCompletionsClient(serverless.scoring_uri, AzureKeyCredential(key))
    pieces = chat.complete(messages=[{"role": "user", "content": "Hello"}], max_tokens=4, stream=True)
    assert [piece for piece in pieces if piece.choices]


def test_an_online_endpoint_with_two_deployments(
    azure: Simulator, client: Any, tiny: str, tmp_path: Path
) -> None:
    from azure.ai.ml.entities import (
        CodeConfiguration,
        Environment,
        ManagedOnlineDeployment,
        ManagedOnlineEndpoint,
    )

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(SCORE)
    endpoint = ManagedOnlineEndpoint(name="cards", auth_mode="key")
    made = client.online_endpoints.begin_create_or_update(endpoint).result()
    assert made.scoring_uri.endswith("/inference/cards/score")
    for color in ("blue", "green"):
        deployment = ManagedOnlineDeployment(
            name=color,
            endpoint_name="cards",
            model=client.models.get("tiny", version=tiny),
            code_configuration=CodeConfiguration(code=str(tmp_path / "code"), scoring_script="score.py"),
            environment=Environment(name="serving", version="1", image="mcr.microsoft.com/x:1"),
            instance_type="Standard_DS3_v2",
            instance_count=1,
            environment_variables={"COLOR": color},
        )
        client.online_deployments.begin_create_or_update(deployment).result()
    made.traffic = {"green": 100}
    assert client.online_endpoints.begin_create_or_update(made).result().traffic == {"green": 100}
    key = client.online_endpoints.get_keys("cards").primary_key
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(made.scoring_uri, json={"text": "hello"}, headers=headers, timeout=60)
    assert answer.json() == {"said": "HELLO", "color": "green"}
    assert answer.headers["azureml-model-deployment"] == "green"
    chosen = {**headers, "azureml-model-deployment": "blue"}
    assert (
        httpx.post(made.scoring_uri, json={"text": "x"}, headers=chosen, timeout=60).json()["color"] == "blue"
    )
    assert "loaded ['tiny-phi3']" in client.online_deployments.get_logs("green", "cards", lines=20)
    client.online_endpoints.begin_delete("cards").wait()
    assert not list(client.online_endpoints.list())
    assert httpx.post(made.scoring_uri, json={}, headers=headers).status_code == 404
    lines = [line["what"] for line in azure.world.bill.to_dict()["lines"]]
    assert "deployment cards/deployments/green on 1 x Standard_DS3_v2" in lines


def test_a_marketplace_subscription(client: Any) -> None:
    from azure.ai.ml.entities import MarketplaceSubscription

    asked = MarketplaceSubscription(
        name="mini", model_id="azureml://registries/azureml-mistral/models/Ministral-3B"
    )
    made = client.marketplace_subscriptions.begin_create_or_update(asked).result()
    assert made.marketplace_plan.plan_id == "ministral-3b-plan"
    client.marketplace_subscriptions.begin_delete("mini").wait()
