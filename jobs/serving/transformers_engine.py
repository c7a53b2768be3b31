"""The engine that works everywhere: transformers and its cache, one token after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from serving.engine import Engine, Piece, Precision, Settings
from serving.merging import load_tuned
from serving.model_folder import ModelSource, count_weights
from serving.prompt import ChatPrompt, end_tokens
from serving.sampling import next_token, sampling_generator
from serving.text import StopText, TextStream
from tuning.device import memory_free_bytes
from tuning.errors import InputError
from tuning.models import DTYPES, context_length, load_tokenizer
from tuning.prompts import Manner, read_manner
from tuning.virtualtokens import count_virtual_tokens


def load(source: ModelSource, precision: Precision) -> Engine:
    """Load weights and tokenizer, merge an adapter, and prove that it computes. Raises InputError."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(source.tokenizer)
    dtype = _dtype(precision, device)
    _require_memory(source, dtype, device)
    model = load_tuned(source, dtype, device)
    manner = read_manner(source.adapter or Path(source.weights))
    engine = TransformersEngine(model.eval(), tokenizer, manner)
    engine.check()
    return engine


def _require_memory(source: ModelSource, dtype: torch.dtype, device: torch.device) -> None:
    free = memory_free_bytes(device)
    needed = count_weights(Path(source.weights)) * dtype.itemsize  # 0 for a Hugging Face id: nothing to count
    if free is not None and needed > free:
        raise InputError(
            f"The model needs {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are free; "
            "stop other programs, take a smaller model or pass --precision bf16."
        )


def _dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """bf16 on a GPU that has it; fp32 elsewhere, because most CPUs compute bf16 several times slower."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return DTYPES[precision]


class TransformersEngine:
    """A causal language model of transformers with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, manner: Manner | None = None) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._prompt = ChatPrompt(tokenizer, manner)
        self._end = end_tokens(tokenizer, model.generation_config)
        self.context_length: int = context_length(model)
        self._switch = _rope_switch(model)

    def check(self) -> None:
        """Raise InputError unless the model turns a first message into finite scores (a warm-up, too)."""
        prompt = self.encode([{"role": "user", "content": "Hello"}], ())
        if max(prompt) >= self._model.get_input_embeddings().num_embeddings:
            raise InputError("The tokenizer has tokens that the model lacks: they do not belong together.")
        if not bool(torch.isfinite(self._read(prompt, 0, self._new_cache())).all()):
            raise InputError("The model's scores are not finite numbers; its weights are damaged.")

    def encode(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int]:
        return self._prompt.encode(messages, tools)

    def generate(self, prompt: Sequence[int], settings: Settings) -> Iterator[Piece]:
        text, stop = TextStream(self._decode), StopText(settings.stop)
        limit = min(settings.max_tokens, self.context_length - len(prompt))
        for count, token in enumerate(self._tokens(prompt, settings, limit), 1):
            ended = token in self._end
            shown = stop.feed(text.finish() if ended else text.feed(token))
            if ended or stop.found:
                yield Piece(shown + stop.finish(), count, "stop")
                return
            if count == limit:
                shown += stop.feed(text.finish())
                yield Piece(shown + stop.finish(), count, "stop" if stop.found else "length")
                return
            yield Piece(shown, count)

    def _tokens(self, prompt: Sequence[int], settings: Settings, limit: int) -> Iterator[int]:
        generator = sampling_generator(settings, self._model.device)
        sequence, cache, read = list(prompt), self._new_cache(), 0
        for _ in range(limit):
            if self._switch is not None and read <= self._switch < len(sequence) and read:
                # LongRoPE turns to other frequencies here, so what is cached no longer fits: read all again.
                cache, read = self._new_cache(), 0
            logits = self._read(sequence[read:], read, cache)
            read = len(sequence)
            sequence.append(next_token(logits, settings, generator))
            yield sequence[-1]

    @torch.inference_mode()
    def _read(self, tokens: Sequence[int], start: int, cache: Any) -> torch.Tensor:
        """Read `tokens`, which stand at `start`; the scores (vocabulary,) of the token after them."""
        device = self._model.device
        output = self._model(
            input_ids=torch.tensor([tokens], device=device),
            position_ids=torch.arange(start, start + len(tokens), device=device)[None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[0, -1]
        return logits

    def _new_cache(self) -> Any:
        return DynamicCache(config=self._model.config)

    def _decode(self, tokens: list[int]) -> str:
        fast = getattr(self._tokenizer, "backend_tokenizer", None)
        decoder = self._tokenizer if fast is None else fast
        return str(decoder.decode(tokens, skip_special_tokens=True))


def _rope_switch(model: Any) -> int | None:
    """The length after which LongRoPE (Phi-3 with 128k context) uses its long factors; None elsewhere."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return None
    return int(rope["original_max_position_embeddings"]) - count_virtual_tokens(model)
