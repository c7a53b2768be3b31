"""The example data: as its generators make it, without duplicates, nothing shared between train and test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import models
from maas_client.preflight import check_rows
from maas_client.specfile import load_spec
from maas_client.trainingspec import Task
from tuning.contamination import find_repeats
from tuning.data import load_rows
from tuning.metrics.tunes import tune_scores

EXAMPLES = Path(models.__file__).parent.parent / "jobs" / "examples"
FILES = [
    ("card-support", "train.jsonl"),
    ("card-support", "test.jsonl"),
    ("small-talk", "train.jsonl"),
    ("delivery-notes", "train.conll"),
    ("delivery-notes", "test.conll"),
    ("museum-guide", "train.tsv"),
    ("museum-guide", "test.tsv"),
    ("order-desk", "train.jsonl"),
    ("order-desk", "test.jsonl"),
    ("shift-reports", "train.jsonl"),
    ("shift-reports", "test.jsonl"),
    ("garden-handbook", "handbook.txt"),
    ("round-dances", "tunes.abc"),
    ("reading-room", "train.jsonl"),
    ("reading-room", "test.jsonl"),
    ("wall-labels", "train.jsonl"),
    ("wall-labels", "test.jsonl"),
    ("night-buses", "train.jsonl"),
    ("night-buses", "test.jsonl"),
]
JOBS = sorted(path.stem for path in EXAMPLES.glob("*.yaml") if (EXAMPLES / path.stem).is_dir())
LARGEST_BYTES = 200_000


def read_rows(folder: str, name: str) -> list[dict[str, Any]]:
    lines = (EXAMPLES / folder / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def plain(text: str) -> str:
    return " ".join(text.lower().rstrip(".?! ").split())


@pytest.mark.parametrize(("folder", "name"), FILES)
def test_generator_makes_the_shipped_file(folder: str, name: str, tmp_path: Path) -> None:
    script = EXAMPLES / folder / "make_rows.py"
    subprocess.run([sys.executable, str(script), "--output", str(tmp_path)], check=True, timeout=60)
    assert (tmp_path / name).read_bytes() == (EXAMPLES / folder / name).read_bytes()


def test_every_data_file_is_small_and_comes_from_its_generator() -> None:
    shipped = [path for job in JOBS for path in (EXAMPLES / job).iterdir() if path.suffix not in (".py", "")]
    made = {EXAMPLES / folder / name for folder, name in FILES} | {EXAMPLES / "card-support" / "phrases.json"}
    assert set(shipped) == made
    assert max(path.stat().st_size for path in shipped) < LARGEST_BYTES


@pytest.mark.parametrize("name", JOBS)
def test_an_example_is_a_job_with_good_rows_and_nothing_held_out_is_trained_on(name: str) -> None:
    spec = load_spec(EXAMPLES / f"{name}.yaml")
    assert spec.name == name
    check_rows(spec)
    train = load_rows(spec.data.train, spec.task)
    held_out = load_rows(spec.data.validation.file, spec.task) if spec.data.validation.file else []
    assert find_repeats(train, held_out).rows == 0
    texts = {json.dumps([one.example.text, one.example.messages], default=str) for one in train}
    assert len(texts) == len(train)


def test_every_task_has_an_example() -> None:
    tasks = {load_spec(EXAMPLES / f"{name}.yaml").task for name in JOBS}
    assert tasks == set(Task)


def test_tunes_fill_their_bars() -> None:
    rows = load_rows(EXAMPLES / "round-dances" / "tunes.abc", "music")
    texts = [row.example.text or "" for row in rows]
    assert tune_scores(texts, [False] * len(texts)) == {"parsed": 1.0, "full_bars": 1.0}


def test_card_support_has_no_duplicates_and_no_leak() -> None:
    train = [plain(row["text"]) for row in read_rows("card-support", "train.jsonl")]
    test = [plain(row["text"]) for row in read_rows("card-support", "test.jsonl")]
    assert len(set(train)) == len(train) == 800
    assert len(set(test)) == len(test) == 200
    assert not set(train) & set(test)


def test_card_support_combines_phrases_otherwise_in_test() -> None:
    phrases = json.loads((EXAMPLES / "card-support" / "phrases.json").read_text(encoding="utf-8"))
    pairs: dict[str, set[tuple[str, str]]] = {}
    for name in ("train.jsonl", "test.jsonl"):
        pairs[name] = set()
        for row in read_rows("card-support", name):
            text = plain(row["text"])
            label = phrases["labels"][row["label"]]
            request = next(one for one in label["requests"] if text.endswith(plain(one)))
            core = next(
                one for one in label["cores"] if all(plain(part) in text for part in fixed_parts(one))
            )
            pairs[name].add((core, request))
    assert len(pairs["train.jsonl"]) > 200
    assert len(pairs["test.jsonl"]) > 60
    assert not pairs["train.jsonl"] & pairs["test.jsonl"]


def fixed_parts(core: str) -> list[str]:
    parts = [part.partition("}")[2] if "}" in part else part for part in core.split("{")]
    return [part for part in parts if plain(part)]


def test_card_support_labels_are_balanced() -> None:
    counts = Counter(row["label"] for row in read_rows("card-support", "train.jsonl"))
    assert len(counts) == 8
    assert set(counts.values()) == {100}


def test_small_talk_rows_are_different_conversations() -> None:
    rows = read_rows("small-talk", "train.jsonl")
    assert len({json.dumps(row) for row in rows}) == len(rows) == 200
    for row in rows:
        roles = [turn["role"] for turn in row["messages"]]
        assert roles == ["system"] + ["user", "assistant"] * ((len(roles) - 1) // 2)
        assert len(roles) > 2
