"""What ends a run without its result, and the one sentence to say about it."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import torch
from safetensors import SafetensorError

from tuning.errors import FailedError, InputError, StoppedError
from tuning.events import EventLog, say
from tuning.stopping import StopRequest

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
    if is_out_of_memory(error):
        return (
            "There is not enough memory for this model and method; lower training.max_length or "
            "distributed.processes, or take method qlora or a smaller model."
        )
    if isinstance(error, OSError):
        return f"Cannot write to {output}: {error.strerror or error}; try another --output."
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, a GPU's or the machine's, did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in OUT_OF_MEMORY_SIGNS)


def diverged(step: int, loss: float, norm: float) -> FailedError:
    """What to say of a step (from 0) whose loss or gradients are no numbers."""
    what = (
        f"The gradients of step {step + 1} exploded (norm {norm:.4g}, loss {loss:.4g})"
        if math.isfinite(loss)
        else f"The loss of step {step + 1} is no number ({loss:.4g})"
    )
    kept = f"checkpoint step-{step:06d} has the weights before it" if step else "nothing was learned yet"
    return FailedError(
        f"{what}; {kept}. Change the job: lower training.learning_rate or training.max_grad_norm, or give "
        "training.precision fp32."
    )


def tell_end(error: Exception, output: Path, stop: StopRequest, events: EventLog) -> Exception:
    """Write what ended the run to the events, if that is still possible; returns the error to raise."""
    known = isinstance(error, InputError | FailedError | StoppedError)
    if stop.signal_number and not known:
        error = StoppedError(stop.signal_number, 0)  # the other processes were faster to leave
        known = True
    if not known and (sentence := explain(error, output)):
        error = FailedError(sentence)
    try:
        if isinstance(error, StoppedError):
            events.write("stopped", reason=error.reason, step=error.step)
        else:
            events.write("failed", message=str(error))
    except OSError as full:
        say(f"The event log could not be written: {full.strerror or full}.")
    return error
