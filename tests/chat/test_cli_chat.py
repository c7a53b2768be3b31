"""`maas chat` as a person and as a script use it: a real endpoint, a real terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maas_client.backends import open_platform
from maas_client.endpoint import EndpointRef, EndpointState
from maas_client.model import Lineage
from maas_client.run import Artifact
from maas_client.spec import DeploySpec
from tests.jobs.server_stage import make_model

pytestmark = pytest.mark.slow
MAAS = Path(sys.executable).with_name("maas")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with the endpoint `tiny`, whose model talks until it is stopped."""
    folder = tmp_path_factory.mktemp("project")
    home = folder / "home"
    make_model(folder / "run" / "model", max_position_embeddings=8192)
    platform = open_platform("local", home=home)
    assert platform.models is not None
    assert platform.endpoints is not None
    lineage = Lineage(run="by-hand-1", base_model="tiny-phi3", task="chat", method="full")
    model = platform.models.register("tiny", Artifact(folder / "run", {"adapter": False}), lineage)
    platform.endpoints.deploy(model.ref, DeploySpec(name="tiny"))
    ref, end = EndpointRef("local", "tiny"), time.monotonic() + 120
    while platform.endpoints.status(ref).state is not EndpointState.READY:
        assert time.monotonic() < end, platform.endpoints.status(ref)
        time.sleep(0.1)
    yield home
    platform.endpoints.delete(ref)


def chat(home: Path, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(MAAS), "chat", *words],
        env={**os.environ, "MAAS_HOME": str(home), "NO_COLOR": "1"},
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_one_question_one_answer(home: Path) -> None:
    answers = [
        chat(home, "tiny", "-m", "Hello", "--max-tokens", "12", "--client", client)
        for client in ("inference", "openai")
    ]
    assert [done.returncode for done in answers] == [0, 0]
    assert answers[0].stdout == answers[1].stdout
    assert answers[0].stdout.strip()


def test_json_holds_the_answer_and_its_counts_and_no_key(home: Path) -> None:
    done = chat(home, "tiny", "-m", "Hello", "--max-tokens", "1", "-o", "json")
    answer = json.loads(done.stdout)
    assert (answer["endpoint"], answer["finish_reason"], answer["completion_tokens"]) == ("tiny", "length", 1)
    assert "--max-tokens allows more" in done.stderr
    key = (home / "endpoints" / "tiny" / "key").read_text()
    assert key not in done.stdout + done.stderr


def test_a_question_from_stdin(home: Path) -> None:
    piped = chat(home, "tiny", "-m", "-", "--max-tokens", "8", given="Hello")
    assert piped.stdout == chat(home, "tiny", "-m", "Hello", "--max-tokens", "8").stdout


def test_what_cannot_be_asked(home: Path) -> None:
    for words, code, sentence in (
        (("tiny",), 2, "no terminal"),
        (("tiny", "-m", " "), 2, "message is empty"),
        (("gone", "-m", "Hello"), 3, "no endpoint 'gone'"),
        (("tiny", "-m", "Hello", "--client", "curl"), 2, "curl"),
        (("tiny", "-m", "word " * 3000), 3, "context is 8192"),
    ):
        done = chat(home, *words)
        assert (done.returncode, done.stdout) == (code, "")
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


class Terminal:
    """`maas chat` at a terminal of its own."""

    def __init__(self, home: Path, *words: str) -> None:
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "MAAS_HOME": str(home), "TERM": "dumb"}
            os.execve(MAAS, [str(MAAS), "chat", *words], environment)  # noqa: S606
        self.seen = ""

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + 90
        while text not in self.seen:
            assert time.monotonic() < end, f"{text!r} did not come: {self.seen!r}"
            assert self._read(), f"it ended before {text!r}: {self.seen!r}"

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def exit_code(self) -> int:
        end = time.monotonic() + 90
        while self._read() and time.monotonic() < end:
            pass
        if time.monotonic() >= end:
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.screen)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        """Read what is there, waiting a moment for it; False when the terminal is closed."""
        if not select.select([self.screen], [], [], 0.2)[0]:
            return True
        try:
            self.seen += os.read(self.screen, 65536).decode("utf-8", "replace")
        except OSError:
            return False
        return True


def test_a_conversation_at_a_terminal(home: Path) -> None:
    terminal = Terminal(home, "tiny", "--max-tokens", "20")
    terminal.wait_for("> ")
    terminal.type("Hello\n/reset\n")
    terminal.wait_for("Forgotten.\r\n> ")
    terminal.type("/help\n")
    terminal.wait_for("/help\r\n/reset forgets")
    terminal.wait_for("stops an answer.\r\n> ")  # the prompt is there, so what comes next is read by it
    terminal.type("word " * 1700 + "\n")
    terminal.wait_for("shorten it.\r\n> ")
    assert "tokens; the model" in terminal.seen
    terminal.type("\x04")
    assert terminal.exit_code() == 0
    assert "Traceback" not in terminal.seen
    assert "\x1b" not in terminal.seen.partition("/reset")[0].partition("Hello")[2]


def test_ctrl_c_stops_the_answer_and_stays(home: Path) -> None:
    terminal = Terminal(home, "tiny", "--max-tokens", "8000")
    terminal.wait_for("> ")
    terminal.type("Tell me everything\n")
    while len(terminal.seen.partition("everything\r\n")[2]) < 200:
        terminal._read()
    os.kill(terminal.pid, signal.SIGINT)
    terminal.wait_for("Stopped; that turn is forgotten.")
    terminal.type("/exit\n")
    assert terminal.exit_code() == 0
    assert "Traceback" not in terminal.seen


def test_an_endpoint_that_is_gone_is_told(home: Path) -> None:
    terminal = Terminal(home, "gone")
    assert terminal.exit_code() == 3
    assert "no endpoint 'gone'" in terminal.seen
