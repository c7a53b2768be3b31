"""What the device can do: the faster number format (measured, not believed) and how much memory there is."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import torch

CLEARLY_FASTER = 1.3
NARROW = 512


def choose_precision(wanted: str, device: torch.device, hidden_size: int) -> tuple[str, str]:
    """(`fp32` or `bf16`, why): what was wanted, or for "auto" the faster of the two on this device.

    On a CPU some processors multiply bf16 matrices four times faster than fp32 and others four times slower,
    so a product is timed. A narrow model stays with fp32 all the same: there the casts take back what the
    products win (1.1 times faster at hidden size 160 where products alone are 4.4 times faster).
    """
    if wanted != "auto":
        return wanted, "the config says so"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "the GPU multiplies it at full speed"
        return "fp32", "the GPU does not multiply bf16"
    if hidden_size < NARROW:
        return "fp32", f"casts would take back what bf16 wins below a hidden size of {NARROW}"
    ratio = _matmul_seconds(torch.float32) / _matmul_seconds(torch.bfloat16)
    chosen = "bf16" if ratio > CLEARLY_FASTER else "fp32"
    return chosen, f"products in bf16 have {ratio:.1f} times the speed of fp32 on this CPU"


def _matmul_seconds(dtype: torch.dtype, size: int = 512) -> float:
    """The best of three products of two square matrices on one thread, in seconds (about 20 ms in all).

    Of the thread's own time: whatever else the machine does must not decide on the number format.
    """
    left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    best, threads = float("inf"), torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(4):  # the first one warms up and is never the best
        start = time.thread_time()
        left @ right
        best = min(best, time.thread_time() - start)
    torch.set_num_threads(threads)
    return best


def memory_used_bytes(device: torch.device) -> int:
    """The most memory that this process has held so far: on the GPU, or resident in RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_held_bytes(device: torch.device) -> int:
    """The memory that this process holds now: on the GPU, or resident in RAM; 0 where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else 0


def memory_free_bytes(device: torch.device) -> int | None:
    """Memory that can still be taken, or None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024
