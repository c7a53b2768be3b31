"""Plans of the openai route: everything is decided, nothing is sent, and what cannot be told is said."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from maas_client.backends.foundry.openai_v1.account import Resource, find_resource
from maas_client.backends.foundry.openai_v1.planning import plan_run
from maas_client.command import JsonFile
from maas_client.errors import DataError, PlanError, SettingsError
from maas_client.plan import Plan
from maas_client.settings import Settings
from maas_client.spec import JobSpec
from tests.backends.foundry.openai_v1.stage import preference_rows, rows

RESOURCE = Resource("card", "https://card.openai.azure.com", "scope")
DAY = datetime(2026, 11, 26, tzinfo=UTC).date()


@pytest.fixture
def spec_of(tmp_path: Path) -> Any:
    def make(text: str = "", /, *, model: str = "gpt-4.1-mini", **more: Any) -> JobSpec:
        path = tmp_path / "rows.jsonl"
        path.write_text(text or rows(), encoding="utf-8")
        job = {
            "name": "card",
            "task": "chat",
            "model": model,
            "backend": "foundry",
            "data": {"train": str(path)},
        }
        return JobSpec.model_validate({**job, **more})

    return make


def plan(spec: JobSpec, *, region: str | None = None, on: Any = DAY) -> Plan:
    return plan_run(spec, RESOURCE, on=on, region=region)


def config(made: Plan) -> Any:
    source = made.job.inputs["config"]
    assert isinstance(source, JsonFile)
    return source.value


def body(made: Plan) -> Any:
    return json.loads(next(step.detail for step in made.steps if step.verb == "start"))


def test_a_plan_shows_the_whole_request(spec_of: Any) -> None:
    made = plan(
        spec_of(
            training={"epochs": 2, "batch_size": 4, "seed": 5},
            foundry={"training_type": "globalStandard", "learning_rate_multiplier": 0.5},
        )
    )
    assert body(made) == {
        "model": "gpt-4.1-mini-2025-04-14",
        "training_file": "<train>",
        "validation_file": "<validation>",
        "method": {
            "type": "supervised",
            "supervised": {
                "hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}
            },
        },
        "seed": 5,
        "suffix": "<run>",
        "metadata": {"maas-run": "<run>", "maas-job": "card", "maas-fingerprint": made.fingerprint},
        "trainingType": "GlobalStandard",
    }
    assert config(made)["route"] == "openai"
    assert made.target == "Foundry resource card (card.openai.azure.com)"
    assert not made.is_free
    assert "unknown" in made.cost
    assert [step.verb for step in made.steps] == ["convert", "upload", "upload", "start"]


def test_what_the_user_did_not_set_is_left_to_the_service(spec_of: Any) -> None:
    made = plan(spec_of())
    assert body(made)["method"]["supervised"]["hyperparameters"] == {"n_epochs": 3}
    assert "trainingType" not in body(made)
    assert any("the service decides" in warning for warning in made.warnings)


@pytest.mark.parametrize(
    ("model", "sent", "kind"),
    [
        ("gpt-oss-20b", "gpt-oss-20b", "GlobalStandard"),
        ("Ministral-3B", "Ministral-3B", "GlobalStandard"),
        ("gpt-4.1-nano", "gpt-4.1-nano-2025-04-14", ""),
    ],
)
def test_models_are_called_as_the_service_calls_them(spec_of: Any, model: str, sent: str, kind: str) -> None:
    made = plan(spec_of(model=model))
    assert (config(made)["model"], config(made)["training_type"]) == (sent, kind)


def test_the_fingerprint_follows_from_what_is_sent(spec_of: Any) -> None:
    first = plan(spec_of(foundry={"training_type": "standard"}))
    assert plan(spec_of(foundry={"training_type": "standard"})).fingerprint == first.fingerprint
    others = [
        plan(spec_of(foundry={"training_type": "globalStandard"})),
        plan(spec_of(foundry={"training_type": "standard"}, training={"epochs": 4})),
        plan(spec_of(rows(21), foundry={"training_type": "standard"})),
        plan_run(
            spec_of(foundry={"training_type": "standard"}),
            replace(RESOURCE, name="other"),
            on=DAY,
            region=None,
        ),
    ]
    assert len({first.fingerprint, *(each.fingerprint for each in others)}) == 5
    deploys = plan(
        spec_of(foundry={"training_type": "standard"}, register={"name": "card"}, deploy={"name": "card-end"})
    )
    assert deploys.fingerprint == first.fingerprint


def test_what_cannot_be_told_is_reported(spec_of: Any) -> None:
    made = plan(
        spec_of(
            training={"epochs": 2.5, "learning_rate": 1e-4, "max_length": 512},
            method={"rank": 8},
            compute={"size": "Standard_NC24ads_A100_v4"},
            register={"name": "card"},
            deploy={"name": "card-end", "instances": 2},
        )
    )
    said = " ".join(made.warnings)
    assert "training.learning_rate has no exact counterpart" in said
    assert "training.epochs is 2.5; the service takes whole epochs, 2 is sent" in said
    assert "not sent: method.rank, training.max_length, compute.size." in said
    assert "not sent: deploy.instances" in said
    assert "measures the loss while it trains" in said


def test_the_deployment_is_part_of_the_plan_and_of_its_cost(spec_of: Any) -> None:
    deploy = {"name": "card-end", "ttl": "2h", "sku": "DeveloperTier", "capacity": 20}
    made = plan(spec_of(model="gpt-oss-20b", register={"name": "card"}, deploy=deploy))
    assert [step.verb for step in made.steps][-2:] == ["register", "deploy"]
    assert made.steps[-1].detail == "DeveloperTier with capacity 20, format Microsoft, for 2h"
    assert "no hourly fee" in made.cost
    assert "Azure deletes it after 24 h" in made.cost
    hourly = plan(spec_of(register={"name": "card"}, deploy={"name": "card-end"}))
    assert "$1.70 an hour, an example, not a quote" in hourly.cost
    assert "only `maas reap` deletes it" in hourly.cost


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("Phi-4-mini-instruct", "foundry-openai-v1"),
        ("o4-mini", "is tuned by reinforcement there, not by supervised"),
        ("Phi-3-mini-4k-instruct", "foundry-openai-v1"),
    ],
)
def test_models_of_other_ways_are_refused_with_a_source(spec_of: Any, model: str, said: str) -> None:
    with pytest.raises(PlanError, match=said) as caught:
        plan(spec_of(model=model))
    assert caught.value.hint


def test_a_model_that_is_closed_is_refused_on_its_day_and_cautioned_before(spec_of: Any) -> None:
    said = " ".join(plan(spec_of()).warnings)
    assert "gpt-4.1-mini is closed to new customers" in said
    with pytest.raises(PlanError, match="no longer taken on foundry-openai-v1 since"):
        plan(spec_of(), on=datetime(2028, 1, 1, tzinfo=UTC).date())


def test_an_unknown_model_is_sent_and_said(spec_of: Any) -> None:
    made = plan(spec_of(model="gpt-9-mini"))
    assert config(made)["model"] == "gpt-9-mini"
    assert any("does not know gpt-9-mini" in warning for warning in made.warnings)


def test_training_types_are_checked_against_the_catalog(spec_of: Any) -> None:
    with pytest.raises(PlanError, match="not trained as developerTier, only as globalStandard") as caught:
        plan(spec_of(model="gpt-oss-20b", foundry={"training_type": "developerTier"}))
    assert "globalStandard" in caught.value.hint
    standard = {"training_type": "standard"}
    with pytest.raises(PlanError, match="not trained as standard in eastus2, only in northcentralus"):
        plan(spec_of(foundry=standard), region="eastus2")
    assert config(plan(spec_of(foundry=standard), region="Sweden Central"))["training_type"] == "Standard"
    said = " ".join(plan(spec_of(foundry=standard)).warnings)
    assert "AZURE_LOCATION is not set" in said


@pytest.mark.parametrize(
    ("count", "data", "left"),
    [(10, {"validation": {"split": 0.1}}, 9), (9, {}, 8), (12, {"validation": {"split": 0.3}}, 8)],
)
def test_ten_rows_must_be_left_to_train_on(
    spec_of: Any, tmp_path: Path, count: int, data: Any, left: int
) -> None:
    with pytest.raises(DataError, match=f"has {left} rows to train on once {count - left} are held out"):
        plan(spec_of(rows(count), data={"train": str(tmp_path / "rows.jsonl"), **data}))


def test_a_file_of_held_out_rows_leaves_all_others(spec_of: Any, tmp_path: Path) -> None:
    (tmp_path / "held.jsonl").write_text(rows(3))
    data = {"train": str(tmp_path / "rows.jsonl"), "validation": {"file": str(tmp_path / "held.jsonl")}}
    made = plan(spec_of(rows(10), data=data))
    assert set(made.hashes) == {"config", "train", "validation"}
    assert "validation" not in config(made)
    with pytest.raises(DataError, match="has 9 rows to train on; Azure"):
        plan(spec_of(rows(9), data=data))


def test_preference_rows_are_tuned_by_dpo(spec_of: Any, tmp_path: Path) -> None:
    dpo: dict[str, Any] = {"objective": "dpo"}
    made = plan(spec_of(preference_rows(), training=dpo))
    assert body(made)["method"] == {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 3}}}
    assert made.steps[0].detail.startswith("preference rows as they are")
    made = plan(spec_of(preference_rows(), training={**dpo, "beta": 0.4}))
    assert body(made)["method"]["dpo"]["hyperparameters"] == {"n_epochs": 3, "beta": 0.4}
    with pytest.raises(PlanError, match="tuned by supervised there, not by dpo"):
        plan(spec_of(preference_rows(), model="gpt-oss-20b", training=dpo))
    with pytest.raises(DataError) as caught:
        plan(spec_of(preference_rows() + '{"input": {}}\n', training=dpo))
    assert caught.value.problems == (
        "rows.jsonl:21: 'preferred_output' is missing; a preference row has input, preferred_output, "
        "non_preferred_output",
    )
    (tmp_path / "held.jsonl").write_text(rows(3))
    data = {"train": str(tmp_path / "rows.jsonl"), "validation": {"file": str(tmp_path / "held.jsonl")}}
    with pytest.raises(DataError, match=r"objective is dpo, and .*held.jsonl has no pairs"):
        plan(spec_of(preference_rows(), data=data, training=dpo))


def test_objective_and_rows_must_agree(spec_of: Any) -> None:
    with pytest.raises(DataError, match=r"has pairs of a better and a worse answer, and .* is sft"):
        plan(spec_of(preference_rows()))
    with pytest.raises(DataError, match=r"training.objective is dpo, and .* has no pairs"):
        plan(spec_of(training={"objective": "dpo"}))


def test_pairs_in_another_form_are_written_as_foundry_takes_them(spec_of: Any) -> None:
    pairs = "".join(
        json.dumps({"prompt": f"What is {n}?", "chosen": "A number.", "rejected": "Go away."}) + "\n"
        for n in range(20)
    )
    made = plan(spec_of(pairs, training={"objective": "dpo"}))
    assert made.steps[0].detail.startswith("to preference rows")
    assert (config(made)["method"], config(made)["task"]) == ("dpo", "chat")


def test_plain_text_and_huge_files_are_refused(spec_of: Any, tmp_path: Path) -> None:
    texts = "".join(f'{{"text": "some words {number}"}}\n' for number in range(20))
    with pytest.raises(DataError, match="plain text has no prompt"):
        plan(spec_of(texts, task="text-generation"))
    with (tmp_path / "big.jsonl").open("wb") as file:
        file.truncate(512 * 1024 * 1024)
    with pytest.raises(DataError, match="takes files under 512 MB"):
        plan(spec_of(data={"train": str(tmp_path / "big.jsonl")}))


def test_labels_become_answers(spec_of: Any) -> None:
    data = "".join(f'{{"text": "a {number}", "label": "b"}}\n' for number in range(20))
    assert config(plan(spec_of(data, task="classification")))["task"] == "classification"


@pytest.mark.parametrize(
    ("named", "shown", "endpoint", "scope"),
    [
        (
            {"azure_openai_endpoint": "https://card.openai.azure.com/"},
            "Foundry resource card (card.openai.azure.com)",
            "https://card.openai.azure.com",
            "https://cognitiveservices.azure.com/.default",
        ),
        (
            {"azure_openai_endpoint": "https://card.openai.azure.com/openai/v1/"},
            "Foundry resource card (card.openai.azure.com)",
            "https://card.openai.azure.com",
            "https://cognitiveservices.azure.com/.default",
        ),
        (
            {"azure_openai_endpoint": "https://card.openai.azure.us"},
            "Foundry resource card (card.openai.azure.us)",
            "https://card.openai.azure.us",
            "https://cognitiveservices.azure.us/.default",
        ),
        (
            {"foundry_project_endpoint": "https://card.services.ai.azure.com/api/projects/one"},
            "project one of Foundry resource card (card.services.ai.azure.com)",
            "https://card.services.ai.azure.com/api/projects/one",
            "https://ai.azure.com/.default",
        ),
        (
            {"azure_openai_endpoint": "http://localhost:4321"},
            "Foundry resource localhost (localhost)",
            "http://localhost:4321",
            "https://cognitiveservices.azure.com/.default",
        ),
    ],
)
def test_the_resource_is_the_one_of_the_settings(named: Any, shown: str, endpoint: str, scope: str) -> None:
    resource = find_resource(Settings(_env_file=None, **named))
    assert (str(resource), resource.endpoint, resource.scope) == (shown, endpoint, scope)


def test_without_a_resource_the_settings_are_named() -> None:
    with pytest.raises(SettingsError) as caught:
        find_resource(Settings(_env_file=None))
    assert "AZURE_OPENAI_ENDPOINT" in caught.value.hint
