"""The generator of the pretraining text."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

import models
from models.corpus import Document, documents
from models.grammar import expand
from models.puzzles import METERS, arithmetic, fields, tune
from models.tokenizing import render

ROOT = Path(models.__file__).parent.parent


def first(count: int, seed: int) -> list[Document]:
    return list(itertools.islice(documents(seed), count))


def test_same_seed_gives_the_same_documents() -> None:
    assert first(300, 5) == first(300, 5)
    assert first(300, 5) != first(300, 6)


def test_documents_have_no_template_marks_left() -> None:
    leftovers = re.compile(r"\{[a-z_]+\}|[\[\]|][a-z]+\||\x1f")
    for document in first(3000, 1):
        text = "\n".join(turn.content for turn in document.messages) or document.text
        assert not leftovers.search(text), text


def test_conversations_alternate_and_end_with_the_assistant() -> None:
    for document in first(1000, 2):
        roles = [turn.role for turn in document.messages if turn.role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(turn.content for turn in document.messages)


def test_documents_vary() -> None:
    texts = [render(document) for document in first(2000, 4)]
    assert len(set(texts)) > 0.8 * len(texts)


def test_expand_gives_a_repeated_slot_one_value() -> None:
    for seed in range(20):
        left, right = expand("{city} [to|-] {city}", random.Random(seed)).replace("-", "to").split(" to ")
        assert left == right


def test_expand_names_the_missing_slot() -> None:
    with pytest.raises(KeyError, match="nowhere"):
        expand("{nowhere}", random.Random(1))


def test_sums_are_right() -> None:
    rng = random.Random(1)
    for _ in range(200):
        question, answer = arithmetic(rng)
        first_number, sign, second_number = re.findall(r"\d+|[+-]", question)
        expected = int(first_number) + int(second_number) * (1 if sign == "+" else -1)
        assert int(answer) == expected


def test_fields_are_json_found_in_the_sentence() -> None:
    rng = random.Random(1)
    for _ in range(100):
        question, answer = fields(rng)
        assert all(value in question for value in json.loads(answer).values())


def test_bars_of_a_tune_fill_the_meter() -> None:
    rng = random.Random(1)
    for _ in range(50):
        _, text = tune(rng)
        meter = re.search(r"M:(\S+)", text)
        assert meter is not None
        bars = text.splitlines()[-1].removesuffix("|]").split("|")
        for bar in bars:
            notes = re.findall(r"([A-Ga-g])(2?)", bar)
            assert sum(2 if double else 1 for _, double in notes) == METERS[meter.group(1)]


@pytest.mark.slow
def test_the_script_makes_a_loadable_model_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "models.make_tiny_phi3", "--output", str(tmp_path / "model")]
    command += [
        "--steps",
        "5",
        "--hidden",
        "32",
        "--heads",
        "2",
        "--layers",
        "1",
        "--tokenizer-documents",
        "500",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    runs = []
    for _ in range(2):
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=200)
        runs.append(json.loads((tmp_path / "model" / "provenance.json").read_text(encoding="utf-8")))
    assert runs[0]["files"] == runs[1]["files"], "the same seed must give the same files"
    script = (
        "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer; "
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1]); "
        "print(model.num_parameters(), len(AutoTokenizer.from_pretrained(sys.argv[1])))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model")], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == [str(runs[0]["parameters"]), "2048"]
