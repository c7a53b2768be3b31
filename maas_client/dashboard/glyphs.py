"""The characters and colors of the dashboard, and lines that fit a width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from maas_client.endpoint import EndpointState
from maas_client.run import RunState

PLAIN = Style()
BOLD = Style(bold=True)
FAINT = Style(dim=True)
WARN = Style(color="yellow")
ALARM = Style(color="red", bold=True)
LINE = Style(color="cyan")
MARK = Style(color="yellow", bold=True)
ASKING = Style(color="yellow", bold=True, reverse=True)

STATE_STYLES = {
    RunState.QUEUED: FAINT,
    RunState.RUNNING: Style(color="cyan", bold=True),
    RunState.CANCELING: WARN,
    RunState.SUCCEEDED: Style(color="blue", bold=True),
    RunState.FAILED: ALARM,
    RunState.CANCELED: FAINT,
    RunState.UNKNOWN: WARN,
}
"""No two states differ by color alone: each has its own sign and its word."""

ENDPOINT_STYLES = {
    EndpointState.STARTING: LINE,
    EndpointState.READY: Style(color="blue", bold=True),
    EndpointState.FAILED: ALARM,
    EndpointState.EXPIRED: FAINT,
    EndpointState.STOPPED: FAINT,
    EndpointState.UNKNOWN: WARN,
}


@dataclass(frozen=True)
class Glyphs:
    """One set of characters. `states` holds the signs of the run states in their order, queued to unknown."""

    states: str
    pointer: str
    rule: str
    done: str
    left: str
    arrow: str
    dot: str
    more: str
    mark: str
    moves: str
    axis: str
    is_ascii: bool

    def sign(self, state: RunState) -> str:
        """The sign of a run's state."""
        return self.states[list(RunState).index(state)]


UNICODE = Glyphs("○●◐✓✗■?", "❯", "─", "━", "─", "→", "·", "…", "◆", "↑↓", "│", False)
ASCII = Glyphs("o*~+x#?", ">", "-", "#", ".", "->", "|", "..", "V", "up/down", "|", True)


def glyphs_for(encoding: str | None) -> Glyphs:
    """The characters that an output encoding can show."""
    return (
        UNICODE if (encoding or "").lower().replace("-", "").replace("_", "") in {"utf8", "utf16"} else ASCII
    )


@dataclass(frozen=True)
class Pen:
    """Writes lines that are never wider than `width` cells."""

    width: int
    glyphs: Glyphs

    def line(self, *parts: str | tuple[str, Style], indent: int = 0) -> Text:
        """One line of plain and styled parts, cut with an ellipsis where it is too wide."""
        text = Text(" " * indent, no_wrap=True, end="")
        for part in parts:
            text.append(*((part, PLAIN) if isinstance(part, str) else part))
        return self.cut(text)

    def cut(self, text: Text) -> Text:
        """A line shortened to the width."""
        if cell_len(text.plain) <= self.width:
            return text
        more = self.glyphs.more[: self.width]
        text.truncate(max(0, self.width - len(more)), overflow="crop")
        return text.append(more)

    def joined(self, parts: Sequence[tuple[str, Style]], *, indent: int = 0) -> Text:
        """As many parts as fit, in order, with dots between; at least the first."""
        text = self.line(parts[0], indent=indent) if parts else self.line()
        for part in parts[1:]:
            longer = text.copy().append(f" {self.glyphs.dot} ", FAINT).append(*part)
            if cell_len(longer.plain) > self.width:
                break
            text = longer
        return text

    def flow(self, parts: Sequence[tuple[str, Style]], *, indent: int = 0) -> list[Text]:
        """All parts, in order, on as few lines as they need."""
        made: list[Text] = []
        for part in parts:
            longer = made[-1].copy().append(f" {self.glyphs.dot} ", FAINT).append(*part) if made else None
            if longer is not None and cell_len(longer.plain) <= self.width:
                made[-1] = longer
            else:
                made.append(self.line(part, indent=indent))
        return made

    def spread(self, left: Text, right: Text) -> Text:
        """Two texts at the two ends of a line; the right one is left out where there is no room."""
        gap = self.width - cell_len(left.plain) - cell_len(right.plain)
        return self.cut(left) if gap < 1 else left.append(" " * gap).append_text(right)

    def rule(self, title: str, style: Style = BOLD) -> Text:
        """A horizontal line with a title."""
        rule = self.glyphs.rule
        text = self.line((f"{rule} ", FAINT), (title, style), " ")
        return text.append(rule * max(0, self.width - cell_len(text.plain)), FAINT)

    def column(self, text: str, width: int, *, right: bool = False) -> str:
        """A text as exactly `width` cells."""
        made = self.narrowed(width).line(text).plain
        blanks = " " * (width - cell_len(made))
        return blanks + made if right else made + blanks

    def narrowed(self, width: int) -> Pen:
        """The same pen on a narrower page."""
        return Pen(width, self.glyphs)
