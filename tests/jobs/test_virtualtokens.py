"""Virtual tokens before every row: the same numbers as PEFT's own forward on each row alone."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    DynamicCache,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from tuning.batches import IGNORED, TokenRow, lay_out
from tuning.config import MethodConfig
from tuning.decoding import decode
from tuning.errors import InputError
from tuning.methods import METHODS
from tuning.models import check_fit, context_length

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MODELS: dict[str, Callable[[], Any]] = {
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SHAPE)),
    "phi3-window": lambda: Phi3ForCausalLM(Phi3Config(**SHAPE, sliding_window=9)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SHAPE, sliding_window=9, head_dim=16)),
}
VIRTUAL = ["prefix", "prompt", "p-tuning"]
LENGTHS = (17, 4, 9, 12, 3, 16, 7)


def make(model: str, method: str) -> Any:
    torch.manual_seed(0)
    config = MethodConfig(name=method, virtual_tokens=5)  # type: ignore[arg-type]
    return METHODS[method].prepare(MODELS[model]().eval(), config).eval()


def as_peft_reads(model: Any, ids: list[int]) -> torch.Tensor:
    """PEFT's own forward on one text: the logits of its tokens."""
    forward = types.MethodType(type(model).forward, model)
    with torch.no_grad():
        logits: torch.Tensor = forward(input_ids=torch.tensor([ids])).logits[0, -len(ids) :]
    return logits


def make_rows() -> list[TokenRow]:
    generator = torch.Generator().manual_seed(1)
    rows = []
    for length in LENGTHS:
        ids = torch.randint(3, 97, (length,), generator=generator).int()
        rows.append(TokenRow(ids, torch.where(torch.arange(length) < 2, IGNORED, ids).int()))
    return rows


@pytest.mark.parametrize("method", VIRTUAL)
@pytest.mark.parametrize("model", MODELS)
def test_rows_side_by_side_are_read_as_each_alone(model: str, method: str) -> None:
    tuned, rows = make(model, method), make_rows()
    batch = lay_out(rows, 0)
    assert len(batch.input_ids) < len(rows)
    # The same layout with the number of each row and token for labels says which target is whose.
    numbered = [
        TokenRow(
            row.ids, torch.where(row.labels == IGNORED, IGNORED, 100 * number + torch.arange(len(row.ids)))
        )
        for number, row in enumerate(rows)
    ]
    whose = [divmod(target, 100) for target in lay_out(numbered, 0).targets.tolist()]
    alone = [as_peft_reads(tuned, row.ids.tolist()) for row in rows]
    expected = torch.stack([alone[row][place - 1] for row, place in whose])
    with torch.no_grad():
        output = tuned(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            logits_to_keep=batch.predicts,
            use_cache=False,
        )
    assert torch.allclose(output.logits, expected, atol=1e-5)


@pytest.mark.parametrize("method", VIRTUAL)
@pytest.mark.parametrize("model", MODELS)
def test_batches_of_prompts_are_continued_as_each_alone(model: str, method: str) -> None:
    tuned, prompts = make(model, method), [row.ids.tolist() for row in make_rows()]
    expected = []
    for prompt in prompts:
        text = list(prompt)
        for _ in range(6):
            text.append(int(as_peft_reads(tuned, text)[-1].argmax()))
        expected.append(text[len(prompt) :])
    assert decode(tuned, prompts, end_ids={-1}, max_new_tokens=6, pad_id=0) == expected


@pytest.mark.parametrize("method", VIRTUAL)
def test_a_cache_that_is_given_is_filled(method: str) -> None:
    tuned, ids = make("phi3-window", method), make_rows()[0].ids.tolist()
    cache = DynamicCache(config=tuned.config)
    with torch.no_grad():
        first = tuned(input_ids=torch.tensor([ids[:9]]), past_key_values=cache, use_cache=True).logits
        rest = tuned(input_ids=torch.tensor([ids[9:]]), past_key_values=cache, use_cache=True).logits
    assert torch.allclose(torch.cat([first, rest], dim=1)[0], as_peft_reads(tuned, ids), atol=1e-5)


def test_virtual_tokens_take_room_in_the_context() -> None:
    tuned = make("phi3", "prompt")
    assert context_length(tuned) == 64 - 5
    with pytest.raises(InputError, match="up to 59, all that the model sees beside 5 virtual tokens"):
        check_fit(tuned, range(97), 60)


def test_attention_that_a_prefix_cannot_stand_before() -> None:
    model = MODELS["llama"]()
    model.config.layer_types = ["chunked_attention", "full_attention"]
    with pytest.raises(InputError, match=r"attention of this model \(chunked_attention, .*take prompt"):
        METHODS["prefix"].prepare(model, MethodConfig(name="prefix"))
