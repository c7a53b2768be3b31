"""One row as the model will see it: its tokens, which of them carry loss, and where max_length cuts."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maas_client.bundled import tuning_module
from maas_client.data.formats import FORMATS_HINT, task_of_file
from maas_client.data.tokens import load_tokenizer, tokenizer_folder
from maas_client.errors import DataError, SettingsError

if TYPE_CHECKING:
    from rich.text import Text

DEFAULT_MODEL = "tiny-phi3"


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its id, its text, whether it carries loss, and whether max_length cuts it off."""

    id: int
    text: str
    loss: bool
    cut: bool


@dataclass(frozen=True, slots=True)
class Run:
    """Neighboring tokens with the same marks, as text."""

    text: str
    loss: bool
    cut: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """A row as tokens. `supervised` counts those with loss within `max_length` (0: nothing is learned).

    Of a pair of answers this is the row with the better one, and `rejected` the same with the worse one.
    """

    file: str
    row: int
    line: int
    task: str
    model: str
    max_length: int | None
    supervised: int
    truncated: bool
    tokens: tuple[Token, ...]
    runs: tuple[Run, ...]
    rejected: Preview | None = None

    def to_dict(self) -> dict[str, Any]:
        """The preview as JSON-ready data."""
        return asdict(self)


def preview_row(
    path: Path,
    number: int,
    *,
    task: str | None = None,
    model: str | None = None,
    max_length: int | None = None,
    chat_template: Path | None = None,
) -> Preview:
    """Encode row `number` (1-based, blank lines not counted) of a data file and mark its tokens.

    `model` names the tokenizer (default: the shipped tiny-phi3), `chat_template` a file in place of its
    template. Raises DataError when the row or the tokenizer is not there, the row is bad, or the chat
    template cannot show it.
    """
    rows, files = tuning_module("rows"), tuning_module("datafile")
    name = model or DEFAULT_MODEL
    found_task = task_of_file(path, task)
    try:
        line, record = _find(path, number)
    except files.DataError as error:
        raise DataError(error.reason, hint=FORMATS_HINT) from None
    try:
        if isinstance(record, rows.RowError):
            raise record
        example = rows.parse_row(record, found_task)
    except rows.RowError as error:
        raise DataError(f"Row {number} (line {line}) is bad: {error.reason}.", hint=FORMATS_HINT) from None
    if tuning_module("tasks").TASKS[found_task].splits_long_text:
        max_length = None  # nothing is cut: a long text becomes several rows
    tokenizer = _tokenizer(name, chat_template)

    def preview(example: Any, rejected: Preview | None = None) -> Preview:
        tokens, runs = _marked(example, tokenizer, max_length)
        return Preview(
            file=str(path),
            row=number,
            line=line,
            task=found_task,
            model=name,
            max_length=max_length,
            supervised=sum(token.loss and not token.cut for token in tokens),
            truncated=max_length is not None and len(tokens) > max_length,
            tokens=tokens,
            runs=runs,
            rejected=rejected,
        )

    worse = preview(replace(example, messages=example.rejected)) if example.rejected else None
    return preview(example, worse)


def _find(path: Path, number: int) -> tuple[int, object]:
    seen = 0
    for line, record in tuning_module("datafile").read_records(path):
        seen += 1
        if seen == number:
            return line, record
    raise DataError(
        f"There is no row {number}; {path.name} has {seen} rows.", hint="Rows are counted from 1."
    )


def _tokenizer(model: str, chat_template: Path | None) -> Any:
    folder = tokenizer_folder(model)
    if folder is None:
        raise DataError(
            f"The tokenizer of {model} is not on this disk.",
            hint=f"Name a folder that has its tokenizer.json, or {DEFAULT_MODEL}.",
        )
    if importlib.util.find_spec("transformers") is None:
        raise SettingsError("A preview needs transformers.", hint="pip install 'maas-client[local]'")
    return load_tokenizer(folder, chat_template)


def _marked(
    example: Any, tokenizer: Any, max_length: int | None
) -> tuple[tuple[Token, ...], tuple[Run, ...]]:
    masks = tuning_module("masks")
    try:
        encoded = masks.encode(example, tokenizer, None)
    except (masks.UnteachableError, masks.TemplateError) as error:
        raise DataError(f"{str(error).rstrip('.')}.") from None

    def text_of(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    tokens = tuple(
        Token(
            number, text_of([number]), label != masks.IGNORED, max_length is not None and place >= max_length
        )
        for place, (number, label) in enumerate(zip(encoded.input_ids, encoded.labels, strict=True))
    )
    runs = tuple(
        Run(text_of([token.id for token in group]), loss, cut)
        for (loss, cut), group in groupby(tokens, key=lambda token: (token.loss, token.cut))
    )
    return tokens, runs


def render(preview: Preview, *, color: bool) -> Text:
    """The row for a person: what carries loss in color, the rest dim; without color in 「brackets」."""
    from rich.text import Text

    text = Text()
    whole = True
    for run in preview.runs:
        if run.cut and whole:
            text.append("⟨cut here⟩", "bold red" if color else "")
            whole = False
        if color:
            text.append(run.text, "strike dim" if run.cut else "bold green" if run.loss else "dim")
        else:
            text.append(f"「{run.text}」" if run.loss and not run.cut else run.text)
    cut = (
        f", {len(preview.tokens) - preview.max_length} cut off"
        if preview.truncated and preview.max_length
        else ""
    )
    mark = "green" if color else "「」"
    which = " with the better answer" if preview.rejected else ""
    text.append(
        f"\n\nrow {preview.row} (line {preview.line}){which}: "
        f"{len(preview.tokens)} tokens of {preview.model}, "
        f"{preview.supervised} carry loss ({mark}){cut}"
    )
    if preview.rejected:
        text.append("\n\nand with the worse answer:\n\n")
        text.append(render(preview.rejected, color=color))
    return text
