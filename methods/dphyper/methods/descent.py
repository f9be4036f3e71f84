"""The one private descent that DP-SGD and all optimisers guided by public gradients share.

Sampling, clipping, noise and the denominator are those of `PrivateData.gradient_steps`. Per-example gradients are the
target's. Optimiser, step sizes and the averaging of iterates are here. A `Guide` says what each record contributes
before it is clipped, and which step follows the noisy mean. Apart from the contributions it sees only public records
and released sums, so the rest of what it does is post-processing.

Shapes: b private records of a chunk, m public gradients, P parameters of the target, D coordinates that are released.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dphyper.bench.method import Adaptation, AdapterOptions, Method, Options, Role, Selection
from dphyper.bench.public import PublicRecords
from dphyper.core.errors import UserError
from dphyper.methods.optimisation import linear_decay
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import PoissonGradientSteps
from dphyper.privacy.private_data import PrivateData
from dphyper.targets.target import Target

# The customary value.
MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class DescentOptions(AdapterOptions):
    """Hyper-parameters of the private descent, all but its learning rate.

    Attributes:
        steps: T, optimiser steps.
        sampling_prob: q, probability of each record to enter a step.
        l2_clip_norm: C, bound on a record's gradient.
        multiplicity: K, draws of time and noise over which a record's gradient is averaged before clipping.
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
            raise UserError(f"options.optimizer = '{self.optimizer}': expected 'adam' or 'sgd'")
        if not 0 < self.sampling_prob <= 1:
            raise UserError(f"options.sampling_prob = {self.sampling_prob}: expected above 0 and at most 1")

    def unscaled(self) -> PoissonGradientSteps:
        """The gradient steps, without their noise multiplier."""
        return PoissonGradientSteps(l2_clip_norm=self.l2_clip_norm, sampling_prob=self.sampling_prob, steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class RateOptions(DescentOptions):
    """`DescentOptions` and a learning rate.

    Attributes:
        learning_rate: Of the first step; decays linearly to a tenth. It is divided by the noise multiplier where that
            is above 1, so that the noise moves the parameters about equally far at every ε.
    """

    learning_rate: float = 26.0


@dataclass(frozen=True, kw_only=True)
class GuidedOptions(RateOptions):
    """`RateOptions`, and how public gradients are taken.

    Attributes:
        public_tasks: m, public tasks whose mean gradients guide a step.
        public_images: Records over which each of these gradients is averaged.
    """

    public_tasks: int = 16
    public_images: int = 8


class Guide:
    """What one optimiser does with private and public gradients in a run.

    This base class is DP-SGD: it uses the private gradient as it is, and reads no public record.

    Args:
        target: The model.
        options: Of the method.
        rng: Chooses public records, and the times and noises of their losses. It is public.
        public: Records of public tasks, for guides that read them.
    """

    def __init__(self, target: Target, options: Any, rng: torch.Generator, public: PublicRecords | None = None) -> None:
        self.target, self.options, self.rng = target, options, rng
        self._public = public

    def prepare(self, theta: Tensor, step: int) -> None:
        """Read public records, if any, before step ``step`` (from 0) at the present parameters ``theta``, (P,)."""

    def contribution(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, D) what each record of ``x`` contributes, before it is clipped to the mechanism's norm.

        Args:
            theta: (P,) the present parameters.
            x: (b, ...) private records; each row may depend on its own record alone.
            rng: Secret source of their times and noises.
        """
        return self.target.per_example_gradients(theta, x, rng, self.options.multiplicity)

    def gradient(self, noisy_D: Tensor) -> Tensor:
        """(P,) the direction of descent from the noisy mean of the contributions."""
        return noisy_D

    def public_gradients(self, theta: Tensor) -> Tensor:
        """(m, P) mean gradients of `public_tasks` public tasks over `public_images` images each.

        Papers take gradients of single public examples. Those of a diffusion loss are nearly all noise, of the time
        and the corruption drawn, so each row here is a mean over some records of one task.
        """
        assert self._public is not None, "this guide reads public records: set Method.reads_public"
        x_TQ = self._public.draw(self.options.public_tasks, self.options.public_images, self.rng)
        rows = self.target.per_example_gradients(theta, x_TQ.flatten(0, 1), self.rng, 1)
        means: Tensor = rows.unflatten(0, x_TQ.shape[:2]).mean(1)
        return means


def descend(
    target: Target,
    private: PrivateData,
    mechanism: PoissonGradientSteps,
    options: DescentOptions,
    guide: Guide,
    *,
    learning_rate: float,
    theta: Tensor | None = None,
    role: str = "LoRA gradient",
) -> Tensor:
    """Descend the noisy gradients.

    Args:
        target: The model.
        private: Charged with ``mechanism``.
        mechanism: Calibrated.
        options: Optimiser and averaging.
        guide: What is contributed, and what becomes of the noisy mean.
        learning_rate: As in `RateOptions`.
        theta: Where to begin, (P,); the public model if not given.
        role: Name of the steps in the ledger.

    Returns:
        (P,) mean of the last iterates.
    """
    theta = (target.initial() if theta is None else theta).detach().clone().requires_grad_()
    learning_rate = learning_rate / max(mechanism.noise_multiplier or 0.0, 1.0)
    if options.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam([theta], lr=learning_rate)
    else:
        optimizer = torch.optim.SGD([theta], lr=learning_rate, momentum=MOMENTUM)
    schedule = linear_decay(optimizer, mechanism.steps)
    last = max(math.floor(options.average_last * mechanism.steps), 1)
    mean = torch.zeros_like(theta, requires_grad=False)

    guide.prepare(theta.detach(), 0)
    steps = private.gradient_steps(lambda x, rng: guide.contribution(theta.detach(), x, rng), mechanism, role=role)
    for step, noisy in enumerate(steps, start=1):
        theta.grad = guide.gradient(noisy.to(theta)).to(theta)
        optimizer.step()
        schedule.step()
        if step > mechanism.steps - last:
            mean += theta.detach() / last
        if step < mechanism.steps:
            guide.prepare(theta.detach(), step)
    return mean


class GuidedDescent(Method):
    """A private descent with a guide; a subclass names its guide and its options.

    Class attributes:
        guide_type: The guide; `Guide`, which is DP-SGD, if a subclass names none.
    """

    role: ClassVar[Role] = "method"
    selection: ClassVar[Selection] = "tuned_public"
    uses = frozenset({"task", "n", "epsilon", "seed"})
    reads_public = True
    options_type: ClassVar[type[Options]] = GuidedOptions
    guide_type: ClassVar[type[Guide]] = Guide
    _options: RateOptions

    @classmethod
    def mechanisms(cls, budget: Budget, options: RateOptions) -> tuple[PoissonGradientSteps, ...]:
        """The gradient steps, with the noise multiplier that spends the whole budget."""
        return calibrate(budget, options.unscaled())

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Descend the noisy gradients from the base model."""
        options = self._options
        guide = self.guide_type(self.target, options, rng, self.public if self.reads_public else None)
        (mechanism,) = self.mechanisms(budget, options)
        return Adaptation(
            theta=descend(self.target, private, mechanism, options, guide, learning_rate=options.learning_rate)
        )
