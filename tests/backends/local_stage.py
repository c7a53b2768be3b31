"""A local platform whose jobs are tiny scripts: no torch, so that processes can be killed by the dozen."""

from __future__ import annotations

import time
from pathlib import Path

from maas_client.backend import Platform
from maas_client.backends.local.endpoints import LocalEndpoints
from maas_client.backends.local.jobs import LocalJobs
from maas_client.backends.local.models import LocalModels
from maas_client.backends.local.process import is_alive, kill_group, wait_gone
from maas_client.backends.local.wire import Processes, ProcessId
from maas_client.command import CommandJob, JsonFile
from maas_client.plan import Plan, job_hashes
from maas_client.run import RunRef
from maas_client.spec import JobSpec

PATIENCE_S = 90.0

COMMAND = (
    "python train.py --config ${{inputs.config}} --train ${{inputs.train}} --model ${{inputs.model}} "
    "--output ${{ outputs.run }}"
)

TRAIN = """
import argparse, json, os, pathlib, signal, subprocess, sys, time

parser = argparse.ArgumentParser()
for name in ("config", "train", "model", "output"):
    parser.add_argument(f"--{name}", required=True)
output = pathlib.Path(parser.parse_args().output)
events = (output / "events.jsonl").open("a")


def event(**facts):
    line = json.dumps({"time": time.time(), **facts})
    events.write(line + "\\n")
    events.flush()
    if os.environ.get("MAAS_EVENTS") == "stdout":
        print("@maas", line, flush=True)


def succeed():
    for step in range(10):
        print("line", step)
        event(event="step", step=step, loss=1.0 / (step + 1))
    finish()


def finish():
    (output / "model").mkdir(exist_ok=True)
    (output / "model" / "adapter_model.safetensors").write_bytes(b"weights")
    (output / "model" / "adapter_config.json").write_text("{}")
    result = {"adapter": True, "before": {"accuracy": 0.25}, "after": {"accuracy": 0.75}}
    (output / "result.json").write_text(json.dumps(result))


def fail():
    print("so far so good")
    print("the data is bad", file=sys.stderr)
    sys.exit(1)


def stop(number, frame):
    (output / "checkpoint").write_text("here")
    print("checkpoint kept")
    sys.exit(128 + number)


def endless():
    if (output / "checkpoint").exists():
        print("goes on from the checkpoint")
        return finish()
    signal.signal(signal.SIGTERM, stop)
    for step in range(100_000):
        print("step", step)
        event(event="step", step=step)
        time.sleep(0.02)


def say_and_exit(code, *words):
    print(*words, file=sys.stderr)
    sys.exit(int(code))


def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for step in range(100_000):
        event(event="step", step=step)
        time.sleep(0.02)


def family():
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    (output / "pids").write_text(f"{left.pid}")
    stubborn()


def environment():
    (output / "environment.json").write_text(json.dumps(dict(os.environ)))
    finish()


def told_failure(message):
    event(event="failed", message=message)
    print("Traceback: much", file=sys.stderr)
    sys.exit(1)


def no_result():
    print("done, it seems")


def fill(size):
    with (output / "big").open("wb") as big:
        for _ in range(int(size) >> 16):
            big.write(b"x" * 65536)
"""

SERVE = """
import argparse, http.server, json, os, pathlib, time

parser = argparse.ArgumentParser()
for name in ("model", "base", "name", "port", "state", "expires-at"):
    parser.add_argument(f"--{name}")
arguments = parser.parse_args()
assert os.environ["MAAS_ENDPOINT_KEY"]
if arguments.name.startswith("slow"):
    time.sleep(600)
if arguments.name.startswith("bad"):
    raise SystemExit("Port is in use.")


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()


server = http.server.HTTPServer(("127.0.0.1", int(arguments.port)), Answer)
port = server.server_port
state = {"pid": os.getpid(), "port": port, "url": f"http://127.0.0.1:{port}", "started_at": time.time()}
temporary = pathlib.Path(arguments.state + ".new")
temporary.write_text(json.dumps(state))
temporary.rename(arguments.state)
server.serve_forever()
"""


class LocalStage:
    """The local platform under `root`/home, with scripts in `root`/code-*. `now` may be moved."""

    def __init__(self, root: Path, *, grace_s: float = 5.0) -> None:
        self.root = root
        self.home = root / "home"
        self.now_offset_s = 0.0
        clock = self.clock
        models = LocalModels(self.home, clock=clock)
        self.jobs = LocalJobs(self.home, clock=clock, grace_s=grace_s)
        self.models = models
        self.endpoints = LocalEndpoints(
            self.home, models=models, clock=clock, code=self._code("serve", SERVE)
        )
        self.platform = Platform("local", self.jobs, models, self.endpoints)
        self.data = root / "rows.jsonl"
        self.data.write_text('{"text": "a", "label": "b"}\n')

    def clock(self) -> float:
        return time.time() + self.now_offset_s

    def plan(self, behavior: str, *, name: str = "card") -> Plan:
        """A plan for a function of TRAIN by name, or for a call of one such as `fill(100)`."""
        call = behavior if "(" in behavior else f"{behavior}()"
        spec = JobSpec.model_validate(
            {"name": name, "task": "classification", "model": "tiny-phi3", "data": {"train": str(self.data)}}
        )
        inputs: dict[str, Path | JsonFile | str] = {
            "config": JsonFile(spec.script_config()),
            "train": self.data,
            "model": "tiny-phi3",
        }
        job = CommandJob(COMMAND, self._code("train", f"{TRAIN}\n\n{call}\n", call), inputs, ("run",))
        return Plan(
            spec=spec,
            backend="local",
            target="this machine",
            job=job,
            steps=(),
            cost="free",
            is_free=True,
            hashes=job_hashes(job),
        )

    def folder(self, ref: RunRef) -> Path:
        return self.home / "runs" / ref.id

    def processes(self, ref: RunRef) -> Processes:
        """Who runs it, once the command has been started."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            processes = Processes.read(self.folder(ref) / "process.json")
            if processes is not None and processes.child is not None:
                return processes
            time.sleep(0.01)
        raise AssertionError(f"{ref} was never started")

    def stop_all(self) -> None:
        """Kill what a failed test left, and say so where a process outlived its supervisor."""
        for path in self.home.glob("*/*/process.json"):
            processes = Processes.read(path)
            assert processes is not None
            both: tuple[ProcessId | None, ...] = (processes.child, processes.supervisor)
            for process in both:
                kill_group(process)
            assert wait_gone(both, PATIENCE_S), [process for process in both if is_alive(process)]

    def _code(self, script: str, text: str, key: str = "") -> Path:
        folder = self.root / f"code-{script}-{abs(hash(key))}"
        folder.mkdir(exist_ok=True)
        (folder / f"{script}.py").write_text(text)
        return folder
