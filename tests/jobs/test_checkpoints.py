"""Checkpoints: exact, pruned, and passed over when they are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tuning.checkpoints import Checkpoints, Progress
from tuning.errors import FailedError


def make(seed: int = 0, width: int = 3) -> tuple[torch.nn.Module, torch.optim.AdamW]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.LayerNorm(width))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    return model, optimizer


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> float:
    torch.manual_seed(seed)
    loss = model(torch.randn(4, 3)).pow(2).sum() * torch.rand(())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def test_after_loading_everything_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    model, optimizer = make()
    for seed in range(3):
        step(model, optimizer, seed)
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(Progress(step=3, tokens_seen=12), model, optimizer)
    expected = [step(model, optimizer, seed) for seed in range(3, 8)]
    again, its_optimizer = make(seed=5)
    assert checkpoints.load_newest(again, its_optimizer) == Progress(step=3, tokens_seen=12)
    assert [step(again, its_optimizer, seed) for seed in range(3, 8)] == expected
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    model, optimizer = make()
    step(model, optimizer, 0)
    for number in (1, 2, 3):
        Checkpoints(tmp_path, keep=2).save(Progress(step=number), model, optimizer)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000002", "step-000003"]


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_one_is_passed_over_with_a_word(
    tmp_path: Path, name: str, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, optimizer = make()
    step(model, optimizer, 0)
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(Progress(step=1), model, optimizer)
    newest = checkpoints.save(Progress(step=2), model, optimizer)
    if harm == "cut":
        (newest / name).write_bytes((newest / name).read_bytes()[:-3])
    else:
        (newest / name).unlink()
    assert checkpoints.load_newest(model, optimizer).step == 1
    assert "step-000002 is damaged" in capsys.readouterr().err


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    model, optimizer = make()
    step(model, optimizer, 0)
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(Progress(step=1), model, optimizer)
    other = torch.nn.Linear(3, 3)
    with pytest.raises(FailedError, match="another model or method"):
        checkpoints.load_newest(other, torch.optim.AdamW(other.parameters()))


def test_nothing_is_left_of_one_that_could_not_be_written(tmp_path: Path) -> None:
    model, optimizer = make()
    folder = tmp_path / "checkpoints"
    folder.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="checkpoints"):
        Checkpoints(folder, keep=1).save(Progress(step=1), model, optimizer)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_no_checkpoint_is_the_beginning(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, keep=1).load_newest(*make()) == Progress()
