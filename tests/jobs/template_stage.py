"""Chat templates as models have them and users write them, tokenizers for them, random conversations."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tuning.rows import Example, Message

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
PHI4_MINI = (  # reads the tools from a key of the system message, and leaves tool calls out
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}"
    "{% if m.role == 'system' and m.tools %}{{ '<|tool|>' + m.tools + '<|/tool|>' }}{% endif %}"
    "{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
CHATML = (
    "{% if tools %}{{ '<|im_start|>system\\n' + tools | tojson + '<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
    "{% for call in m.tool_calls or [] %}{{ '<call>' + call.function | tojson + '</call>' }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TAGGED = (  # says itself what the assistant wrote
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
OWN = (  # written by a user: headings in plain words, trimmed turns, the end-of-text token as the end
    "{% for m in messages %}"
    "{{ {'user': 'Customer: ', 'assistant': 'Clerk: '}.get(m.role, m.role + ': ') + m.content | trim }}"
    "{{ eos_token if m.role == 'assistant' else '' }}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Clerk: ' }}{% endif %}"
)
SHIPPED = Path(__file__).parents[2] / "models" / "tiny-phi3"


@dataclass(frozen=True)
class Case:
    """A template, what ends its answers, what it writes of an assistant's turn, and what it can show."""

    template: str
    end: str
    says: Callable[[Message], str] = lambda turn: turn.content
    shows: frozenset[str] = frozenset({"system"})


def _chatml_says(turn: Message) -> str:
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in turn.tool_calls or ()]
    return turn.content + "".join(f"<call>{call}</call>" for call in calls)


def _shipped_says(turn: Message) -> str:
    calls = json.dumps(list(turn.tool_calls), ensure_ascii=False) if turn.tool_calls else ""
    return turn.content + (f"<|tool_call|>{calls}<|/tool_call|>" if calls else "")


ALL = frozenset({"system", "tools", "calls"})
CASES = {
    "phi3": Case(PHI3, "<|end|>"),
    "phi3-medium": Case(PHI3_MEDIUM, "<|end|>", shows=frozenset()),
    "phi4": Case(PHI4, "<|im_end|>"),
    "phi4-mini": Case(PHI4_MINI, "<|end|>", shows=frozenset({"system", "tools"})),
    "chatml": Case(CHATML, "<|im_end|>", _chatml_says, ALL),
    "tagged": Case(TAGGED, "<|end|>"),
    "own": Case(OWN, "<|endoftext|>", lambda turn: turn.content.strip()),
    "shipped": Case((SHIPPED / "chat_template.jinja").read_text(), "<|end|>", _shipped_says, ALL),
}
SPECIAL = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
SPECIAL += ("<|im_start|>", "<|im_sep|>", "<|im_end|>", "<|tool|>", "<|/tool|>", "<|tool_call|>")
SPECIAL += ("<|/tool_call|>", "<|tool_response|>")
TEXT = ["\n\n\n The answer\nto this\n\nis a good answer.  And\n\n that is all\n"] * 4


@cache
def tokenizer(name: str, *, swallow_spaces: bool = False, trim_offsets: bool = False) -> Any:
    """A byte-level BPE that merges over words and line breaks, trained here, with the template of a case."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    if trim_offsets:
        core.post_processor = processors.ByteLevel(trim_offsets=True)
    _train(core, swallow_spaces, sorted(pre_tokenizers.ByteLevel.alphabet()))
    return _with_template(core, name)


@cache
def sentence_piece_tokenizer(name: str) -> Any:
    """A BPE that writes blanks as ▁ and puts one before every text, as Llama's and Phi-3's do."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _train(core, True, [f"<0x{byte:02X}>" for byte in range(256)])
    return _with_template(core, name)


def _train(core: Tokenizer, swallow_spaces: bool, alphabet: list[str]) -> None:
    as_bytes = alphabet[0].startswith("<0x")
    special = [AddedToken(text, rstrip=swallow_spaces, normalized=False) for text in SPECIAL]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[*special, *(["<unk>", *alphabet] if as_bytes else [])],
        initial_alphabet=[] if as_bytes else alphabet,
        show_progress=False,
    )
    core.train_from_iterator(TEXT, trainer)


def _with_template(core: Tokenizer, name: str) -> Any:
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>")
    made.chat_template = CASES[name].template if name in CASES else name
    return made


CONTENT = st.text(st.sampled_from("ab \n\té€😀.answer"), min_size=1, max_size=12)
ANSWERS = CONTENT.filter(lambda text: bool(text.strip()))
NAMES = st.sampled_from(["weather", "rate"])
ARGUMENTS = st.dictionaries(st.sampled_from(["city", "when"]), CONTENT | st.integers(0, 99), max_size=2)


@st.composite
def conversations(draw: st.DrawFn, shows: frozenset[str] = frozenset({"system"})) -> Example:
    """A conversation of one to five questions, with all that a template of a case can show."""
    turns = [Message("system", draw(CONTENT))] if "system" in shows and draw(st.booleans()) else []
    has_tools = "tools" in shows and draw(st.booleans())
    for _ in range(draw(st.integers(0, 4))):
        turns.append(Message("user", draw(CONTENT)))
        if has_tools and "calls" in shows and draw(st.booleans()):
            turns += draw(_calls())
        for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
            turns.append(Message("assistant", draw(ANSWERS), draw(st.integers(0, 1))))
    turns.append(Message("user", draw(CONTENT)))
    turns.append(Message("assistant", draw(ANSWERS), 1))
    if draw(st.booleans()):
        turns.append(Message("user", draw(CONTENT)))
    tools = tuple(_tool(name) for name in ("weather", "rate")) if has_tools else None
    return Example(tuple(turns), tools)


@st.composite
def _calls(draw: st.DrawFn) -> list[Message]:
    """An assistant's turn that calls tools, and their results."""
    ids = [f"call_{number}" for number in range(draw(st.integers(1, 2)))]
    calls = tuple(
        {"id": one, "type": "function", "function": {"name": draw(NAMES), "arguments": draw(ARGUMENTS)}}
        for one in ids
    )
    said = draw(st.just("") | ANSWERS)
    asked = Message("assistant", said, draw(st.integers(0, 1)), calls)
    return [asked, *(Message("tool", draw(CONTENT), tool_call_id=one) for one in ids)]


def _tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": "a tool", "parameters": parameters}}
