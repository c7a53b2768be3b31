"""Every task, from its example's rows to a result: trained a little, scored, and scored again on its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from template_stage import CASES
from test_evaluation import EXAMPLES, FILES
from training_stage import read_events

import evaluate as scoring_script
import train as training_script
from merge import merge
from serving.engine import load_engine
from serving.model_folder import find_model
from tuning.rows import Message
from tuning.tasks import TASKS
from tuning.templates import render

pytestmark = pytest.mark.slow


def write_config(folder: Path, task: str, **training: Any) -> Path:
    config = {
        "task": task,
        "method": {"name": "lora", "rank": 4},
        "training": {"max_length": 192, "max_steps": 2, "batch_size": 4, "precision": "fp32", **training},
        "evaluation": {"max_rows": 6, "max_new_tokens": 12},
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def head(folder: Path, task: str, rows: int = 40) -> Path:
    """The first rows of the task's example."""
    source = EXAMPLES / FILES[task]
    gap = "\n\n" if source.suffix in (".conll", ".abc", ".txt") else "\n"
    path = folder / source.name
    path.write_text(gap.join(source.read_text(encoding="utf-8").split(gap)[:rows]) + "\n", encoding="utf-8")
    return path


def call(main: Any, *words: object) -> int:
    return int(main([str(word) for word in words]))


@pytest.mark.parametrize("task", sorted(FILES))
def test_a_task_from_rows_to_result(
    mini_model: Path, tmp_path: Path, task: str, capfd: pytest.CaptureFixture[str]
) -> None:
    config, rows, output = write_config(tmp_path, task), head(tmp_path, task), tmp_path / "run"
    given = ("--config", config, "--model", mini_model)
    code = call(training_script.main, *given, "--train", rows, "--output", output)
    assert code == 0, capfd.readouterr().err
    result = json.loads((output / "result.json").read_text())
    metric = TASKS[task].metric
    assert (result["task"], result["metric"]) == (task, metric)
    change = result["change"]
    assert change["difference"] == pytest.approx(result["after"][metric] - result["before"][metric])
    assert change["low"] <= change["difference"] <= change["high"]
    samples = [json.loads(line) for line in (output / "samples.jsonl").read_text().splitlines()]
    assert samples
    assert all(row.keys() == {"prompt", "expected", "before", "after"} for row in samples)
    manner = json.loads((output / "model" / "task.json").read_text())
    assert manner == {"task": task, "plain_text": task in ("domain", "music")}

    scores = tmp_path / "scores"
    given = ("--config", config, "--model", output / "model", "--data", rows, "--output", scores)
    assert call(scoring_script.main, *given) == 0, capfd.readouterr().err
    scored = json.loads((scores / "result.json").read_text())
    assert scored["interval"]["low"] <= scored["metrics"][metric] <= scored["interval"]["high"]
    assert scored["interval"]["value"] == pytest.approx(scored["metrics"][metric])

    engine = load_engine("transformers", find_model(str(output / "model")))
    asked = engine.encode([{"role": "user", "content": samples[0]["prompt"]}], ())
    assert len(asked) > 1


def test_how_a_model_is_asked_survives_its_merge(
    mini_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ("--config", write_config(tmp_path, "ner"), "--train", head(tmp_path, "ner"))
    code = call(training_script.main, *given, "--model", mini_model, "--output", tmp_path / "run")
    assert code == 0, capfd.readouterr().err
    merge(str(tmp_path / "run" / "model"), tmp_path / "merged", base=str(mini_model))
    engine = load_engine("transformers", find_model(str(tmp_path / "merged" / "model")))
    asked = [
        engine.encode([{"role": "user", "content": text}], ())
        for text in ("Oslo", "Name the entities:\nOslo")
    ]
    assert asked[0] == asked[1]


def test_a_users_own_template_is_learned_kept_and_served(
    mini_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config, rows, output = write_config(tmp_path, "chat"), head(tmp_path, "chat"), tmp_path / "run"
    own = tmp_path / "own.jinja"
    own.write_text(CASES["own"].template)
    given = ["--config", config, "--model", mini_model, "--train", rows, "--output", output]
    assert call(training_script.main, *given, "--chat-template", own) == 0, capfd.readouterr().err
    assert json.loads((output / "result.json").read_text())["hashes"].keys() == {
        "train",
        "chat_template",
        "model",
    }
    engine = load_engine("transformers", find_model(str(output / "model")))
    asked = engine.encode([{"role": "user", "content": "Hello"}], ())
    tokenizer = engine._tokenizer  # type: ignore[attr-defined]
    assert tokenizer.decode(asked) == "Customer: Hello\n\nClerk: "
    assert render(tokenizer, [Message("user", "Hello")], None, prompt=True) == "Customer: Hello\n\nClerk: "
    (output / "result.json").unlink()
    own.write_text(CASES["own"].template.replace("Clerk", "Waiter"))
    assert call(training_script.main, *given, "--chat-template", own) == 2
    assert "hashes.chat_template differ" in capfd.readouterr().err


def test_held_out_rows_that_are_trained_on_and_new_labels_are_warned_of(
    mini_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train, held_out = tmp_path / "train.conll", tmp_path / "held-out.conll"
    train.write_text("in O\nOslo B-place\n\nby O\nAda B-person\n")
    held_out.write_text("In O\nOslo B-place\n\nthe O\nlamp B-good\n")
    output = tmp_path / "run"
    given = ("--config", write_config(tmp_path, "ner"), "--model", mini_model, "--output", output)
    assert call(training_script.main, *given, "--train", train, "--validation", held_out) == 0
    result = json.loads((output / "result.json").read_text())
    assert result["contamination"] == {"exact": 0, "normalized": 1, "held_out": 2, "lines": [[1, 1]]}
    warned = [event["message"] for event in read_events(output, "warning")]
    assert warned == result["warnings"]
    assert "lines 1 = 1" in warned[0]
    assert warned[1] == "Labels of held-out rows that no training row has: good."
    said = capfd.readouterr().err
    assert all(f"warning: {one}" in said for one in warned)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m.content + '\\n' }}{% endfor %}", "writes no end token after an answer"),
        ("", "is empty"),
    ],
)
def test_a_template_that_cannot_teach_ends_with_code_2(
    mini_model: Path, tmp_path: Path, template: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.jinja"
    own.write_text(template)
    given = ("--config", write_config(tmp_path, "chat"), "--model", mini_model, "--chat-template", own)
    rows = head(tmp_path, "chat")
    assert call(training_script.main, *given, "--train", rows, "--output", tmp_path / "run") == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert reason in said[0]
