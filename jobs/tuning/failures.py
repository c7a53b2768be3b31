"""What a full disk or a lack of memory looks like, and the one sentence to say about it."""

from __future__ import annotations

import errno
from pathlib import Path

import torch
from safetensors import SafetensorError

OUT_OF_MEMORY_SIGNS = ("can't allocate memory", "out of memory", "bad_alloc")
DISK_FULL_SIGNS = ("no space left", "os error 28", "disk quota")


def explain(error: BaseException, output: Path) -> str | None:
    """A sentence and the next thing to try where disk or memory was too small; None for other errors."""
    text = str(error).lower()
    if isinstance(error, OSError | SafetensorError | RuntimeError) and (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or any(sign in text for sign in DISK_FULL_SIGNS)
    ):
        return f"The disk that holds {output} is full; make room and run the same command again: it goes on."
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in OUT_OF_MEMORY_SIGNS)
    ):
        return (
            "There is not enough memory for a training step; halve training.batch_size and double "
            "training.gradient_accumulation (the result stays the same), or lower training.max_length."
        )
    if isinstance(error, OSError):
        return f"Cannot write to {output}: {error.strerror or error}; try another --output."
    return None
