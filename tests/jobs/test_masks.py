"""Loss masks: the text under the mask is what the assistant said and its end token, under every template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_stage import (
    ANSWERS,
    CASES,
    CONTENT,
    PHI3_MEDIUM,
    SHIPPED,
    conversations,
    sentence_piece_tokenizer,
    tokenizer,
)
from transformers import PreTrainedTokenizerFast

from tuning.masks import IGNORED, Encoded, TemplateError, UnteachableError, encode, prompt_ids
from tuning.rows import Example, parse_row
from tuning.templates import template_facts


def taught(encoded: Encoded, with_tokenizer: Any) -> str:
    ids = [label for label in encoded.labels if label != IGNORED]
    return str(with_tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def talk(*turns: tuple[str, str]) -> Example:
    return parse_row({"messages": [{"role": role, "content": content} for role, content in turns]}, "chat")


@pytest.mark.parametrize("trim_offsets", [False, True])
@pytest.mark.parametrize("name", sorted(CASES))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_text_under_the_mask_is_every_weighted_answer_and_its_end(
    name: str, trim_offsets: bool, data: st.DataObject
) -> None:
    case, using = CASES[name], tokenizer(name, trim_offsets=trim_offsets)
    example = data.draw(conversations(case.shows))
    encoded = encode(example, using, None)
    expected = "".join(case.says(turn) + case.end for turn in example.messages if turn.weight)
    assert taught(encoded, using) == expected
    assert all(
        label in (IGNORED, token) for token, label in zip(encoded.input_ids, encoded.labels, strict=True)
    )
    assert not encoded.truncated


@pytest.mark.parametrize("name", sorted(CASES))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_blanks_that_belong_to_marks_change_nothing_else(name: str, data: st.DataObject) -> None:
    case, using = CASES[name], sentence_piece_tokenizer(name)
    example = data.draw(conversations(case.shows))
    expected = "".join(case.says(turn) + case.end for turn in example.messages if turn.weight)
    assert "".join(taught(encode(example, using, None), using).split()) == "".join(expected.split())


@pytest.mark.parametrize("name", sorted(CASES))
@settings(max_examples=40, deadline=None)
@given(question=CONTENT, answer=ANSWERS)
def test_training_starts_to_answer_where_inference_does(name: str, question: str, answer: str) -> None:
    for using in (tokenizer(name), sentence_piece_tokenizer(name)):
        example = talk(("user", question), ("assistant", answer))
        prompt = prompt_ids(example, using)
        encoded = encode(example, using, None)
        assert encoded.input_ids[: len(prompt)] == prompt
        assert encoded.labels[: len(prompt)] == [IGNORED] * len(prompt)
        assert IGNORED not in encoded.labels[len(prompt) :]
        assert encoded.input_ids[-1] == template_facts(using).end_id


@pytest.mark.parametrize("name", sorted(CASES))
@settings(max_examples=40, deadline=None)
@given(data=st.data(), limit=st.integers(1, 60))
def test_truncation_keeps_the_start_and_never_an_empty_lesson(
    name: str, data: st.DataObject, limit: int
) -> None:
    using, example = tokenizer(name), data.draw(conversations(CASES[name].shows))
    whole = encode(example, using, None)
    if set(whole.labels[1:limit]) <= {IGNORED}:
        with pytest.raises(UnteachableError, match="beyond max_length"):
            encode(example, using, limit)
        return
    cut = encode(example, using, limit)
    assert cut.input_ids == whole.input_ids[:limit]
    assert cut.labels == whole.labels[:limit]
    assert cut.truncated == (len(whole.input_ids) > limit)


def test_the_shipped_model_teaches_answer_and_end() -> None:
    if not (SHIPPED / "tokenizer.json").is_file():
        pytest.skip("the tiny model is not built")
    using = PreTrainedTokenizerFast.from_pretrained(SHIPPED)
    encoded = encode(talk(("system", "Be kind."), ("user", "Hello"), ("assistant", " Hi!\n")), using, None)
    assert taught(encoded, using) == " Hi!\n<|end|>"


def test_special_tokens_that_swallow_spaces_are_not_taught() -> None:
    using = tokenizer("phi3", swallow_spaces=True)
    encoded = encode(
        talk(("user", " Hi"), ("assistant", " answer"), ("user", "x"), ("assistant", "b")), using, None
    )
    assert taught(encoded, using) == "answer<|end|>b<|end|>"


def test_a_template_that_starts_answers_itself_is_understood() -> None:
    using = tokenizer(PHI3_MEDIUM)
    example = talk(("user", "a"), ("assistant", "b"), ("user", "a"), ("assistant", "ab"))
    assert taught(encode(example, using, None), using) == "b<|end|>ab<|end|>"


def test_plain_text_teaches_every_token_and_the_end() -> None:
    using = tokenizer("phi3")
    encoded = encode(Example((), text="the answer"), using, None)
    assert taught(encoded, using) == "the answer<|endoftext|>"
    assert encoded.labels == encoded.input_ids
    assert encode(Example((), text="the answer, long and longer"), using, 3).truncated


def test_an_empty_limit_of_plain_text_teaches_nothing() -> None:
    with pytest.raises(UnteachableError):
        encode(Example((), text="the answer"), tokenizer("phi3"), 1)


def with_tools() -> Example:
    called = {"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}, "id": "1", "type": "function"}
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    messages = [
        {"role": "user", "content": "Cold?"},
        {"role": "assistant", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "1", "content": "yes"},
        {"role": "assistant", "content": "It is."},
    ]
    return parse_row({"messages": messages, "tools": [tool]}, "chat")


def test_tool_calls_are_taught_where_the_template_shows_them() -> None:
    using = tokenizer("chatml")
    arguments = '<call>{"name": "weather", "arguments": {"city": "Oslo"}}</call><|im_end|>'
    assert taught(encode(with_tools(), using, None), using) == arguments + "It is.<|im_end|>"


@pytest.mark.parametrize(
    ("drop", "part"),
    [
        (lambda example: example, "tools"),
        (lambda example: Example(example.messages), "tool calls"),
        (lambda example: Example((*example.messages[:1], *example.messages[2:])), "tool results"),
    ],
)
def test_what_the_template_leaves_out_is_an_error(drop: Callable[[Example], Example], part: str) -> None:
    with pytest.raises(TemplateError, match=f"The row has {part}, which the chat template .* leaves out"):
        encode(drop(with_tools()), tokenizer("phi3"), None)


def test_a_system_message_that_the_template_leaves_out_is_an_error() -> None:
    with pytest.raises(TemplateError, match="The row has system messages"):
        encode(talk(("system", "Be kind"), ("user", "a"), ("assistant", "b")), tokenizer(PHI3_MEDIUM), None)


def test_a_template_that_rewrites_earlier_turns_is_an_error() -> None:
    rewriting = (
        "{% for m in messages %}{{ '<|' + m.role + '|>' }}"
        "{{ m.content if loop.last or m.role == 'user' else 'cut' }}{{ '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    using = tokenizer(rewriting)
    example = talk(("user", "a"), ("assistant", "long"), ("user", "a"), ("assistant", "b"))
    assert taught(encode(talk(("user", "a"), ("assistant", "b")), using, None), using) == "b<|end|>"
    with pytest.raises(TemplateError, match="rewrites earlier turns"):
        encode(example, using, None)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("", "has no chat template"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves out the answers"),
        ("{% for m in messages %}{{ m.content + '\\n' }}{% endfor %}", "writes no end token"),
        ("{{ raise_exception('no system role here') }}", "refuses the conversation: no system role here"),
    ],
)
def test_a_template_that_cannot_teach_is_an_error(template: str, reason: str) -> None:
    using = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer("phi3").backend_tokenizer, eos_token="<|endoftext|>"
    )
    using.chat_template = template
    with pytest.raises(TemplateError, match=reason):
        encode(talk(("user", "a"), ("assistant", "b")), using, None)


def test_a_changed_template_is_looked_at_again() -> None:
    using = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer("phi3").backend_tokenizer, eos_token="<|endoftext|>"
    )
    example = talk(("user", "a"), ("assistant", "b"))
    for name in ("phi3", "phi4"):
        using.chat_template = CASES[name].template
        assert taught(encode(example, using, None), using) == "b" + CASES[name].end


def test_real_conversations_keep_their_answers() -> None:
    path = Path(__file__).parents[3] / "shared" / "data" / "gsm8k-chat" / "train.jsonl"
    if not path.is_file():
        pytest.skip("the dataset is not on this machine")
    using = tokenizer("phi3")
    for line in path.read_text(encoding="utf-8").splitlines()[:40]:
        row = json.loads(line)
        encoded = encode(parse_row(row, "chat"), using, None)
        assert taught(encoded, using) == row["messages"][-1]["content"] + "<|end|>"
