"""Make the tiny-phi3 model folder: tokenizer, weights, configuration and provenance.

Run from the repository root:
`OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python -m models.make_tiny_phi3 --output models/tiny-phi3`
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import platform
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import tokenizers
import torch
import transformers
from transformers import Phi3ForCausalLM

from models.corpus import documents
from models.pretraining import Recipe, Result, model_config, pretrain
from models.tokenizing import END, END_OF_TEXT, SPECIAL_TOKENS, render, train_tokenizer, write_tokenizer

SOURCES = Path(__file__).parent
MODEL_FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def source_hashes() -> dict[str, str]:
    """Return the hashes of the scripts and texts that decide what the model becomes."""
    paths = [*SOURCES.glob("*.py"), *(SOURCES / "text").iterdir()]
    return {path.relative_to(SOURCES).as_posix(): sha256(path) for path in sorted(paths) if path.is_file()}


def round_weights(model: Phi3ForCausalLM) -> None:
    """Round every weight to float16, so that what is measured is what is stored."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half().float())


def write_model(model: Phi3ForCausalLM, folder: Path) -> None:
    """Write config.json, generation_config.json and the weights as float16; loading gives float32."""
    model.config.architectures = ["Phi3ForCausalLM"]
    model.config.save_pretrained(folder)
    generation = {
        "bos_token_id": SPECIAL_TOKENS.index(END_OF_TEXT),
        "eos_token_id": [SPECIAL_TOKENS.index(END), SPECIAL_TOKENS.index(END_OF_TEXT)],
        "pad_token_id": SPECIAL_TOKENS.index(END_OF_TEXT),
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
    shared = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    weights = {
        name: value.half().contiguous() for name, value in model.state_dict().items() if name not in shared
    }
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def write_provenance(
    folder: Path, model: Phi3ForCausalLM, recipe: Recipe, result: Result, sources: dict[str, str]
) -> None:
    """Write provenance.json: sources, recipe, numbers and the hashes of all files."""
    record = {
        "made_by": "python -m models.make_tiny_phi3",
        "licence": "MIT",
        "recipe": asdict(recipe),
        "parameters": model.num_parameters(),
        "train_loss": round(result.train_loss, 4),
        "held_out_loss": round(result.held_out_loss, 4),
        "tokens_seen": result.tokens_seen,
        "seconds": round(result.seconds, 1),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "files": {name: sha256(folder / name) for name in MODEL_FILES},
        "sources": sources,
    }
    (folder / "provenance.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make the tiny-phi3 model folder.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; made when missing")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="training steps")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--vocabulary", type=int, default=2048, help="tokens in the vocabulary")
    parser.add_argument("--hidden", type=int, default=160, help="width of the model")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=5, help="attention heads")
    parser.add_argument("--context", type=int, default=2048, help="longest text, in tokens")
    parser.add_argument(
        "--tokenizer-documents", type=int, default=20_000, help="documents that the tokenizer learns from"
    )
    return parser.parse_args()


def main() -> None:
    """Make the tokenizer, train the model and write the folder."""
    arguments = parse_arguments()
    recipe = Recipe(seed=arguments.seed, steps=arguments.steps, learning_rate=arguments.learning_rate)
    arguments.output.mkdir(parents=True, exist_ok=True)
    sources = source_hashes()
    texts = map(render, itertools.islice(documents(recipe.seed), arguments.tokenizer_documents))
    tokenizer = train_tokenizer(texts, arguments.vocabulary)
    write_tokenizer(tokenizer, arguments.output, arguments.context)
    torch.manual_seed(recipe.seed)
    shape = (arguments.vocabulary, arguments.hidden, arguments.layers, arguments.heads, arguments.context)
    model = Phi3ForCausalLM(model_config(*shape))
    print(f"{model.num_parameters():,} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    result = pretrain(model, tokenizer, recipe)
    round_weights(model)
    write_model(model, arguments.output)
    write_provenance(arguments.output, model, recipe, result, sources)
    print(
        f"held-out loss {result.held_out_loss:.3f}; {result.tokens_seen:,} tokens in {result.seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
