"""The check of a data file: every row read as training reads it, in memory independent of its size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from maas_client.bundled import tuning_module
from maas_client.data.blocks import lines_of, read_blocks
from maas_client.data.duplicates import DuplicateCounter, row_key
from maas_client.data.fast import FORMATS, Block, FastReader
from maas_client.data.formats import FORMATS_HINT, decoded, first_format, task_of_file
from maas_client.data.report import CheckReport, Histogram, Problem
from maas_client.data.tokens import Estimate, Meter, choose_meter, tokens_of_bytes
from maas_client.errors import DataError, UsageError

if TYPE_CHECKING:
    from tuning.rows import Example, RowError

FOUNDRY_FILE_LIMIT_BYTES = 512 * 1024 * 1024
FOUNDRY_FEWEST_ROWS = 10
KEEP = 20
_FEW_LINES = 4


def check_file(
    path: Path,
    *,
    task: str | None = None,
    model: str | None = None,
    max_length: int | None = None,
    chat_template: Path | None = None,
    keep: int = KEEP,
    on_problem: Callable[[Problem], None] | None = None,
) -> CheckReport:
    """Check a data file row by row.

    `task` (default: what the first row fits), `model` whose tokenizer counts (default: estimate),
    `max_length` in tokens beyond which rows are cut, `chat_template` (a file) in place of the model's own.
    The report keeps the first `keep` bad rows;
    `on_problem` gets each of them as it is found. Raises DataError when the file as a whole cannot be read;
    bad rows are in the report, not raised.
    """
    if max_length is not None and max_length < 1:
        raise UsageError(f"max_length is {max_length}.", hint="It counts tokens: 1 or more, or None.")
    meter = choose_meter(model, chat_template)
    found_task = task_of_file(path, task)
    with DuplicateCounter() as duplicates:
        try:
            check = _Check(
                path, first_format(path), found_task, meter, max_length, keep, on_problem, duplicates
            )
            check.read()
        except tuning_module("datafile").DataError as error:
            raise DataError(error.reason, hint=FORMATS_HINT) from None
        return check.report()


class _Check:
    """One pass over a file."""

    def __init__(
        self,
        path: Path,
        row_format: str,
        task: str,
        meter: Meter,
        max_length: int | None,
        keep: int,
        on_problem: Callable[[Problem], None] | None,
        duplicates: DuplicateCounter,
    ) -> None:
        self.path, self.format, self.task, self.meter, self.max_length = (
            path,
            row_format,
            task,
            meter,
            max_length,
        )
        self.keep, self.on_problem, self.duplicates = keep, on_problem, duplicates
        self._rows, self._files = tuning_module("rows"), tuning_module("datafile")
        if tuning_module("tasks").TASKS[task].splits_long_text:
            self.max_length = None  # no row is cut
        self.good = self.supervised = self.over_long = 0
        self.sizes: Counter[int] = Counter()
        self.tokens: Counter[int] = Counter()
        self.roles: Counter[str] = Counter()
        self.bad_kinds: Counter[str] = Counter()
        self.problems: list[Problem] = []
        self.over_long_lines: list[int] = []

    def read(self) -> None:
        """Read the whole file."""
        with self._files.open_data(self.path) as stream:
            kind = self._files.kind_of(self.path, stream)
            if kind == "json":
                self._json_lines(stream)
            else:
                for line, record in self._files.records(stream, kind):
                    self._record(line, record)

    def _json_lines(self, stream: BinaryIO) -> None:
        fast = (
            FastReader(self.format, self.task)
            if isinstance(self.meter, Estimate) and self.format in FORMATS
            else None
        )
        for first, count, block in read_blocks(stream, self._files.LINE_LIMIT_BYTES):
            if block is None:
                self._bad(first, self._files.line_too_long())
            elif fast:
                self._block(first, count, block, fast)
            else:
                self._each_line(first, lines_of(block))

    def _block(self, first: int, count: int, block: bytes, fast: FastReader) -> None:
        """Read good rows many at a time; halve what is not plainly good until few lines are left."""
        read = fast.read(block, count)
        if read is not None:
            self._accept(first, block, read)
            return
        lines = lines_of(block)
        if count <= _FEW_LINES:
            self._each_line(first, lines)
            return
        half = count // 2
        self._block(first, half, b"\n".join(lines[:half]), fast)
        self._block(first + half, count - half, b"\n".join(lines[half:]), fast)

    def _each_line(self, first: int, lines: list[bytes]) -> None:
        for line, data in enumerate(lines, first):
            if data.strip():
                self._record(line, decoded(data))

    def _accept(self, first: int, block: bytes, read: Block) -> None:
        sizes, keys = read.sizes, read.keys
        places: Sequence[int] = range(len(sizes))
        if -1 in sizes:
            lines = lines_of(block)
            for place in places:
                if sizes[place] == -1:
                    self._record(first + place, decoded(lines[place]))
            places = [place for place in places if sizes[place] != -1]
            sizes, keys = [sizes[place] for place in places], [keys[place] for place in places]
        self.good += len(sizes)
        self.roles.update(read.roles)
        self.sizes.update(sizes)
        self.duplicates.add(keys)
        if self.max_length is not None and sizes and tokens_of_bytes(max(sizes)) > self.max_length:
            for place, size in zip(places, sizes, strict=True):
                self._note_length(first + place, tokens_of_bytes(size))

    def _record(self, line: int, record: object) -> None:
        try:
            example = self._parse(record)
        except self._rows.RowError as error:
            self._bad(line, error)
            return
        measured = self.meter.measure(example, self.max_length)
        if measured.unteachable:
            self._bad(line, self._rows.RowError(measured.unteachable, kind="no loss"))
            return
        self.good += 1
        self.supervised += measured.supervised or 0
        self.tokens[measured.tokens] += 1
        self.roles.update(turn.role for turn in example.messages + example.rejected)
        self.duplicates.add([row_key(example)])
        self._note_length(line, measured.tokens)

    def _parse(self, record: object) -> Example:
        """The example of a record; raises RowError when the record is one, or is bad."""
        if isinstance(record, self._rows.RowError):
            raise record
        found = self._rows.row_format(record)
        if found != self.format and self.format in self._rows.FORMATS:
            reason = self._files.mixed_formats(found, self.format)
            raise self._rows.RowError(reason, kind="mixed formats")
        example: Example = self._rows.parse_row(record, self.task)
        return example

    def _note_length(self, line: int, tokens: int) -> None:
        if self.max_length is not None and tokens > self.max_length:
            self.over_long += 1
            if len(self.over_long_lines) < self.keep:
                self.over_long_lines.append(line)

    def _bad(self, line: int, error: RowError) -> None:
        problem = Problem(line, error.reason, error.kind)
        self.bad_kinds[problem.kind] += 1
        if len(self.problems) < self.keep:
            self.problems.append(problem)
        if self.on_problem:
            self.on_problem(problem)

    def report(self) -> CheckReport:
        """What was found."""
        for size, count in self.sizes.items():
            self.tokens[tokens_of_bytes(size)] += count
        supervised = None if isinstance(self.meter, Estimate) else self.supervised
        repeats, repeated = self.duplicates.count()
        bad, size_bytes = self.bad_kinds.total(), self.path.stat().st_size
        return CheckReport(
            file=str(self.path),
            size_bytes=size_bytes,
            byte_order_mark=self._starts_with_mark(),
            task=self.task,
            format=self.format,
            rows=self.good + bad,
            good=self.good,
            bad=bad,
            roles={role: count for role, count in sorted(self.roles.items()) if count},
            tokens=Histogram(self.tokens).token_counts(self.meter.source, self.meter.error, supervised),
            max_length=self.max_length,
            over_long=self.over_long,
            over_long_lines=tuple(self.over_long_lines),
            duplicates=repeats,
            duplicate_lines=tuple(self._repeated_lines(repeated)),
            bad_kinds=dict(self.bad_kinds.most_common()),
            problems=tuple(self.problems),
            warnings=tuple(self._warnings(size_bytes, self.good + bad)),
        )

    def _starts_with_mark(self) -> bool:
        with self.path.open("rb") as stream:
            return stream.read(3) == b"\xef\xbb\xbf"

    def _warnings(self, size_bytes: int, rows: int) -> Iterator[str]:
        if size_bytes >= FOUNDRY_FILE_LIMIT_BYTES:
            size = size_bytes / 1024**2
            yield f"The file has {size:,.0f} MB; Azure AI Foundry takes files under 512 MB."
        if rows < FOUNDRY_FEWEST_ROWS:
            yield f"The file has {rows} rows; Azure AI Foundry asks for at least {FOUNDRY_FEWEST_ROWS}."

    def _repeated_lines(self, repeated: set[int]) -> Iterator[tuple[int, int]]:
        """(line, line of the first equal row) of the first repeats: a second pass, made only if needed."""
        first_at: dict[int, int] = {}
        found = 0
        for line, key in self._row_keys() if repeated and self.keep else ():
            if key not in repeated:
                continue
            if key in first_at:
                yield line, first_at[key]
                found += 1
                if found >= self.keep:
                    return
            first_at.setdefault(key, line)

    def _row_keys(self) -> Iterator[tuple[int, int]]:
        with self._files.open_data(self.path) as stream:
            kind = self._files.kind_of(self.path, stream)
            if kind != "json":
                yield from self._good_keys(self._files.records(stream, kind))
                return
            fast = FastReader(self.format, self.task) if self.format in FORMATS else None
            for first, count, block in read_blocks(stream, self._files.LINE_LIMIT_BYTES):
                read = fast.read(block, count) if fast and block else None
                if read is not None and -1 not in read.sizes:
                    yield from enumerate(read.keys, first)
                elif block is not None:
                    yield from self._good_keys(enumerate(map(decoded, lines_of(block)), first))

    def _good_keys(self, records: Iterable[tuple[int, object]]) -> Iterator[tuple[int, int]]:
        for line, record in records:
            try:
                yield line, row_key(self._parse(record))
            except self._rows.RowError:
                continue  # reported in the first pass
