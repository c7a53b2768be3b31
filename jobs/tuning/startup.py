"""What a script sets before it imports torch."""

from __future__ import annotations

import os

from tuning.stopping import exit_quietly_while_starting

# OpenMP threads that wait for each other spin. On a machine that does something else too, the other thread
# may be off the processor for milliseconds, and every small operation then takes as long: beside one busy
# process a step took 8 times longer. Spinning briefly, then sleeping, costs a few percent on an idle machine.
BRIEF_SPIN = "2000"

ENVIRONMENT = {
    "GOMP_SPINCOUNT": BRIEF_SPIN,
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def prepare_process() -> None:
    """Set defaults of the libraries' environment, and let a stop signal end the process while they load.

    Call it first in a script, before torch is imported. `StopRequest` takes the signals over later.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    exit_quietly_while_starting()
