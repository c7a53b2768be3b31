"""The sentence that keeps a change out of another target, and how to switch to it."""

from __future__ import annotations

import pytest

from maas_client.errors import TargetError
from maas_client.targets import require_target, switch_hint
from maas_client.transport.workspace import Target

ONE = Target("1111-aaaa", "rg-1", "ws.1")
OTHER = Target("2222", "rg_2", "ws")


def test_the_same_target_or_none_passes() -> None:
    require_target("Run a", str(ONE), (str(OTHER), str(ONE)))
    require_target("Run a", "", (str(ONE),))


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ((str(OTHER),), f"the settings name {OTHER}"),
        ((), "the settings name none"),
        (("A", "B"), "the settings name A and B"),
    ],
)
def test_another_target_is_refused_with_both_names(named: tuple[str, ...], words: str) -> None:
    with pytest.raises(TargetError) as caught:
        require_target("Endpoint card", str(ONE), named)
    assert caught.value.message == f"Endpoint card is in {ONE}, and {words}; nothing was sent."
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (str(ONE), "AZURE_SUBSCRIPTION_ID=1111-aaaa AZURE_RESOURCE_GROUP=rg-1 AZUREML_WORKSPACE_NAME=ws.1"),
        ("Foundry resource r (r.openai.azure.com)", "AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com"),
        (
            "Foundry resource r (https://r.openai.azure.com)",
            "AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com",
        ),
        (
            "project p of Foundry resource r (r.services.ai.azure.com)",
            "FOUNDRY_PROJECT_ENDPOINT=https://r.services.ai.azure.com/api/projects/p",
        ),
        ("the moon", ".env.example"),
    ],
)
def test_how_to_switch(target: str, words: str) -> None:
    assert words in switch_hint(target)
