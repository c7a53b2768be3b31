"""Write the generated pages: docs/job-file.md from the JobSpec models, docs/cli.md from the parser.

    python docs/make_docs.py [--check]

With --check nothing is written, and the exit code is 1 when a page is out of date.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from maas_client.spec import JobSpec
from maas_client.specwords import child_model, description, field_words

DOCS = Path(__file__).parent
EXAMPLE = DOCS.parent / "jobs" / "examples" / "card-support.yaml"


def job_file_page() -> str:
    """docs/job-file.md: every key with what it accepts, its default and what it does."""
    lines = [
        "# The job file",
        "",
        "Generated from `maas_client/spec.py` by `make docs`. "
        "`maas schema` prints the same as JSON Schema for editors.",
        "",
        "Paths are relative to the job file. `${VAR}` is not expanded. "
        "`--set training.epochs=1` overrides a key on the",
        "command line. Unknown keys are errors; all problems of a file are told at once, each with its line.",
        "",
        "```yaml",
        EXAMPLE.read_text(encoding="utf-8").rstrip(),
        "```",
        "",
        *_part("", JobSpec),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _part(prefix: str, part: type[BaseModel]) -> Iterator[str]:
    """A heading and a table for one part, then the parts inside it."""
    yield f"## {prefix.rstrip('.') or 'Top level'}"
    yield ""
    yield (part.__doc__ or "").strip()
    yield ""
    yield "| key | accepts | default | what it does |"
    yield "| --- | --- | --- | --- |"
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, info in part.model_fields.items():
        key = info.alias or name
        child = child_model(part, (key,))
        accepts = "a part, below" if child else field_words(info)
        cells = (f"`{prefix}{key}`", accepts, _default(info, child), description(part, key))
        yield f"| {' | '.join(map(_cell, cells))} |"
        if child:
            inner.append((f"{prefix}{key}.", child))
    yield ""
    for child_prefix, child in inner:
        yield from _part(child_prefix, child)


def _default(info: FieldInfo, child: type[BaseModel] | None) -> str:
    if info.default is PydanticUndefined:
        return "required"
    if info.default is None:
        return "none"
    if child is not None:
        return "as below"
    return f"`{str(info.default).lower() if isinstance(info.default, bool) else info.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def cli_page() -> str:
    """docs/cli.md: every command, by Typer's own generator."""
    words = [
        sys.executable,
        "-m",
        "typer",
        "maas_client.cli.app",
        "utils",
        "docs",
        "--name",
        "maas",
        "--title",
        "Commands",
    ]
    made = subprocess.run(words, capture_output=True, text=True, check=True, cwd=DOCS.parent)
    return made.stdout.strip() + "\n"


PAGES = {"job-file.md": job_file_page, "cli.md": cli_page}


def main(words: list[str]) -> int:
    """Write the pages, or with --check compare them; returns the exit code."""
    stale = [name for name, page in PAGES.items() if _read(DOCS / name) != page()]
    if "--check" in words:
        print("\n".join(f"docs/{name} is out of date: make docs" for name in stale), file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (DOCS / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"wrote docs/{name}")
    return 0


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
