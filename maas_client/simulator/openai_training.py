"""Fine-tuning jobs of the Foundry resource from first to last: a thread each, which really trains."""

from __future__ import annotations

import json
import shlex
import threading
import traceback
import uuid
from pathlib import Path
from typing import Any

from maas_client.bundled import jobs_folder, model_folder
from maas_client.errors import MaasError
from maas_client.simulator.bill import Line
from maas_client.simulator.execution import Execution, Order
from maas_client.simulator.finetuning import script_config
from maas_client.simulator.openai_files import content_path, keep_file, rows_of
from maas_client.simulator.places import STAND_IN
from maas_client.simulator.replies import Refusal
from maas_client.simulator.state import Resource
from maas_client.simulator.world import World

FEWEST_EXAMPLES = 10
MOST_RUNNING = 3
FINAL = frozenset({"succeeded", "failed", "cancelled"})
_LOOK_S = 0.1
_PRETENDED_STEPS = 10
_COLUMNS = ("step", "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy")


class _Stopped(Exception):  # noqa: N818  not a defect
    """Somebody asked for the end or for a pause."""


class _Failed(Exception):  # noqa: N818  not a defect
    """The job fails, with the service's code and words."""


class Tuner:
    """Every fine-tuning job of this life of the simulator."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rooms = threading.Semaphore(MOST_RUNNING)
        self._lives: dict[str, _Life] = {}

    def record(self, job: Resource) -> dict[str, Any]:
        """What is known of a job beside what it shows: events, checkpoints, rows of metrics, attempt."""
        path = f"{self._world.names.foundry_id}/openai-records/{job['id']}"
        fresh: dict[str, Any] = {"events": [], "checkpoints": [], "rows": [], "read": 0, "attempt": 0}
        return self._world.store.get(path) or self._world.store.put(path, fresh)

    def start(self, job: Resource) -> None:
        """Begin a job, or go on with one that was paused; returns at once."""
        self.record(job)["attempt"] += 1
        life = _Life(self._world, self._rooms, job, self.record(job))
        self._lives[job["id"]] = life
        life.thread.start()

    def stop_job(self, job: Resource, word: str) -> None:
        """Ask for an end: `word` is what the job is to become, cancelled or paused."""
        life = self._lives.get(job["id"])
        if life is None:
            job["status"] = word
            return
        with self._world.store.lock:
            if word == "cancelled" and job["status"] == "pending":
                job |= {"status": word, "finished_at": int(self._world.clock.now())}
            else:
                job["status"] = "pausing" if word == "paused" else "cancelling"
            life.wanted = word
            life.stop.set()

    def mark_lost(self) -> None:
        """After a start from disk: what was running is gone."""
        for job in self._world.store.members(f"{self._world.names.foundry_id}/openai-jobs"):
            if job["status"] not in FINAL | {"paused"}:
                error = {"code": "internalFailure", "message": "The node stopped responding.", "param": None}
                job |= {"status": "failed", "error": error, "finished_at": int(self._world.clock.now())}

    def stop(self) -> None:
        """End everything that runs, and wait for it."""
        for life in self._lives.values():
            life.stop.set()
        for life in self._lives.values():
            life.thread.join(60)


class _Life:
    """One attempt of one job."""

    def __init__(
        self, world: World, rooms: threading.Semaphore, job: Resource, record: dict[str, Any]
    ) -> None:
        self.world, self.rooms, self.job, self.record = world, rooms, job, record
        self.stop = threading.Event()
        self.wanted = "cancelled"
        self.thread = threading.Thread(target=self._live, name=f"tuning {job['id']}", daemon=True)
        self.folder = run_folder(world, job["id"])

    def _live(self) -> None:
        try:
            self._wait(self.world.timing.queue_s)
            while not self.rooms.acquire(timeout=0.1):
                self._check_stopped()
            try:
                self._become("running")
                self._train()
            finally:
                self.rooms.release()
        except _Stopped:
            self._stopped()
        except _Failed as failure:
            self._fail(*failure.args)
        except (MaasError, Refusal) as error:
            self._fail("internalFailure", error.message)
        except Exception as error:  # noqa: BLE001  a job must not hang because of a defect here
            traceback.print_exc()
            self._fail("internalFailure", f"{type(error).__name__}: {error}")

    def _train(self) -> None:
        self._tell("Job started.")
        self._check_examples()
        if failure := self.world.faults.take("job_fail", f"{self.job['id']} {self._suffix}"):
            raise _Failed("internalFailure", failure["message"])
        self._tell("Training started.")
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.world.timing.tuning_steps:
            self._really()
        else:
            self._pretend()
        self._wait(self.world.timing.finalizing_s)
        self._succeed()

    @property
    def _suffix(self) -> str:
        return self.job.get("user_provided_suffix") or ""

    def _check_examples(self) -> None:
        for key in ("training_file", "validation_file"):
            if self.job.get(key):
                count = sum(1 for _ in rows_of(content_path(self.world, self.job[key])))
                if key == "training_file" and count < FEWEST_EXAMPLES:
                    words = f"Training file has {count} example(s), but must have at least"
                    raise _Failed("invalid_n_examples", f"{words} {FEWEST_EXAMPLES} examples.", key)

    # -- the training itself

    def _really(self) -> None:
        """The bundled script with the stand-in model, on what was sent."""
        execution = Execution(self.world, "", self.job["id"], self.record["attempt"])
        try:
            execution.launch(Order(self._command(execution.folder), jobs_folder(), {}, {}))
            over = False
            while not over:
                over = execution.is_over()
                if self.stop.is_set() and not over:
                    execution.stop()
                    over = True
                self._read_events()
                if not over:
                    self.stop.wait(_LOOK_S)
            self._check_stopped()
            if code := execution.exit_code():
                raise _Failed("internalFailure", self._last_words() or f"Training ended with code {code}.")
        finally:
            execution.clean()

    def _command(self, folder: Path) -> str:
        asked = (self.job["method"].get(self.job["method"]["type"]) or {}).get("hyperparameters") or {}
        chosen = {key: value for key, value in asked.items() if isinstance(value, int | float)}
        details = {
            "taskType": "ChatCompletion",
            "hyperParameters": {"nEpochs": chosen.get("n_epochs"), "batchSize": chosen.get("batch_size")},
        }
        config = folder / "config.json"
        settings = {**script_config(self.world, details), "validation": {"split": 0.0}}
        if self.job["method"]["type"] == "dpo":
            settings["training"] |= {"objective": "dpo", "beta": chosen.get("beta", 0.1)}
        config.write_text(json.dumps(settings), encoding="utf-8")
        words = ["python", "train.py", "--config", str(config), "--model", str(model_folder(STAND_IN))]
        for key, option in (("training_file", "--train"), ("validation_file", "--validation")):
            if self.job.get(key):
                words += [option, str(content_path(self.world, self.job[key]))]
        return shlex.join([*words, "--output", str(self.folder)])

    def _pretend(self) -> None:
        """No process: a step each simulated second."""
        (self.folder / "model").mkdir(exist_ok=True)
        for step in range(len(self.record["rows"]) + 1, _PRETENDED_STEPS + 1):
            self._wait(1.0)
            self._metrics({"step": step, "train_loss": round(1 / step, 4), "total_steps": _PRETENDED_STEPS})
            self.job["trained_tokens"] = 100 * step

    def _read_events(self) -> None:
        """What is new in the script's events, as events of the service."""
        file = self.folder / "events.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        for line in lines[self.record["read"] :]:
            try:
                event = json.loads(line)
            except ValueError:
                return  # the last line, half written
            self.record["read"] += 1
            self._translate(event)

    def _translate(self, event: dict[str, Any]) -> None:
        if event["event"] == "started":
            self.record["total_steps"] = event.get("steps_total")
        elif event["event"] == "step":
            data = {"step": event["step"], "train_loss": event["loss"]}
            self.job["trained_tokens"] = int(event.get("tokens_seen") or 0)
            self._metrics({**data, "total_steps": self.record.get("total_steps")})
        elif event["event"] == "validation":
            self._metrics({"step": event["step"], "valid_loss": event["loss"]})

    def _last_words(self) -> str:
        file = self.folder / "events.jsonl"
        for line in reversed(file.read_text(encoding="utf-8").splitlines() if file.is_file() else []):
            event = json.loads(line)
            if event.get("event") == "failed":
                return str(event.get("message", ""))
        return ""

    # -- what is told

    def _tell(self, message: str, *, level: str = "info", data: dict[str, Any] | None = None) -> None:
        add_event(self.world, self.record, message, level=level, data=data)

    def _metrics(self, data: dict[str, Any]) -> None:
        """An event of metrics; what is known of one step is one row of the results."""
        rows = self.record["rows"]
        if rows and rows[-1]["step"] == data["step"]:
            rows[-1] |= data
        else:
            rows.append(dict(data))
        shown = ", ".join(
            f"{words} loss={data[key]:.4f}"
            for key, words in (("train_loss", "training"), ("valid_loss", "validation"))
            if key in data
        )
        self._tell(f"Step {data['step']}: {shown}", data=data)

    def _keep_results(self) -> None:
        lines = [",".join(_COLUMNS)]
        lines += [",".join(str(row.get(name, "")) for name in _COLUMNS) for row in self.record["rows"]]
        made = keep_file(self.world, "results.csv", ("\n".join(lines) + "\n").encode())
        self.job["result_files"] = [made["id"]]
        self._tell(f"Completed results file: {made['id']}")

    def _keep_checkpoint(self) -> None:
        row = self.record["rows"][-1] if self.record["rows"] else {"step": 0}
        self.record["checkpoints"].append(
            {
                "id": f"ftchkpt-{uuid.uuid4().hex}",
                "created_at": int(self.world.clock.now()),
                "fine_tuned_model_checkpoint": f"{tuned_name(self.job)}:ckpt-step-{row['step']}",
                "step_number": row["step"],
                "metrics": {key: value for key, value in row.items() if value is not None},
                "fine_tuning_job_id": self.job["id"],
                "object": "fine_tuning.job.checkpoint",
            }
        )

    # -- ends

    def _succeed(self) -> None:
        self._keep_results()
        self._keep_checkpoint()
        self.job["fine_tuned_model"] = tuned_name(self.job)
        self._tell("Job succeeded.")
        self._end("succeeded")

    def _stopped(self) -> None:
        if self.wanted == "paused":
            self._keep_checkpoint()
            self._keep_results()
            self._tell("Job paused.")
            self._become("paused", at_end=True)
            return
        self._tell("Job cancelled.")
        self._end("cancelled")

    def _fail(self, code: str, message: str, param: str | None = None) -> None:
        self.job["error"] = {"code": code, "message": message, "param": param}
        self._tell(f"Job failed. {message}", level="error")
        self._end("failed")

    def _end(self, word: str) -> None:
        self.job["finished_at"] = int(self.world.clock.now())
        self._become(word, at_end=True)
        note = "the stand-in model trained; tokens are not comparable"
        tokens = self.job.get("trained_tokens") or 0
        what = f"tuning job {self.job['id']} of {self.job['model']} ({self.job['trainingType']})"
        self.world.bill.add(Line(what, tokens, "tokens", None, note))

    def _become(self, word: str, *, at_end: bool = False) -> None:
        with self.world.store.lock:
            if at_end or not self.stop.is_set():
                self.job["status"] = word

    def _wait(self, seconds: float) -> None:
        if not self.world.clock.sleep(seconds, self.stop):
            raise _Stopped

    def _check_stopped(self) -> None:
        if self.stop.is_set():
            raise _Stopped


def add_event(
    world: World,
    record: dict[str, Any],
    message: str,
    *,
    level: str = "info",
    data: dict[str, Any] | None = None,
) -> None:
    """Tell something about a job; with `data` it is an event of metrics."""
    record["events"].append(
        {
            "id": f"ftevent-{uuid.uuid4().hex}",
            "created_at": int(world.clock.now()),
            "level": level,
            "message": message,
            "type": "message" if data is None else "metrics",
            **({} if data is None else {"data": data}),
            "object": "fine_tuning.job.event",
        }
    )


def tuned_name(job: Resource) -> str:
    """The name of the model that a job makes."""
    suffix = job.get("user_provided_suffix")
    return f"{job['model']}.ft-{job['id'].removeprefix('ftjob-')}" + (f"-{suffix}" if suffix else "")


def run_folder(world: World, job: str) -> Path:
    """Where a job's training leaves what it makes."""
    return world.folder / "foundry" / "jobs" / job / "run"
