"""Jobs from first to last: a thread each, which waits, runs the command and says what became of it."""

from __future__ import annotations

import math
import threading
import time
import traceback
from typing import Any

from maas_client.errors import MaasError
from maas_client.simulator import finetuning, registration
from maas_client.simulator.execution import Execution, Order
from maas_client.simulator.machines import is_preemptible, limit_of, size_of_job
from maas_client.simulator.replies import Refusal
from maas_client.simulator.routing import seconds_of
from maas_client.simulator.scripted import Scripted
from maas_client.simulator.state import Resource
from maas_client.simulator.world import World

_LOOK_S = 0.3
_UPLOAD_EVERY = 6
_RECORD = "/_run/record"


class _Canceled(Exception):  # noqa: N818  not a defect
    """Somebody asked for the end of the job."""


class _Lost(Exception):  # noqa: N818  not a defect
    """The nodes were taken away."""


class Runner:
    """Every job of this life of the simulator."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rooms = threading.Semaphore(world.timing.parallel_jobs)
        self._lives: dict[str, _Life] = {}
        self.scripted = Scripted(world)

    def record(self, job_id: str) -> dict[str, Any]:
        """What is known of a job beside its resource: logs, metrics, times, error, attempt."""
        found = self._world.store.get(job_id + _RECORD)
        return (
            found
            if found is not None
            else self._world.store.put(job_id + _RECORD, {"logs": {}, "metrics": []})
        )

    def start(self, job: Resource, asked: dict[str, Any]) -> None:
        """Begin a job; returns at once."""
        record = self.record(job["id"])
        record |= {"asked": asked, "attempt": 1, "created_at": self._world.clock.now()}
        life = _Life(self._world, self._rooms, job, record)
        self._lives[job["id"].lower()] = life
        life.thread.start()

    def cancel(self, job: Resource) -> None:
        """Ask for the end of a job."""
        life = self._lives.get(job["id"].lower())
        if life is not None:
            with self._world.store.lock:
                life.canceled.set()
                job["properties"]["status"] = "CancelRequested"
        else:
            self.scripted.cancel(job, self.record(job["id"]))

    def preempt(self, job: Resource) -> bool:
        """Take the nodes away from a job that runs; False when there are none to take."""
        life = self._lives.get(job["id"].lower())
        if life is None or job["properties"]["status"] != "Running":
            return False
        life.lost.set()
        return True

    def stop(self) -> None:
        """End everything that runs, and wait for it."""
        for life in self._lives.values():
            life.canceled.set()
        for life in self._lives.values():
            life.thread.join(60)

    def mark_lost(self) -> None:
        """After a start from disk: what was running is gone."""
        for path in self._world.store.collections("/jobs"):
            for job in self._world.store.members(path):
                if job["properties"]["status"] not in {"Completed", "Failed", "Canceled"}:
                    record = self.record(job["id"])
                    if not record.get("script"):
                        job["properties"]["status"] = "Failed"
                        text = "The node stopped responding."
                        record["error"] = {"code": "SystemError", "message": text}


class _Life:
    """One job's thread."""

    def __init__(
        self, world: World, rooms: threading.Semaphore, job: Resource, record: dict[str, Any]
    ) -> None:
        self.world = world
        self.rooms = rooms
        self.job = job
        self.record = record
        self.canceled = threading.Event()
        self.lost = threading.Event()
        self.thread = threading.Thread(target=self._live, name=f"job {job['name']}", daemon=True)
        self.workspace_id = job["id"].rpartition("/jobs/")[0]

    def _live(self) -> None:
        try:
            self._check_quota()
            while not self._attempt():
                self.record["attempt"] += 1
            self._end("Completed")
        except _Canceled:
            self._end("Canceled")
        except Refusal as refusal:
            self._end("Failed", {"code": "UserError", "message": refusal.message})
        except MaasError as error:
            self._end("Failed", {"code": "SystemError", "message": error.message})
        except Exception as error:  # noqa: BLE001  a job must not hang because of a defect here
            traceback.print_exc()
            self._end("Failed", {"code": "SystemError", "message": f"{type(error).__name__}: {error}"})

    def _check_quota(self) -> None:
        size = size_of_job(self.world, self.job["properties"])
        if self.world.faults.take("quota", self.job["name"]) or (
            size and not limit_of(self.world, size.family)
        ):
            family = size.family if size else "requested"
            raise Refusal(
                400, "UserError", f"There is not enough quota available for the {family} VM family."
            )

    def _attempt(self) -> bool:
        """Wait in the queue and run once; False when the nodes were taken away."""
        waits = ["NotStarted", "Queued"] if self._is_tuning() else ["Starting", "Preparing", "Queued"]
        if self.record["attempt"] > 1:
            waits = ["Queued"]
        for word in waits:
            self._become(word)
            self._wait(self.world.timing.queue_s / len(waits))
        while not self.rooms.acquire(timeout=0.1):
            self._check_canceled()
        try:
            return self._run()
        except _Lost:
            return False
        finally:
            self.rooms.release()

    def _is_tuning(self) -> bool:
        return bool(self.job["properties"]["jobType"] == "FineTuning")

    def _run(self) -> bool:
        execution = Execution(self.world, self.workspace_id, self.job["name"], self.record["attempt"])
        try:
            order = self._order(execution)
            execution.launch(order)
            self._become("Running")
            self.record.setdefault("started_at", self.world.clock.now())
            self._follow(execution, order)
            code = execution.exit_code()
            if failure := self.world.faults.take("job_fail", self.job["name"]):
                raise Refusal(500, "SystemError", failure["message"])
            if code:
                text = f"Execution failed. User process 'bash' exited with status code {code}. "
                raise Refusal(
                    400,
                    "UserError",
                    text + "Please check log file 'user_logs/std_log.txt' for error details.",
                )
            self._become("Finalizing")
            self._wait(self.world.timing.finalizing_s)
            registration.register_outputs(self.world, self.workspace_id, self.job)
            return True
        finally:
            execution.clean()

    def _order(self, execution: Execution) -> Order:
        asked = self.job["properties"]
        if self._is_tuning():
            return finetuning.order_of(self.world, execution, asked)
        spread = asked.get("distribution") or {}
        per_node = int(spread.get("processCountPerInstance") or 1)
        return Order(
            asked["command"],
            execution.fetch_code(asked.get("codeId")),
            asked["inputs"],
            asked["outputs"],
            {key: str(value) for key, value in (asked.get("environmentVariables") or {}).items()},
            spread.get("distributionType") or "",
            int((asked.get("resources") or {}).get("instanceCount") or 1) if spread else 1,
            per_node,
        )

    def _follow(self, execution: Execution, order: Order) -> None:
        """Carry logs and outputs out while the command runs, until it has ended."""
        looks = 0
        over = False
        ends = time.monotonic() + self._limit_s()
        while not over:
            over = execution.is_over()
            late = time.monotonic() > ends
            if (self.canceled.is_set() or late) and not over:
                execution.stop()
                over = True
            lost = self.lost.is_set() and not over
            if lost:
                execution.stop(at_once=True)
            execution.pump(self.record["logs"])
            looks += 1
            if over or lost or looks % _UPLOAD_EVERY == 0:
                execution.upload(order.outputs)
                if self._is_tuning():
                    events = execution.folder / "outputs" / finetuning.RUN / "events.jsonl"
                    self.record["metrics"] = finetuning.metrics_of(events)
            if lost:
                self.lost.clear()
                raise _Lost
            if not over:
                self.canceled.wait(_LOOK_S)
        self._check_canceled()
        if late and execution.exit_code():
            raise Refusal(400, "UserError", "The job ran longer than limits.timeout allows and was stopped.")

    def _limit_s(self) -> float:
        """Real seconds that the command may take."""
        limits = self.job["properties"].get("limits") or {}
        return seconds_of(limits.get("timeout")) or math.inf

    def _become(self, word: str) -> None:
        with self.world.store.lock:
            if not self.canceled.is_set():
                self.job["properties"]["status"] = word

    def _wait(self, seconds: float) -> None:
        if not self.world.clock.sleep(seconds, self.canceled):
            raise _Canceled

    def _check_canceled(self) -> None:
        if self.canceled.is_set():
            raise _Canceled

    def _end(self, word: str, error: dict[str, Any] | None = None) -> None:
        self.record["ended_at"] = self.world.clock.now()
        self.record["error"] = error
        self.job["properties"]["status"] = word
        self.world.bill.add_job(
            self.job, self.record, preemptible=is_preemptible(self.world, self.job["properties"])
        )
