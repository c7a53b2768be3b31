"""Small models and real servers for tests: a process of jobs/serve.py on a free loopback port."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).parents[2]
SERVE, TINY_PHI3 = ROOT / "jobs" / "serve.py", ROOT / "models" / "tiny-phi3"
KEY = "a-key-for-tests"
NAME = "tiny"
START_S = 120

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
MARKS = ["<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def make_tokenizer() -> Any:
    """A tokenizer whose tokens are single bytes, with the marks of Phi-3."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*MARKS, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=MARKS[0], additional_special_tokens=MARKS[1:]
    )
    made.chat_template = TEMPLATE
    return made


def make_model(folder: Path, *, end: list[int] | None = None, **changes: Any) -> Path:
    """Write a random Phi-3 of 32 hidden units; `changes` go into its config, `end` are its end tokens."""
    torch.manual_seed(3)
    tokenizer = make_tokenizer()
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    model = Phi3ForCausalLM(Phi3Config(**{**shape, **changes}))
    for parameter in model.parameters():
        torch.nn.init.normal_(
            parameter, std=0.4
        )  # far from uniform, so that no two tokens are nearly as likely
    with torch.no_grad():
        model.lm_head.weight[: len(MARKS)] = 0  # never the likeliest: answers end where a test says so
    model.generation_config.eos_token_id = end or [0]
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def make_adapter(base: Path, folder: Path) -> Path:
    """Write a LoRA adapter with random weights for the model in `base`."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(4)
    shape = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(str(base)), shape).save_pretrained(str(folder))
    return folder


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


@dataclass
class Server:
    """A running server process."""

    process: subprocess.Popen[bytes]
    state_file: Path
    log: Path

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.state_file.read_text())
        return found

    @property
    def url(self) -> str:
        return str(self.state["url"])

    def client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {KEY}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)


def start_server(folder: Path, model: Path, *more: str) -> Server:
    """Start a server for `model` and wait until it is ready; its state and log lie in `folder`."""
    state, log = folder / "state.json", folder / "log.txt"
    words = [sys.executable, str(SERVE), "--model", str(model), "--name", NAME, "--state", str(state), *more]
    with log.open("wb") as out:
        process = subprocess.Popen(words, env=environment(MAAS_ENDPOINT_KEY=KEY), stdout=out, stderr=out)
    end = time.monotonic() + START_S
    while not state.is_file():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise AssertionError(f"the server did not start: {log.read_text()}")
        time.sleep(0.05)
    return Server(process, state, log)
