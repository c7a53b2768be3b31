"""What a job left: its tuned model's name, checkpoints, results and events, kept where people read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.backends.foundry.openai_v1.metrics import last_values, read_rows
from maas_client.backends.foundry.openai_v1.wire import Job, read_file
from maas_client.backends.local.wire import read_json, write_json, write_text
from maas_client.cloudpath import CloudPath
from maas_client.errors import NotFoundError, UnavailableError
from maas_client.transport.members import mapping_at

if TYPE_CHECKING:
    from maas_client.backend import Watch
    from maas_client.backends.foundry.openai_v1.account import Account
    from maas_client.run import Event

RESULT, EVENTS, SAMPLES = "result.json", "events.jsonl", "samples.jsonl"
SCHEME = "openai://"
_TRIES = 3


def place_of(account: Account, tuned: str) -> CloudPath:
    """Where a tuned model is: its name in the resource."""
    return CloudPath(f"{SCHEME}{account.resource.name}/{tuned}")


def tuned_name(place: Path | CloudPath) -> tuple[str, str]:
    """(resource, tuned model) of a place. Both "" where it is no tuned model of this route."""
    if not isinstance(place, CloudPath) or not place.uri.startswith(SCHEME):
        return "", ""
    resource, _, tuned = place.uri.removeprefix(SCHEME).partition("/")
    return resource, tuned


def checkpoints_of(account: Account, job: Job) -> list[dict[str, Any]]:
    """The models that a job kept on its way, oldest first; each can be deployed by its `model`."""
    rows = account.service.items(
        f"list the checkpoints of {job.id}",
        lambda api, place: api.fine_tuning.jobs.checkpoints.with_raw_response.list(job.id, limit=10, **place),
    )
    found = [
        {
            "id": row.get("id"),
            "step": row.get("step_number"),
            "model": row.get("fine_tuned_model_checkpoint"),
            "metrics": {
                name: value
                for name, value in mapping_at(row, "metrics").items()
                if isinstance(value, int | float)
            },
        }
        for row in rows
    ]
    return sorted(found, key=lambda each: each["step"] if isinstance(each["step"], int) else -1)


def result_rows(account: Account, job: Job) -> list[dict[str, Any]]:
    """The rows of the job's results file; none where there is no such file (any more)."""
    for identity in job.result_files:
        try:
            name, content = fetch(account, identity)
        except NotFoundError:
            continue
        if name.endswith(".csv"):
            return read_rows(content)
    return []


def fetch(account: Account, identity: str) -> tuple[str, bytes]:
    """Name and content of a file, of the length that the service says. Raises ServiceError."""
    file = read_file(
        account.service.ask(
            f"look at file {identity}", lambda api: api.files.with_raw_response.retrieve(identity)
        ).mapping
    )
    for _ in range(_TRIES):
        content = account.service.ask(
            f"fetch file {identity}", lambda api: api.files.with_raw_response.content(identity)
        ).content
        if file.size_bytes in (None, len(content)):
            return file.name or f"{identity}.csv", content
    raise UnavailableError(
        f"{file.name} came with {len(content)} of {file.size_bytes} bytes.",
        hint="Try again.",
        operation=f"fetch file {identity}",
    )


def keep_result(
    account: Account,
    job: Job,
    folder: Path,
    *,
    events: Sequence[Event],
    samples: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Write what people read into a folder; the result comes last, for it says that the rest is whole.

    What is there for the same model is not made again. Raises OSError, ServiceError.
    """
    there = read_json(folder / RESULT) if (folder / RESULT).is_file() else None
    if there is not None and there.get("fine_tuned_model") == job.fine_tuned_model:
        return there
    folder.mkdir(parents=True, exist_ok=True)
    result = _result(account, job, events)
    _write_lines(folder / EVENTS, events)
    if samples:
        _write_lines(folder / SAMPLES, samples)
    write_json(folder / RESULT, result)
    return result


def _result(account: Account, job: Job, events: Sequence[Event]) -> dict[str, Any]:
    measured = last_values(result_rows(account, job))
    steps = [int(event["step"]) for event in events if event["event"] == "step"]
    return {
        "fine_tuned_model": job.fine_tuned_model,
        "base_model": job.model,
        "job": job.id,
        "adapter": False,
        "checkpoints": checkpoints_of(account, job),
        **({} if job.trained_tokens is None else {"trained_tokens": job.trained_tokens}),
        **({"train_loss": measured.pop("train_loss")} if "train_loss" in measured else {}),
        **({"after": measured} if measured else {}),
        **({"steps": steps[-1]} if steps else {}),
    }


def download(account: Account, job: Job, kept: Path, folder: Path, watch: Watch | None) -> None:
    """Bring the files of a job into a folder, whole or not at all: the service's, and what was kept here."""
    for name in (EVENTS, SAMPLES, RESULT):
        if (kept / name).is_file():
            write_text(folder / name, (kept / name).read_text(encoding="utf-8"))
    done = 0
    for identity in job.result_files:
        name, content = fetch(account, identity)
        target = folder / Path(name).name
        if not target.is_file() or target.stat().st_size != len(content):
            unfinished = target.with_name(f".{target.name}.unfinished")
            unfinished.write_bytes(content)
            unfinished.replace(target)
        done += len(content)
        if watch is not None:
            watch(done, done)


def read_samples(path: Path) -> list[dict[str, str]]:
    """The held-out rows that were kept when the job was sent; none where they are lost."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def write_samples(path: Path, samples: Sequence[Mapping[str, str]]) -> None:
    """Keep held-out rows until the job has succeeded. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_lines(path, samples)


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
