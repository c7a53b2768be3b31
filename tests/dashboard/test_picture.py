"""The picture in the README shows the dashboard as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


def test_the_picture_is_up_to_date() -> None:
    program = "import dashboard; print(dashboard.picture())"
    drawn = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        encoding="utf-8",
        cwd=PICTURES,
        timeout=60,
        env={"PYTHONPATH": str(PICTURES.parents[1]), "PYTHONUTF8": "1", "TZ": "Asia/Tokyo", "COLUMNS": "40"},
    )
    assert drawn.returncode == 0, drawn.stderr
    kept = (PICTURES / "dashboard.svg").read_text(encoding="utf-8")
    assert drawn.stdout == kept, "Draw it again: python docs/pictures/dashboard.py"
    assert "small-talk-51c0ffee-2" in kept
