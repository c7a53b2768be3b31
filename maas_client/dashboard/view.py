"""A frame of the dashboard as a rich renderable: a pure function of a board, a size and the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rich.cells import cell_len, chop_cells
from rich.console import Group
from rich.text import Text

from maas_client.dashboard import sections
from maas_client.dashboard.board import Board, Command, Mode
from maas_client.dashboard.glyphs import ASKING, BOLD, FAINT, STATE_STYLES, UNICODE, WARN, Glyphs, Pen
from maas_client.dashboard.table import runs_table, sight_age
from maas_client.run import RunState

TWO_COLUMNS = 100
_TABLE_LINES = 14


@dataclass(frozen=True)
class Section:
    """A part of a frame: by `rank` (0 first) it gets `least` lines or is left out, then grows up to `most`.

    One with a `weight` of 3 grows three times as fast as others.
    """

    rank: int
    least: int
    most: int
    draw: Callable[[int], list[Text]]
    weight: int = 1


def frame(
    board: Board,
    width: int,
    height: int,
    now: float,
    *,
    glyphs: Glyphs = UNICODE,
    keys: bool = True,
    pad: bool = True,
) -> Group:
    """Draw the board into width x height cells. `now` is unix seconds.

    `keys` shows the line with the keys; `pad` fills the height, so that this line stands at the bottom.
    """
    pen = Pen(max(1, width), glyphs)
    foot = [_footer(board, pen)] if keys else []
    room = max(0, height - len(foot))
    lines = (_log_screen if board.mode is Mode.LOGS else _overview)(board, pen, now, room)[:room]
    if pad:
        lines += [pen.line() for _ in range(room - len(lines))]
    return Group(*(_shown(line, glyphs) for line in [*lines, *foot][:height]))


def summary(board: Board, width: int, now: float, *, glyphs: Glyphs = UNICODE) -> Group:
    """What stays on the normal screen after a run was watched: the chosen run alone, as tall as it needs."""
    pen = Pen(max(1, width), glyphs)
    lines = [
        line
        for section in _chosen(board, pen, now, rows_wanted=30)
        for line in section.draw(min(section.most, 10))
    ]
    return Group(*(_shown(line, glyphs) for line in lines))


def _shown(line: Text, glyphs: Glyphs) -> Text:
    """The line as it is written: with a line end, and in ASCII where nothing else can be shown."""
    text = line.plain.encode("ascii", "replace").decode() if glyphs.is_ascii else line.plain
    return Text(text, spans=line.spans, no_wrap=True, overflow="crop")


def fit(sections_: Sequence[Section], height: int) -> list[Text]:
    """Draw sections in their order: first each gets its least by rank, then all grow in turn."""
    ranked = sorted(range(len(sections_)), key=lambda at: sections_[at].rank)
    given, left = [0] * len(sections_), height
    for at in ranked:
        if sections_[at].least <= left:
            given[at] = sections_[at].least
            left -= given[at]
    while left > 0:
        growing = [at for at in ranked if 0 < given[at] < sections_[at].most]
        if not growing:
            break
        for at in growing:
            more = min(sections_[at].weight, sections_[at].most - given[at], left)
            given[at] += more
            left -= more
    return [
        line for section, lines in zip(sections_, given, strict=True) if lines for line in section.draw(lines)
    ]


def _overview(board: Board, pen: Pen, now: float, height: int) -> list[Text]:
    head = Section(0, 1, 1, lambda _: [_header(board, pen, now)])
    if not board.rows:
        hint = pen.line("No runs yet. Start one: maas submit JOB.yaml", indent=1)
        return fit([head, Section(1, 1, 1, lambda _: [hint]), *_endpoints(board, pen, now)], height)
    most = min(len(board.rows) + 1, max(1, height // 3), _TABLE_LINES)
    table = Section(1, 1, most, lambda lines: runs_table(board, pen, now, lines))
    return fit(
        [head, table, *_chosen(board, pen, now, rows_wanted=height // 2), *_endpoints(board, pen, now)],
        height,
    )


def _header(board: Board, pen: Pen, now: float) -> Text:
    counts = Counter(row.state for row in board.rows)
    parts = [(f"{len(board.rows)} run{'' if len(board.rows) == 1 else 's'}", BOLD)]
    parts += [(f"{counts[state]} {state}", STATE_STYLES[state]) for state in RunState if counts[state]]
    right = Text()
    if board.row is not None:
        right.append(*sight_age(board.row, now))
    left = pen.narrowed(max(1, pen.width - cell_len(right.plain) - 1)).joined([("maas watch", BOLD), *parts])
    return pen.spread(left, right)


def _chosen(board: Board, pen: Pen, now: float, *, rows_wanted: int) -> list[Section]:
    """The sections of the chosen run."""
    row, detail = board.row, board.detail
    if row is None:
        return []
    progress, is_running = detail.progress, row.state is RunState.RUNNING
    title = f"{row.id} {pen.glyphs.sign(row.state)} {row.state}"
    made = [Section(4, 1, 1, lambda _: [pen.rule(title)])]
    verdicts = len(sections.verdict_texts(row))
    tail = len(row.status.tail) if row.status else 0
    if verdicts or tail:
        made.append(
            Section(2, 1, verdicts + min(tail, 8), lambda lines: sections.verdict(row, pen, lines), 3)
        )
    if progress.at is not None:
        made += [
            Section(2, 1, 1, lambda _: [sections.progress_bar(progress, pen)]),
            Section(3, 1, 1, lambda _: [sections.speed(progress, pen, now, is_running=is_running)]),
        ]
    if progress.loss is not None or progress.validation is not None:
        made.append(Section(4, 1, 1, lambda _: [sections.loss_line(progress, pen)]))
    if len(progress.losses) + len(progress.validations) > 1:
        made.append(
            Section(7, 3, max(6, rows_wanted), lambda lines: sections.loss_chart(progress, pen, lines), 3)
        )
    if progress.before or progress.after:
        measured = sections.evaluation(progress, pen)
        made.append(Section(5, 1, len(measured), lambda lines: measured[:lines]))
    return [*made, *_happenings(board, pen, now)]


def _happenings(board: Board, pen: Pen, now: float) -> list[Section]:
    """The last events; beside them, on a wide page, the log; the log alone where there are no events."""
    told, lines_read = board.detail.progress.notes, board.detail.lines
    left = pen.narrowed(pen.width // 2 - 1)
    right = pen.narrowed(pen.width - left.width - 2)

    def beside(lines: int) -> list[Text]:
        events = [
            left.rule("last events", FAINT),
            *sections.notes(board.detail.progress, left, now, lines - 1),
        ]
        log = [right.rule("log", FAINT), *sections.log_tail(lines_read, right, lines - 1)]
        return _side_by_side(events, log, left.width + 2)

    if told and lines_read and pen.width >= TWO_COLUMNS:
        return [Section(6, 2, 1 + max(len(told), min(len(lines_read), 10)), beside)]
    if told:
        title, most, draw = "last events", len(told), partial(sections.notes, board.detail.progress, pen, now)
    elif lines_read:
        title, most, draw = "log", min(len(lines_read), 20), partial(sections.log_tail, lines_read, pen)
    else:
        return []
    return [Section(6, 2, 1 + most, lambda lines: [pen.rule(title, FAINT), *draw(lines - 1)])]


def _side_by_side(left: list[Text], right: list[Text], at: int) -> list[Text]:
    """Two columns of lines; the right one begins at the cell `at`."""
    made = []
    for number in range(max(len(left), len(right))):
        line = left[number].copy() if number < len(left) else Text()
        line.append(" " * (at - cell_len(line.plain)))
        made.append(line.append_text(right[number]) if number < len(right) else line)
    return made


def _endpoints(board: Board, pen: Pen, now: float) -> list[Section]:
    """The endpoints with the time that they have left."""
    if not board.endpoints:
        return []

    def draw(lines: int) -> list[Text]:
        shown = [sections.endpoint_line(one, pen, now) for one in board.endpoints[: max(1, lines - 1)]]
        return [pen.rule(f"endpoints ({len(board.endpoints)})", FAINT), *shown] if lines > 1 else shown

    return [Section(5, 1, 1 + len(board.endpoints), draw)]


def _log_screen(board: Board, pen: Pen, now: float, height: int) -> list[Text]:
    """The log of the chosen run, long lines folded, its newest line at the bottom unless scrolled up."""
    lines_read = board.detail.lines
    shown = lines_read[: len(lines_read) - board.scroll] if board.scroll else lines_read
    room = max(0, height - 2)
    folded: list[Text] = []
    for line in reversed(shown[-room:] if room else ()):
        folded[:0] = [pen.line(piece) for piece in chop_cells(line, pen.width)] or [pen.line()]
        if len(folded) >= room:
            break
    title = f"log of {board.row.id}" if board.row else "log"
    state = f"{board.scroll:,} lines below" if board.scroll else "newest line at the bottom"
    head = [_header(board, pen, now), pen.rule(f"{title} {pen.glyphs.dot} {state}")]
    empty = [pen.line(("The run has written nothing yet.", FAINT), indent=1)]
    return head[:height] + (folded[-room:] if folded else empty[:room])


def _footer(board: Board, pen: Pen) -> Text:
    """The question that waits for an answer, else what the last key came to, else the keys."""
    if board.asking is not None:
        return pen.line((_question(board, board.asking), ASKING))
    if board.notice:
        return pen.line((board.notice, WARN))
    if not board.rows:
        return pen.line(("q quit", FAINT))
    keys = (
        [f"{pen.glyphs.moves} scroll", "l back"]
        if board.mode is Mode.LOGS
        else [f"{pen.glyphs.moves} choose", "l logs"]
    )
    if board.row is not None and not board.row.state.is_final:
        keys.append("c cancel")
    if board.row is not None and board.row.state in {RunState.FAILED, RunState.CANCELED}:
        keys.append("r resume")
    return pen.joined([(text, FAINT) for text in ["q quit", *keys]])


def _question(board: Board, asking: Command) -> str:
    """What waits for y or n, and what it brings with it: elsewhere than here, a resumed run bills again."""
    if asking.verb == "cancel":
        return f"cancel {asking.run}? It writes a checkpoint first. y/n"
    row = board.row_of(asking.run)
    cost = str(row.record.plan.get("cost") or "") if row is not None else ""
    bills = f" Cost: {cost}" if cost and not cost.startswith("free") else ""
    return f"{asking.verb} {asking.run}? y/n{bills}"
