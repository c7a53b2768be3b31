"""Takes a cell of the matrix through its life on a small model: trained, stopped, resumed, exported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ranks_stage import Ranks, Started
from training_stage import losses, make_phi3, read_events

from bench.matrix_cells import SCENARIOS, Cell, Technique
from tuning.config import Config, DistributedConfig, parse_config
from tuning.distributed import Processes
from tuning.events import EventLog
from tuning.run import Files, prepare
from tuning.sharding import PARTS
from tuning.stopping import StopRequest

STEPS, STOP_AFTER = 6, 2
SEQUENCES = 4  # of a step, over all processes
LEARNED, HELD_OUT, ANSWER_TOKENS = 40, 4, 3
MAX_LENGTH = 320
SMALL = {"rank": 4, "alpha": 8.0, "virtual_tokens": 4}
RATE = 0.02
FULL = Technique("", "full", RATE)
LARGER = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 128,
}


@dataclass(frozen=True)
class Trained:
    """What a cell's run left, after a stop and a resume."""

    cell: Cell
    config: Config
    rows: list[Path]
    base: Path
    output: Path
    codes: tuple[list[int], list[int]]
    said: str

    @property
    def model(self) -> Path:
        return self.output / "model"

    @cached_property
    def result(self) -> Mapping[str, Any]:
        found: dict[str, Any] = json.loads((self.output / "result.json").read_text(encoding="utf-8"))
        return found

    @cached_property
    def alone(self) -> Config:
        """The same job for one process."""
        training = replace(self.config.training, batch_size=SEQUENCES)
        return replace(self.config, training=training, distributed=DistributedConfig())

    def as_it_was_trained(self) -> Any:
        """The model in memory, from its last checkpoint, whichever way it was spread."""
        train, test = self.rows
        with StopRequest() as stop, EventLog(self.output / "events.jsonl", enabled=False) as events:
            processes = Processes(0, 1, torch.device("cpu"))
            run = prepare(
                self.alone, Files(train, test, str(self.base), self.output), processes, stop, events
            )
            progress = run.checkpoints.load_newest(run.strategy)
        assert progress.step == STEPS
        return run.model


class Workshop:
    """Trains cells in processes that are forked from one which has loaded the libraries."""

    def __init__(self, ranks: Ranks, model: Path, folder: Path) -> None:
        self._ranks, self._model, self._folder = ranks, model, folder
        self._undisturbed: dict[tuple[str, str], Started] = {}

    def train(self, cell: Cell) -> Trained:
        """Train a cell, stop it in the middle, and let the same command go on."""
        folder = self._folder / str(cell)
        folder.mkdir()
        value = _config(cell)
        words = self._words(cell, value, folder)
        count, output = cell.technique.processes, folder / "run"
        first = self._ranks.start(count, output, *words, stop_after_step=STOP_AFTER)
        beside = self._undisturbed_run(cell)
        stopped = first.wait()
        again = self._ranks.start(count, output, *words)
        codes = (stopped, again.wait())
        assert beside is None or beside.wait() == [0], beside.said()
        rows = [Path(str(words[3])), Path(str(words[5]))]
        said = first.said() + again.said()
        return Trained(cell, parse_config(value), rows, self._model, output, codes, said)

    def undisturbed(self, cell: Cell) -> list[float]:
        """The losses of the cell's scenario and method in one process that nobody stopped."""
        return losses(self._undisturbed[cell.name, cell.technique.method].output)

    def _undisturbed_run(self, cell: Cell) -> Started | None:
        """A run of that kind that begins now, None where it was done before."""
        key = (cell.name, cell.technique.method)
        if key in self._undisturbed:
            return None
        folder = self._folder / "-".join(("undisturbed", *key))
        folder.mkdir()
        value = _config(cell)
        value["training"]["batch_size"] = SEQUENCES
        value |= {"distributed": {}, "evaluation": {"max_rows": 1, "max_new_tokens": 1}}
        started = self._ranks.start(1, folder / "run", *self._words(cell, value, folder))
        self._undisturbed[key] = started
        return started

    def _words(self, cell: Cell, value: dict[str, Any], folder: Path) -> list[object]:
        config = folder / "config.json"
        config.write_text(json.dumps(value), encoding="utf-8")
        train, test = cell.scenario.write_rows(folder, train=LEARNED, test=HELD_OUT)
        return ["--config", config, "--train", train, "--validation", test, "--model", self._model]


@dataclass(frozen=True)
class Memory:
    """Bytes that the fullest process holds and takes at its peak, and the share that is trained."""

    held: int
    peak: int
    share: float


class Ledger:
    """What techniques take in the first step, on a model that is large enough for its state to show."""

    def __init__(self, ranks: Ranks, folder: Path) -> None:
        self._ranks, self._folder = ranks, folder
        self._model = make_phi3(folder / "model", **LARGER)
        self._known: dict[str, Memory] = {}

    def first_step(self, technique: Technique) -> Memory:
        """Measured once; the processes are ended behind the step."""
        key = repr(technique)
        if key not in self._known:
            self._known[key] = self._measure(technique)
        return self._known[key]

    def _measure(self, technique: Technique) -> Memory:
        folder = self._folder / str(len(self._known))
        folder.mkdir()
        value = config_of("text-generation", technique, technique.keys)
        value["training"] |= {"batch_size": 1, "max_length": 64}
        value["evaluation"] = {"max_rows": 1, "max_new_tokens": 1}
        config = folder / "config.json"
        config.write_text(json.dumps(value), encoding="utf-8")
        train, test = SCENARIOS["text"].write_rows(folder, train=8, test=1)
        words = ("--config", config, "--train", train, "--validation", test, "--model", self._model)
        started = self._ranks.start(technique.processes, folder / "run", *words)
        started.wait_for_event("memory")
        for rank in range(technique.processes):
            started.kill(rank)
        started.wait()
        (memory,) = read_events(started.output, "memory")
        parts = zip(*(memory[f"{part}_bytes"] for part in PARTS), strict=True)
        share = read_events(started.output, "started")[0]["trainable_share"]
        return Memory(max(map(sum, parts)), max(memory["peak_bytes"]), share)


def _config(cell: Cell) -> dict[str, Any]:
    """The config of a short run."""
    small = {key: SMALL.get(key, value) for key, value in cell.technique.keys.items()}
    return config_of(cell.scenario.task, cell.technique, small)


def config_of(task: str, technique: Technique, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a task and a technique with some keys of its method."""
    return {
        "task": task,
        "method": {"name": technique.method, **keys},
        "training": {
            "max_steps": STEPS,
            "epochs": 100,
            "batch_size": SEQUENCES // technique.processes,
            "max_length": MAX_LENGTH,
            "learning_rate": RATE,
            "precision": "fp32",
            "log_every_steps": 1,
            "packing": False,
        },
        "evaluation": {"max_rows": HELD_OUT, "max_new_tokens": ANSWER_TOKENS},
        "distributed": {
            "strategy": technique.strategy,
            "offload": technique.offload,
            "processes": technique.processes,
        },
    }
