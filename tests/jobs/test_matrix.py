"""Every scenario by every technique, a test a cell: trained, stopped, resumed, measured, exported, answering.

What is learned and how comes from bench/matrix_cells.py; bench/matrix.py trains the same cells for real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix_stage import FULL, STEPS, Ledger, Trained, Workshop
from ranks_stage import Ranks
from training_stage import MINI, losses, make_phi3, read_events

import evaluate
import merge
from bench.matrix_cells import COSTS, ROWS, TECHNIQUES, Cell, cells
from tuning.methods import METHODS, quantization_of
from tuning.models import load_model, quantization_of_base
from tuning.tasks import TASKS

pytestmark = pytest.mark.slow

PRODUCTS_AS_LARGE_AS_WEIGHTS = {"loha", "lokr"}  # kept for the backward pass, beside few sequences
ROOT = Path(__file__).parents[2]
PROBE = torch.arange(5, 45).reshape(2, 20)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As many threads as the processes have: sums over several would round in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    with Ranks(tmp_path_factory.mktemp("logs"), libraries=("bitsandbytes",)) as started:
        yield started


@pytest.fixture(scope="module")
def workshop(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("matrix")
    return Workshop(ranks, make_phi3(folder / "model", **MINI, max_position_embeddings=512), folder)


@pytest.fixture(scope="module")
def ledger(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(ranks, tmp_path_factory.mktemp("costs"))


@pytest.mark.parametrize("cell", list(cells()), ids=str)
def test_matrix(workshop: Workshop, cell: Cell, tmp_path: Path) -> None:
    trained = workshop.train(cell)
    count = cell.technique.processes
    assert trained.codes == ([143] * count, [0] * count), trained.said
    require_the_steps_of_an_undisturbed_run(trained, workshop.undisturbed(cell))
    require_measurements(trained)
    exported = require_the_trained_model(trained, tmp_path)
    require_the_answers_of_the_run(trained, exported, tmp_path)


@pytest.mark.parametrize("technique", COSTS)
def test_matrix_costs(ledger: Ledger, technique: str) -> None:
    """Held and peak memory of a first step beside full training's, and how much is trained at all."""
    facts, full = ledger.first_step(TECHNIQUES[technique]), ledger.first_step(FULL)
    method = METHODS[TECHNIQUES[technique].method]
    assert facts.held < full.held
    assert facts.share < 0.2 if method.is_adapter else facts.share == 1
    if TECHNIQUES[technique].processes == 1:  # DeepSpeed's buffers outweigh what two processes save here
        shown = 0.1 if technique in PRODUCTS_AS_LARGE_AS_WEIGHTS else 0.4
        assert full.peak - facts.peak > shown * (full.held - facts.held)


def test_matrix_page_has_every_cell() -> None:
    """A row for each cell and each cost, and in the README the same overview."""
    page = (ROOT / "docs" / "matrix.md").read_text(encoding="utf-8")
    parts = {part.partition("\n")[0]: part for part in page.split("\n## ")}
    rows = [(parts[cell.name], cell.technique_name) for cell in cells()]
    rows += [(parts["What techniques cost"], technique) for technique in COSTS]
    assert [technique for part, technique in rows if f"\n| `{technique}`" not in part] == []
    overview = page[page.index("| scenario |") : page.index("\n\n## ")]
    assert overview.count("\n") == len(ROWS) + 1
    assert overview in (ROOT / "README.md").read_text(encoding="utf-8")


def require_the_steps_of_an_undisturbed_run(trained: Trained, undisturbed: list[float]) -> None:
    """To the last bit in one process, to 1e-4 in two, whatever is split and wherever it stopped."""
    steps = [event["step"] for event in read_events(trained.output, "step")]
    assert steps == list(range(1, STEPS + 1))
    first, second = read_events(trained.output, "started")
    (stopped,) = read_events(trained.output, "stopped")
    assert (first["resumed_from_step"], second["resumed_from_step"]) == (0, stopped["step"])
    assert 0 < stopped["step"] < STEPS
    assert first["processes"] == trained.cell.technique.processes
    assert first["strategy"] == trained.cell.technique.strategy
    exact = trained.cell.technique.processes == 1
    assert losses(trained.output) == (undisturbed if exact else pytest.approx(undisturbed, abs=1e-4))


def require_measurements(trained: Trained) -> None:
    """The task's metric before and after with an interval, a loss that fell, and what was trained."""
    result, method = trained.result, METHODS[trained.config.method.name]
    assert result["metric"] == TASKS[trained.cell.scenario.task].metric
    assert result["steps"] == STEPS
    assert result["after"].keys() == result["before"].keys() >= {result["metric"], "loss", "perplexity"}
    assert result["after"]["loss"] < result["before"]["loss"]
    assert result["change"]["low"] <= result["change"]["difference"] <= result["change"]["high"]
    share = result["trainable_parameters"] / result["parameters"]
    assert result["trainable_share"] == pytest.approx(share, abs=1e-6)
    assert 0 < share < 0.2 if method.is_adapter else share == 1
    assert result["quantization"] == quantization_of(trained.config.method)
    assert (trained.output / "samples.jsonl").read_text(encoding="utf-8").count("\n") > 0


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(input_ids=PROBE).logits[:, -PROBE.shape[1] :]
    return found


def require_the_trained_model(trained: Trained, folder: Path) -> Path:
    """Transformers and PEFT load the export, which gives the logits of the model in memory, merged too.

    Returns the folder that anybody would serve: merged where that is possible.
    """
    from peft import PeftModel

    method = METHODS[trained.config.method.name]
    expected = logits(trained.as_it_was_trained())
    if not method.is_adapter:
        assert (logits(load_model(str(trained.model), torch.float32)) - expected).abs().max() <= 1e-5
        return trained.model
    base = load_model(str(trained.base), torch.float32, quantization_of_base(trained.model))
    untrained = logits(base)
    found = logits(PeftModel.from_pretrained(base, str(trained.model)))
    assert (found - expected).abs().max() <= 1e-5 < (untrained - expected).abs().max()
    if not method.is_mergeable:
        return trained.model
    merged = merge.merge(str(trained.model), folder / "merged", base=str(trained.base))
    assert merged is not None
    assert merged["max_logit_difference"] <= 1e-4
    whole = load_model(str(folder / "merged" / "model"), torch.float32)
    assert (logits(whole) - expected).abs().max() <= 1e-4
    return folder / "merged" / "model"


def require_the_answers_of_the_run(trained: Trained, exported: Path, folder: Path) -> None:
    """The exported model, scored by itself, answers as the trained one did and gets the same numbers."""
    base = str(trained.base) if (exported / "adapter_config.json").exists() else None
    train, test = trained.rows
    labels = train if trained.cell.scenario.task == "classification" else None
    files = evaluate.Files(str(exported), base, test, labels, folder / "scored")
    scored = evaluate.evaluate(trained.alone, files)
    assert scored["metrics"] == pytest.approx(trained.result["after"], rel=1e-3, abs=1e-4)
    answers = {row["prompt"]: row["answer"] for row in _samples(folder / "scored")}
    expected = {row["prompt"]: row["after"] for row in _samples(trained.output) if row["after"]}
    assert answers == expected


def _samples(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]
