"""A reader of tunes in ABC notation (version 2.1): whether one can be read, and how long its bars are."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

_FIELD = re.compile(r"(?P<name>[A-Za-z+]):[ \t]*(?P<value>[^%\n]*)")
_METER = re.compile(r"(\(?\d+(?:\+\d+)*\)?)/(\d+)")
_LENGTH = r"(?P<{0}times>\d*)(?P<{0}parts>(?:/\d*)*)"
_NOTE = r"[_^=]*[A-Ga-gzx][,']*"
_TOKENS = re.compile(
    "|".join(
        (
            r"(?P<skip>[ \t`*\\y]+|%.*|\"[^\"\n]*\"|![^!\n]*!|\{[^}\n]*\}|[.~HLMOPSTuv()&-])",
            r"\[(?P<inline>[A-Za-z]:[^\]\n]*)\]",
            r"(?P<volta>\[[1-9][0-9,-]*)",
            r"(?P<bar>[:|]*\|[\]|:]*(?:[1-9][0-9,-]*)?|\[\||::+)",
            r"(?P<broken>[<>]{1,3})",
            rf"\[(?P<chord>[^\[\]|\n]*)\]{_LENGTH.format('chord')}",
            rf"(?P<note>{_NOTE}){_LENGTH.format('note')}",
            r"(?P<rest>Z)(?P<bars>\d*)",
        )
    )
)
_TUPLET = re.compile(r"\((?P<notes>[2-9])(?::(?P<time>\d?)(?::(?P<count>\d?))?)?")
_CHORD = re.compile(rf"[+ -]*{_NOTE}{_LENGTH.format('first')}(?:{_NOTE}\d*(?:/\d*)*|[+ ()-])*")
_TUPLET_TIMES = {2: 3, 3: 2, 4: 3, 5: 2, 6: 2, 7: 2, 8: 3, 9: 2}


@dataclass
class Tune:
    """What was read: `problem` says why a tune cannot be read ("" where it can).

    `bars` counts the whole bars that stand between two plain bar lines, `full_bars` those of them that are
    as long as their meter says; bars at the edges of a part may lack a beat.
    """

    problem: str = ""
    notes: int = 0
    bars: int = 0
    full_bars: int = 0


def header_of(text: str) -> str:
    """The lines of a tune up to its first K: field, with the newline; "" where it has none."""
    match = re.search(r"^K:.*\n?", text, re.MULTILINE)
    return text[: match.end()] if match else ""


def read_tune(text: str, *, is_cut: bool = False) -> Tune:
    """Read a tune; one that `is_cut` somewhere is read up to its last bar line."""
    header = header_of(text)
    if not re.match(r"(%.*\n)*X:[ \t]*\d", header):
        return Tune("no X: field comes first, or no K: field ends the header")
    for line in header.splitlines():
        if not (_FIELD.match(line) or line.startswith("%")):
            return Tune(f"the header has the line {line[:40]!r}")
    body = text[len(header) :]
    reading = _Reading()
    try:
        for name, value in _FIELD.findall(header):
            reading.set_field(name, value)
        if is_cut:
            body = body[: body.rfind("|") + 1]
        for line in body.splitlines():
            reading.read_line(line)
    except ValueError as error:
        return Tune(str(error), reading.tune.notes)
    reading.end_bar("")
    if not reading.tune.notes or not reading.lines_drawn:
        return Tune("the body has no notes" if not reading.tune.notes else "the body has no bar line")
    return reading.tune


@dataclass
class _Reading:
    """How far a tune is read."""

    tune: Tune = field(default_factory=Tune)
    meter: Fraction | None = None
    unit: Fraction | None = None
    length: Fraction = Fraction(0)
    has_notes: bool = False
    last_note: Fraction = Fraction(0)
    next_factor: Fraction = Fraction(1)
    tuplet: tuple[Fraction, int] = (Fraction(1), 0)
    is_edge: bool = True
    lines_drawn: int = 0

    def set_field(self, name: str, value: str) -> None:
        """Take a meter or a unit length. Raises ValueError for one that is none."""
        value = value.strip()
        if name == "M":
            self.meter = _meter(value)
        elif name == "L":
            match = re.fullmatch(r"(\d+)(?:/(\d+))?", value)
            if match is None or not int(match[1]) or not int(match[2] or 1):
                raise ValueError(f"L:{value[:20]} is no length")
            self.unit = Fraction(int(match[1]), int(match[2] or 1))
        elif name == "K" and self.unit is None:
            is_short = self.meter is not None and self.meter < Fraction(3, 4)
            self.unit = Fraction(1, 16) if is_short else Fraction(1, 8)
        elif name == "P":
            self.is_edge = True

    def read_line(self, line: str) -> None:
        """Read a line of the body. Raises ValueError at what is no ABC."""
        if (match := _FIELD.match(line)) and match["name"] not in "ABCDEFGabcdefgxz":
            self.set_field(match["name"], match["value"])
            return
        place = 0
        while place < len(line):
            if tuplet := _TUPLET.match(line, place):
                notes = int(tuplet["notes"])
                time = int(tuplet["time"] or _TUPLET_TIMES[notes])
                self.tuplet = (Fraction(time, notes), int(tuplet["count"] or notes))
                place = tuplet.end()
                continue
            token = _TOKENS.match(line, place)
            if token is None:
                raise ValueError(f"{line[place : place + 20]!r} is no ABC")
            self._take(token)
            place = token.end()

    def _take(self, token: re.Match[str]) -> None:
        """Take one token. Raises ValueError."""
        if token["bar"]:
            self.end_bar(token["bar"])
        elif token["volta"]:
            self.is_edge = True
        elif token["inline"]:
            self.set_field(token["inline"][0], token["inline"][2:])
        elif token["broken"]:
            self._break_rhythm(token["broken"])
        elif token["rest"]:
            self.length += (self.meter or 0) * int(token["bars"] or 1)
            self.is_edge = self.is_edge or int(token["bars"] or 1) > 1
            self.has_notes = True
        elif token["note"]:
            self._add(_length(token, "note"))
        elif token["chord"] is not None:
            chord = _CHORD.fullmatch(token["chord"])
            if chord is None:
                raise ValueError(f"[{token['chord'][:20]}] is no chord")
            self._add(_length(chord, "first") * _length(token, "chord"))

    def _add(self, times: Fraction) -> None:
        """A note, rest or chord of so many units."""
        factor, left = self.tuplet
        if left:
            times *= factor
            self.tuplet = (factor, left - 1)
        self.last_note = times * self.next_factor * (self.unit or Fraction(1, 8))
        self.next_factor = Fraction(1)
        self.length += self.last_note
        self.has_notes = True
        self.tune.notes += 1

    def _break_rhythm(self, marks: str) -> None:
        """Lengthen the note before and shorten the one after (>), or the other way round (<)."""
        short = Fraction(1, 2 ** len(marks))
        before, after = (2 - short, short) if marks[0] == ">" else (short, 2 - short)
        self.length += self.last_note * (before - 1)
        self.next_factor = after

    def end_bar(self, line: str) -> None:
        """Measure the bar that a bar line (or the end) closes."""
        is_plain = line == "|"
        if self.has_notes:
            if not self.is_edge and is_plain and self.meter is not None:
                self.tune.bars += 1
                self.tune.full_bars += self.length == self.meter
            self.is_edge = not is_plain
        else:
            self.is_edge = self.is_edge or not is_plain
        self.lines_drawn += bool(line)
        self.length, self.has_notes = Fraction(0), False


def _meter(value: str) -> Fraction | None:
    """The length of a bar; None for free meter. Raises ValueError."""
    if value in ("none", ""):
        return None
    if value in ("C", "C|"):
        return Fraction(1)
    match = _METER.fullmatch(value)
    if match is None or not int(match[2]):
        raise ValueError(f"M:{value[:20]} is no meter")
    return Fraction(sum(map(int, match[1].strip("()").split("+"))), int(match[2]))


def _length(token: re.Match[str], name: str) -> Fraction:
    """The length after a note: `3`, `/2`, `3/2`, `//`. Raises ValueError for a division by 0."""
    length = Fraction(int(token[f"{name}times"] or 1))
    for part in token[f"{name}parts"].split("/")[1:]:
        if part and not int(part):
            raise ValueError("a length is divided by 0")
        length /= int(part or 2)
    return length
