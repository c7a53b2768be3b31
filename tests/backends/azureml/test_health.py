"""Whether a deployment answers: the real scoring script does, and nothing else is taken for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from maas_client.backends.azureml.health import DEPLOYMENT_HEADER, QUESTION, ask_health
from tests.transport.loopback import Reply, loopback

NOT_READY = {"error": {"code": "DeploymentNotReady", "message": "The deployment is not ready yet."}}


def test_the_question_is_the_one_that_the_script_answers() -> None:
    import score

    assert score.HEALTH == QUESTION
    scoring = score.Scoring(None, "cards")  # type: ignore[arg-type]
    status, answer = scoring.respond(json.dumps(QUESTION))
    with loopback(lambda _: Reply(status, answer)) as server:
        assert ask_health(server.url, "key", "v1-aaaa").answers is True
    (call,) = server.calls
    assert call.headers[DEPLOYMENT_HEADER] == "v1-aaaa"
    assert call.headers["authorization"] == "Bearer key"
    assert call.body == QUESTION


@pytest.mark.parametrize(
    ("reply", "answers", "words"),
    [
        (Reply(429, {"error": {"code": "TooManyRequests"}}), True, ""),
        (Reply(503, NOT_READY), False, "DeploymentNotReady: The deployment is not ready yet (HTTP 503)"),
        (Reply(404, None), False, "something else answers (HTTP 404)"),
        (
            Reply(401, {"error": {"code": "key_auth_access_denied"}}),
            False,
            "key_auth_access_denied (HTTP 401)",
        ),
        (Reply(200, {"hello": "you"}), False, "HTTP 200"),
        (Reply(200, [1]), False, "HTTP 200"),
        (Reply(200, b"<html>Sign in</html>", {"Content-Type": "text/html"}), False, "HTTP 200"),
        (Reply(424, {"error": {"code": "x", "message": "No."}}), False, "HTTP 424"),
        (Reply(trouble="reset"), False, "Cannot reach 127.0.0.1"),
    ],
)
def test_what_else_may_answer(reply: Reply, answers: bool, words: str) -> None:
    with loopback(lambda _: reply) as server:
        health = ask_health(server.url, "secret-key", "v1")
    assert health.answers is answers
    assert words in health.words
    assert "secret-key" not in health.words
    assert len(server.calls) == 1


def test_nobody_is_there() -> None:
    health = ask_health("http://127.0.0.1:9/score", "key", "v1")
    assert health.answers is False
    assert "takes no connection" in health.words


@pytest.mark.parametrize("url", ["", "http://cards.eastus.inference.ml.azure.com/score", "ftp://x/score"])
def test_a_key_goes_over_tls_only(url: str) -> None:
    health = ask_health(url, "key", "v1")
    assert health.answers is None
    assert "may not see a key" in health.words


def test_the_key_does_not_follow_a_redirect() -> None:
    with loopback(lambda _: Reply(200, {"maas": "health"})) as stranger:

        def answer(_: Any) -> Reply:
            return Reply(307, None, {"Location": stranger.url})

        with loopback(answer) as server:
            assert ask_health(server.url, "key", "v1").answers is False
    assert stranger.calls == []
