"""The training script: what it leaves, what it says, and that nothing that happens to it costs a step."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from training_stage import Done, losses, read_events, run_script, script, start_and_wait_for_step

pytestmark = pytest.mark.slow
Write = Callable[..., Path]
Train = Callable[..., Done]


@pytest.mark.parametrize("packing", [False, True])
def test_a_whole_run(train: Train, write_config: Write, tmp_path: Path, packing: bool) -> None:
    config = write_config(method={"name": "full"}, epochs=6, packing=packing, batch_size=2 if packing else 8)
    done = train(config)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    output = tmp_path / "run"
    result = json.loads((output / "result.json").read_text())
    assert result["after"]["loss"] < 0.5 * result["before"]["loss"]
    assert result["rows"] == {"train": 38, "validation": 8, "truncated": 0}
    kinds = [event["event"] for event in read_events(output)]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    steps = read_events(output, "step")
    started = read_events(output, "started")[0]
    assert [event["step"] for event in steps] == list(range(1, started["steps_total"] + 1))
    assert {"loss", "learning_rate", "grad_norm", "tokens_per_s", "memory_bytes", "eta_s"} <= steps[0].keys()
    assert [event["when"] for event in read_events(output, "evaluation")] == ["before", "after"]
    assert len(list((output / "checkpoints").iterdir())) == 2
    assert json.loads((output / "model" / "labels.json").read_text()) == ["blue", "green", "red", "yellow"]
    samples = [json.loads(line) for line in (output / "samples.jsonl").read_text().splitlines()]
    assert samples[0].keys() == {"prompt", "expected", "before", "after"}
    change = result["change"]
    assert change["low"] <= change["difference"] <= change["high"]
    assert change["difference"] == pytest.approx(result["after"]["accuracy"] - result["before"]["accuracy"])
    assert result["by_label"].keys() <= {"blue", "green", "red", "yellow"}
    assert (result["warnings"], result["contamination"]["held_out"]) == ([], 10)
    again = train(config)
    assert again.returncode == 0
    assert "finished run" in again.stderr


def test_the_same_seed_gives_the_same_losses_to_the_last_bit(
    train: Train, write_config: Write, tmp_path: Path
) -> None:
    method = {"name": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}
    for output in ("one", "two"):
        assert train(write_config(method=method), output).returncode == 0
    assert losses(tmp_path / "one") == losses(tmp_path / "two")
    assert train(write_config(method=method, seed=8), "three").returncode == 0
    assert losses(tmp_path / "one") != losses(tmp_path / "three")


@pytest.mark.parametrize(
    ("number", "code", "method"),
    [
        (signal.SIGTERM, 143, {"name": "lora", "rank": 4, "dropout": 0.1}),
        (signal.SIGINT, 130, {"name": "full"}),
        (signal.SIGKILL, -9, {"name": "lora", "rank": 4, "dropout": 0.1}),
    ],
)
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    train: Train,
    write_config: Write,
    mini_model: Path,
    color_rows: Path,
    tmp_path: Path,
    number: int,
    code: int,
    method: dict[str, object],
) -> None:
    config = write_config(method=method, epochs=80, checkpoint_every_steps=7)
    output = tmp_path / "stopped"
    words = script(
        "train.py", "--config", config, "--train", color_rows, "--model", mini_model, "--output", output
    )
    process = start_and_wait_for_step(words, output, random.randint(15, 60))
    process.send_signal(number)
    assert process.wait(60) == code
    if number != signal.SIGKILL:
        last = read_events(output)[-1]
        assert (last["event"], last["reason"]) == ("stopped", signal.Signals(number).name)
        assert (output / "checkpoints" / f"step-{last['step']:06d}").is_dir()
    assert not (output / "result.json").exists()
    assert train(config, "stopped").returncode == 0
    assert read_events(output, "started")[-1]["resumed_from_step"] >= 14
    assert train(config, "whole").returncode == 0
    assert losses(output) == losses(tmp_path / "whole")
    for folder in (output, tmp_path / "whole"):
        assert not list(folder.rglob(".writing*"))
    names = ("adapter_model.safetensors", "model.safetensors")
    for path in [path for path in (output / "model").iterdir() if path.name in names]:
        assert path.read_bytes() == (tmp_path / "whole" / "model" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": "missing.jsonl"}, ["missing.jsonl"]),
        ({"model": "./nowhere"}, ["There is no model folder ./nowhere"]),
        ({"output": "/proc/nowhere"}, ["Cannot write to /proc/nowhere"]),
    ],
)
def test_bad_input_is_one_sentence(
    train: Train, write_config: Write, changes: dict[str, str], words: list[str]
) -> None:
    done = train(write_config(), **changes)
    assert done.returncode == 2, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_bad_row_is_named_by_its_line(train: Train, write_config: Write, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a", "label": "b"}\n{"text": "a"}\n')
    done = train(write_config(), train=rows)
    assert done.returncode == 2
    assert "rows.jsonl" in done.stderr
    assert "line 2" in done.stderr.lower()
    assert read_events(tmp_path / "run")[-1]["event"] == "failed"


def test_another_config_does_not_take_up_a_run(train: Train, write_config: Write, tmp_path: Path) -> None:
    assert train(write_config(max_steps=2)).returncode == 0
    (tmp_path / "run" / "result.json").unlink()
    done = train(write_config(max_steps=3))
    assert done.returncode == 2
    assert "training.max_steps" in done.stderr


def test_a_loss_that_is_no_number_ends_the_run(train: Train, write_config: Write, tmp_path: Path) -> None:
    done = train(write_config(method={"name": "full"}, learning_rate=1e30, warmup_ratio=0.0, max_steps=4))
    assert done.returncode == 1, done.stderr
    assert "lower training.learning_rate" in done.stderr
    assert "Traceback" not in done.stderr
    assert read_events(tmp_path / "run")[-1]["event"] == "failed"


def test_a_full_disk_is_one_sentence(train: Train, write_config: Write, tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    (output / "events.jsonl").symlink_to("/dev/full")
    done = train(write_config())
    assert done.returncode == 1, done.stderr
    assert "is full; make room" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (output / "result.json").exists()


def test_chat_and_text_generation(train: Train, write_config: Write, tmp_path: Path) -> None:
    chat = [{"prompt": f"say {n}", "completion": f"it is {n}"} for n in range(20)]
    text = [{"text": f"once there were {n} bears"} for n in range(20)]
    for task, rows in (("chat", chat), ("text-generation", text)):
        path = tmp_path / f"{task}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = train(write_config(task=task), task, train=path)
        assert done.returncode == 0, done.stderr
        result = json.loads((tmp_path / task / "result.json").read_text())
        assert result["metric"] == "perplexity"
        assert result["after"]["perplexity"] < result["before"]["perplexity"]
        assert ("exact_match" in result["after"]) == (task == "chat")


def test_an_adapter_scores_alone_as_it_did_after_training(
    train: Train, write_config: Write, color_rows: Path, tmp_path: Path
) -> None:
    config = write_config(epochs=6)
    lines = color_rows.read_text().splitlines(keepends=True)
    held_out, rest = tmp_path / "held-out.jsonl", tmp_path / "rest.jsonl"
    held_out.write_text("".join(lines[:8]))
    rest.write_text("".join(lines[8:]))
    assert train(config, train=rest, validation=held_out).returncode == 0
    after = json.loads((tmp_path / "run" / "result.json").read_text())["after"]
    output = tmp_path / "scores"
    done = run_script(
        "evaluate.py", "--config", config, "--model", tmp_path / "run" / "model", "--data", held_out,
        "--output", output,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((output / "result.json").read_text())
    assert result["metrics"] == pytest.approx(after, rel=1e-4)
    assert result["rows"] == len((output / "samples.jsonl").read_text().splitlines()) == 8
