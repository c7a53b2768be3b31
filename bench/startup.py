"""How fast maas starts, beside `from azure.ai.ml import MLClient`, measured turn by turn in one run.

    python bench/startup.py [--quick]

Prints the median of each command and its ratio to the rival's; exits with 1 when a ratio is above the bound.
Bytecode is compiled first, as `make setup` and pip do: an editable install has none of its own.
"""

from __future__ import annotations

import argparse
import compileall
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOUND = 0.20
JOB = ROOT / "jobs" / "examples" / "card-support.yaml"
MAAS = str(Path(sys.executable).parent / "maas")
RIVAL = "from azure.ai.ml import MLClient"
COMMANDS = {
    RIVAL: (sys.executable, "-c", RIVAL),
    "maas --help": (MAAS, "--help"),
    "maas runs list": (MAAS, "runs", "list"),
    "maas plan": (MAAS, "plan", str(JOB)),
}


def main() -> int:
    """Measure, print, and say whether every ratio is within the bound."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 9")
    rounds = 3 if parser.parse_args().quick else 9
    for folder in ("maas_client", "jobs"):
        compileall.compile_dir(ROOT / folder, quiet=1)
    print(f"Bytecode compiled; {rounds} rounds, the commands in turn; medians:")
    medians = {name: statistics.median(times) for name, times in measure(rounds).items()}
    for name, seconds in medians.items():
        ratio = seconds / medians[RIVAL]
        verdict = "" if name == RIVAL else f"  (bound {BOUND:.2f}{', missed' if ratio > BOUND else ''})"
        print(f"{seconds * 1000:8.0f} ms   {ratio:.3f}   {name}{verdict}")
    return int(any(medians[name] > BOUND * medians[RIVAL] for name in medians if name != RIVAL))


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each command in each round, after one round that only warms the file cache."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HOME": home, "XDG_STATE_HOME": home}
        for number in range(rounds + 1):
            for name, command in COMMANDS.items():
                began = time.perf_counter()
                subprocess.run(command, cwd=home, env=environment, check=True, capture_output=True)
                if number:
                    times[name].append(time.perf_counter() - began)
    return times


if __name__ == "__main__":
    sys.exit(main())
