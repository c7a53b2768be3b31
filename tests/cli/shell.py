"""Run `maas` as a user does: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

MAAS = [sys.executable, "-c", "from maas_client.cli.app import main; main()"]


def maas(*words: str, input: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:  # noqa: A002 - as subprocess.run calls it
    """The finished process. `environment` is added to this one's."""
    env = {**os.environ, **environment}
    return subprocess.run([*MAAS, *words], capture_output=True, text=True, env=env, input=input, timeout=120)


def on_a_terminal(*words: str, columns: int = 80, typed: str = "", **environment: str) -> str:
    """What a command prints on a terminal of its own, stdout and stderr together; `typed` is at hand."""
    import fcntl
    import pty
    import struct
    import termios

    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color", **environment}
    env.pop("COLUMNS", None)
    process = subprocess.Popen([*MAAS, *words], stdin=child, stdout=child, stderr=child, env=env)
    os.close(child)
    os.write(parent, typed.encode())
    pages: list[bytes] = []
    try:
        while page := os.read(parent, 65536):
            pages.append(page)
    except OSError:
        pass  # Linux says so when the other side is closed
    finally:
        os.close(parent)
        process.wait(timeout=60)
    return b"".join(pages).decode()


def job_in(folder: Path, **changes: Any) -> Path:
    """A small valid job file with its rows in a folder."""
    import yaml

    rows = folder / "rows.jsonl"
    rows.write_text('{"text": "a", "label": "b"}\n{"text": "c", "label": "d"}\n', encoding="utf-8")
    job = {
        "name": "card-support",
        "task": "classification",
        "model": "tiny-phi3",
        "data": {"train": "rows.jsonl"},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**job, **changes}, sort_keys=False), encoding="utf-8")
    return path
