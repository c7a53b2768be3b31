"""`maas data`: check a data file before it is trained on, and see which tokens of a row carry loss."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maas_client.cli.output import Output, OutputFormat, emit, machine_readable, say, stdout_console, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from maas_client.data.report import CheckReport, Problem

app = typer.Typer(help="Check training data and see what the model learns from it.", no_args_is_help=True)

BAD_ROWS_CODE = 2


class TaskChoice(StrEnum):
    """What the data is for."""

    CHAT = "chat"
    TEXT_GENERATION = "text-generation"
    CLASSIFICATION = "classification"
    NER = "ner"
    QA = "qa"
    TRANSLATION = "translation"
    SUMMARIZATION = "summarization"
    DOMAIN = "domain"
    MUSIC = "music"


File = Annotated[
    Path, typer.Argument(metavar="FILE", help="JSON Lines, CSV, TSV, CoNLL, ABC notation or text.")
]
Task = Annotated[
    TaskChoice | None, typer.Option("--task", help="What the rows are for; default: what the first row fits.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", help="Whose tokenizer counts: a shipped name, a folder or a Hugging Face id on disk."
    ),
]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=1, help="Tokens after which training cuts a row.")
]
ChatTemplate = Annotated[
    Path | None,
    typer.Option("--chat-template", metavar="FILE", help="Jinja file in place of the model's chat template."),
]


@app.command()
def check(
    file: File,
    task: Task = None,
    model: Model = None,
    max_length: MaxLength = None,
    chat_template: ChatTemplate = None,
    every: Annotated[
        bool, typer.Option("--all", help="Print every bad row as it is found, not only the first 20.")
    ] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Check every row; exit code 2 when any is bad.

    Rows: {"messages": [{"role", "content", "weight"?, "tool_calls"?}], "tools"?} or {"prompt",
    "completion"} for chat, {"prompt", "chosen", "rejected"} or {"input": {"messages"}, "preferred_output",
    "non_preferred_output"} for chat learned from preferences, {"text"} or {"prompt", "completion"} for
    text-generation, {"text", "label"} for classification, {"tokens", "tags"} or {"text", "entities":
    [{"start", "end", "label"}]} for ner, {"context", "question", "answers"} for qa, {"source", "target"} for
    translation, {"document", "summary"} for summarization, {"text"} for domain and music.
    """
    from maas_client.data.check import check_file

    report = check_file(
        file,
        task=task,
        model=model,
        max_length=max_length,
        chat_template=chat_template,
        on_problem=_tell if every else None,
    )
    emit(report.to_dict(), human=_report(report, with_problems=not every))
    if report.bad:
        raise typer.Exit(BAD_ROWS_CODE)


@app.command()
def preview(
    file: File,
    row: Annotated[int, typer.Option("--row", min=1, help="Which row, counted from 1.")] = 1,
    model: Model = None,
    task: Task = None,
    max_length: MaxLength = None,
    chat_template: ChatTemplate = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show a row as the model sees it, with the tokens that carry loss in color (or in 「brackets」)."""
    from maas_client.data.preview import preview_row, render

    seen = preview_row(file, row, task=task, model=model, max_length=max_length, chat_template=chat_template)
    console = stdout_console()
    emit(seen.to_dict(), human=render(seen, color=console.is_terminal and not console.no_color))
    if not seen.supervised:
        say(f"Row {row} teaches nothing: its answers lie beyond max_length ({max_length} tokens).")
        raise typer.Exit(BAD_ROWS_CODE)


@app.command()
def convert(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="JSON Lines, CSV, TSV, CoNLL, ABC or text.")
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="New file of JSON Lines.")],
    parallel: Annotated[
        bool, typer.Option("--parallel", help="Join 2 files line by line: a source and its translation.")
    ] = False,
    as_chat: Annotated[
        bool, typer.Option("--as-chat", help="Write messages, as the task asks and answers in training.")
    ] = False,
    task: Task = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Write the rows of one or more files into one file of JSON Lines; never overwrites."""
    from maas_client.data.gathering import gather, gather_chats, gather_pairs
    from maas_client.errors import UsageError

    if parallel and (as_chat or len(files) != 2):
        raise UsageError("--parallel joins 2 files and goes alone.", hint="maas data convert --help")
    if parallel:
        written = gather_pairs(files[0], files[1], to)
    else:
        written = gather_chats(files, to, task=task) if as_chat else gather(files, to)
    facts = {"file": str(written.path), "rows": written.rows, "size_bytes": written.size_bytes}
    emit(facts, f"{written.path}: {written.rows:,} rows, {_size(written.size_bytes)}")


def _tell(problem: Problem) -> None:
    line = f"line {problem.line}: {problem.reason}"
    if machine_readable():
        say(line)
    else:
        print(line)


def _report(report: CheckReport, *, with_problems: bool) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    facts = table({"": "left", " ": "left"}, _facts(report))
    parts: list[RenderableType] = [facts]
    if report.problems and with_problems:
        parts.append(Text("\nbad rows", style="bold red"))
        parts += [Text(f"  line {problem.line}: {problem.reason}") for problem in report.problems]
        if report.bad > len(report.problems):
            parts.append(Text(f"  and {report.bad - len(report.problems):,} more (--all prints each)"))
    parts += [Text(f"warning: {warning}", style="yellow") for warning in report.warnings]
    return Group(*parts)


def _facts(report: CheckReport) -> list[tuple[str, str]]:
    tokens = report.tokens
    about = f" {tokens.error}" if tokens.error else ""
    mark = ", byte-order mark" if report.byte_order_mark else ""
    facts = [
        ("file", f"{report.file} ({_size(report.size_bytes)}{mark})"),
        ("task", f"{report.task} ({report.format} rows)"),
        ("rows", f"{report.rows:,}: {report.good:,} good, {report.bad:,} bad"),
        ("roles", ", ".join(f"{role} {count:,}" for role, count in report.roles.items()) or "none"),
        (
            "tokens a row",
            f"min {tokens.minimum:,}  mean {tokens.mean:,.1f}  p50 {tokens.p50:,}  p95 {tokens.p95:,}  "
            f"max {tokens.maximum:,}{about}",
        ),
        ("tokens in all", f"{tokens.total:,}{about}"),
        ("counted with", tokens.source),
        ("duplicates", f"{report.duplicates:,}{_first_repeats(report)}"),
    ]
    if tokens.supervised is not None:
        facts.insert(6, ("tokens with loss", f"{tokens.supervised:,}"))
    if report.max_length is not None:
        facts.append(
            ("over-long", f"{report.over_long:,} rows over {report.max_length:,} tokens{_first_long(report)}")
        )
    if report.bad_kinds:
        facts.append(("bad rows", ", ".join(f"{kind} {count:,}" for kind, count in report.bad_kinds.items())))
    return facts


def _size(size_bytes: int) -> str:
    return f"{size_bytes:,} bytes" if size_bytes < 1_000_000 else f"{size_bytes / 1_000_000:,.1f} MB"


def _first_repeats(report: CheckReport) -> str:
    first = ", ".join(f"{line} = {earlier}" for line, earlier in report.duplicate_lines[:5])
    return f" (lines {first}{', ...' if report.duplicates > 5 else ''})" if first else ""


def _first_long(report: CheckReport) -> str:
    first = ", ".join(str(line) for line in report.over_long_lines[:5])
    return f" (lines {first}{', ...' if report.over_long > 5 else ''})" if first else ""
