"""Training of a base model on public tasks by Lightning.

Batches are drawn uniformly over tasks and then over their records. The learning rate is constant after a short rise,
and what is kept is a running average of the weights over about the last tenth of the steps. So the model after N steps
does not depend on how many are to follow, and a longer training goes on from a shorter one. Nothing private reaches it.
"""

from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from dphyper.bench.public import Episode, PublicTasks
from dphyper.targets.target import BaseModel

# Raised when training comes to mean something else: models trained before are then not taken for present ones.
PRETRAINING_VERSION = 2
# Exponent of the power-function average whose width is a tenth of the training (Karras et al. 2024, arXiv:2312.02696,
# section 3.1, σ_rel = 0.10).
_AVERAGE_EXPONENT = 6.94
# Steps over which the learning rate rises, so that AdamW's first steps are small.
_WARMUP = 100


def power_average(averaged: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
    """The power-function average of weights after one more step.

    Args:
        averaged: Average over the first ``num_averaged`` steps.
        current: Weights after the next step.
        num_averaged: At least 1.

    >>> round(float(power_average(torch.tensor(0.0), torch.tensor(1.0), 99)), 4)  # the last of 100 steps has 8 per cent
    0.0767
    """
    kept: float = (1 - 1 / (float(num_averaged) + 1)) ** (_AVERAGE_EXPONENT + 1)
    moved: Tensor = averaged * kept + current * (1 - kept)
    return moved


def mirror_some(x: Tensor) -> Tensor:
    """Each of the (b, ..., W) records with its last axis reversed, or not, by chance."""
    mirrored_b = torch.rand(len(x), device=x.device) < 0.5
    return torch.where(mirrored_b.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)


class Pretraining(lightning.LightningModule):
    """Ordinary training of a base model.

    Args:
        base: Trained.
        learning_rate: Of AdamW.
        flips: Whether every second image, by chance, is mirrored left to right.

    Attributes:
        average: The averaged model, which is what is kept.
    """

    def __init__(self, base: BaseModel, learning_rate: float, *, flips: bool = False) -> None:
        super().__init__()
        self.base, self.learning_rate, self.flips = base, learning_rate, flips
        self.average = AveragedModel(base, avg_fn=power_average)

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        """Mean loss of the query records."""
        data: PublicTasks = self.trainer.datamodule  # type: ignore[attr-defined]
        x = data.records[batch.query_TQ.flatten().cpu()].to(self.device)
        loss: Tensor = self.base.loss(mirror_some(x) if self.flips else x)
        self.log("base/loss", loss)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and move the average, so that a checkpoint after the step has both."""
        super().optimizer_step(*args, **kwargs)
        self.average.update_parameters(self.base)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, whose learning rate rises to a constant."""
        optimizer = torch.optim.AdamW(self.base.parameters(), lr=self.learning_rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / _WARMUP, 1.0, total_iters=_WARMUP)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
