"""Each method trains, stops, goes on, is saved, loaded, merged and served, and says the same throughout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_stage import losses, read_events

import merge
import train as training_script
from serving.engine import Settings, load_engine
from serving.merging import load_tuned
from serving.model_folder import find_model
from tuning.config import MethodConfig, read_config
from tuning.distributed import Processes
from tuning.errors import InputError
from tuning.events import EventLog
from tuning.methods import METHODS, quantization_of
from tuning.models import base_of_adapter, load_adapter, load_model, quantization_of_base, save_model
from tuning.run import Files, prepare
from tuning.stopping import StopRequest

pytestmark = pytest.mark.slow

CASES: dict[str, dict[str, Any]] = {name: {"name": name} for name in METHODS}
CASES["full-frozen"] = {"name": "full", "freeze_layers": 1}
CASES |= {
    f"{name}-{quantization}": {"name": name, "quantization": quantization}
    for name, quantization in (
        ("dora", "nf4"),
        ("adalora", "nf4"),
        ("prefix", "nf4"),
        ("lora", "int8"),
        ("loha", "int8"),
    )
}
COLORS = ["red", "green", "blue", "yellow"]
PROBE = torch.arange(5, 45).reshape(2, 20)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over several threads would round in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def chat_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chat") / "rows.jsonl"
    rows = [
        {"prompt": f"number {n}: the ball is {color}" + " indeed" * (n % 5), "completion": f"{color} it is"}
        for n in range(12)
        for color in COLORS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Trained:
    """A finished run of one method."""

    method: MethodConfig
    base: Path
    rows: Path
    config: Path
    output: Path
    saved: Path | None = None

    @property
    def model(self) -> Path:
        return self.saved or self.output / "model"

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.output / "result.json").read_text(encoding="utf-8"))
        return found

    def train(self, output: Path) -> int:
        words = {"config": self.config, "train": self.rows, "model": self.base, "output": output}
        return training_script.main(
            [str(word) for name, value in words.items() for word in (f"--{name}", value)]
        )

    def reloaded(self) -> Any:
        if not METHODS[self.method.name].is_adapter:
            return load_model(str(self.model), torch.float32)
        packed = quantization_of_base(self.model)
        return load_adapter(load_model(str(self.base), torch.float32, packed), self.model)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(input_ids=PROBE).logits
    return found


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def trained(
    request: pytest.FixtureRequest,
    mini_model: Path,
    chat_rows: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    """A run of ten steps, with packed rows, a checkpoint after each."""
    method = {**request.param}
    reads = METHODS[method["name"]].keys
    method |= {"rank": 4, "alpha": 8.0, "dropout": 0.1, "virtual_tokens": 4} | method
    method = {key: value for key, value in method.items() if key in reads | {"name", "quantization"}}
    config = {
        "task": "chat",
        "method": method,
        "training": {
            "epochs": 1,
            "batch_size": 1,
            "max_length": 128,
            "learning_rate": 0.01,
            "precision": "fp32",
            "checkpoint_every_steps": 1,
            "keep_checkpoints": 100,
            "log_every_steps": 1,
        },
        "evaluation": {"max_rows": 4, "max_new_tokens": 8},
    }
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    run = Trained(MethodConfig(**method), mini_model, chat_rows, folder / "config.json", folder / "whole")
    assert run.train(run.output) == 0
    return run


def test_it_learns_and_says_what_it_trains(trained: Trained) -> None:
    learned = losses(trained.output)
    assert sum(learned[-3:]) < sum(learned[:3])
    started = read_events(trained.output, "started")[0]
    for facts in (started, trained.result):
        share = facts["trainable_parameters"] / facts["parameters"]
        assert facts["trainable_share"] == pytest.approx(share, abs=1e-6)
        assert facts["quantization"] == quantization_of(trained.method)


def test_the_loaded_model_is_the_trained_one(trained: Trained) -> None:
    given = read_config(trained.config)
    files = Files(trained.rows, None, str(trained.base), trained.output)
    with StopRequest() as stop:
        events = EventLog(trained.output / "events.jsonl", enabled=False)
        run = prepare(given, files, Processes(0, 1, torch.device("cpu")), stop, events)
        progress = run.checkpoints.load_newest(run.strategy)
    assert progress.step == run.plan.steps
    expected, fresh = logits(run.model), load_model(str(trained.base), torch.float32)
    assert (
        (expected - logits(trained.reloaded())).abs().max() <= 1e-6 < (expected - logits(fresh)).abs().max()
    )


def test_weights_of_any_step_are_saved_as_they_are(trained: Trained, tmp_path: Path) -> None:
    given = read_config(trained.config)
    files = Files(trained.rows, None, str(trained.base), trained.output)
    with StopRequest() as stop:
        events = EventLog(trained.output / "events.jsonl", enabled=False)
        run = prepare(given, files, Processes(0, 1, torch.device("cpu")), stop, events)
    run.checkpoints.load_newest(run.strategy)
    for step in (2, run.plan.steps // 2, run.plan.steps):
        run.checkpoints.load(run.checkpoints.of_step(step), run.strategy)
        folder = tmp_path / str(step)
        folder.mkdir()
        save_model(folder, run.model, run.tokenizer, ())
        expected = logits(run.model)
        assert (expected - logits(replace(trained, saved=folder).reloaded())).abs().max() <= 1e-6


def require_the_answers_of_the_run(trained: Trained, model: Path, base: str | None) -> None:
    engine = load_engine("transformers", find_model(str(model), base), "fp32")
    lines = (trained.output / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    for row in map(json.loads, lines):
        prompt = engine.encode([{"role": "user", "content": row["prompt"]}], ())
        text = "".join(piece.text for piece in engine.generate(prompt, Settings(max_tokens=8)))
        assert text.strip() == row["after"]


def test_the_served_model_answers_as_the_trained_one_did(trained: Trained) -> None:
    base = str(trained.base) if trained.result["adapter"] else None
    require_the_answers_of_the_run(trained, trained.model, base)


def test_a_stopped_run_has_the_same_losses_and_weights(trained: Trained, tmp_path: Path) -> None:
    steps = len(losses(trained.output))
    stop = 1 + sum(map(ord, trained.method.name)) % (steps - 1)
    output = Path(shutil.copytree(trained.output, tmp_path / "stopped"))
    (output / "result.json").unlink()
    shutil.rmtree(output / "model")
    for checkpoint in (output / "checkpoints").iterdir():
        if int(checkpoint.name.rpartition("-")[2]) > stop:
            shutil.rmtree(checkpoint)
    (output / "events.jsonl").unlink()
    assert trained.train(output) == 0
    assert read_events(output, "started")[0]["resumed_from_step"] == stop
    assert losses(output) == losses(trained.output)[stop:]
    assert json.loads((output / "result.json").read_text())["hashes"] == trained.result["hashes"]


def test_it_merges_into_what_it_was_trained_on(trained: Trained, tmp_path: Path) -> None:
    if not METHODS[trained.method.name].is_adapter:
        with pytest.raises(InputError, match=r"no adapter_config\.json"):
            merge.merge(str(trained.model), tmp_path)
        return
    assert base_of_adapter(str(trained.model)) == str(trained.base)
    if not METHODS[trained.method.name].is_mergeable:
        with pytest.raises(InputError, match="cannot be merged: it reads virtual tokens"):
            merge.merge(str(trained.model), tmp_path)
        return
    result = merge.merge(str(trained.model), tmp_path)
    assert result is not None
    limit = 0.1 if quantization_of(trained.method) == "int8" else 1e-5
    assert result["max_logit_difference"] <= limit
    assert result["top1_agreement"] >= 0.95
    require_the_answers_of_the_run(trained, tmp_path / "model", None)
    expected = logits(trained.reloaded())
    for merged in (
        load_model(str(tmp_path / "model"), torch.float32),
        load_tuned(find_model(str(trained.model)), torch.float32, torch.device("cpu")),
    ):
        assert (logits(merged) - expected).abs().max() <= limit
