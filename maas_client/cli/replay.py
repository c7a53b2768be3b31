"""`maas runs replay`: the first steps of a run, taken again on this machine, with the losses compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maas_client.cli.output import Output, OutputFormat, emit, say
from maas_client.cli.pages import Page, Table

if TYPE_CHECKING:
    from maas_client.ledger import RunRecord

CAPSULE = "capsule.json"


def replay(
    run: Annotated[str, typer.Argument(help="A run's id, its job's name, or `last`.")] = "last",
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Take so many steps.", show_default="up to 10")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The base model, where it is elsewhere now.")
    ] = None,
    train: Annotated[Path | None, typer.Option("--train", help="The rows, likewise.")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Take the first steps of a succeeded run again, on this machine, and compare the losses.

    Equal to the last bit where machine, code and packages are as they were; else what is not is named, and
    only rounding may differ. Exits with 1 where the losses are not the same. Nothing is kept.
    """
    from maas_client.project import open_project

    project = open_project()
    record = project.find(run)
    capsule = project.artifact(record).folder / CAPSULE
    report = _report(record, capsule, _places(record, capsule, model, train), steps)
    emit(report, _view(report))
    if not report["same"]:
        raise typer.Exit(1)


def _places(record: RunRecord, capsule: Path, model: str | None, train: Path | None) -> Iterator[str]:
    """The words that say where files are: as given, or by the job file where the run's are not here."""
    import json

    from maas_client.command import model_source
    from maas_client.errors import NotFoundError
    from maas_client.spec import JobSpec

    if not capsule.is_file():
        hint = "Runs leave one when the bundled script trained them to the end."
        raise NotFoundError(f"Run {record.id} left no capsule.", operation="replay", hint=hint)
    spec = JobSpec.model_validate_json(json.dumps(record.spec))
    source = model_source(spec.model)
    wanted = {
        "train": (train, spec.data.train),
        "validation": (None, spec.data.validation.file),
        "chat_template": (None, spec.data.chat_template),
        "model": (model, source if isinstance(source, Path) else None),
    }
    known = json.loads(capsule.read_text(encoding="utf-8"))["files"]
    for name, (given, planned) in wanted.items():
        is_here = Path(known.get(name, "")).exists()
        if place := given or (planned if name in known and not is_here else None):
            yield from (f"--{name.replace('_', '-')}", str(place))


def _report(record: RunRecord, capsule: Path, places: Iterator[str], steps: int | None) -> dict[str, Any]:
    """What the script found. Raises DataError where rows or model are others, MaasError where it fails."""
    import json
    import subprocess
    import sys

    from maas_client.bundled import jobs_folder
    from maas_client.errors import DataError, MaasError

    words = [sys.executable, str(jobs_folder() / "replay.py"), "--capsule", str(capsule), *places]
    words += ["--steps", str(steps)] if steps else []
    say(f"Taking the first steps of {record.id} again ...")
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    if ended.stdout.startswith("{"):
        found: dict[str, Any] = json.loads(ended.stdout)
        return found
    said = [line.removeprefix("error: ") for line in ended.stderr.splitlines() if line.strip()]
    kind = DataError if ended.returncode == DataError.exit_code else MaasError
    raise kind(said[-1] if said else f"The replay ended with code {ended.returncode}.")


def _view(report: Mapping[str, Any]) -> Page:
    """A row for each step with both losses, what is not as it was, and the verdict."""
    pairs = zip(report["losses_then"], report["losses_now"], strict=True)
    rows = [
        [str(step), f"{then:.9g}", f"{now:.9g}", f"{now - then:.2g}"]
        for step, (then, now) in enumerate(pairs, 1)
    ]
    heads = {"STEP": "right", "LOSS THEN": "right", "LOSS NOW": "right", "DIFFERENCE": "right"}
    changed = [f"Not as it was: {sentence}." for sentence in report["not_as_it_was"]]
    how = f"largest relative difference {report['largest_relative_difference']:.2g}"
    verdict = "The losses are the same" if report["same"] else "The losses are not the same"
    return Page(Table(heads, rows), *changed, f"{verdict}: {how}, accepted {report['accepted']:.2g}.")
