"""The scoring script of managed online endpoints: what the server answers, errors with their status."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import score
from serving.engine import Piece, Settings
from tests.jobs.server_stage import NAME, ROOT, environment, make_adapter, make_model, start_server
from tuning.errors import InputError

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Azure ML puts it: the registered folder, under its name, some way below the variable's folder."""
    return make_model(tmp_path_factory.mktemp("azureml-models") / "card" / "1" / "model")


@pytest.fixture(scope="module")
def scoring(model: Path) -> Iterator[score.Scoring]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZUREML_MODEL_DIR", str(model.parent))
        patch.setenv("MAAS_MODEL_NAME", NAME)
        patch.delenv("MAAS_BASE_MODEL", raising=False)
        yield score.load_scoring()


def ask(scoring: score.Scoring, **fields: Any) -> tuple[int, dict[str, Any]]:
    return scoring.respond(json.dumps({**HELLO, **fields}))


def test_it_says_what_the_server_says(scoring: score.Scoring, model: Path, tmp_path: Path) -> None:
    server = start_server(tmp_path, model)
    try:
        with server.client() as client:
            served = client.post("/v1/chat/completions", json={**HELLO, "model": NAME}).json()
    finally:
        server.stop()
    status, answer = ask(scoring, model=NAME)
    assert status == 200
    assert answer["choices"][0]["message"]["content"]
    for same in ("choices", "usage", "model", "object"):
        assert answer[same] == served[same]


def test_init_and_run_are_what_the_inference_server_calls(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "_scoring", None)
    with pytest.raises(RuntimeError, match="init"):
        score.run("{}")
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(model.parent.parent))
    monkeypatch.setenv("MAAS_MODEL_NAME", "cards")
    monkeypatch.delenv("MAAS_BASE_MODEL", raising=False)
    score.init()
    assert score.run('{ "maas": "health" }') == {"maas": "health", "model": "cards"}
    assert score.run(json.dumps(HELLO))["model"] == "cards"
    wrong = score.run("{}")
    assert (wrong["status"], wrong["error"]["code"]) == (400, "invalid_request")


def test_with_azures_package_an_error_has_its_own_status(
    scoring: score.Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AMLResponse:
        def __init__(self, message: Any, status_code: int, json_str: bool = False) -> None:
            self.sent = (message["error"]["code"], status_code, json_str)

    stand_in = ModuleType("azureml_inference_server_http.api.aml_response")
    stand_in.AMLResponse = AMLResponse  # type: ignore[attr-defined]
    for name in ("azureml_inference_server_http", "azureml_inference_server_http.api"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    monkeypatch.setattr(score, "_scoring", scoring)
    assert score.run(json.dumps({**HELLO, "model": "gpt"})).sent == ("model_not_found", 404, True)
    assert score.run(json.dumps(score.HEALTH)) == {**score.HEALTH, "model": NAME}


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ("", 400, "invalid_json", "application/json"),
        ("{", 400, "invalid_json", "not valid JSON"),
        ("[]", 400, "invalid_json", "JSON object"),
        ("{}", 400, "invalid_request", "messages"),
        (json.dumps({**HELLO, "stream": True}), 400, "stream_unsupported", "one piece"),
        (json.dumps({**HELLO, "temprature": 1}), 400, "unknown_field", "did you mean 'temperature'"),
        (json.dumps({**HELLO, "model": "gpt"}), 404, "model_not_found", f"serves '{NAME}'"),
        (
            json.dumps({"messages": [{"role": "user", "content": "word " * 200}]}),
            400,
            "context_length_exceeded",
            "context is 128",
        ),
        (
            json.dumps({"messages": [{"role": "user", "content": "Hi"}], "tools": [{"function": {}}]}),
            400,
            "invalid_prompt",
            "takes no tools",
        ),
    ],
)
def test_bad_requests_have_the_shape_of_the_protocol(
    scoring: score.Scoring, body: str, status: int, code: str, words: str
) -> None:
    found, answer = scoring.respond(body)
    assert (found, answer["error"]["code"]) == (status, code)
    assert words in answer["error"]["message"]
    assert set(answer["error"]) == {"message", "type", "code", "param"}


def test_an_adapter_is_scored_on_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "azureml-models" / "model")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/mnt/azureml/a-node-that-is-gone/model"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(adapter.parent))
    monkeypatch.delenv("MAAS_BASE_MODEL", raising=False)
    with pytest.raises(InputError, match="a-node-that-is-gone"):
        score.load_scoring()
    monkeypatch.setenv("MAAS_BASE_MODEL", str(base))
    tuned = ask(score.load_scoring())[1]["choices"][0]["message"]
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(base))
    plain = ask(score.load_scoring())[1]["choices"][0]["message"]
    assert tuned != plain


def test_the_base_may_lie_beside_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "HERE", tmp_path)
    monkeypatch.setenv("MAAS_BASE_MODEL", "base")
    assert score.base_model() == "base"
    (tmp_path / "base").mkdir()
    assert score.base_model() == str(tmp_path / "base")
    monkeypatch.setenv("MAAS_BASE_MODEL", "")
    assert score.base_model() is None


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="neither an adapter nor a model"):
        score.model_folder(tmp_path)
    with pytest.raises(InputError, match="neither"):
        score.model_folder(tmp_path / "gone")


class OneAtATime:
    """An engine that fails where two answers are written at once; `open` lets an answer end."""

    context_length = 100

    def __init__(self) -> None:
        self.inside = threading.Lock()
        self.started, self.open = threading.Event(), threading.Event()

    def encode(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int]:
        return [1]

    def generate(self, prompt: Sequence[int], settings: Settings) -> Iterator[Piece]:
        assert self.inside.acquire(blocking=False)
        self.started.set()
        assert self.open.wait(30)
        self.inside.release()
        yield Piece("done", 1, "stop")


def test_answers_are_written_one_at_a_time() -> None:
    engine = OneAtATime()
    scoring, answers = score.Scoring(engine, NAME, patience_s=30), list[int]()
    threads = [threading.Thread(target=lambda: answers.append(ask(scoring)[0])) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert engine.started.wait(30)
    engine.open.set()
    for thread in threads:
        thread.join(30)
    assert answers == [200, 200, 200]


def test_who_waits_too_long_is_told_to_try_again() -> None:
    engine = OneAtATime()
    scoring = score.Scoring(engine, NAME, patience_s=0.05)
    first = threading.Thread(target=lambda: ask(scoring))
    first.start()
    assert engine.started.wait(30)
    status, answer = ask(scoring)
    assert (status, answer["error"]["type"]) == (429, "rate_limit_error")
    assert scoring.respond('{"maas": "health"}')[0] == 200
    engine.open.set()
    first.join(30)


def test_a_model_that_fails_is_an_answer() -> None:
    class Broken(OneAtATime):
        def generate(self, prompt: Sequence[int], settings: Settings) -> Iterator[Piece]:
            raise RuntimeError("CUDA out of memory")

    scoring = score.Scoring(Broken(), NAME)
    for _ in range(2):  # the turn is given back
        status, answer = ask(scoring)
        assert (status, answer["error"]["type"]) == (500, "server_error")
        assert "CUDA out of memory" in answer["error"]["message"]


def test_it_stands_alone_and_loads_nothing_heavy(tmp_path: Path) -> None:
    words = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('entry_module', {str(ROOT / 'jobs/score.py')!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "heavy = {'torch', 'transformers', 'azure', 'flask', 'maas_client'} & set(sys.modules)\n"
        "assert not heavy, heavy; import tuning.errors, serving.wire"
    )
    ended = subprocess.run(
        [sys.executable, "-c", words], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
