"""Data files that are plain text: CoNLL (a token and its tag a line), tunes in ABC notation, prose."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tuning.chatrows import RowError
from tuning.entities import is_tag
from tuning.lines import Lines, texts

PASSAGE_CHARACTERS = 2000
_DOCUMENT_START = "-DOCSTART-"
_TUNE_START = re.compile(r"X:\s*\d*\s*(%.*)?")


def is_conll(lines: list[str]) -> bool:
    """Whether the first lines of a file are tokens with tags."""
    spoken = [line.split() for line in lines if line.strip() and not line.startswith(("# ", _DOCUMENT_START))]
    return bool(spoken) and all(len(columns) > 1 and is_tag(columns[-1]) for columns in spoken)


def is_abc(lines: list[str]) -> bool:
    """Whether the first lines of a file begin a tune."""
    spoken = [line for line in lines if line.strip()]
    return bool(spoken) and (spoken[0].startswith("%abc") or _TUNE_START.fullmatch(spoken[0]) is not None)


def conll_records(lines: Lines) -> Iterator[tuple[int, object]]:
    """Yield (line, {"tokens", "tags"} or RowError) for each sentence; a blank line ends one.

    The first column is the token, the last the tag; a sentence with a bad line comes as that line's fault.
    """
    for first, sentence in _blocks(lines):
        if isinstance(sentence, RowError):
            yield first, sentence
            continue
        row: dict[str, list[str]] = {"tokens": [], "tags": []}
        problem: RowError | None = None
        for line, text in sentence:
            columns = text.split()
            if columns[0] == _DOCUMENT_START:
                continue
            if len(columns) > 1 and is_tag(columns[-1]):
                row["tokens"].append(columns[0])
                row["tags"].append(columns[-1])
            elif not text.startswith("# "):  # a remark
                problem = problem or _no_tag(line, columns)
        if problem is not None:
            yield problem.line or first, problem
        elif row["tokens"]:
            yield first, row


def _no_tag(line: int, columns: list[str]) -> RowError:
    found = columns[-1][:40] if len(columns) > 1 else "one column"
    return RowError(f"found {found!r}, expected a token and its tag (O, B-label or I-label)", line, "no tag")


def abc_records(lines: Lines) -> Iterator[tuple[int, object]]:
    """Yield (line, {"text": tune} or RowError) for each tune: from X: to a blank line or the next X:.

    Lines that are only a remark are left out, and so is all text between tunes.
    """
    for first, block in _blocks(lines):
        if isinstance(block, RowError):
            yield first, block
            continue
        tune: list[tuple[int, str]] = []
        for line, text in block:
            if _TUNE_START.fullmatch(text) and tune:
                yield _tune(tune)
                tune = []
            if tune or _TUNE_START.fullmatch(text):
                tune.append((line, text))
        if tune:
            yield _tune(tune)


def _tune(lines: list[tuple[int, str]]) -> tuple[int, object]:
    kept = [text.rstrip() for _, text in lines if not text.startswith("%")]
    return lines[0][0], {"text": "\n".join(kept)}


def prose_records(lines: Lines) -> Iterator[tuple[int, object]]:
    """Yield (line, {"text": passage} or RowError): paragraphs, put together up to PASSAGE_CHARACTERS.

    A paragraph that is longer than that is cut at the ends of its lines.
    """
    start, passage = 0, ""
    for first, paragraph in _paragraphs(lines):
        if isinstance(paragraph, RowError):
            yield first, paragraph
            continue
        if passage and len(passage) + len(paragraph) > PASSAGE_CHARACTERS:
            yield start, {"text": passage}
            passage = ""
        start = start if passage else first
        passage = f"{passage}\n\n{paragraph}" if passage else paragraph
    if passage:
        yield start, {"text": passage}


def _paragraphs(lines: Lines) -> Iterator[tuple[int, str | RowError]]:
    """Yield (first line, text) of what stands between blank lines, in pieces of PASSAGE_CHARACTERS."""
    start, paragraph = 0, ""
    for line, text in texts(lines):
        if isinstance(text, RowError):
            yield line, text
            continue
        text = text.rstrip()
        if paragraph and (not text or len(paragraph) + len(text) > PASSAGE_CHARACTERS):
            yield start, paragraph
            paragraph = ""
        if text:
            start = start if paragraph else line
            paragraph = f"{paragraph}\n{text}" if paragraph else text
    if paragraph:
        yield start, paragraph


def _blocks(lines: Lines) -> Iterator[tuple[int, list[tuple[int, str]] | RowError]]:
    """Yield (first line, its lines that are not blank) for what stands between blank lines.

    A line that cannot be read comes alone, and takes the block around it with it.
    """
    block: list[tuple[int, str]] = []
    problem: RowError | None = None
    for line, text in texts(lines):
        if isinstance(text, RowError):
            problem = problem or text
        elif text.strip():
            block.append((line, text.rstrip("\r\n")))
        elif block or problem:
            yield _block(block, problem)
            block, problem = [], None
    if block or problem:
        yield _block(block, problem)


def _block(
    block: list[tuple[int, str]], problem: RowError | None
) -> tuple[int, list[tuple[int, str]] | RowError]:
    if problem is not None:
        return problem.line or 0, problem
    return block[0][0], block
