"""Hosts a scoring script (init and run) on loopback, as the image of a managed online deployment does.

    python -m maas_client.simulator.scoring_host SCRIPT STATE

STATE is written when the script's init() has returned. POST /score calls run() with the body as text.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from maas_client.backends.local.wire import write_json

KEY = "MAAS_ENDPOINT_KEY"


def main() -> None:
    """Load the script and serve it until a signal comes."""
    script, state = Path(sys.argv[1]), Path(sys.argv[2])
    key = os.environ.pop(KEY, "")
    sys.path.insert(0, str(script.parent))
    spec = importlib.util.spec_from_file_location("entry_module", script)
    if spec is None or spec.loader is None:
        sys.exit(f"{script} is no Python script.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.init()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(module.run, key))
    write_json(state, {"pid": os.getpid(), "url": f"http://127.0.0.1:{server.server_port}"})
    server.serve_forever()


def _handler(run: Callable[[str], Any], key: str) -> type[BaseHTTPRequestHandler]:
    class Scoring(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(200, b"Healthy", "text/plain")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            if not compare_digest(self.headers.get("Authorization", ""), f"Bearer {key}"):
                self._answer(401, b"{}", "application/json")
                return
            try:
                result = run(body)
            except Exception as error:  # noqa: BLE001  the script's own failure is the caller's answer
                traceback.print_exc()
                self._answer(500, str(error).encode(), "text/plain")
                return
            text = result if isinstance(result, str) else json.dumps(result)
            self._answer(200, text.encode(), "application/json")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class names it so
            print(format % args, flush=True)

    return Scoring


if __name__ == "__main__":
    main()
