"""The matrix: every scenario by every technique, trained for real, and what each technique costs.

    python bench/matrix.py                     # all of it, 15 minutes; writes docs/matrix.md, README.md
    python bench/matrix.py --quick             # a technique of each column, few steps; prints only
    python bench/matrix.py --cell qa-dora      # one cell, as often as named; prints only
    python bench/matrix.py --cell cost-dora    # what one technique costs

tiny-phi3 learns the rows of jobs/examples by the bundled script, each process on a core of its own, and every
cell is scored on held-out rows before and after. What techniques cost is measured on a larger model beside
full training (bench/matrix_cost.py). Exits 1 if a cell is not better than before. For CPUs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "jobs")]

from bench.matrix_cells import COSTS, TECHNIQUES, Cell, cells  # noqa: E402
from bench.matrix_cost import FULL, Cost, compare, contender, make_model  # noqa: E402
from bench.matrix_page import cost_in_words, in_words, overview, page, with_overview  # noqa: E402
from bench.matrix_runs import CORES, Learned, learn_all, load_libraries  # noqa: E402

PAGE = ROOT / "docs" / "matrix.md"
README = ROOT / "README.md"
QUICK = ("lora", "qlora", "oft", "deepspeed", "zero3", "dora")
QUICK_STEPS = 20
PREFIX = "cost-"


class Notes:
    """What was measured so far, kept in a file if there is one, so that an interrupted run goes on."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
        found = [json.loads(line) for line in lines]
        self.learned = {facts["cell"]: Learned(**facts) for facts in found if "cell" in facts}
        self.costs = {facts["technique"]: Cost(**facts) for facts in found if "technique" in facts}

    def keep(self, facts: Learned | Cost) -> None:
        """Remember one measurement."""
        if isinstance(facts, Learned):
            self.learned[facts.cell] = facts
        else:
            self.costs[facts.technique] = facts
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(facts)) + "\n")


def learn_cells(chosen: Sequence[Cell], notes: Notes, folder: Path, steps: int | None) -> None:
    """Train the cells that have not been trained, and tell of each."""
    missing = [cell for cell in chosen if str(cell) not in notes.learned]
    for facts in learn_all(missing, folder, steps):
        notes.keep(facts)
        print(f"{facts.cell:26} {in_words(facts)}{'' if facts.is_better else '  NOT BETTER'}", flush=True)


def measure_costs(chosen: Sequence[str], notes: Notes, folder: Path) -> None:
    """Measure techniques beside full training, and tell of each."""
    missing = [name for name in chosen if name not in notes.costs]
    if missing:
        model = make_model(folder)
        with contender("full", FULL, model, folder / "full") as full:
            for name in missing:
                with contender(name, TECHNIQUES[name], model, folder / f"{PREFIX}{name}") as other:
                    notes.keep(compare(full, other))
                print(f"{PREFIX + name:26} {cost_in_words(notes.costs[name])}", flush=True)


def _chosen(named: Sequence[str]) -> tuple[list[str], list[Cell]]:
    """(techniques to measure, cells to train), by name; ends the program where there is no such cell."""
    known = {str(cell): cell for cell in cells()}
    costs = {f"{PREFIX}{name}": name for name in COSTS}
    if unknown := [name for name in named if name not in known.keys() | costs.keys()]:
        raise SystemExit(f"There is no cell {unknown[0]}; there are: {', '.join([*known, *costs])}.")
    return [costs[one] for one in named if one in costs], [known[one] for one in named if one in known]


def write_pages(notes: Notes) -> None:
    """docs/matrix.md, and its table in the README."""
    table = overview(notes.learned, notes.costs)
    README.write_text(with_overview(README.read_text(encoding="utf-8"), table), encoding="utf-8")
    PAGE.write_text(page(notes.learned, notes.costs, cores=CORES), encoding="utf-8")


def main() -> int:
    """Measure what the command line names; with nothing named, everything, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a technique of each column, few steps")
    parser.add_argument("--cell", action="append", default=[], metavar="NAME", help="only this cell")
    parser.add_argument("--notes", type=Path, help="file to keep measurements in, and to go on from")
    given = parser.parse_args()
    costs, learned = _chosen(given.cell)
    if not given.cell:
        costs, learned = list(COSTS), list(cells())
        if given.quick:
            costs = [name for name in costs if name in QUICK]
            learned = [cell for cell in learned if cell.technique_name in QUICK]
    load_libraries()
    notes = Notes(given.notes)
    with tempfile.TemporaryDirectory() as folder:
        learn_cells(learned, notes, Path(folder), QUICK_STEPS if given.quick else None)
        measure_costs(costs, notes, Path(folder))
    if not given.quick and not given.cell:
        write_pages(notes)
    failed = [str(cell) for cell in learned if not notes.learned[str(cell)].is_better]
    print(f"{len(learned) - len(failed)} of {len(learned)} cells learned; not: {', '.join(failed) or 'none'}")
    return int(bool(failed) and not given.quick)


if __name__ == "__main__":
    sys.exit(main())
