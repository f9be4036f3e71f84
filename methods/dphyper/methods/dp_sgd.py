"""DP-SGD on the LoRA: the baseline that every private method must beat.

Per-example gradients of B (A is frozen) by opacus, averaged over `multiplicity` draws of time and noise before
clipping, Poisson sampling, Gaussian noise, division by the expected batch size, then SGD with momentum or Adam; the
iterates of the last part are averaged, which is free post-processing. Sampling, clipping, noise and accounting live
in `PrivateData.gradient_steps`. Each record draws its own times and noises, from a generator that nobody else knows:
one that records share, or that a published seed gives away, would let a record show in what others contribute. Abadi
et al. 2016, algorithm 1; noise multiplicity after Dockhorn et al. 2023. It does not choose its own hyper-parameters:
the defaults come from tuning tasks (``sweeps/tune_dp_sgd.yaml``, ``docs/results/tune_dp_sgd``).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dphyper.bench.errors import UserError
from dphyper.bench.method import Method, Options, Role, Selection
from dphyper.bench.privacy.accounting import calibrate
from dphyper.bench.privacy.budget import Budget
from dphyper.bench.privacy.mechanisms import PoissonGradientSteps
from dphyper.bench.privacy.private_data import PrivateData
from dphyper.bench.target import Target


@dataclass(frozen=True, kw_only=True)
class DescentOptions(Options):
    """Hyper-parameters of the private descent, all but its learning rate.

    Attributes:
        steps: T, optimiser steps.
        sampling_prob: q, the chance of each record to enter a step.
        l2_clip_norm: C, bound on a record's gradient.
        multiplicity: K, draws of time and noise that are averaged for each record before clipping.
        optimizer: ``sgd`` (momentum 0.9) or ``adam``.
        average_last: Fraction of the steps whose iterates are averaged; 0 returns the last one.
    """

    steps: int = 30
    sampling_prob: float = 1.0
    l2_clip_norm: float = 0.03
    multiplicity: int = 2
    optimizer: str = "sgd"
    average_last: float = 0.5

    def __post_init__(self) -> None:
        if self.optimizer not in ("adam", "sgd"):
            raise UserError(f"options.dp_sgd.optimizer = '{self.optimizer}': expected 'adam' or 'sgd'")
        if not 0 < self.sampling_prob <= 1:
            raise UserError(f"options.dp_sgd.sampling_prob = {self.sampling_prob}: expected above 0 and at most 1")

    def unscaled(self) -> PoissonGradientSteps:
        """The gradient steps, without their noise multiplier."""
        return PoissonGradientSteps(l2_clip_norm=self.l2_clip_norm, sampling_prob=self.sampling_prob, steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class DPSGDOptions(DescentOptions):
    """Hyper-parameters of `DPSGD`.

    Attributes:
        learning_rate: Of the first step, divided by the noise multiplier where that is above 1, so that the noise
            moves the parameters about equally far at every ε; decays linearly to a tenth.
    """

    learning_rate: float = 26.0


class DPSGD(Method):
    """DP-SGD or DP-Adam on the LoRA's B."""

    role: ClassVar[Role] = "method"
    selection: ClassVar[Selection] = "tuned_public"
    uses = frozenset({"task", "n", "epsilon", "seed"})
    options_type = DPSGDOptions
    _options: DPSGDOptions

    def mechanism(self, budget: Budget) -> PoissonGradientSteps:
        """The gradient steps, with the noise multiplier that spends the whole budget."""
        (mechanism,) = calibrate(budget, self._options.unscaled())
        return mechanism

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Tensor:
        """Descend the noisy gradients from the base model."""
        options, mechanism = self._options, self.mechanism(budget)
        return descend(self.target, private, mechanism, options, learning_rate=options.learning_rate, rng=rng)


def descend(
    target: Target,
    private: PrivateData,
    mechanism: PoissonGradientSteps,
    options: DescentOptions,
    *,
    learning_rate: float,
    rng: torch.Generator,
) -> Tensor:
    """Descend the noisy gradients from the public model.

    Args:
        target: The model.
        private: Charged with ``mechanism`` in the role "LoRA gradient".
        mechanism: Calibrated.
        options: Optimiser, multiplicity and averaging.
        learning_rate: As in `DPSGDOptions`.
        rng: Source of the loss's times and noises.

    Returns:
        (P,) mean of the last iterates.
    """
    theta = target.initial().requires_grad_()
    learning_rate = learning_rate / max(mechanism.noise_multiplier or 0.0, 1.0)
    if options.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam([theta], lr=learning_rate)
    else:
        optimizer = torch.optim.SGD([theta], lr=learning_rate, momentum=0.9)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=mechanism.steps)
    iterates = [theta.detach().clone()]

    def gradients(x: Tensor) -> Tensor:
        return target.per_example_gradients(theta.detach(), x, rng, options.multiplicity)

    for gradient in private.gradient_steps(gradients, mechanism, role="LoRA gradient"):
        theta.grad = gradient.to(theta)
        optimizer.step()
        decay.step()
        iterates.append(theta.detach().clone())
    last = max(math.floor(options.average_last * mechanism.steps), 1)
    return torch.stack(iterates[-last:]).mean(0)
