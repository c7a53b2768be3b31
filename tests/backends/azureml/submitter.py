"""Commands as processes of their own, which can be killed: forks of one that has imported everything already.

    python -m tests.backends.azureml.submitter

Reads orders, a JSON object a line, from stdin: {"do": "submit", "resume" or "deploy", "homes": [...],
"job": PATH, "workspace": NAME}. A child for each home does just that and ends with the exit code of the
command line, 0 or that of the error. Answers {"pids": [...]} when they have been started, and
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
from maas_client.project import Project
from maas_client.specfile import load_spec


def main() -> None:
    """Serve orders until stdin ends."""
    import azure.ai.ml  # what the children would each take seconds for
    import azure.identity
    import azure.storage.blob  # noqa: F401

    import maas_client.backends.azureml.sending
    import maas_client.data  # noqa: F401

    tell({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        pids = [fork(order, home) for home in order["homes"]]
        tell({"pids": pids})
        ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        tell({"codes": ended})


def tell(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def fork(order: dict[str, Any], home: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.environ["AZUREML_WORKSPACE_NAME"] = order["workspace"]
        project = Project(Path(home))
        if order["do"] == "submit":
            project.submit(project.plan(load_spec(Path(order["job"]))), checked=True)
        elif order["do"] == "deploy":
            spec = load_spec(Path(order["job"]))
            assert spec.deploy is not None
            model = project.registry(spec.backend).get(spec.deploy.name)
            project.deploy(model, spec.deploy, backend=spec.backend)
        else:
            project.resume(project.find("last"))
        code = 0
    except MaasError as error:
        print(f"{type(error).__name__}: {error.message}", file=sys.stderr)
        code = error.exit_code
    except BaseException:  # noqa: BLE001  the child must not become a second server
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
