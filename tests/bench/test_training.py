"""Training that was killed ends with the weights of a training that was not."""

from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from dphyper.bench import training
from dphyper.bench.public import Episode, PublicTasks
from dphyper.bench.tasks import Collection, Task
from dphyper.bench.tracking import Tracking


class KilledError(BaseException):
    """Stands for the end of the process."""


class Noisy(lightning.LightningModule):
    """Draws from the global generator in training and validation, as methods do, and is killed at a step."""

    def __init__(self, kill_at: int = -1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.kill_at = torch.nn.Linear(4, 1), kill_at
        self.drawn: list[float] = []

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        if self.global_step == self.kill_at:
            raise KilledError
        data: PublicTasks = self.trainer.datamodule  # type: ignore[attr-defined]
        x = data.records[batch.query_TQ.flatten()]
        self.drawn.append(float(x.sum()))
        return (self.layer(x + torch.randn_like(x)) - 1).square().mean()

    def validation_step(self, batch: Episode, batch_idx: int) -> None:
        torch.randn(3)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=50)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@pytest.fixture
def episodes() -> PublicTasks:
    records = np.arange(400, dtype=np.float32).reshape(100, 4) / 400
    splits = ["public", "public", "public", "tuning", "private"]
    tasks = tuple(
        Task(id=str(i), family=str(i), split=split, indices=np.arange(20) + 20 * i)  # type: ignore[arg-type]
        for i, split in enumerate(splits)
    )
    collection = Collection(name="toy", records=records, tasks=tasks)
    return PublicTasks(collection, torch.from_numpy, seed=0, tasks=2, query=4, steps=50, validation_steps=2)


@pytest.fixture(autouse=True)
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation after 10, 20, ... steps, checkpoints after 5, 15, ..."""
    monkeypatch.setattr(training, "INTERVAL", 10)


def train(module: Noisy, episodes: PublicTasks, folder: Path) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    seconds = training.train(
        module,
        episodes,
        steps=50,
        seed=1,
        name="toy",
        device=torch.device("cpu"),
        tracking=Tracking("off", folder, "toy"),
        unfinished=folder,
    )
    assert seconds > 0
    return module.state_dict()


def killed_at(step: int, episodes: PublicTasks, folder: Path) -> None:
    with pytest.raises(KilledError):
        train(Noisy(kill_at=step), episodes, folder)


@pytest.mark.parametrize("step", [3, 17, 33])
def test_a_killed_training_ends_as_one_that_was_not(
    episodes: PublicTasks, tmp_path: Path, capsys: pytest.CaptureFixture[str], step: int
) -> None:
    whole = Noisy()
    expected = train(whole, episodes, tmp_path / "whole")
    killed_at(step, episodes, tmp_path / "killed")
    capsys.readouterr()
    again = Noisy()
    found = train(again, episodes, tmp_path / "killed")
    resumed_at = 10 * ((step - 5) // 10) + 5 if step >= 5 else 0
    assert ("going on from a checkpoint" in capsys.readouterr().out) is (resumed_at > 0)
    assert again.drawn == whole.drawn[resumed_at:]  # no batch twice, none left out
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_another_seed_ends_elsewhere(episodes: PublicTasks, tmp_path: Path) -> None:
    """The comparison above can fail."""
    expected = train(Noisy(), episodes, tmp_path / "whole")
    episodes.seed = 1
    assert not torch.equal(train(Noisy(), episodes, tmp_path / "other")["layer.weight"], expected["layer.weight"])


def test_a_damaged_checkpoint_is_one_line_and_training_begins_anew(
    episodes: PublicTasks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = train(Noisy(), episodes, tmp_path / "whole")
    killed_at(17, episodes, tmp_path / "killed")
    checkpoint = tmp_path / "killed" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    capsys.readouterr()
    found = train(Noisy(), episodes, tmp_path / "killed")
    assert "cannot be read" in capsys.readouterr().out
    assert torch.equal(found["layer.weight"], expected["layer.weight"])
