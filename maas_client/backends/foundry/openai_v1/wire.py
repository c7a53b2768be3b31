"""The JSON of the OpenAI v1 API and of deployments, which goes no further; and what its words mean here.

The live service leaves out what is null, and says things that OpenAI's schema does not have: `pending`,
`pausing`, negative token counts, jobs that end before they began. What is missing or odd is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maas_client.run import Reason, RunState, RunStatus
from maas_client.transport.members import as_number

if TYPE_CHECKING:
    from maas_client.plan import Plan

TAG_RUN, TAG_JOB, TAG_FINGERPRINT = "maas-run", "maas-job", "maas-fingerprint"
SUFFIX_LENGTH = 40
"""Characters of a suffix that every version of the API takes."""
FEWEST_EXAMPLES = 10
FILE_LIMIT_BYTES = 512 * 1024 * 1024
RESULTS_PURPOSE = "fine-tune-results"

STATES: Mapping[str, RunState] = {
    "created": RunState.QUEUED,
    "notrunning": RunState.QUEUED,
    "pending": RunState.QUEUED,
    "queued": RunState.QUEUED,
    "validating_files": RunState.QUEUED,
    "resuming": RunState.QUEUED,
    "running": RunState.RUNNING,
    "pausing": RunState.RUNNING,
    "paused": RunState.CANCELED,
    "cancelling": RunState.CANCELING,
    "canceling": RunState.CANCELING,
    "cancelled": RunState.CANCELED,
    "canceled": RunState.CANCELED,
    "succeeded": RunState.SUCCEEDED,
    "failed": RunState.FAILED,
}
"""Every status word, in lower case. A paused job goes on only when somebody says so, like a canceled run."""
PAUSED = "paused"

_DATA_WORDS = (
    "example",
    "jsonl",
    "training file",
    "validation file",
    "training_file",
    "file format",
    "moderation",
)
_REASONS = (
    ("quota", Reason.QUOTA),
    ("capacity", Reason.CAPACITY),
    ("unauthorized", Reason.IDENTITY),
    ("forbidden", Reason.IDENTITY),
)


@dataclass(frozen=True)
class Job:
    """One look at a fine-tuning job. `native` is the service's word; times are unix seconds.

    `run` and `fingerprint` are what maas wrote into the metadata, "" where the service shows none; `suffix`
    likewise.
    """

    id: str
    native: str
    created_at: float
    model: str = ""
    run: str = ""
    fingerprint: str = ""
    suffix: str = ""
    fine_tuned_model: str = ""
    training_file: str = ""
    finished_at: float | None = None
    estimated_finish: float | None = None
    trained_tokens: int | None = None
    result_files: tuple[str, ...] = ()
    error_code: str = ""
    error_message: str = ""
    error_param: str = ""
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def state(self) -> RunState:
        """The state in our words."""
        return STATES.get(self.native.strip().lower(), RunState.UNKNOWN)

    @property
    def is_paused(self) -> bool:
        """True for a job that goes on when it is resumed."""
        return self.native.strip().lower() == PAUSED

    @property
    def is_live(self) -> bool:
        """True for a job that trains, will train, or may go on: it can still cost something."""
        return self.is_paused or not self.state.is_final

    @property
    def order(self) -> tuple[float, str]:
        """Which of several jobs of a run came first: the same answer for whoever asks."""
        return (self.created_at, self.id)


def read_job(body: Mapping[str, Any]) -> Job:
    """Read a job, however much of it is missing."""
    metadata = _mapping(body.get("metadata"))
    error = _mapping(body.get("error"))
    tokens = as_number(body.get("trained_tokens"))
    return Job(
        id=_text(body.get("id")),
        native=_text(body.get("status")),
        created_at=as_number(body.get("created_at")) or 0.0,
        model=_text(body.get("model")),
        run=_text(metadata.get(TAG_RUN)),
        fingerprint=_text(metadata.get(TAG_FINGERPRINT)),
        suffix=_text(body.get("user_provided_suffix") or body.get("suffix")),
        fine_tuned_model=_text(body.get("fine_tuned_model")),
        training_file=_text(body.get("training_file")),
        finished_at=as_number(body.get("finished_at")),
        estimated_finish=as_number(body.get("estimated_finish")),
        trained_tokens=int(tokens) if tokens is not None and tokens >= 0 else None,
        result_files=tuple(each for each in _list(body.get("result_files")) if isinstance(each, str)),
        error_code=_text(error.get("code")),
        error_message=_text(error.get("message")),
        error_param=_text(error.get("param")),
        body=body,
    )


def to_status(job: Job, *, seen_at: float, message: str = "") -> RunStatus:
    """A look at a job as a look at its run. `message` goes before the job's own words."""
    state = job.state
    words = [message, _words(job)]
    ended = job.finished_at if state.is_final else None
    if ended is not None and ended < job.created_at:
        ended = None
    return RunStatus(
        state=state,
        native_state=job.native,
        seen_at=seen_at,
        reason=_reason(job) if state is RunState.FAILED else None,
        message=" ".join(word for word in words if word),
        tail=(job.error_message,) if state is RunState.FAILED and job.error_message else (),
        started_at=None if state is RunState.QUEUED or not job.created_at else job.created_at,
        ended_at=ended,
    )


def _words(job: Job) -> str:
    """What the job's state means for a person, where its word does not say it."""
    if job.is_paused:
        return "The job is paused; maas runs resume goes on with it."
    if job.state is RunState.FAILED:
        return job.error_message or job.error_code
    return ""


def _reason(job: Job) -> Reason | None:
    said = f"{job.error_code} {job.error_message}".lower()
    for word, reason in _REASONS:
        if word in said:
            return reason
    if job.error_param in {"training_file", "validation_file"} or any(word in said for word in _DATA_WORDS):
        return Reason.DATA
    return None


@dataclass(frozen=True)
class JobEvent:
    """Something that a job told. `data` holds metrics by their names, empty where it is only a message."""

    id: str
    at: float
    level: str
    message: str
    data: Mapping[str, Any]


def read_event(body: Mapping[str, Any]) -> JobEvent:
    """Read an event. One without an id gets one that follows from what it says."""
    at, message = as_number(body.get("created_at")) or 0.0, _text(body.get("message"))
    identity = _text(body.get("id")) or f"{at:.0f} {message}"
    return JobEvent(identity, at, _text(body.get("level")), message, _mapping(body.get("data")))


@dataclass(frozen=True)
class File:
    """A file that the service holds. `size_bytes` None is not told."""

    id: str
    name: str
    status: str
    size_bytes: int | None
    created_at: float
    details: str = ""

    @property
    def is_broken(self) -> bool:
        """True for a file that no job can use."""
        return self.status.lower() in {"error", "failed", "deleted", "deleting"}

    @property
    def is_ready(self) -> bool:
        """True once the service has read it; a service that tells no status has it."""
        return self.status.lower() in {"processed", "uploaded", ""}


def read_file(body: Mapping[str, Any]) -> File:
    """Read a file's entry."""
    size = as_number(body.get("bytes"))
    details = body.get("status_details") or _mapping(body.get("error")).get("message")
    return File(
        id=_text(body.get("id")),
        name=_text(body.get("filename")),
        status=_text(body.get("status")),
        size_bytes=None if size is None else int(size),
        created_at=as_number(body.get("created_at")) or 0.0,
        details=_text(details),
    )


def suffix_of(run_id: str) -> str:
    """What the tuned model's name ends with: the run's name, shortened in front to what the API takes."""
    return run_id[-SUFFIX_LENGTH:].lstrip("-")


def job_request(
    plan: Plan, config: Mapping[str, Any], training_file: str, validation_file: str, *, run: str = ""
) -> dict[str, Any]:
    """The arguments of `fine_tuning.jobs.create` for a plan. `run` is shown instead of the run's name."""
    run, method = run or plan.run_id, config["method"]
    more = {"trainingType": config["training_type"]} if config.get("training_type") else {}
    return {
        "model": config["model"],
        "training_file": training_file,
        **({"validation_file": validation_file} if validation_file else {}),
        "method": {"type": method, method: {"hyperparameters": config["hyperparameters"]}},
        "seed": config["seed"],
        "suffix": suffix_of(run),
        "metadata": {TAG_RUN: run, TAG_JOB: plan.spec.name, TAG_FINGERPRINT: plan.fingerprint},
        **({"extra_body": more} if more else {}),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
