"""Base training: the average that is kept, mirrored images, and trainings that go on from shorter ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dphyper.bench.pretraining import mirror_some, power_average
from dphyper.bench.public_work import PublicWork
from dphyper.bench.tracking import Tracking
from dphyper.core.specs import BaseSpec, DataSpec, Performance

DATA = DataSpec(source="digits8", image_size=8, cluster_sizes=())


def weights(cache: Path, *lengths: int) -> dict[str, torch.Tensor]:
    """Of the base model of the last length, after those of the others were trained in the same cache."""
    work = PublicWork(Performance(cache=str(cache), threads=1), Tracking("off", cache, "t"))
    for steps in lengths:
        spec = BaseSpec(block_out_channels=(8, 16), train_steps=steps, batch_size=8)
        folder = work.base_folder(DATA, spec)
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("before", [(4, 9), (20,)])
def test_a_training_after_others_ends_as_one_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: tuple[int, ...]
) -> None:
    """It goes on from shorter ones, and is none the worse for a longer one that was there first."""
    alone, after = weights(tmp_path / "alone", 12), weights(tmp_path / "after", *before, 12)
    assert ("going on" in capsys.readouterr().out) == (before == (4, 9))
    other = weights(tmp_path / "other", 11)
    assert all(torch.equal(alone[name], after[name]) for name in alone)
    assert not all(torch.equal(alone[name], other[name]) for name in alone)


def test_the_average_is_that_of_the_power_function() -> None:
    """Against the weighted mean with weights t^γ, which the recursion approximates."""
    values = torch.from_numpy(np.random.default_rng(0).normal(size=3000)) + torch.linspace(0, 5, 3000)
    found = values[0]
    for step in range(1, 3000):
        found = power_average(found, values[step], step)
    shares = torch.arange(1, 3001, dtype=torch.float64) ** 6.94
    assert float(found) == pytest.approx(float((values * shares).sum() / shares.sum()), rel=1e-3)
    assert float(found) != pytest.approx(float(values.mean()), rel=0.1)


def test_about_half_of_the_images_are_mirrored() -> None:
    torch.manual_seed(0)
    images = torch.rand(200, 1, 8, 8)
    found = mirror_some(images)
    mirrored = (found != images).flatten(1).any(1)
    assert 70 < int(mirrored.sum()) < 130
    assert torch.equal(found[mirrored], images[mirrored].flip(-1))
