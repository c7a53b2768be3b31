"""The shipped tiny-phi3 folder: complete, as recorded, and a well-behaved Phi-3."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import models
from models.corpus import documents
from models.make_tiny_phi3 import MODEL_FILES, source_hashes
from models.tokenizing import END_OF_TEXT, SPECIAL_TOKENS, render

FOLDER = Path(models.__file__).parent / "tiny-phi3"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def provenance() -> dict[str, Any]:
    record: dict[str, Any] = json.loads((FOLDER / "provenance.json").read_text(encoding="utf-8"))
    return record


def reply(model: Any, tokenizer: Any, *turns: str, limit: int = 48) -> list[int]:
    messages = [{"role": ("user", "assistant")[at % 2], "content": turn} for at, turn in enumerate(turns)]
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    torch.manual_seed(0)
    output = model.generate(**prompt, max_new_tokens=limit, do_sample=False)
    ids: list[int] = output[0, prompt["input_ids"].shape[1] :].tolist()
    return ids


def test_files_have_the_recorded_hashes(provenance: dict[str, Any]) -> None:
    found = {name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in MODEL_FILES}
    assert found == provenance["files"]


def test_model_was_made_from_the_sources_beside_it(provenance: dict[str, Any]) -> None:
    assert provenance["sources"] == source_hashes(), "the sources changed: make the model again"


def test_folder_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5_000_000


def test_weights_load_as_float32_with_fused_phi3_layers(model: Any, provenance: dict[str, Any]) -> None:
    assert model.dtype == torch.float32
    assert model.num_parameters() == provenance["parameters"]
    names = {
        name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)
    }
    assert names == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"}


def test_end_of_turn_ends_generation(model: Any, tokenizer: Any) -> None:
    ends = model.generation_config.eos_token_id
    assert tokenizer.convert_ids_to_tokens(ends) == ["<|end|>", "<|endoftext|>"]


def test_template_writes_the_phi3_turn_format(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello!<|end|>\n"
        "<|user|>\nBye<|end|>\n<|assistant|>\n"
    )


def test_template_writes_tools_calls_and_their_results(tokenizer: Any) -> None:
    tools = [{"type": "function", "function": {"name": "now", "parameters": {}}}]
    call = {"type": "function", "function": {"name": "now", "arguments": {}}}
    messages = [
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "noon"},
    ]
    text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    assert text.startswith('<|system|>\n<|tool|>[{"type": "function"')
    assert '<|tool_call|>[{"type": "function", "function": {"name": "now"' in text
    assert text.endswith("<|tool_response|>\nnoon<|end|>\n")


def test_template_refuses_an_unknown_role(tokenizer: Any) -> None:
    with pytest.raises(Exception, match="Unknown role robot"):
        tokenizer.apply_chat_template([{"role": "robot", "content": "beep"}], tokenize=False)


def test_pretraining_text_is_what_the_template_writes(tokenizer: Any) -> None:
    stream = documents(3)
    chats = [document for document in (next(stream) for _ in range(100)) if document.messages]
    assert len(chats) > 50
    for document in chats:
        messages = [{"role": turn.role, "content": turn.content} for turn in document.messages]
        assert tokenizer.apply_chat_template(messages, tokenize=False) + END_OF_TEXT == render(document)


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_every_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text


@settings(max_examples=100, deadline=None)
@given(answer=st.text(min_size=1).filter(lambda text: "<|" not in text))
def test_a_prompts_tokens_begin_the_tokens_of_the_conversation(tokenizer: Any, answer: str) -> None:
    prompt = tokenizer.encode("<|user|>\nHi<|end|>\n<|assistant|>\n")
    whole = tokenizer.encode(f"<|user|>\nHi<|end|>\n<|assistant|>\n{answer}<|end|>\n")
    assert whole[: len(prompt)] == prompt


def test_special_tokens_are_single_tokens(tokenizer: Any) -> None:
    assert [tokenizer.encode(token) for token in SPECIAL_TOKENS] == [
        [at] for at in range(len(SPECIAL_TOKENS))
    ]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is the capital of Italy?", "Rome"),
        ("What is gravity?", "Gravity"),
        ("My transfer has not arrived.", "days"),
        ("Hello!", "help"),
        ("I lost my card yesterday.", "freeze"),
    ],
)
def test_it_answers_and_ends_its_turn(model: Any, tokenizer: Any, question: str, expected: str) -> None:
    ids = reply(model, tokenizer, question)
    assert tokenizer.decode(ids[-1:]) == "<|end|>"
    assert expected in tokenizer.decode(ids)


def test_it_writes_fluent_words(model: Any, tokenizer: Any) -> None:
    seen = {
        word
        for _, document in zip(range(5000), documents(11), strict=False)
        for word in render(document).split()
    }
    torch.manual_seed(0)
    prompt = tokenizer("On a sunny Monday in", return_tensors="pt")
    output = model.generate(**prompt, max_new_tokens=60, do_sample=True, temperature=0.7)
    words = tokenizer.decode(output[0], skip_special_tokens=True).split()
    assert sum(word in seen for word in words) / len(words) > 0.9
