"""What bad input and bad luck get: clear words, the right exit code, nothing lost. Each happens for real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_stage import Ranks
from training_stage import JOBS, Done, losses, read_events

from tuning.outputlock import OutputLock
from tuning.steplog import USUAL_STEPS, Spikes

Write = Callable[..., Path]
Train = Callable[..., Done]
slow = pytest.mark.slow


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def one_sentence(done: Done) -> str:
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


# -- numbers


@slow
def test_a_loss_that_is_no_number_keeps_the_weights_before_it(
    train: Train, write_config: Write, tmp_path: Path
) -> None:
    config = write_config(method={"name": "full"}, learning_rate=1e30, warmup_ratio=0.0, max_steps=4)
    done = train(config)
    assert done.returncode == 1
    said = one_sentence(done)
    assert "The loss of step 2 is no number (nan); checkpoint step-000001 has the weights before it." in said
    assert "lower training.learning_rate" in said
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-000001" / "state.json").read_text())
    assert state["step"] == 1
    again = train(config)
    assert (again.returncode, one_sentence(again)) == (1, said)
    assert read_events(tmp_path / "run", "started")[-1]["resumed_from_step"] == 1


@slow
def test_exploding_gradients_are_told_from_a_broken_loss(
    train: Train, write_config: Write, mini_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    steep = tmp_path / "steep"
    shutil.copytree(mini_model, steep)
    model = AutoModelForCausalLM.from_pretrained(mini_model)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e30)  # a finite loss, a gradient whose norm is not
    model.save_pretrained(steep)
    done = train(write_config(method={"name": "full"}), model=steep)
    assert done.returncode == 1
    assert "The gradients of step 1 exploded (norm inf, loss" in one_sentence(done)
    assert read_events(tmp_path / "run")[-1]["event"] == "failed"


def test_a_leap_of_the_gradient_norm_is_said_once() -> None:
    told: list[str] = []
    spikes = Spikes(told.append)
    for step in range(1, USUAL_STEPS + 1):
        spikes.look(step, 100.0 if step == 3 else 1.0)  # an early leap says nothing yet
    assert not told
    for step in (21, 22):
        spikes.look(step, 500.0)
    assert len(told) == 1
    assert "norm is 500 at step 21 and was 1" in told[0]


# -- data


@slow
def test_rows_beyond_the_limit_are_counted(train: Train, write_config: Write, tmp_path: Path) -> None:
    rows = [{"text": "a b c " * (40 if n == 5 else 1) + str(n), "label": "xy"[n % 2]} for n in range(12)]
    path = write_rows(tmp_path / "rows.jsonl", [{"messages": chat(row)} for row in rows])
    done = train(write_config(task="chat", max_steps=1, max_length=40), train=path)
    assert done.returncode == 0, done.stderr
    sentence = "1 training rows are longer than training.max_length and were cut."
    assert f"warning: {sentence}" in done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["rows"]["truncated"] == 1
    assert sentence in result["warnings"]


def chat(row: dict[str, str]) -> list[dict[str, str]]:
    """An answer that is longer than its question, so that a cut leaves some of it."""
    turns = {"user": row["label"], "assistant": row["text"]}
    return [{"role": role, "content": content} for role, content in turns.items()]


@slow
@pytest.mark.parametrize(
    ("rows", "held_out", "training", "words"),
    [
        (12, None, {"max_length": 12, "task": "chat"}, "All 11 training rows of rows.jsonl are longer than"),
        (1, None, {"task": "chat"}, "No rows are left to train on in"),
        (12, 0, {"task": "chat"}, "held.jsonl"),
        (12, None, {"keep_best": True, "split": 0}, "training.keep_best needs held-out rows"),
    ],
    ids=["all are longer", "none is left", "an empty file", "nothing to choose by"],
)
def test_data_that_cannot_do_is_one_sentence(
    train: Train,
    write_config: Write,
    tmp_path: Path,
    rows: int,
    held_out: int | None,
    training: dict[str, Any],
    words: str,
) -> None:
    made = [{"messages": chat({"text": "a b c " * 9 + str(n), "label": "x"})} for n in range(rows)]
    given: dict[str, object] = {"train": write_rows(tmp_path / "rows.jsonl", made)}
    if held_out is not None:
        given["validation"] = write_rows(tmp_path / "held.jsonl", made[:held_out])
    keys = {"max_length": 64, **training}
    split = keys.pop("split", 0.1)
    config = write_config(**{"task": "chat", **keys})
    config.write_text(json.dumps(json.loads(config.read_text()) | {"validation": {"split": split}}))
    done = train(config, **given)
    assert done.returncode == 2, done.stderr
    assert words in one_sentence(done)


@slow
def test_without_held_out_rows_nothing_is_measured_and_that_is_said(
    train: Train, write_config: Write, tmp_path: Path
) -> None:
    config = write_config(max_steps=1)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"validation": {"split": 0}}))
    done = train(config)
    assert done.returncode == 0, done.stderr
    sentence = "No rows are held out, so nothing is measured (validation.split is 0)."
    assert f"warning: {sentence}" in done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["before"], result["after"], result["warnings"]) == ({}, {}, [sentence])
    assert "Nothing was measured." in (tmp_path / "run" / "model" / "README.md").read_text()


@slow
def test_labels_that_the_model_never_learned_are_named_when_it_is_scored(
    train: Train, write_config: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import evaluate

    config = write_config(max_steps=1)
    assert train(config).returncode == 0
    rows = [{"text": "the ball is pink", "label": "pink"}, {"text": "the ball is red", "label": "red"}]
    held_out = write_rows(tmp_path / "held.jsonl", rows)
    words = ["--config", config, "--model", tmp_path / "run" / "model", "--data", held_out]
    assert evaluate.main([*map(str, words), "--output", str(tmp_path / "scores")]) == 0
    sentence = "Labels that the model never learned: pink."
    assert f"warning: {sentence}" in capfd.readouterr().err
    assert json.loads((tmp_path / "scores" / "result.json").read_text())["warnings"] == [sentence]


# -- models


@slow
def test_rows_may_not_be_longer_than_what_the_model_sees(
    train: Train, write_config: Write, mini_model: Path
) -> None:
    done = train(write_config(max_length=512), model=mini_model)
    assert done.returncode == 2
    assert "training.max_length is 512; accepted: up to 256, all that the model sees." in one_sentence(done)


@slow
def test_a_model_that_is_not_all_there_is_one_sentence(
    train: Train, write_config: Write, mini_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    parts = tmp_path / "parts"
    shutil.copytree(mini_model, parts, ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForCausalLM.from_pretrained(mini_model).save_pretrained(parts, max_shard_size="100KB")
    shard = sorted(parts.glob("model-*.safetensors"))[1]
    shard.unlink()
    done = train(write_config(), model=parts)
    assert done.returncode == 2
    assert f"is incomplete (No such file or directory: {shard}); copy it again" in one_sentence(done)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = train(write_config(), "other", model="nobody/no-such-model")
    assert done.returncode == 2
    assert "not in the Hugging Face cache, and HF_HUB_OFFLINE is set; download it" in one_sentence(done)


def test_a_service_that_cannot_be_reached_is_said_at_once(
    train: Train, write_config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    start = time.monotonic()
    done = train(write_config(), model="nobody/no-such-model")
    assert time.monotonic() - start < 6
    assert done.returncode == 2
    assert "Hugging Face cannot be reached (Connection refused)" in one_sentence(done)


ENDLESS = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@slow
@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("", "has no chat template"),
        (ENDLESS, "end token"),
    ],
    ids=["none", "never ends a turn"],
)
def test_a_chat_template_that_cannot_do_is_one_sentence(
    train: Train, write_config: Write, mini_model: Path, tmp_path: Path, template: str, words: str
) -> None:
    mute = tmp_path / "mute"
    shutil.copytree(mini_model, mute)
    (mute / "chat_template.jinja").unlink()
    if template:
        (mute / "chat_template.jinja").write_text(template)
    done = train(write_config(), model=mute)
    assert done.returncode == 2, done.stderr
    assert words in one_sentence(done)


# -- the disk

ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
sys.path.insert(0, {jobs!r})
import train, torch
torch.set_num_threads(1)
output = Path({output!r})
output.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(output)], check=True)
for size in {sizes!r}:
    subprocess.run(["mount", "-o", f"remount,size={{size}}", str(output)], check=True)
    print(train.main({words!r} + ["--output", str(output)]))
    left = [path.relative_to(output).as_posix() for path in output.rglob("*") if ".writing" in path.name]
    print(sorted([path.name for path in output.glob("checkpoints/step-*")] + left))
subprocess.run(["cp", "-r", str(output), {copy!r}], check=True)
"""


def size_of(folder: Path) -> int:
    """Bytes in whole blocks, as a disk counts."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


@slow
@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="no disk can be mounted here",
)
def test_a_full_disk_loses_nothing(
    train: Train, write_config: Write, mini_model: Path, color_rows: Path, tmp_path: Path
) -> None:
    config = write_config(method={"name": "full"}, epochs=1)
    assert train(config, "whole").returncode == 0
    whole = tmp_path / "whole"
    checkpoint = size_of(whole / "checkpoints")
    rest = size_of(whole) - checkpoint - size_of(whole / "model")
    sizes = [rest + checkpoint // 2, rest + checkpoint + size_of(whole / "model") // 2, 1 << 28]
    words = ["--config", str(config), "--train", str(color_rows), "--model", str(mini_model)]
    driver = ON_A_SMALL_DISK.format(
        jobs=str(JOBS), output=str(tmp_path / "small"), copy=str(tmp_path / "copy"), sizes=sizes, words=words
    )
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", driver],
        capture_output=True, text=True, timeout=200, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    said = done.stderr.splitlines()
    assert done.stdout.split("\n")[:6] == ["1", "[]", "1", "['step-000005']", "0", "['step-000005']"], said
    full = [line for line in said if "is full; make room and run the same command again: it goes on" in line]
    assert len(full) == 2
    copy = tmp_path / "copy"
    assert losses(copy)[-5:] == losses(whole)
    hashes = [json.loads((path / "result.json").read_text())["hashes"]["model"] for path in (copy, whole)]
    assert hashes[0] == hashes[1]


# -- stop signals and other processes


@pytest.fixture
def long_texts(tmp_path: Path) -> tuple[Path, Path]:
    """32 rows to train on, and so many held-out ones that measuring on them takes a second or more."""
    words = ["red", "green", "blue", "ball", "box", "today"]
    rows = [{"text": " ".join(words[n * k % 6] for k in range(1, 90)) + f" {n}"} for n in range(732)]
    return write_rows(tmp_path / "train.jsonl", rows[:32]), write_rows(tmp_path / "held.jsonl", rows[32:])


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    with Ranks(tmp_path_factory.mktemp("ranks")) as started:
        yield started


@slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_stop_during_a_validation_and_a_second_run(
    train: Train,
    ranks: Ranks,
    write_config: Write,
    mini_model: Path,
    long_texts: tuple[Path, Path],
    tmp_path: Path,
    processes: int,
) -> None:
    """Of two processes only one is told to stop, and none of them may wait for the other in vain."""
    rows, held_out = long_texts
    config = write_config(task="text-generation", epochs=2, max_length=256, batch_size=8 // processes)
    value = json.loads(config.read_text()) | {"evaluation": {"max_rows": 700, "max_new_tokens": 2}}
    if processes > 1:
        value["distributed"] = {"strategy": "ddp", "processes": processes}
    config.write_text(json.dumps(value))
    given = ["--config", config, "--train", rows, "--validation", held_out, "--model", mini_model]
    output = tmp_path / "cut"
    started = ranks.start(processes, output, *given)
    started.wait_for_event("step", 4)
    started.kill(processes - 1, signal.SIGTERM)
    assert started.wait() == [143] * processes, started.said()
    stopped = read_events(output, "stopped")[-1]
    state = json.loads((output / "checkpoints" / f"step-{stopped['step']:06d}" / "state.json").read_text())
    assert state["step"] == stopped["step"] == 4 != state["validated_step"]
    again = ranks.start(processes, output, *given)
    again.wait_for_event("started", 2)
    second = ranks.start(processes, output, *given)
    assert 2 in second.wait()
    assert f"Process {again.pids[0]} on " in second.said()
    assert "is training into" in second.said()
    assert again.wait() == [0] * processes, again.said()
    assert [event["step"] for event in read_events(output, "validation")] == [4, 8]
    assert read_events(output, "started")[-1]["resumed_from_step"] == 4


@slow
def test_a_stop_while_the_result_is_saved_lets_it_be_saved(
    ranks: Ranks, write_config: Write, mini_model: Path, color_rows: Path, tmp_path: Path
) -> None:
    output, config = tmp_path / "run", write_config(method={"name": "full"}, max_steps=2)
    started = ranks.start(1, output, "--config", config, "--train", color_rows, "--model", mini_model)
    deadline = time.monotonic() + 120
    while not (output / ".writing-model").exists() and not (output / "result.json").exists():
        assert time.monotonic() < deadline
    started.kill(0, signal.SIGTERM)
    assert started.wait() == [0], started.said()
    result = json.loads((output / "result.json").read_text())
    assert sorted(result["hashes"]["model"]) == sorted(path.name for path in (output / "model").iterdir())


def test_an_output_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    from tuning.errors import InputError

    def take() -> Iterator[None]:
        with OutputLock(tmp_path) as lock:
            lock.take()
            yield

    first = take()
    next(first)
    with pytest.raises(InputError, match=f"Process {os.getpid()} on .* is training into"):
        next(take())
    first.close()
    next(take())
