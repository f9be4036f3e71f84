"""What methods share whose public phase trains on episodes: their public tasks, the query loss and the schedule.

An episode is a few public tasks with records to adapt to (the support) and other records to judge the result by (the
query). A subclass says how an episode becomes parameters. No private record and no budget reaches anything here.

Shapes: T tasks, Q query records of each, P parameters of the target.
"""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from dphyper.bench.method import AdapterOptions, Method
from dphyper.bench.public import Episode, PublicTasks
from dphyper.bench.tasks import Collection

# Enough to see progress in the log; no choice is made by them.
VALIDATION_EPISODES = 8


@dataclass(frozen=True, kw_only=True)
class EpisodeOptions(AdapterOptions):
    """Hyper-parameters of a public phase on episodes.

    Attributes:
        train_steps: Training steps; each takes one episode.
        tasks: T, public tasks of an episode.
        query: Q, records of each task on which its parameters are judged.
        cluster_weight: How often a public cluster is drawn, relative to a public family.
    """

    train_steps: int = 1500
    tasks: int = 16
    query: int = 4
    cluster_weight: float = 0.125


class EpisodeMethod(Method):
    """A method whose public phase trains on episodes of public tasks."""

    _options: EpisodeOptions

    def public_data(self, collection: Collection) -> PublicTasks:
        """Episodes of public tasks for training, of tuning tasks for validation."""
        return self.deal(collection)

    def deal(self, collection: Collection, **settings: Any) -> PublicTasks:
        """The episodes that the options ask for; ``settings`` are further arguments of `PublicTasks`."""
        options = self._options
        return PublicTasks(
            collection,
            self.target.encode,
            seed=0,
            tasks=options.tasks,
            query=options.query,
            cluster_weight=options.cluster_weight,
            steps=options.train_steps,
            validation_steps=VALIDATION_EPISODES,
            **settings,
        )

    @property
    def public_tasks(self) -> PublicTasks:
        """What the public phase trains on; there only while it runs."""
        data: PublicTasks = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def query_loss(self, theta_TP: Tensor, batch: Episode, rng: torch.Generator | None = None) -> Tensor:
        """Mean loss of each task's query records under that task's parameters, a scalar.

        Args:
            theta_TP: Parameters of each task.
            batch: The episode.
            rng: Source of times and noises; torch's global generator if not given.
        """
        x = self.public_tasks.records.to(self.device)[batch.query_TQ.flatten()]
        theta_bP = theta_TP.repeat_interleave(batch.query_TQ.shape[1], 0)
        return self.target.per_example_loss(theta_bP, x, rng, stratified=True).mean()

    def one_cycle(self, optimizer: torch.optim.Optimizer, peak: float | list[float]) -> OptimizerLRScheduler:
        """The optimiser with a one-cycle learning rate over the public phase.

        Args:
            optimizer: Of the public phase.
            peak: Greatest learning rate, one for all parameter groups or one for each.
        """
        # The learning rate rises during the first tenth of the steps and falls from then on.
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, peak, total_steps=self._options.train_steps, pct_start=0.1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
