"""The parts of a frame: each drawn by a pure function into at most as many lines as it is given."""

from __future__ import annotations

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from maas_client.dashboard import chart
from maas_client.dashboard.board import Row
from maas_client.dashboard.glyphs import (
    ALARM,
    BOLD,
    ENDPOINT_STYLES,
    FAINT,
    LINE,
    MARK,
    PLAIN,
    WARN,
    Pen,
)
from maas_client.dashboard.progress import Progress
from maas_client.dashboard.wording import (
    ago,
    amount,
    change,
    duration,
    figure,
    metric_names,
    one_line,
    percent,
    size,
)
from maas_client.endpoint import Billing, EndpointStatus
from maas_client.run import RunState

_AXIS = 9


def verdict(row: Row, pen: Pen, lines: int) -> list[Text]:
    """What the backend said of the run: why it waits, failed or cannot be seen, with its last log lines."""
    style = ALARM if row.state is RunState.FAILED else WARN if row.trouble else FAINT
    made = [pen.line((text, style), indent=1) for text in verdict_texts(row)]
    tail = [pen.line((one_line(line), FAINT), indent=3) for line in (row.status.tail if row.status else ())]
    made = made[:lines]
    room = lines - len(made)
    return made + (tail[-room:] if room > 0 else [])


def verdict_texts(row: Row) -> list[str]:
    """The sentences of a verdict, without the log."""
    reason = f" ({row.status.reason})" if row.status and row.status.reason and not row.state.is_final else ""
    if row.state is RunState.FAILED and row.status and row.status.reason:
        reason = f" ({row.status.reason})"
    texts = [f"{row.state}{reason}: {one_line(row.message)}"] if row.message else []
    if not texts and (reason or row.state is RunState.FAILED):
        texts = [f"{row.state}{reason}"]
    return texts + ([f"cannot be seen just now: {row.trouble}"] if row.trouble else [])


def progress_bar(progress: Progress, pen: Pen) -> Text:
    """Steps, epochs and the share that is done."""
    total = f"/{progress.steps_total:,}" if progress.steps_total else ""
    left = f" step {progress.step:,}{total}"
    if progress.epoch is not None and pen.width >= 60:
        left += f"  epoch {progress.epoch:.2f}" + (
            f"/{progress.epochs:g}" if progress.epochs is not None else ""
        )
    share = progress.fraction
    right = f"{'? %' if share is None else percent(share):>5}"
    cells = max(0, pen.width - cell_len(left) - cell_len(right) - 4)
    done = int((share or 0.0) * cells)
    bar = [(pen.glyphs.done * done, LINE), (pen.glyphs.left * (cells - done), FAINT)]
    return pen.line((left, BOLD), "  ", *bar, " ", (right, BOLD))


def speed(progress: Progress, pen: Pen, now: float, *, is_running: bool) -> Text:
    """Tokens a second, time left, memory, tokens seen and learning rate, as far as there is room."""
    parts: list[tuple[str, Style]] = []
    eta = progress.eta_now_s(now) if is_running else None
    if progress.tokens_per_s is not None:
        parts.append((f"{amount(progress.tokens_per_s)} tokens/s", PLAIN))
    if eta is not None:
        parts.append((f"ETA {duration(eta)}", PLAIN))
    if progress.memory_bytes is not None:
        parts.append((f"memory {size(progress.memory_bytes)}", PLAIN))
    if progress.learning_rate is not None:
        parts.append((f"learning rate {progress.learning_rate:.3g}", PLAIN))
    if progress.tokens_seen is not None:
        parts.append((f"{amount(progress.tokens_seen)} tokens seen", PLAIN))
    nothing = "the service tells no speed" if progress.step else "no steps yet"
    return pen.joined(parts or [(nothing, FAINT)], indent=1)


def loss_line(progress: Progress, pen: Pen) -> Text:
    """The newest losses and the gradient norm."""
    parts = [] if progress.loss is None else [(f"loss {figure(progress.loss)}", LINE + BOLD)]
    if progress.validation is not None:
        step, loss = progress.validation
        parts.append((f"{pen.glyphs.mark} validation loss {figure(loss)} at step {step:,}", MARK))
    if progress.grad_norm is not None:
        parts.append((f"gradient norm {figure(progress.grad_norm)}", PLAIN))
    return pen.joined(parts, indent=1)


def loss_chart(progress: Progress, pen: Pen, lines: int) -> list[Text]:
    """The loss over the steps, validation points marked, with the range at the left and the steps below."""
    rows, columns = lines - 1, pen.width - _AXIS - 2
    glyphs = pen.glyphs
    drawn = chart.draw(
        progress.losses.points,
        progress.validations.points,
        columns,
        rows,
        braille=not glyphs.is_ascii,
        mark=glyphs.mark,
    )
    if drawn is None:
        return []
    made = []
    for at, cells in enumerate(drawn.lines):
        label = figure(drawn.high) if at == 0 else figure(drawn.low) if at == rows - 1 else ""
        text = pen.line((f"{label:>{_AXIS - 1}} {glyphs.axis}", FAINT), (cells, LINE))
        for row, column in drawn.marks:
            if row == at:
                text.stylize(MARK, _AXIS + 1 + column, _AXIS + 2 + column)
        made.append(text)
    scale = f" {glyphs.dot} logarithmic" if drawn.is_logarithmic and columns > 40 else ""
    first, last = f"step {drawn.first:,}{scale}", f"{max(progress.step, drawn.last):,}"
    gap = max(1, columns - len(first) - len(last))
    return [*made, pen.line((f"{' ' * (_AXIS + 1)}{first}{' ' * gap}{last}", FAINT))]


def evaluation(progress: Progress, pen: Pen) -> list[Text]:
    """Metrics before and after training."""
    before, after, arrow = progress.before, progress.after, pen.glyphs.arrow
    told = [change(name, before.get(name), after.get(name), arrow) for name in metric_names(before, after)]
    when = "" if before and after else "before training: " if before else "after training: "
    return pen.flow([(when + told[0], BOLD), *((text, BOLD) for text in told[1:])], indent=1) if told else []


def notes(progress: Progress, pen: Pen, now: float, lines: int) -> list[Text]:
    """The last events, newest at the bottom."""
    shown = progress.notes[-lines:] if lines > 0 else ()
    return [
        pen.line((f"{'' if note.at is None else ago(now - note.at):>10}  ", FAINT), note.text)
        for note in shown
    ]


def log_tail(lines_read: tuple[str, ...], pen: Pen, lines: int) -> list[Text]:
    """The last log lines, each cut to the width."""
    return [pen.line(line, indent=1) for line in (lines_read[-lines:] if lines > 0 else ())]


def endpoint_line(status: EndpointStatus, pen: Pen, now: float) -> Text:
    """An endpoint: its state, the time it has left, its model, its address and whether it bills."""
    parts = [(status.ref.name, BOLD), (status.state.value, ENDPOINT_STYLES[status.state])]
    if status.expires_at is not None:
        left = status.expires_at - now
        parts.append(
            (f"{duration(left)} left", WARN if left < 600 else PLAIN)
            if left > 0
            else ("its time is over", WARN)
        )
    is_free = status.billing is Billing.FREE
    parts += (
        []
        if is_free
        else [(f"bill {status.billing}" if status.billing is Billing.UNKNOWN else "billing", WARN)]
    )
    parts += [(one_line(text), FAINT) for text in (status.url, status.model) if text]
    parts += [("free", FAINT)] if is_free else []
    return pen.joined(parts, indent=1)
