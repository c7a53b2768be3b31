"""Tables and lines for people: drawn with rich on a terminal, plain text in a pipe, which needs no rich."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


class Table:
    """Rows under headings. `columns` maps a heading to "left" or "right"."""

    def __init__(self, columns: Mapping[str, str], rows: Sequence[Sequence[str]]) -> None:
        self.columns = columns
        self.rows = rows

    def plain(self) -> str:
        """Every cell whole, two blanks between columns; no heading where there are no words for one."""
        head = [list(self.columns)] if self._has_heading else []
        lines = [*head, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        sides = [side == "right" for side in self.columns.values()]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, sides, strict=True)
            ).rstrip()
            for line in lines
        )

    @property
    def _has_heading(self) -> bool:
        return any(heading.strip() for heading in self.columns)

    def __rich__(self) -> RenderableType:
        from rich.table import Table as RichTable

        made = RichTable(box=None, pad_edge=False, header_style="bold", show_header=self._has_heading)
        for heading, side in self.columns.items():
            made.add_column(heading, justify="right" if side == "right" else "left", overflow="fold")
        for row in self.rows:
            made.add_row(*row)
        return made


class Page:
    """Lines of text and tables, one below the other."""

    def __init__(self, *parts: str | Table) -> None:
        self.parts = parts

    def plain(self) -> str:
        """The parts as plain text."""
        return "\n".join(part if isinstance(part, str) else part.plain() for part in self.parts)

    def __rich__(self) -> RenderableType:
        from rich.console import Group

        return Group(*self.parts)
