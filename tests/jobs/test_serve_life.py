"""How a server starts, refuses to start, and ends."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

import serve
from tests.jobs.server_stage import (
    KEY,
    NAME,
    SERVE,
    Server,
    environment,
    make_adapter,
    make_model,
    start_server,
)
from tuning.errors import InputError

QUESTION = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny", max_position_embeddings=100_000)


def refusal(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str, key: str = KEY) -> str:
    """Why a server with these arguments does not start."""
    monkeypatch.setenv("MAAS_ENDPOINT_KEY", key)
    arguments = serve.parse_arguments(["--name", NAME, "--state", str(folder / "state.json"), *words])
    with pytest.raises(InputError) as refused:
        serve.serve(arguments)
    assert not (folder / "state.json").exists()
    return str(refused.value)


def test_what_a_server_needs(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    assert "MAAS_ENDPOINT_KEY" in refusal(monkeypatch, tmp_path, "--model", str(model), key="")
    past = str(time.time() - 1)
    assert "past" in refusal(monkeypatch, tmp_path, "--model", str(model), "--expires-at", past)
    assert "no engine 'x'" in refusal(monkeypatch, tmp_path, "--model", str(model), "--engine", "x")
    assert "There is no model folder" in refusal(monkeypatch, tmp_path, "--model", str(tmp_path / "gone"))
    assert "--port 0" in refusal(monkeypatch, tmp_path, "--model", str(model), "--port", "70000")


def test_a_taken_port_is_told(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = refusal(monkeypatch, tmp_path, "--model", str(model), "--port", port)
    assert f"Port {port}" in words
    assert "--port 0" in words


def test_a_model_without_its_parts_is_refused(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    def broken(name: str) -> Path:
        return Path(shutil.copytree(model, tmp_path / name))

    untokenized = broken("untokenized")
    (untokenized / "tokenizer.json").unlink()
    assert "no tokenizer" in refusal(monkeypatch, tmp_path, "--model", str(untokenized))
    mute = broken("mute")
    (mute / "chat_template.jinja").unlink()
    assert "no chat template" in refusal(monkeypatch, tmp_path, "--model", str(mute))
    torn = broken("torn")
    weights = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "Cannot load the model" in refusal(monkeypatch, tmp_path, "--model", str(torn))
    (torn / "model.safetensors").write_bytes(b"no weights at all")
    assert "damaged" in refusal(monkeypatch, tmp_path, "--model", str(torn))


def test_incomplete_or_damaged_weights_are_refused(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    with safe_open(str(model / "model.safetensors"), "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    lost = {name: tensor for name, tensor in weights.items() if "layers.1" not in name}
    save_file(lost, folder / "model.safetensors", metadata={"format": "pt"})
    assert "incomplete" in refusal(monkeypatch, tmp_path, "--model", str(folder))
    damaged = {name: tensor * float("nan") for name, tensor in weights.items()}
    save_file(damaged, folder / "model.safetensors", metadata={"format": "pt"})
    assert "not finite" in refusal(monkeypatch, tmp_path, "--model", str(folder))


def test_an_adapter_without_its_base_is_refused(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(model, tmp_path / "base"))
    adapter = make_adapter(base, tmp_path / "adapter")
    shutil.rmtree(base)
    words = refusal(monkeypatch, tmp_path, "--model", str(adapter))
    assert "pass --base" in words


def test_refusal_is_one_sentence_and_code_2(tmp_path: Path) -> None:
    words = [sys.executable, str(SERVE), "--model", str(tmp_path / "gone"), "--name", "x", "--state"]
    done = subprocess.run(
        [*words, str(tmp_path / "state.json")],
        env=environment(MAAS_ENDPOINT_KEY=KEY),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def start_answer(server: Server) -> subprocess.Popen[bytes]:
    """A client process in the middle of a long stream."""
    code = (
        "import httpx, sys\n"
        "body = {'messages': [{'role': 'user', 'content': 'Hi'}], 'stream': True, 'max_tokens': 90000}\n"
        "client = httpx.Client(headers={'api-key': sys.argv[2]}, timeout=120, trust_env=False)\n"
        "with client.stream('POST', sys.argv[1], json=body) as reply:\n"
        "    for line in reply.iter_lines():\n"
        "        print(line, flush=True)\n"
    )
    words = [sys.executable, "-c", code, f"{server.url}/v1/chat/completions", KEY]
    client = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert client.stdout is not None
    for _ in range(20):
        client.stdout.readline()
    return client


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")])
def test_a_signal_ends_it_in_order(model: Path, tmp_path: Path, number: signal.Signals, name: str) -> None:
    server = start_server(tmp_path, model)
    client = start_answer(server)
    try:
        server.process.send_signal(number)
        assert server.process.wait(60) == 128 + number
    finally:
        client.kill()
        client.communicate()
        server.stop()
    assert server.state["ended_by"] == name
    assert server.state["pid"] == server.process.pid
    assert KEY not in server.log.read_text() + server.state_file.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health", trust_env=False)


@pytest.mark.slow
def test_it_ends_by_itself_when_its_time_is_over(model: Path, tmp_path: Path) -> None:
    expires_at = time.time() + 25  # time enough to load, on a slow machine too
    server = start_server(tmp_path, model, "--expires-at", str(expires_at))
    try:
        assert server.state["expires_at"] == expires_at
        assert server.process.wait(120) == 0
    finally:
        server.stop()
    assert server.state["ended_by"] == "expiry"
    assert 0 <= server.state["ended_at"] - expires_at < 15


@pytest.mark.slow
def test_a_killed_server_frees_its_port_and_claims_no_end(model: Path, tmp_path: Path) -> None:
    server = start_server(tmp_path, model)
    port = str(server.state["port"])
    server.process.kill()
    server.process.wait(60)
    assert "ended_at" not in server.state
    server.state_file.unlink()
    again = start_server(tmp_path, model, "--port", port)
    try:
        assert again.url == f"http://127.0.0.1:{port}"
        assert again.client().get("/info").status_code == 200
    finally:
        again.stop()


@pytest.mark.slow
def test_a_client_that_leaves_frees_the_model(model: Path, tmp_path: Path) -> None:
    server = start_server(tmp_path, model)
    try:
        for _ in range(2):
            client = start_answer(server)
            client.kill()
            client.communicate()
        start = time.monotonic()
        reply = server.client().post("/v1/chat/completions", json={**QUESTION, "max_tokens": 5})
        assert reply.status_code == 200
        assert time.monotonic() - start < 30  # the abandoned answers would take minutes
        with pytest.raises(httpx.ReadTimeout):
            server.client().post("/chat/completions", json={**QUESTION, "max_tokens": 90_000}, timeout=0.5)
        reply = server.client().post("/v1/chat/completions", json={**QUESTION, "max_tokens": 5}, timeout=30)
        assert reply.status_code == 200
        assert "Traceback" not in server.log.read_text()
    finally:
        server.stop()


@pytest.mark.slow
def test_the_key_is_not_in_the_process_table(model: Path, tmp_path: Path) -> None:
    server = start_server(tmp_path, model)
    try:
        words = Path(f"/proc/{server.process.pid}/cmdline")
        assert not words.exists() or KEY.encode() not in words.read_bytes()
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        assert not children.exists() or children.read_text() == ""
    finally:
        server.stop()
