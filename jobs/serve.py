"""Serve a model on this machine: the OpenAI and Azure AI chat protocols over HTTP.

    MAAS_ENDPOINT_KEY=... python serve.py --model FOLDER --name NAME --port 0 --state FILE [--base FOLDER]

FOLDER holds full weights, merged weights or a PEFT adapter (whose base it names, or --base). When the model
is loaded and the port is open, FILE says {"pid", "port", "url", "started_at", ...}. Endpoints: POST
/chat/completions and /v1/chat/completions (also streamed), GET /info, /v1/models and, without a key, /health.

Answers are greedy (temperature 0) and at most 512 tokens long unless a request says otherwise: a model tuned
for a task should give the same answer twice. One answer is written at a time; others wait. The server ends by
itself at --expires-at. Exit codes: 0 expired, 2 bad input, 143 SIGTERM, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from tuning.errors import InputError
from tuning.startup import prepare_process

KEY_VARIABLE = "MAAS_ENDPOINT_KEY"


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line as a namespace; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(description="Serve a model over HTTP on this machine.")
    parser.add_argument(
        "--model", required=True, help="folder of weights or an adapter, or a Hugging Face id"
    )
    parser.add_argument("--base", help="the adapter's base model (default: the one that it names)")
    parser.add_argument("--name", required=True, help="what the endpoint calls the model")
    parser.add_argument("--state", required=True, type=Path, help="file to write when the server is ready")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--expires-at", type=float, help="unix time (s) at which the server ends itself")
    parser.add_argument("--engine", default="transformers", help="what computes the answers")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="number format")
    return parser.parse_args(argv)


def serve(arguments: argparse.Namespace) -> int:
    """Load the model, serve it until the end, and return the exit code. Raises InputError."""
    # Taken out of the environment at once, so that no child process and no dump of it carries the key.
    key = os.environ.pop(KEY_VARIABLE, "")
    if not key:
        raise InputError(f"The key is missing; set the environment variable {KEY_VARIABLE}.")
    if arguments.expires_at is not None and arguments.expires_at <= time.time():
        raise InputError("--expires-at lies in the past; pass a unix time in seconds that is still to come.")
    from serving.app import make_app
    from serving.engine import load_engine
    from serving.lifetime import StateFile, open_port, serve_until_end
    from serving.model_folder import find_model

    with open_port(arguments.host, arguments.port) as listener:
        engine = load_engine(
            arguments.engine, find_model(arguments.model, arguments.base), arguments.precision
        )
        app = make_app(engine, name=arguments.name, key=key)
        state = StateFile(arguments.state)
        return serve_until_end(app, listener, state, name=arguments.name, expires_at=arguments.expires_at)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = parse_arguments(argv)
    prepare_process()
    warnings.simplefilter("ignore", FutureWarning)  # between the libraries; nothing that a user can act on
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        return serve(arguments)
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
