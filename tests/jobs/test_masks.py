"""Loss masks: the text under the mask is what the assistant said and its end token, under every template."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tuning.masks import IGNORED, Encoded, TemplateError, UnteachableError, encode, prompt_ids
from tuning.rows import Example, Message, parse_row

PHI3 = (
    "{% for m in messages %}{% if m.role in ('system', 'user', 'assistant') %}"
    "{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PHI3_MEDIUM = (  # writes the start of the answer after every question, and leaves system messages out
    "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '<|user|>\\n' + m.content + '<|end|>\\n<|assistant|>\\n' }}"
    "{% elif m.role == 'assistant' %}{{ m.content + '<|end|>\\n' }}{% endif %}{% endfor %}"
)
PHI4 = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
CHATML = (
    "{% if tools %}{{ '<|im_start|>system\\n' + tools | tojson + '<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
    "{% for call in m.tool_calls or [] %}{{ '<call>' + call.function | tojson + '</call>' }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TEMPLATES = {"phi3": PHI3, "phi4": PHI4, "chatml": CHATML}
ENDS = {"phi3": "<|end|>", "phi4": "<|im_end|>", "chatml": "<|im_end|>"}
SPECIAL = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
SPECIAL += ("<|im_start|>", "<|im_sep|>", "<|im_end|>")
SHIPPED = Path(__file__).parents[2] / "models" / "tiny-phi3"


@cache
def tokenizer(template: str, *, swallow_spaces: bool = False, trim_offsets: bool = False) -> Any:
    """A byte-level BPE that merges over words and line breaks, trained here."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    if trim_offsets:
        core.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(text, rstrip=swallow_spaces, normalized=False) for text in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    text = ["\n\n\n The answer\nto this\n\nis a good answer.  And\n\n that is all\n"] * 4
    core.train_from_iterator(text, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>")
    made.chat_template = TEMPLATES.get(template, template)
    return made


def taught(encoded: Encoded, with_tokenizer: Any) -> str:
    ids = [label for label in encoded.labels if label != IGNORED]
    return str(with_tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def talk(*turns: tuple[str, str]) -> Example:
    return parse_row({"messages": [{"role": role, "content": content} for role, content in turns]}, "chat")


CONTENT = st.text(st.sampled_from("ab \n\té€😀.answer"), min_size=1, max_size=12)
ANSWERS = CONTENT.filter(lambda text: bool(text.strip()))


@st.composite
def conversations(draw: st.DrawFn) -> Example:
    turns = [Message("system", draw(CONTENT))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        turns.append(Message("user", draw(CONTENT)))
        for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
            turns.append(Message("assistant", draw(ANSWERS), draw(st.integers(0, 1))))
    turns.append(Message("user", draw(CONTENT)))
    turns.append(Message("assistant", draw(ANSWERS), 1))
    if draw(st.booleans()):
        turns.append(Message("user", draw(CONTENT)))
    return Example(tuple(turns))


@pytest.mark.parametrize("trim_offsets", [False, True])
@pytest.mark.parametrize("template", sorted(TEMPLATES))
@settings(max_examples=60, deadline=None)
@given(example=conversations())
def test_the_text_under_the_mask_is_every_weighted_answer_and_its_end(
    template: str, trim_offsets: bool, example: Example
) -> None:
    using = tokenizer(template, trim_offsets=trim_offsets)
    encoded = encode(example, using, None)
    expected = "".join(turn.content + ENDS[template] for turn in example.messages if turn.weight)
    assert taught(encoded, using) == expected
    assert all(
        label in (IGNORED, token) for token, label in zip(encoded.input_ids, encoded.labels, strict=True)
    )
    assert not encoded.truncated


@pytest.mark.parametrize("template", sorted(TEMPLATES))
@settings(max_examples=40, deadline=None)
@given(question=CONTENT, answer=ANSWERS)
def test_training_starts_to_answer_where_inference_does(template: str, question: str, answer: str) -> None:
    using = tokenizer(template)
    example = talk(("user", question), ("assistant", answer))
    prompt = prompt_ids(example, using)
    encoded = encode(example, using, None)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.labels[: len(prompt)] == [IGNORED] * len(prompt)
    assert IGNORED not in encoded.labels[len(prompt) :]


@settings(max_examples=40, deadline=None)
@given(example=conversations(), limit=st.integers(1, 60))
def test_truncation_keeps_the_start_and_never_an_empty_lesson(example: Example, limit: int) -> None:
    using = tokenizer("phi3")
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
        using.chat_template = TEMPLATES[name]
        assert taught(encode(example, using, None), using) == "b" + ENDS[name]


def test_real_conversations_keep_their_answers() -> None:
    path = Path(__file__).parents[3] / "shared" / "data" / "gsm8k-chat" / "train.jsonl"
    if not path.is_file():
        pytest.skip("the dataset is not on this machine")
    using = tokenizer("phi3")
    for line in path.read_text(encoding="utf-8").splitlines()[:40]:
        row = json.loads(line)
        encoded = encode(parse_row(row, "chat"), using, None)
        assert taught(encoded, using) == row["messages"][-1]["content"] + "<|end|>"
