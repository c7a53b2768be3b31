"""The rows of a job in the service's format, held by the resource under a name that their bytes give."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.backends.foundry.openai_v1.planning import count_rows
from maas_client.backends.foundry.openai_v1.wire import FILE_LIMIT_BYTES, File, read_file
from maas_client.backends.foundry.planned import config_of, unchanged
from maas_client.backends.local.folders import told
from maas_client.data.convert import Shape, Written, convert_file
from maas_client.data.preference import goes_as_it_is, hold_out_lines
from maas_client.errors import DataError, UnavailableError
from maas_client.plan import file_hash

if TYPE_CHECKING:
    from maas_client.backends.foundry.openai_v1.account import Account
    from maas_client.plan import Plan

TRIES = 4
_READING_S = 600.0
_POLL_S = 2.0
_MOST_SAMPLES = 20


def send_rows(plan: Plan, account: Account) -> tuple[str, str, list[dict[str, str]]]:
    """Have the rows to train on and those held out in the resource, read by the service.

    Returns the ids of both files and some held-out rows as samples. What is there is not sent again. Raises
    PlanError where a file changed since the plan was made, DataError, ServiceError.
    """
    with tempfile.TemporaryDirectory(prefix="maas-rows-") as scratch, told("submit", Path(scratch)):
        with unchanged(plan):
            train, validation = _prepare(plan, config_of(plan), Path(scratch))
        files = [_have(account, name, each) for name, each in (("train", train), ("validation", validation))]
        samples = _samples(validation.path)
    for file in files:
        _await_reading(account, file)
    return files[0].id, files[1].id, samples


def _prepare(plan: Plan, config: Mapping[str, Any], scratch: Path) -> tuple[Written, Written]:
    """The two files as they are sent; preference rows in Foundry's own form go byte for byte."""
    spec, split = plan.spec, config.get("validation")
    train, validation = scratch / "train.jsonl", scratch / "validation.jsonl"
    method = config["method"]
    shape: Shape = "preference" if method == "dpo" else "messages"
    source = spec.data.train
    if split:
        options = {"share": split["split"], "seed": split["seed"]}
        if goes_as_it_is(source, method):
            return hold_out_lines(source, train, validation, **options)
        written, held_out = convert_file(source, spec.task, shape, train, held_out=validation, **options)
        assert held_out is not None  # noqa: S101  a split always holds out a row
        return written, held_out
    made = [
        _as_it_is(file) if goes_as_it_is(file, method) else convert_file(file, spec.task, shape, into)[0]
        for file, into in ((source, train), (spec.data.validation.file or source, validation))
    ]
    return made[0], made[1]


def _as_it_is(path: Path) -> Written:
    return Written(path, count_rows(path), path.stat().st_size, file_hash(path).removeprefix("sha256:"))


def _have(account: Account, name: str, rows: Written) -> File:
    """The file of these bytes in the resource: found, or else sent.

    A request whose fate is unknown is followed by a look, never by another one right away.
    """
    if rows.size_bytes >= FILE_LIMIT_BYTES:
        size = f"{rows.size_bytes / (1 << 20):,.0f} MB in the format of Azure AI Foundry"
        raise DataError(f"{name}.jsonl has {size}, which takes files under 512 MB.", hint="Send fewer rows.")
    shown = f"{name}-{rows.sha256[:16]}.jsonl"
    for attempt in range(1, TRIES + 1):
        if (there := _find(account, shown, rows.size_bytes)) is not None:
            return there
        try:
            return _send(account, shown, rows.path)
        except UnavailableError as error:
            if attempt == TRIES:
                raise
            pause(account, error, attempt)
    raise AssertionError("unreachable")


def pause(account: Account, error: UnavailableError, attempt: int) -> None:
    """Wait before the next look: as long as the service asks, else longer each time."""
    asked = error.retry_after_s
    account.sleep(2.0 ** (attempt - 1) if asked is None else min(asked, 60.0))


def _find(account: Account, name: str, size_bytes: int) -> File | None:
    """The oldest usable file of this name and length. Its name holds the hash of its bytes."""
    rows = account.service.items(
        "look for the rows",
        lambda api, place: api.files.with_raw_response.list(purpose="fine-tune", **place),
    )
    files = [read_file(row) for row in rows]
    fitting = [
        file
        for file in files
        if file.name == name and not file.is_broken and file.size_bytes in (None, size_bytes)
    ]
    return min(fitting, key=lambda file: (file.created_at, file.id), default=None)


def _send(account: Account, name: str, path: Path) -> File:
    with path.open("rb") as content:
        answer = account.service.ask(
            f"send {name}",
            lambda api: api.files.with_raw_response.create(file=(name, content), purpose="fine-tune"),
        )
    return read_file(answer.mapping)


def _await_reading(account: Account, file: File) -> None:
    """Wait until the service has read a file. Raises DataError with what it says of a bad one."""
    began = account.clock()
    while not file.is_ready:
        if file.is_broken:
            words = file.details.rstrip(".") or f"its status is {file.status}"
            raise DataError(f"Azure AI Foundry does not take {file.name}: {words}.", hint="Mend the rows.")
        if account.clock() - began > _READING_S:
            raise UnavailableError(
                f"Azure AI Foundry still says {file.status} of {file.name} after {_READING_S:.0f} s.",
                hint="The same command again goes on.",
                operation="submit",
            )
        account.sleep(_POLL_S)
        file = _look(account, file)


def _look(account: Account, file: File) -> File:
    answer = account.service.ask(
        f"look at {file.name}", lambda api: api.files.with_raw_response.retrieve(file.id)
    )
    return read_file(answer.mapping)


def _samples(path: Path) -> list[dict[str, str]]:
    """The first held-out rows as {"prompt", "expected"}, for a question to the endpoint."""
    found = list[dict[str, str]]()
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for line in lines:
            if len(found) == _MOST_SAMPLES:
                break
            try:
                row = json.loads(line)
                asked = row["messages"] if "messages" in row else row["input"]["messages"]
                answer = asked[-1] if "messages" in row else row["preferred_output"][-1]
                prompts = [turn["content"] for turn in asked if turn["role"] == "user"]
                found.append({"prompt": str(prompts[-1]), "expected": str(answer["content"])})
            except (ValueError, KeyError, TypeError, IndexError):
                continue
    return found
