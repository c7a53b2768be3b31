"""The engine against transformers' own generate, and the way from tokens to text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from serving.engine import Piece, PromptError, Settings, load_engine
from serving.model_folder import find_model
from serving.sampling import next_token
from serving.text import StopText, TextStream
from serving.turns import BusyError, Turns
from tests.jobs.server_stage import make_adapter, make_model, make_tokenizer

LONG_ROPE = {
    "max_position_embeddings": 128,
    "original_max_position_embeddings": 40,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
        "original_max_position_embeddings": 40,
        "short_factor": [1.0] * 4,
        "long_factor": [1.5, 2.0, 3.0, 4.0],
    },
}
QUESTION = [{"role": "user", "content": "Which card is this?"}]


def greedy(folder: Path, prompt: list[int], tokens: int) -> list[int]:
    """The tokens that transformers' generate answers with."""
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    return [int(token) for token in out[0, len(prompt) :]]


def answer(engine: Any, prompt: Sequence[int], **settings: Any) -> tuple[str, Piece]:
    pieces = list(engine.generate(prompt, Settings(**settings)))
    assert [piece.tokens for piece in pieces] == list(range(1, len(pieces) + 1))
    assert all(piece.finish_reason is None for piece in pieces[:-1])
    return "".join(piece.text for piece in pieces), pieces[-1]


@pytest.mark.parametrize(
    "changes", [{}, {"sliding_window": 16}, LONG_ROPE], ids=["plain", "window", "longrope"]
)
def test_answers_are_those_of_generate(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = make_model(tmp_path / "model", **changes)
    engine = load_engine("transformers", find_model(str(folder)))
    prompt = engine.encode(QUESTION, ())
    assert len(prompt) < 40 < len(prompt) + 60
    text, last = answer(engine, prompt, max_tokens=60)
    assert last.finish_reason == "length"
    assert text == make_tokenizer().decode(greedy(folder, prompt, 60), skip_special_tokens=True)


def test_the_context_limits_the_answer(tmp_path: Path) -> None:
    engine = load_engine("transformers", find_model(str(make_model(tmp_path))))
    prompt = engine.encode(QUESTION, ())
    _, last = answer(engine, prompt, max_tokens=10_000)
    assert (len(prompt) + last.tokens, last.finish_reason) == (engine.context_length, "length")


def test_an_end_token_of_the_generation_config_ends_the_answer(tmp_path: Path) -> None:
    engine = load_engine("transformers", find_model(str(make_model(tmp_path / "free"))))
    prompt = engine.encode(QUESTION, ())
    tokens = greedy(tmp_path / "free", prompt, 30)
    ended = load_engine("transformers", find_model(str(make_model(tmp_path / "ended", end=[0, tokens[4]]))))
    _, last = answer(ended, prompt, max_tokens=30)
    assert last.finish_reason == "stop"
    assert last.tokens == tokens.index(tokens[4]) + 1


def test_an_adapter_changes_the_answer_and_finds_its_base(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    plain = load_engine("transformers", find_model(str(base)))
    tuned = load_engine("transformers", find_model(str(adapter)))
    prompt = plain.encode(QUESTION, ())
    assert answer(tuned, prompt, max_tokens=30)[0] != answer(plain, prompt, max_tokens=30)[0]


def test_a_template_without_tools_refuses_them(tmp_path: Path) -> None:
    engine = load_engine("transformers", find_model(str(make_model(tmp_path))))
    with pytest.raises(PromptError, match="takes no tools"):
        engine.encode(QUESTION, [{"type": "function", "function": {"name": "f"}}])


def test_top_p_leaves_out_what_is_unlikely() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    generator = torch.Generator().manual_seed(0)
    drawn = {next_token(logits, Settings(temperature=1, top_p=0.79), generator) for _ in range(200)}
    assert drawn == {0, 1}
    drawn = {next_token(logits, Settings(temperature=1, top_p=0), generator) for _ in range(50)}
    assert drawn == {0}
    drawn = {next_token(logits, Settings(temperature=1), generator) for _ in range(400)}
    assert drawn == {0, 1, 2, 3}


BYTES = make_tokenizer()


def decode_bytes(tokens: list[int]) -> str:
    return str(BYTES.backend_tokenizer.decode(tokens, skip_special_tokens=True))


@given(st.text())
def test_byte_tokens_become_whole_characters(text: str) -> None:
    stream = TextStream(decode_bytes)
    parts = [stream.feed(token) for token in BYTES(text)["input_ids"]]
    assert "".join(parts) == text
    assert stream.finish() == ""


@given(st.binary(max_size=40))
def test_bytes_that_are_no_text_come_out_in_the_end(data: bytes) -> None:
    letters = dict(zip(sorted(range(256)), _letters(), strict=True))
    tokens = [BYTES.convert_tokens_to_ids(letters[byte]) for byte in data]
    stream = TextStream(decode_bytes)
    text = "".join([stream.feed(token) for token in tokens]) + stream.finish()
    valid = data.decode("utf-8", "ignore")
    assert [letter for letter in text if letter.isascii()] == [letter for letter in valid if letter.isascii()]


def _letters() -> list[str]:
    """The letter that byte-level tokenizers write for each byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(hidden)) for byte in range(256)]


@given(
    st.text("ab\n", max_size=12),
    st.lists(st.text("ab\n", min_size=1, max_size=3), max_size=3),
    st.integers(1, 4),
)
def test_text_before_the_first_stop_string_comes_through(text: str, stops: list[str], width: int) -> None:
    stop, shown = StopText(stops), ""
    for start in range(0, len(text), width):
        shown += stop.feed(text[start : start + width])
        if stop.found:
            break
    shown += stop.finish()
    whole_feeds = [text[: end + width] for end in range(0, len(text), width)]
    first = next((fed for fed in whole_feeds if any(one in fed for one in stops)), None)
    assert stop.found == (first is not None)
    assert shown == (
        text if first is None else first[: min(first.find(one) for one in stops if one in first)]
    )


class SlowEngine:
    """Writes a token every few milliseconds and counts them."""

    context_length = 10_000

    def __init__(self) -> None:
        self.written = 0

    def encode(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int]:
        return [len(messages) + len(tools)]

    def generate(self, prompt: Sequence[int], settings: Settings) -> Iterator[Piece]:
        for count in range(len(prompt), settings.max_tokens + 1):
            time.sleep(0.002)
            self.written += 1
            if settings.seed == count:
                raise RuntimeError("the engine broke")
            yield Piece("x", count, "length" if count == settings.max_tokens else None)


def test_an_answer_that_nobody_reads_is_stopped() -> None:
    engine = SlowEngine()

    async def leave_early() -> None:
        turns = Turns(engine)
        pieces = turns.answer([1], Settings(max_tokens=5000))
        await anext(pieces)
        await pieces.aclose()
        written = engine.written
        await asyncio.sleep(0.1)
        assert engine.written <= written + 2
        whole = [piece async for piece in turns.answer([1], Settings(max_tokens=3))]
        assert whole[-1].tokens == 3
        turns.close()

    asyncio.run(leave_early())


def test_a_slow_reader_gets_joined_pieces_and_loses_none() -> None:
    async def read_slowly() -> list[Piece]:
        pieces = []
        async for piece in Turns(SlowEngine()).answer([1], Settings(max_tokens=30)):
            pieces.append(piece)
            await asyncio.sleep(0.02)
        return pieces

    pieces = asyncio.run(read_slowly())
    assert "".join(piece.text for piece in pieces) == "x" * 30
    assert len(pieces) < 30


def test_an_engine_that_breaks_tells_its_reader() -> None:
    async def read() -> None:
        async for _ in Turns(SlowEngine()).answer([1], Settings(max_tokens=30, seed=3)):
            pass

    with pytest.raises(RuntimeError, match="the engine broke"):
        asyncio.run(read())


def test_more_than_enough_waiting_requests_are_refused() -> None:
    async def crowd() -> None:
        turns = Turns(SlowEngine(), waiting_limit=1)
        first, second = (turns.answer([1], Settings(max_tokens=5000)) for _ in range(2))
        await anext(first)
        waiting = asyncio.ensure_future(anext(second))
        await asyncio.sleep(0.02)
        with pytest.raises(BusyError):
            turns.require_room()
        await first.aclose()
        await waiting
        turns.require_room()
        await second.aclose()

    asyncio.run(crowd())
