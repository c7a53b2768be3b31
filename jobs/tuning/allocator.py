"""How the C library keeps memory that was freed."""

from __future__ import annotations

import ctypes
import sys

M_MMAP_THRESHOLD = -3  # malloc.h of glibc
OWN_MAPPING_FROM = 128 << 10


def give_back_freed_memory() -> None:
    """Let a tensor's memory go back to the system with the tensor; does nothing where there is no glibc.

    glibc begins like this, but comes to keep freed blocks of up to 32 MB for later ones, which seldom fit. In
    training a tenth to a third of the resident memory were such holes (with a model of 29 M, 909 MB in place
    of 754; recomputing activations 482 in place of 311). But memory that is fetched anew each time costs: a
    step of a model of 135 M took 1.13 of the CPU time. So this is for where memory is tight.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, OWN_MAPPING_FROM)
