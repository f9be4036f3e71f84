"""Training of a base model on public tasks by Lightning.

Batches are drawn uniformly over tasks and then over their records. Nothing private reaches it.
"""

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from dphyper.bench.public import Episode, PublicTasks
from dphyper.targets.target import BaseModel


class Pretraining(lightning.LightningModule):
    """Ordinary training of a base model.

    Args:
        base: Trained in place.
        learning_rate: Peak of a one-cycle schedule that ends at 0.
    """

    def __init__(self, base: BaseModel, learning_rate: float) -> None:
        super().__init__()
        self.base, self.learning_rate = base, learning_rate

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        """Mean loss of the query records."""
        data: PublicTasks = self.trainer.datamodule  # type: ignore[attr-defined]
        loss = self.base.loss(data.records[batch.query_TQ.flatten().cpu()].to(self.device))
        self.log("base/loss", loss)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a one-cycle learning rate."""
        optimizer = torch.optim.AdamW(self.base.parameters(), lr=self.learning_rate, weight_decay=1e-4)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
