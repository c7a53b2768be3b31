"""The data files of a job seen before anything starts: are they there, and can they be read?"""

from __future__ import annotations

import os
from pathlib import Path

from maas_client.data.preference import require_objective
from maas_client.errors import DataError
from maas_client.spec import JobSpec


def check_data_files(spec: JobSpec, *, trains: bool = True) -> None:
    """See that the job's files of rows can be read. Raises DataError.

    Where the job `trains`, its objective and the kind of its rows must agree; any rows can be scored.
    """
    for file in filter(None, (spec.data.train, spec.data.validation.file)):
        _require_rows(file)
        if trains:
            require_objective(file, spec.training.objective)


def _require_rows(file: Path) -> None:
    hint = "Paths in a job file are relative to that file."
    if file.is_dir():
        raise DataError(f"{file} is a folder; a file of rows is needed.", hint=hint)
    if not file.is_file():
        raise DataError(f"There is no data file {file}.", hint=hint)
    if file.stat().st_size == 0:
        raise DataError(
            f"{file} is empty.", hint="Write one row a line, then look at it: maas data check FILE"
        )
    if not os.access(file, os.R_OK):
        raise DataError(f"{file} cannot be read: permission denied.", hint="Change its permissions.")
