"""Checkpoints: exact, pruned, passed over when they are damaged, and read by any number of processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tuning.checkpoints import Checkpoints, Progress
from tuning.config import Config, TrainingConfig
from tuning.distributed import Processes
from tuning.errors import FailedError
from tuning.loss import SupervisedLoss
from tuning.pieces import WEIGHT, Piece, Stored, write_pieces
from tuning.strategies import Replicated

ALONE = Processes(0, 1, torch.device("cpu"))


def make(seed: int = 0, width: int = 3) -> Replicated:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.LayerNorm(width))
    config = Config(task="chat", training=TrainingConfig(learning_rate=0.1))
    return Replicated(SupervisedLoss(model), config, ALONE)


def step(strategy: Replicated, seed: int) -> float:
    torch.manual_seed(seed)
    loss = strategy.model(torch.randn(4, 3)).pow(2).sum() * torch.rand(())
    strategy.forget_gradients()
    strategy.backward(loss)
    strategy.step()
    return float(loss.detach())


def checkpoints(folder: Path, keep: int = 2) -> Checkpoints:
    return Checkpoints(folder, keep, ALONE)


def test_after_loading_everything_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    strategy = make()
    for seed in range(3):
        step(strategy, seed)
    checkpoints(tmp_path).save(Progress(step=3, tokens_seen=12), strategy)
    expected = [step(strategy, seed) for seed in range(3, 8)]
    again = make(seed=5)
    assert checkpoints(tmp_path).load_newest(again) == Progress(step=3, tokens_seen=12)
    assert [step(again, seed) for seed in range(3, 8)] == expected
    for one, other in zip(strategy.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_nothing_in_it_is_pickled(tmp_path: Path) -> None:
    strategy = make()
    step(strategy, 0)
    folder = checkpoints(tmp_path).save(Progress(step=1), strategy)
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "optimizer-00000.safetensors",
        "state.json",
        "weights-00000.safetensors",
    ]
    for path in folder.glob("*.json"):
        json.loads(path.read_text())


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    strategy = make()
    step(strategy, 0)
    for number in (1, 2, 3):
        checkpoints(tmp_path).save(Progress(step=number), strategy)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000002", "step-000003"]


@pytest.mark.parametrize(
    "name", ["weights-00000.safetensors", "optimizer-00000.safetensors", "state.json", "manifest.json"]
)
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_one_is_passed_over_with_a_word(
    tmp_path: Path, name: str, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    strategy = make()
    step(strategy, 0)
    checkpoints(tmp_path).save(Progress(step=1), strategy)
    newest = checkpoints(tmp_path).save(Progress(step=2), strategy)
    if harm == "cut":
        (newest / name).write_bytes((newest / name).read_bytes()[:-3])
    else:
        (newest / name).unlink()
    assert checkpoints(tmp_path).load_newest(strategy).step == 1
    assert "step-000002 is damaged" in capsys.readouterr().err


def test_a_manifest_without_the_weights_is_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strategy = make()
    step(strategy, 0)
    newest = checkpoints(tmp_path).save(Progress(step=2), strategy)
    hashes = json.loads((newest / "manifest.json").read_text())
    del hashes["weights-00000.safetensors"]
    (newest / "manifest.json").write_text(json.dumps(hashes))
    assert checkpoints(tmp_path).load_newest(strategy) == Progress()
    assert "it has no weights-00000.safetensors" in capsys.readouterr().err


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    strategy = make()
    step(strategy, 0)
    checkpoints(tmp_path).save(Progress(step=1), strategy)
    (tmp_path / ".writing-step-000002").mkdir()
    (tmp_path / ".writing-step-000002" / "weights-00000.safetensors").write_bytes(b"half")
    assert checkpoints(tmp_path).load_newest(strategy).step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


@pytest.mark.parametrize("other", [torch.nn.Linear(3, 3), torch.nn.Sequential(torch.nn.Linear(3, 4))])
def test_another_models_checkpoint_is_refused(tmp_path: Path, other: torch.nn.Module) -> None:
    strategy = make()
    step(strategy, 0)
    checkpoints(tmp_path).save(Progress(step=1), strategy)
    with pytest.raises(FailedError, match="another model or method"):
        checkpoints(tmp_path).load_newest(Replicated(SupervisedLoss(other), Config(task="chat"), ALONE))


def test_nothing_is_left_of_one_that_could_not_be_written(tmp_path: Path) -> None:
    strategy = make()
    folder = tmp_path / "checkpoints"
    folder.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="checkpoints"):
        checkpoints(folder, keep=1).save(Progress(step=1), strategy)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


class Failing(Replicated):
    """Cannot tell all of its pieces."""

    def pieces(self) -> Iterator[Piece]:
        yield next(super().pieces())
        raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    strategy = make()
    step(strategy, 0)
    checkpoints(tmp_path).save(Progress(step=1), strategy)
    strategy.__class__ = Failing
    with pytest.raises(OSError, match="No space left"):
        checkpoints(tmp_path).save(Progress(step=2), strategy)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_no_checkpoint_is_the_beginning(tmp_path: Path) -> None:
    assert checkpoints(tmp_path, keep=1).load_newest(make()) == Progress()


cuts = st.lists(st.integers(1, 39), unique=True, max_size=6).map(sorted)


@given(written=cuts, start=st.integers(0, 39), count=st.integers(1, 40))
def test_any_range_is_read_from_any_pieces(
    tmp_path_factory: pytest.TempPathFactory, written: list[int], start: int, count: int
) -> None:
    """Whoever wrote a tensor of 40 numbers, and however it was cut: each range of it comes back."""
    folder, values = tmp_path_factory.mktemp("pieces"), torch.arange(40.0)
    count = min(count, 40 - start)
    edges = [0, *written, 40]
    for number, (begin, end) in enumerate(pairwise(edges)):
        paths = (folder / f"weights-{number}.safetensors", folder / f"moments-{number}.safetensors")
        write_pieces(*paths, [Piece("a.b", WEIGHT, begin, values[begin:end])])
    stored = Stored(sorted(folder.iterdir()))
    assert stored.sizes() == {"a.b": 40}
    assert torch.equal(stored.read("a.b", WEIGHT, start, count), values[start : start + count])
    assert torch.equal(stored.read("a.b", WEIGHT), values)


def test_a_missing_piece_is_said(tmp_path: Path) -> None:
    save_file({f"{WEIGHT}|0|a": torch.ones(4), f"{WEIGHT}|6|a": torch.ones(2)}, tmp_path / "one.safetensors")
    stored = Stored([tmp_path / "one.safetensors"])
    assert torch.equal(stored.read("a", WEIGHT, 0, 4), torch.ones(4))
    for start, count in ((0, 8), (2, 4), (6, 3)):
        with pytest.raises(FailedError, match="lacks a part of a"):
            stored.read("a", WEIGHT, start, count)
    with pytest.raises(FailedError, match="lacks a part of a"):
        stored.read("a", "exp_avg")


def test_moments_keep_their_shape_beside_the_parameter(tmp_path: Path) -> None:
    strategy = make()
    step(strategy, 0)
    states = {name: strategy.optimizer.state[value] for name, value in strategy.model.named_parameters()}
    states["0.weight"]["kept"] = torch.tensor([1.0, 0.0])  # not of the parameter's size
    checkpoints(tmp_path).save(Progress(step=1), strategy)
    again = make()
    checkpoints(tmp_path).load_newest(again)
    for name, value in again.model.named_parameters():
        for kind, moment in again.optimizer.state[value].items():
            assert torch.equal(moment, states[name][kind]), (name, kind)
