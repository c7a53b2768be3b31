"""What MLflow is told of a run, where one is named: parameters, metrics, files and the model.

MLFLOW_TRACKING_URI names it, as Azure ML does for its jobs; MAAS_TRACKING=local takes a store in the output
folder instead, MAAS_TRACKING=off none. A thread of its own does the talking, and nothing that goes wrong
there ends a training or slows it: it is said once, and the run goes on without.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tuning import outcome
from tuning.card import name_of
from tuning.events import write_json
from tuning.mlflowmodel import flavored

if TYPE_CHECKING:
    from tuning.run import Run

URI, CHOICE = "MLFLOW_TRACKING_URI", "MAAS_TRACKING"
STORE, NOTE = "mlruns", "tracking.json"
LOCAL_SCHEMES = ("", "file")
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}
FILES = (outcome.RESULT, outcome.CONFIG, outcome.SAMPLES, "events.jsonl", "capsule.json")
# Facts of the `started` event that are no parameters: they differ between attempts, or the config says them.
NOT_PARAMETERS = {
    *("resumed_from_step", "picked", "time", "event"),
    *("epochs", "method", "quantization", "strategy", "processes"),
}
LONGEST_PARAMETER, LONGEST_REASON, BATCH = 250, 200, 500
LAST_WORDS_S = 5.0
ENDS = {"failed": "FAILED", "stopped": "KILLED"}


@dataclass(frozen=True)
class _End:
    """The last thing to tell: how the run ended, and whether there is a result to show."""

    status: str
    has_result: bool = False


class Tracker:
    """Tells MLflow what the events say. Hand it each event; call `finish` when the result is there."""

    def __init__(self, run: Run, uri: str) -> None:
        self._run, self._uri = run, uri
        self._queue: queue.Queue[Mapping[str, Any] | _End] = queue.Queue()
        self._trouble = ""
        self._is_dead = False
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def note(self, event: Mapping[str, Any]) -> None:
        """Take an event to be told; of the last one of a run that failed or stopped, wait a little for it."""
        if self._is_dead:
            return
        if self._trouble:
            self._give_up()
            return
        self._queue.put(event)
        if status := ENDS.get(event["event"]):
            self._queue.put(_End(status))
            self._thread.join(LAST_WORDS_S)

    def finish(self) -> None:
        """Tell the rest, with files and model, unless that makes no headway or the run is asked to stop."""
        self._queue.put(_End("FINISHED", has_result=True))
        while self._thread.is_alive() and not self._run.stop.signal_number:
            self._thread.join(0.2)
        if self._trouble and not self._is_dead:
            self._give_up()

    def _give_up(self) -> None:
        self._is_dead = True
        self._run.warn(f"{self._trouble}; it is not told more of this run.")

    # -- the thread

    def _work(self) -> None:
        try:
            client = _Client(self._run, self._uri)
            while True:
                events, end = self._collect()
                client.tell(events)
                if end is not None:
                    client.end(end)
                    return
        except Exception as error:  # noqa: BLE001 - whatever a service does, the training goes on
            self._trouble = f"MLflow at {_place(self._uri)} cannot be told ({_reason(error, self._uri)})"

    def _collect(self) -> tuple[list[Mapping[str, Any]], _End | None]:
        """All that waits to be told, at least one thing, and the end if that is among it."""
        events: list[Mapping[str, Any]] = []
        while len(events) < BATCH:
            item = self._queue.get()
            if isinstance(item, _End):
                return events, item
            events.append(item)
            if self._queue.empty():
                break
        return events, None


class _Client:
    """One run at MLflow: that of Azure ML's job, that of an earlier attempt, or a new one."""

    def __init__(self, run: Run, uri: str) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if urlsplit(uri).scheme in LOCAL_SCHEMES:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient

        self.run, self.client = run, MlflowClient(tracking_uri=uri)
        self.is_own = "MLFLOW_RUN_ID" not in os.environ
        note = run.files.output / NOTE
        known = _read(note).get("run_id") if _read(note).get("uri") == _place(uri) else None
        self.id: str = os.environ.get("MLFLOW_RUN_ID") or known or self._create()
        self.is_new = known != self.id
        write_json(note, {"uri": _place(uri), "run_id": self.id})
        if self.is_own and not self.is_new:
            self.client.update_run(self.id, status="RUNNING")

    def _create(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "maas")
        if not (number := os.environ.get("MLFLOW_EXPERIMENT_ID")):
            found = self.client.get_experiment_by_name(name)
            number = found.experiment_id if found else self.client.create_experiment(name)
        config = self.run.config
        title = f"{config.task} by {config.method.name} on {name_of(self.run.files.model)}"
        made = self.client.create_run(number, run_name=os.environ.get("MLFLOW_RUN_NAME", title))
        return str(made.info.run_id)

    def tell(self, events: list[Mapping[str, Any]]) -> None:
        """Parameters once, metrics as they come."""
        from mlflow.entities import Metric, Param

        for event in events:
            if event["event"] == "started" and self.is_new:
                told = parameters(self.run, event)
                self.client.log_batch(self.id, params=[Param(name, value) for name, value in told.items()])
                self.is_new = False
        found = [
            Metric(name, value, int(event["time"] * 1000), int(event.get("step") or 0))
            for event in events
            for name, value in metrics(event)
        ]
        for start in range(0, len(found), BATCH):
            self.client.log_batch(self.id, metrics=found[start : start + BATCH])

    def end(self, end: _End) -> None:
        """Files and model of a run with a result, and the status, where that is ours to set."""
        output = self.run.files.output
        if end.has_result:
            for name in FILES:
                if (output / name).is_file():
                    self.client.log_artifact(self.id, str(output / name))
            with flavored(output, self.run.files.model, self.id) as (folder, model):
                self.client.log_artifacts(self.id, str(folder), artifact_path="model")
                self.client._record_logged_model(self.id, model)  # as mlflow's own log_model did before 3
        if self.is_own:
            self.client.set_terminated(self.id, status=end.status)


def track(run: Run) -> Tracker | None:
    """Let MLflow follow a run's events, where it is named and here; only the first process does."""
    uri = _wanted(run.files.output)
    if not uri or not run.processes.is_first:
        return None
    if reason := _why_not(uri):
        run.warn(f"{reason}; the run goes on and MLflow is not told of it.")
        return None
    tracker = Tracker(run, uri)
    run.events.listener = tracker.note
    return tracker


def parameters(run: Run, started: Mapping[str, Any]) -> dict[str, str]:
    """What a run was told and what it chose, as MLflow's parameters: flat, as text."""
    facts = {key: value for key, value in started.items() if key not in NOT_PARAMETERS}
    picked = {f"picked.{name}": one["what"] for name, one in started.get("picked", {}).items()}
    told = {**outcome.flat(asdict(run.config)), **facts, **picked, "base_model": name_of(run.files.model)}
    return {key: str(value)[:LONGEST_PARAMETER] for key, value in told.items()}


def metrics(event: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(name, value) of each number in an event: of steps as they are, of others with what they belong to."""
    kind = event["event"]
    if kind == "evaluation":
        found, before = event["metrics"], f"{event['when']}_"
    elif kind in ("step", "validation"):
        found, before = event, "" if kind == "step" else "validation_"
    else:
        return
    for name, value in found.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name not in ("time", "step", "event") and is_number and math.isfinite(value):
            yield f"{before}{name}", float(value)


def _wanted(output: Path) -> str:
    """Where MLflow is; "" where nobody wants it."""
    choice = os.environ.get(CHOICE, "")
    if choice == "off":
        return ""
    return os.environ.get(URI) or ((output.resolve() / STORE).as_uri() if choice == "local" else "")


def _why_not(uri: str) -> str:
    """What keeps MLflow from being told; "" if nothing does that is seen from here."""
    if importlib.util.find_spec("mlflow") is None or importlib.util.find_spec("pandas") is None:
        return f'{URI} is set, but mlflow is not all here (pip install "maas-client[tracking]")'
    if urlsplit(uri).scheme == "azureml" and not _has_plugin():
        return f"{URI} is Azure ML's, but azureml-mlflow is not here (pip install azureml-mlflow)"
    return ""


def _has_plugin() -> bool:
    with suppress(ImportError):
        return importlib.util.find_spec("azureml.mlflow") is not None
    return False


def _place(uri: str) -> str:
    """A URI without what may be secret in it."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _reason(error: Exception, uri: str) -> str:
    """The beginning of what an error says, without what may be secret in the URI."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    secret = urlsplit(uri).netloc.rpartition("@")[0]
    return (said.replace(f"{secret}@", "") if secret else said)[:LONGEST_REASON]


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
