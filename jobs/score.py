"""The scoring script of a managed online endpoint: a chat request in, a chat answer out, in one piece.

Azure ML's inference server calls init() once and run(body) for each request. The body is what
/chat/completions of serve.py takes, the answer what it gives; errors have the same shape and status. The body
{"maas": "health"} is answered without the model.

    AZUREML_MODEL_DIR    holds the registered folder: full weights, merged weights or a PEFT adapter
    MAAS_BASE_MODEL      the adapter's base: a folder beside this script or a Hugging Face id
                         (default: the one that the adapter names)
    MAAS_MODEL_NAME      what the endpoint calls the model (default: model)

One answer is written at a time; whoever waits longer than the service would is told to try again. Nothing
here needs Azure's packages: without them the status of an error is a field of its body.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

if TYPE_CHECKING:
    from serving.engine import Engine

MODEL_VARIABLE = "AZUREML_MODEL_DIR"
BASE_VARIABLE = "MAAS_BASE_MODEL"
NAME_VARIABLE = "MAAS_MODEL_NAME"
HEALTH = {"maas": "health"}
PATIENCE_S = 150.0  # the service gives up on a request after 180 s
_log = logging.getLogger("scoring")
_scoring: Scoring | None = None


def init() -> None:
    """Load the model that Azure ML put into place. Raises InputError with the reason where that fails."""
    global _scoring
    _scoring = load_scoring()


def run(body: str) -> Any:
    """Answer one request, given as JSON text."""
    if _scoring is None:
        raise RuntimeError("init() has not loaded a model.")
    return _reply(*_scoring.respond(body))


def load_scoring() -> Scoring:
    """The model of the environment variables, loaded. Raises InputError."""
    from tuning.startup import ENVIRONMENT

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore", FutureWarning)
    from serving.engine import load_engine
    from serving.model_folder import find_model

    folder = model_folder(Path(os.environ.get(MODEL_VARIABLE, "")))
    source = find_model(str(folder), base_model())
    return Scoring(load_engine("transformers", source), os.environ.get(NAME_VARIABLE) or "model")


def model_folder(root: Path) -> Path:
    """The uppermost folder at or below `root` that holds an adapter or a model. Raises InputError."""
    from tuning.errors import InputError

    for name in ("adapter_config.json", "config.json"):
        found = sorted(root.rglob(name), key=lambda path: (len(path.parts), path)) if root.is_dir() else []
        found = [path for path in found if any(path.parent.glob("*.safetensors"))]
        if found:
            return found[0].parent
    raise InputError(f"{MODEL_VARIABLE} is {root}, which holds neither an adapter nor a model.")


def base_model() -> str | None:
    """The base that the deployment names: a folder beside this script where there is one of that name."""
    name = os.environ.get(BASE_VARIABLE, "")
    return str(HERE / name) if name and (HERE / name).is_dir() else name or None


class Scoring:
    """A loaded model and its answers; safe to ask from several threads."""

    def __init__(self, engine: Engine, name: str, *, patience_s: float = PATIENCE_S) -> None:
        self._engine, self._name, self._patience_s = engine, name, patience_s
        self._turn = threading.Lock()

    def respond(self, body: str) -> tuple[int, dict[str, Any]]:
        """The HTTP status and the JSON body of the answer; nothing is raised."""
        from serving.engine import PromptError
        from serving.turns import BusyError
        from serving.wire import RequestError, error_body

        if _asks_for_health(body):
            return 200, {**HEALTH, "model": self._name}
        try:
            return 200, self._answer(body)
        except RequestError as error:
            status, code, param = error.status, error.code, error.param
            return status, error_body(str(error), status=status, code=code, param=param)
        except PromptError as error:
            return 400, error_body(str(error), status=400, code=error.code, param="messages")
        except BusyError as error:
            return 429, error_body(str(error), status=429, code="too_many_requests")
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the caller
            _log.exception("The model failed on a request")
            text = f"The model failed on this request: {error}"
            return 500, error_body(text, status=500, code="internal_error")

    def _answer(self, body: str) -> dict[str, Any]:
        from serving.turns import BusyError
        from serving.wire import RequestError, read_request, require_context

        if not body.strip():  # what the inference server makes of any other content type
            raise RequestError("The body is empty; send JSON as application/json.", code="invalid_json")
        chat = read_request(body.encode(), drop_unknown=False)
        if chat.stream:
            message = "This endpoint answers in one piece; leave out 'stream'."
            raise RequestError(message, code="stream_unsupported", param="stream")
        chat.require_model(self._name)
        prompt = self._engine.encode(chat.conversation(), chat.offered_tools())
        require_context(len(prompt), self._engine.context_length)
        if not self._turn.acquire(timeout=self._patience_s):
            raise BusyError("Other answers are being written; try again in a moment.")
        try:
            return _whole(self._engine, prompt, chat.settings(), self._name)
        finally:
            self._turn.release()


def _asks_for_health(body: str) -> bool:
    if len(body) > 2 * len(str(HEALTH)):
        return False
    with suppress(ValueError):
        return bool(json.loads(body) == HEALTH)
    return False


def _whole(engine: Engine, prompt: list[int], settings: Any, name: str) -> dict[str, Any]:
    """Write an answer to its end, in the protocol's shape."""
    from serving.wire import AnswerWriter

    texts: list[str] = []
    for piece in engine.generate(prompt, settings):
        texts.append(piece.text)
        if piece.finish_reason:
            return AnswerWriter(name, len(prompt)).whole("".join(texts), piece.tokens, piece.finish_reason)
    raise RuntimeError("The engine stopped without a reason.")


def _reply(status: int, body: dict[str, Any]) -> Any:
    """What the inference server sends: an answer with its status where its package is here."""
    if status == 200:
        return body
    try:
        from azureml_inference_server_http.api.aml_response import AMLResponse
    except ImportError:
        return {**body, "status": status}
    return AMLResponse(body, status, json_str=True)
