"""The cells of the matrix: what is learned (scenarios), how (techniques), and which of both meet.

bench/matrix.py measures them, tests/jobs/test_matrix.py holds them. Only the standard library is imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[1] / "jobs" / "examples"
ROWS: Mapping[str, str] = {
    "domain": "adapting a model to a domain (continued pretraining, text generation)",
    "labels": "text classification, named entity recognition, machine translation",
    "questions": "question answering",
    "chat": "human-like chat (multi-turn, system, tools)",
    "creative": "music, art and other creative text",
    "cost": "lower compute cost, lower memory, fewer trainable parameters",
    "parallel": "memory-efficient data parallelism over the memory of all devices",
}
COLUMNS = ("LoRA", "QLoRA", "other PEFT", "DeepSpeed", "ZeRO 1/2/3", "DoRA")
BLOCKS = {".conll", ".abc", ".txt"}  # files in which a blank line ends a row


@dataclass(frozen=True)
class Technique:
    """A method, and how it is spread over processes; `rate` is the learning rate that suits tiny-phi3."""

    column: str
    method: str
    rate: float
    strategy: str = "none"
    offload: str = "none"
    keys: Mapping[str, Any] = field(default_factory=dict)

    @property
    def processes(self) -> int:
        """How many processes train."""
        return 1 if self.strategy == "none" else 2


LORA = {"rank": 16, "alpha": 32}
VIRTUAL = {"virtual_tokens": 20}
TECHNIQUES: Mapping[str, Technique] = {
    "lora": Technique("LoRA", "lora", 1e-2, keys=LORA),
    "qlora": Technique("QLoRA", "qlora", 1e-2, keys=LORA),
    "rslora": Technique("other PEFT", "rslora", 4e-3, keys=LORA),
    "pissa": Technique("other PEFT", "pissa", 5e-3, keys=LORA),
    "adalora": Technique("other PEFT", "adalora", 2e-2, keys=LORA),
    "loha": Technique("other PEFT", "loha", 1e-2, keys=LORA),
    "lokr": Technique("other PEFT", "lokr", 1e-2, keys=LORA),
    "oft": Technique("other PEFT", "oft", 2e-2, keys={"rank": 16}),
    "vera": Technique("other PEFT", "vera", 5e-2, keys={"rank": 256}),
    "ia3": Technique("other PEFT", "ia3", 5e-2),
    "prefix": Technique("other PEFT", "prefix", 1e-1, keys=VIRTUAL),
    "prompt": Technique("other PEFT", "prompt", 3e-1, keys=VIRTUAL),
    "p-tuning": Technique("other PEFT", "p-tuning", 1e-2, keys=VIRTUAL),
    "deepspeed": Technique("DeepSpeed", "lora", 1e-2, "zero2", "optimizer", LORA),
    "zero1": Technique("ZeRO 1/2/3", "full", 3e-3, "zero1"),
    "zero2": Technique("ZeRO 1/2/3", "full", 3e-3, "zero2"),
    "zero3": Technique("ZeRO 1/2/3", "full", 3e-3, "zero3"),
    "dora": Technique("DoRA", "dora", 1e-2, keys=LORA),
    # Every method can be spread, too (the last row): these beside the three stages of full training.
    "lora-zero3": Technique("LoRA", "lora", 1e-2, "zero3", keys=LORA),
    "qlora-fsdp": Technique("QLoRA", "qlora", 1e-2, "fsdp", keys=LORA),
    "oft-zero2": Technique("other PEFT", "oft", 2e-2, "zero2", keys={"rank": 16}),
    "lokr-zero3": Technique("other PEFT", "lokr", 1e-2, "zero3", keys=LORA),
    "deepspeed-all": Technique("DeepSpeed", "full", 3e-3, "zero3", "all"),
    "dora-zero3": Technique("DoRA", "dora", 1e-2, "zero3", keys=LORA),
}
STAGES = ("zero1", "zero2", "zero3")
EVERYWHERE = ("lora", "qlora", "deepspeed", *STAGES, "dora")
SPREAD = ("lora-zero3", "qlora-fsdp", "oft-zero2", "lokr-zero3", "deepspeed-all", *STAGES, "dora-zero3")


@dataclass(frozen=True)
class Scenario:
    """Rows of one kind, from the examples, and how long to learn them.

    Without a file of held-out rows (`test`) every tenth row is held out. `techniques` begin with those that
    stand for "other PEFT" here: each method has its turn somewhere.
    """

    row: str
    task: str
    train: str
    test: str | None
    techniques: tuple[str, ...]
    max_length: int = 256
    steps: int = 100
    batch_size: int = 8
    max_rows: int = 50
    max_new_tokens: int = 48

    def write_rows(self, folder: Path, *, train: int | None = None, test: int | None = None) -> list[Path]:
        """The first rows to learn and the first held-out ones (None: all), as files of the same kinds."""
        learned = _rows_of(EXAMPLES / self.train)
        if self.test:
            held_out = _rows_of(EXAMPLES / self.test)
        else:
            held_out = learned[::10]
            learned = [row for place, row in enumerate(learned) if place % 10]
        return [
            self._write(folder / name, learned_or_not)
            for name, learned_or_not in (("train", learned[:train]), ("test", held_out[:test]))
        ]

    def _write(self, path: Path, rows: Sequence[str]) -> Path:
        """Rows as a file. Paragraphs are put together to long passages for the task `domain` alone."""
        suffix = Path(self.train).suffix
        if suffix == ".txt" and self.task != "domain":
            suffix, rows = ".jsonl", [json.dumps({"text": row}) for row in rows]
        target = path.with_suffix(suffix)
        between = "\n\n" if suffix in BLOCKS else "\n"
        target.write_text(between.join(rows) + "\n", encoding="utf-8")
        return target


def _rows_of(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8").strip()
    return text.split("\n\n" if path.suffix in BLOCKS else "\n")


def _rows(folder: str, kind: str) -> tuple[str, str]:
    return f"{folder}/train.{kind}", f"{folder}/test.{kind}"


HANDBOOK = "garden-handbook/handbook.txt"
SCENARIOS: Mapping[str, Scenario] = {
    "domain": Scenario(
        "domain", "domain", HANDBOOK, None, ("adalora", "prefix", *EVERYWHERE), steps=40, batch_size=4
    ),
    "text": Scenario("domain", "text-generation", HANDBOOK, None, ("rslora", "vera", *EVERYWHERE), steps=40),
    "classification": Scenario(
        "labels", "classification", *_rows("card-support", "jsonl"), ("pissa", "ia3", *EVERYWHERE), steps=60
    ),
    "ner": Scenario(
        "labels", "ner", *_rows("delivery-notes", "conll"), ("loha", "rslora", *EVERYWHERE), steps=150
    ),
    "translation": Scenario(
        "labels", "translation", *_rows("museum-guide", "tsv"), ("lokr", "adalora", *EVERYWHERE)
    ),
    "qa": Scenario("questions", "qa", *_rows("order-desk", "jsonl"), ("oft", "pissa", *EVERYWHERE)),
    "chat": Scenario(
        "chat",
        "chat",
        *_rows("reading-room", "jsonl"),
        ("p-tuning", "loha", *EVERYWHERE),
        max_length=512,
        steps=40,
        batch_size=4,
    ),
    "music": Scenario(
        "creative", "music", "round-dances/tunes.abc", None, ("prompt", "lokr", *EVERYWHERE), steps=40
    ),
    "art": Scenario(
        "creative", "text-generation", *_rows("wall-labels", "jsonl"), ("vera", "ia3", *EVERYWHERE), steps=40
    ),
    "parallel": Scenario("parallel", "summarization", *_rows("shift-reports", "jsonl"), SPREAD),
}
COSTS = (
    *("lora", "qlora", "dora", "rslora", "pissa", "adalora", "loha", "lokr", "oft", "vera", "ia3"),
    *("prefix", "prompt", "p-tuning", "deepspeed", *STAGES),
)
"""What the row of costs compares with full training in one process."""


@dataclass(frozen=True)
class Cell:
    """A scenario and a technique, by name."""

    name: str
    technique_name: str

    def __str__(self) -> str:
        return f"{self.name}-{self.technique_name}"

    @property
    def scenario(self) -> Scenario:
        """What is learned."""
        return SCENARIOS[self.name]

    @property
    def technique(self) -> Technique:
        """How it is learned."""
        return TECHNIQUES[self.technique_name]


def cells() -> Iterator[Cell]:
    """The cells in which something is learned: each scenario by each technique that has its turn there."""
    for name, scenario in SCENARIOS.items():
        for technique in scenario.techniques:
            yield Cell(name, technique)
