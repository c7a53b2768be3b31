"""The rows of a job in the service's format, sent to the workspace by the hash of their content."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.backends.foundry.classic.wire import FILE_LIMIT_BYTES, input_place
from maas_client.backends.foundry.planned import config_of, unchanged
from maas_client.backends.local.folders import told
from maas_client.data.convert import Shape, Written, convert_file
from maas_client.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from maas_client.plan import Plan
    from maas_client.workspace.files import Files


def send_rows(plan: Plan, files: Files) -> tuple[str, str]:
    """Convert and send the rows to train on and those held out; the URIs of both. What is there is not sent.

    Raises PlanError where a file changed since the plan was made, DataError, ServiceError.
    """
    config = config_of(plan)
    shape: Shape = "messages" if config["task_type"] == "chatCompletion" else "prompt/completion"
    with tempfile.TemporaryDirectory(prefix="maas-rows-") as scratch, told("submit", Path(scratch)):
        with unchanged(plan):
            train, validation = _convert(plan, config, shape, Path(scratch))
        return _send(train, files), _send(validation, files)


def _convert(plan: Plan, config: Mapping[str, Any], shape: Shape, scratch: Path) -> tuple[Written, Written]:
    spec = plan.spec
    train, validation = scratch / "train.jsonl", scratch / "validation.jsonl"
    if spec.data.validation.file is None:
        split = config["validation"]
        written, held_out = convert_file(
            spec.data.train,
            spec.task,
            shape,
            train,
            held_out=validation,
            share=split["split"],
            seed=split["seed"],
        )
    else:
        written, _ = convert_file(spec.data.train, spec.task, shape, train)
        held_out, _ = convert_file(spec.data.validation.file, spec.task, shape, validation)
    assert held_out is not None  # noqa: S101  a split always holds out a row
    return written, held_out


def _send(written: Written, files: Files) -> str:
    """Upload a file unless one of this hash, as long as it, is there. Returns its URI."""
    if written.size_bytes >= FILE_LIMIT_BYTES:
        size = f"{written.size_bytes / (1 << 20):,.0f} MB in the format of Azure AI Foundry"
        what = f"{written.path.name} has {size}, which takes files under 512 MB."
        raise DataError(what, hint="Send fewer rows.")
    place = input_place(written.path.name, written.sha256)
    there = {blob.path: blob.size_bytes for blob in files.list(place)}
    if there.get(place.path) != written.size_bytes:
        files.upload(written.path, place)
    return str(place)
