"""Everything that maas_client raises, and the exit code that the command line gives for it.

    MaasError                  1
      UsageError               2    the file, the machine or the combination is wrong: nothing was sent
        SpecError                   the job file
        DataError                   the data file
        SettingsError               the environment or .env
        PlanError                   the combination of model, method, backend and machine
        TargetError                 a run or endpoint is in another place than the settings name
      ServiceError             3    a service or a local store refused or failed; it has operation, status,
                                    code and request_id
        AccessDeniedError           no credential, wrong key, no role
        NotFoundError               no such run, model, endpoint
        ConflictError               the name is taken, or the thing is in the wrong state
        RejectedError               the service says that the request is wrong
        QuotaError                  no quota or no room
        UnavailableError       4    not reachable or overloaded just now: the only one that may be retried
      RunError                      what became of a run
        RunFailedError       100
        StillRunningError    101
        RunCanceledError     103

Code 0 means that the thing asked for is true, 130 that Ctrl-C ended the command. A state of a run or of a
bill that cannot be learned is never 0. Every message is one sentence for a person; `hint` is the next thing
to try.
"""

from __future__ import annotations


class MaasError(Exception):
    """Root of the tree. `message` says what is wrong, `hint` what to try next (may be empty)."""

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def to_dict(self) -> dict[str, object]:
        """The error as JSON-ready data, for `-o json`."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class UsageError(MaasError):
    """The request cannot work as it stands; nothing was sent. `problems` holds every problem, a line each."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems

    def to_dict(self) -> dict[str, object]:
        return {**super().to_dict(), **({"problems": list(self.problems)} if self.problems else {})}


class SpecError(UsageError):
    """The job file is wrong."""


class DataError(UsageError):
    """The data file is missing, unreadable or holds rows that cannot be used."""


class SettingsError(UsageError):
    """An environment variable or a line of .env is wrong."""


class PlanError(UsageError):
    """The parts of the job are each right, but not together or not on this machine."""


class TargetError(UsageError):
    """A run or endpoint is in another subscription, workspace or account than the settings name."""


class ServiceError(MaasError):
    """A service (or the local store that stands in for one) refused or failed.

    `operation` names what was tried, `status` is the HTTP status where there was one, `code` the service's
    own word, `request_id` what its support asks for.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        operation: str = "",
        status: int | None = None,
        code: str = "",
        request_id: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.operation = operation
        self.status = status
        self.code = code
        self.request_id = request_id

    def to_dict(self) -> dict[str, object]:
        facts = {
            "operation": self.operation,
            "status": self.status,
            "code": self.code,
            "request_id": self.request_id,
        }
        return {**super().to_dict(), **{key: value for key, value in facts.items() if value}}


class AccessDeniedError(ServiceError):
    """No credential, a wrong key or a missing role."""


class NotFoundError(ServiceError):
    """No such run, model or endpoint."""


class ConflictError(ServiceError):
    """The name is taken, or the thing is not in a state that allows this."""


class RejectedError(ServiceError):
    """The service says that the request is wrong."""


class QuotaError(ServiceError):
    """No quota, memory or disk is left for this."""


class UnavailableError(ServiceError):
    """Not reachable or overloaded just now; trying again may help (after `retry_after_s` where set)."""

    exit_code = 4
    retry_after_s: float | None = None


class RunError(MaasError):
    """What became of a run."""


class RunFailedError(RunError):
    """The run ended without its result."""

    exit_code = 100


class StillRunningError(RunError):
    """The run has not ended (and was not waited for any longer)."""

    exit_code = 101


class RunCanceledError(RunError):
    """The run was canceled."""

    exit_code = 103
