"""Chat templates: what is refused in one sentence, a user's own, and the server asking as training did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_stage import CASES, conversations, sentence_piece_tokenizer, tokenizer
from transformers import PreTrainedTokenizerFast

from serving.engine import PromptError
from serving.prompt import ChatPrompt, end_tokens
from tuning.errors import InputError
from tuning.masks import encode, mark, prompt_ids
from tuning.prompts import Manner, ask, read_manner, write_manner
from tuning.rows import TASKS, Example, Message, parse_row
from tuning.templates import TemplateError, template_facts, use_template

TALK = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def with_template(template: str | None) -> Any:
    core = tokenizer("phi3").backend_tokenizer
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>")
    made.chat_template = template
    return made


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "has no chat template; give one in data.chat_template"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves out the answers"),
        ("{% for m in messages %}{{ m.content + '\\n' }}{% endfor %}", "writes no end token"),
        (
            "{% for m in messages %}{{ m.role + m.content + '\\n###\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}assistant{% endif %}",
            "writes no end token",
        ),
        (
            "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}",
            "does not begin an answer where add_generation_prompt asks for it",
        ),
        ("{{ raise_exception('no talk') }}", "refuses the conversation: no talk"),
        ("{% for m in messages %}", "refuses the conversation"),
    ],
)
def test_a_template_that_cannot_teach_is_one_sentence(template: str | None, reason: str) -> None:
    with pytest.raises(TemplateError, match=reason):
        encode(parse_row(TALK, "chat"), with_template(template), None)


def test_an_answer_that_holds_the_end_token_is_refused() -> None:
    example = Example((Message("user", "a"), Message("assistant", "b<|end|>c", 1)))
    with pytest.raises(TemplateError, match=r"Message 2 holds <\|end\|>, which ends an answer"):
        mark(example, tokenizer("phi3"))
    harmless = Example((Message("user", "a<|im_end|>"), Message("assistant", "b", 1)))
    assert mark(harmless, tokenizer("phi3")).text.endswith("b<|end|>")


def test_a_template_of_ones_own_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(CASES["own"].template, encoding="utf-8-sig")
    using = with_template(None)
    use_template(using, path)
    assert mark(parse_row(TALK, "chat"), using).text == "Customer: a\n\nClerk: b<|endoftext|>"
    assert template_facts(using).stop == "<|endoftext|>"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "Cannot read the chat template"), (b"\xff\xfe", "is not UTF-8 text"), (b" \n", "is empty")],
)
def test_a_template_file_that_is_none_is_one_sentence(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "own.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        use_template(with_template(None), path)


def test_tools_stand_in_the_system_message_where_the_template_reads_them_there() -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    listed = json.dumps([tool["function"]])
    using = tokenizer("phi4-mini")
    text = mark(parse_row({**TALK, "tools": [tool]}, "chat"), using).text
    assert text == f"<|system|><|tool|>{listed}<|/tool|><|end|><|user|>a<|end|><|assistant|>b<|end|>"
    rules = {"role": "system", "content": "Rules"}
    row = {"messages": [rules, *TALK["messages"]], "tools": [tool]}
    assert mark(parse_row(row, "chat"), using).text.startswith(f"<|system|>Rules<|tool|>{listed}<|/tool|>")


def as_request(example: Example) -> list[dict[str, Any]]:
    """The conversation before the last answer, as a client of the endpoint writes it."""
    last = max(place for place, turn in enumerate(example.messages) if turn.role == "assistant")
    return [_as_api(turn) for turn in example.messages[:last]]


def _as_api(turn: Message) -> dict[str, Any]:
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in turn.tool_calls or ()
    ]
    optional = {"tool_calls": calls or None, "tool_call_id": turn.tool_call_id}
    return {"role": turn.role, "content": turn.content, **{k: v for k, v in optional.items() if v}}


@pytest.mark.parametrize("name", sorted(CASES))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_server_asks_as_training_did(name: str, data: st.DataObject) -> None:
    example = data.draw(conversations(CASES[name].shows))
    for using in (tokenizer(name), sentence_piece_tokenizer(name)):
        asked = ChatPrompt(using).encode(as_request(example), example.tools or ())
        assert asked == prompt_ids(example, using)


ROWS = {
    "chat": {"prompt": "What?", "completion": "That."},
    "text-generation": {"prompt": "Once", "completion": "upon"},
    "classification": {"text": "late", "label": "card"},
    "ner": {"tokens": ["in", "Oslo"], "tags": ["O", "B-place"]},
    "qa": {"context": "It is red.", "question": "Which?", "answers": ["red"]},
    "translation": {"source": "one", "target": "eins"},
    "summarization": {"document": "long", "summary": "short"},
}
SENT = {"chat": "What?", "text-generation": "Once", "classification": "late", "ner": "in Oslo"}
SENT |= {"qa": '{"context": "It is red.", "question": "Which?"}', "translation": "one"}
SENT |= {"summarization": "long"}


@pytest.mark.parametrize("task", sorted(ROWS))
def test_what_a_user_sends_becomes_the_prompt_of_training(task: str) -> None:
    using, example = tokenizer("phi3"), parse_row(ROWS[task], task)
    served = ChatPrompt(using, Manner(task))
    expected = prompt_ids(example, using)
    assert served.encode([{"role": "user", "content": SENT[task]}], ()) == expected
    whole = example.messages[0].content  # as it stands in samples.jsonl
    assert served.encode([{"role": "user", "content": whole}], ()) == expected


@settings(deadline=None)
@given(text=st.text())
def test_asking_twice_is_asking_once(text: str) -> None:
    for task in TASKS:
        assert ask(task, ask(task, text)) == ask(task, text)


def test_a_plain_text_is_gone_on_with_without_turns() -> None:
    using = with_template(None)
    served = ChatPrompt(using, Manner("music", plain_text=True))
    asked = [{"role": "user", "content": "X:1\n"}, {"role": "assistant", "content": "K:G\n"}]
    ids = served.encode(asked, ())
    assert ids == encode(Example((), text="X:1\nK:G\n"), using, None).input_ids[:-1]
    with pytest.raises(PromptError, match="send its beginning"):
        served.encode([{"role": "user", "content": ""}], ())
    with pytest.raises(PromptError, match="takes no tools"):
        served.encode(asked, [{"type": "function", "function": {"name": "f"}}])


def test_the_end_of_a_template_ends_answers_when_served() -> None:
    class Silent:
        eos_token_id = None

    own = tokenizer(
        "{% for m in messages %}{{ m.role + ':' + m.content + '<|im_sep|>' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    end = own.convert_tokens_to_ids("<|im_sep|>")
    assert end in end_tokens(own, Silent())
    assert end not in end_tokens(with_template(None), Silent())


def test_the_manner_travels_with_the_model(tmp_path: Path) -> None:
    assert read_manner(tmp_path) == Manner("chat")
    write_manner(tmp_path, Manner("ner"))
    assert read_manner(tmp_path) == Manner("ner")
    (tmp_path / "task.json").write_text('{"task": "poetry"}')
    with pytest.raises(InputError, match="names the task 'poetry'; accepted: chat"):
        read_manner(tmp_path)
    (tmp_path / "task.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_manner(tmp_path)
