"""What a FineTuning job left: its losses as a result, held-out rows as samples, and the registered model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.backends.foundry.classic.wire import OUTPUT
from maas_client.cloudpath import CloudPath
from maas_client.errors import NotFoundError, UsageError
from maas_client.transport.members import mapping_at, text_at
from maas_client.workspace.datastores import parse_place
from maas_client.workspace.jobs import created_at
from maas_client.workspace.metrics import read_metrics

if TYPE_CHECKING:
    from maas_client.run import Event
    from maas_client.workspace.files import Files
    from maas_client.workspace.session import Workspace

_MODEL_VERSION = {"api-version": "2024-10-01-preview"}
_SAMPLE_BYTES = 256 << 10
_MOST_SAMPLES = 20


@dataclass(frozen=True)
class TunedModel:
    """The version that the service registered when a job succeeded. `uri` is where its files are, if told."""

    name: str
    version: str
    uri: str

    def place(self, workspace: Workspace) -> CloudPath:
        """The version's id, as a serverless endpoint takes it, also in another region."""
        facts = workspace.facts
        return CloudPath(
            f"azureml://locations/{facts.location}/workspaces/{facts.guid}"
            f"/models/{self.name}/versions/{self.version}"
        )


def find_tuned_model(workspace: Workspace, job: Mapping[str, Any]) -> TunedModel | None:
    """The version that the service registered for a succeeded job; None where there is none (yet).

    Its name stands in the job. So does its number, from some api-versions on; else it is the version that
    names the job. Where versions name no jobs, it is the only one that is younger than the job.
    """
    asset = text_at(job, "properties", "outputs", OUTPUT, "assetName")
    asset = asset or text_at(job, "properties", "properties", "_outputModelName")
    number = text_at(job, "properties", "outputs", OUTPUT, "assetVersion")
    name = text_at(job, "name")
    versions = list(_versions(workspace, asset)) if asset else []
    found = next((row for row in versions if _is_made_by(row, name) or text_at(row, "name") == number), None)
    if found is None:
        since = created_at(job)
        young = [row for row in versions if not _job_names(row) and _is_after(row, since)]
        found = young[0] if len(young) == 1 else None
    if found is None:
        return None
    return TunedModel(asset, text_at(found, "name"), text_at(found, "properties", "modelUri"))


def _versions(workspace: Workspace, name: str) -> Iterator[Mapping[str, Any]]:
    try:
        for row in workspace.arm.paging(
            workspace.path("models", name, "versions"),
            params={**_MODEL_VERSION, "listViewType": "All"},
            operation=f"list the versions of model {name}",
        ):
            if isinstance(row, Mapping) and text_at(row, "name"):
                yield row
    except NotFoundError:
        return


def _is_made_by(row: Mapping[str, Any], job: str) -> bool:
    return job in _job_names(row) or job in text_at(row, "properties", "modelUri").split("/")


def _job_names(row: Mapping[str, Any]) -> set[str]:
    """The jobs that a version names: as its own property, or among those that the service adds."""
    own = mapping_at(row, "properties", "properties")
    named = [text_at(row, "properties", "jobName")]
    named += [str(value) for key, value in own.items() if key.lower().endswith("jobname")]
    return {name for name in named if name}


def _is_after(row: Mapping[str, Any], since: float | None) -> bool:
    made = created_at(row)
    return made is not None and since is not None and made >= since


def read_events(workspace: Workspace, name: str) -> list[Event]:
    """Every event of a job that has ended."""
    events: list[Event] = []
    cursor: str | None = None
    while True:
        page = read_metrics(workspace, name, cursor, ended=True)
        events += page.events
        if page.next is None:
            return events
        cursor = page.next


def result_of(events: Sequence[Event]) -> dict[str, Any]:
    """What the losses tell. The service measures nothing before the training, and no answers after it."""
    losses = [event for event in events if "loss" in event]
    held_out = [event["loss"] for event in losses if event["event"] == "validation"]
    training = [event for event in losses if event["event"] == "step"]
    result: dict[str, Any] = {}
    if held_out:
        result["after"] = {"loss": held_out[-1]}
    if training:
        result |= {"train_loss": training[-1]["loss"], "steps": training[-1]["step"]}
    return result


def read_samples(files: Files, job: Mapping[str, Any]) -> list[dict[str, str]]:
    """The first held-out rows as {"prompt", "expected"}, for a question to the endpoint; none where they are
    not to be had. The service answers none of them itself.
    """
    try:
        place = parse_place(text_at(job, "properties", "fineTuningDetails", "validationData", "uri"))
        data = files.read(place, limit=_SAMPLE_BYTES)
    except (UsageError, NotFoundError):
        return []
    whole = data[: data.rfind(b"\n") + 1]
    found = (_sample(line) for line in whole.splitlines()[:_MOST_SAMPLES])
    return [sample for sample in found if sample is not None]


def _sample(line: bytes) -> dict[str, str] | None:
    try:
        row = json.loads(line)
        if "prompt" in row:
            return {"prompt": str(row["prompt"]), "expected": str(row["completion"])}
        turns = row["messages"]
        asked = [turn["content"] for turn in turns if turn["role"] == "user"]
        return {"prompt": str(asked[-1]), "expected": str(turns[-1]["content"])}
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def write_result(
    folder: Path, result: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], events: Sequence[Event]
) -> None:
    """Keep what people read; the result comes last, for it says that the others are whole. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("samples.jsonl", samples), ("events.jsonl", events)):
        _write(folder / name, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    _write(folder / "result.json", json.dumps(result, indent=2))


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
