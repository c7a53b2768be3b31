"""Commands as processes of their own, which can be killed: forks of one that has imported everything already.

    python -m tests.backends.foundry.openai_v1.submitter

Reads orders, a JSON object a line, from stdin: {"homes": [...], "job": PATH, "to": "submit" or "deploy"}. A
child for each home submits the job, and with "deploy" follows it, registers its model and deploys it; it ends
with the exit code of the command line. Answers {"pids": [...]} when they have been started, and
{"codes": [...]} when they have ended (-9: killed).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from maas_client.errors import MaasError
from maas_client.following import follow, wait_until_ready
from maas_client.project import Project
from maas_client.specfile import load_spec


def main() -> None:
    """Serve orders until stdin ends."""
    import azure.identity  # noqa: F401  what the children would each take seconds for
    import openai.resources.fine_tuning  # noqa: F401

    import maas_client.backends.foundry.openai_v1.sending
    import maas_client.data
    import maas_client.transport.openai_client  # noqa: F401

    tell({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        pids = [fork(order, home) for home in order["homes"]]
        tell({"pids": pids})
        tell({"codes": [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]})


def tell(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def fork(order: dict[str, Any], home: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        do(Project(Path(home)), Path(order["job"]), order["to"])
        code = 0
    except MaasError as error:
        print(f"{type(error).__name__}: {error.message}", file=sys.stderr)
        code = error.exit_code
    except BaseException:  # noqa: BLE001  the child must not become a second server
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def do(project: Project, job: Path, to: str) -> None:
    """The steps of `maas run`, without a question to the endpoint."""
    spec = load_spec(job)
    record = project.submit(project.plan(spec), checked=True)
    if to == "submit":
        return
    jobs = project.platform("foundry").jobs
    for _ in follow(jobs, record.ref, poll_s=0.05):
        pass
    project.look(record)
    model = project.register(project.find(record.id))
    assert spec.deploy is not None
    status = project.deploy(model, spec.deploy, backend="foundry")
    wait_until_ready(project.serving("foundry"), status.ref, poll_s=0.05)


if __name__ == "__main__":
    main()
