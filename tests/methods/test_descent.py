"""The private descent, against training that shares no code with it."""

import math
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor

from dphyper.audits import contract
from dphyper.bench.catalog import METHODS
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.studies.theory.regression import LinearRegression

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
TIGHT = Budget(epsilon=4.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


class Regression(lightning.LightningModule):
    """The linear regression as Lightning would train it."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.target, self.steps = LinearRegression(5), steps
        self.theta = torch.nn.Parameter(torch.zeros(5))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.target.per_example_loss(self.theta, batch, None).mean()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}


@pytest.mark.filterwarnings("ignore")  # Lightning's remarks on loader workers and on the absent logger
def test_dp_sgd_without_noise_and_clipping_is_lightnings_own_training(stretched: Any, equal_only: Any) -> None:
    module = Regression(steps=6)
    trainer = lightning.Trainer(
        max_epochs=6,  # of one full batch
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(stretched.private, batch_size=40))
    free = {"steps": 6, "learning_rate": 0.02}
    unclipped = stretched.adapt("dp_sgd", FREE, **free, l2_clip_norm=math.inf)
    equal_only(module.theta.detach(), unclipped, stretched.adapt("dp_sgd", FREE, **free, l2_clip_norm=1.0))
    averaged = stretched.adapt("dp_sgd", FREE, **free, l2_clip_norm=math.inf, average_last=0.5)
    assert not torch.allclose(module.theta.detach(), averaged, rtol=0.01)


def test_dp_sgd_without_noise_and_clipping_is_adam_on_the_mean_loss() -> None:
    options = {"steps": 4, "sampling_prob": 1.0, "multiplicity": 1, "average_last": 0.0, "learning_rate": 0.01}
    kind = METHODS["nonprivate_lora"]
    private = PrivateData(
        contract.tiny_records(), n=24, ledger=Ledger(contract.NO_BUDGET), noise=NoiseSource.reproducible(0)
    )
    made = kind(contract.tiny_target(), kind.options_type.parse("nonprivate_lora", options), embedding_dim=0)
    theta = made.adapt(private, contract.NO_BUDGET, torch.Generator().manual_seed(5)).theta

    plain = contract.tiny_target().initial().requires_grad_()
    optimizer = torch.optim.Adam([plain], lr=0.01)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=4)
    noise = NoiseSource.reproducible(0)
    for _ in range(4):
        noise.uniform(24)  # who takes part
        rng = noise.generator()
        optimizer.zero_grad()
        contract.tiny_target().per_example_loss(plain, contract.tiny_records(), rng).mean().backward()
        optimizer.step()
        decay.step()
    torch.testing.assert_close(theta, plain.detach(), rtol=1e-3, atol=1e-4)
