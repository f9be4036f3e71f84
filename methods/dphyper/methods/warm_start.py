"""A noisy query that picks or makes images, a warm-up of the LoRA on them, then DP-SGD with the rest of the budget.

The query spends a stated share of the budget's 1/σ². The gradient steps are calibrated beside it, so that both together
spend ε and δ exactly. The images may be public or made from the query's answer; the warm-up is post-processing either
way. A subclass gives the query. Nothing tells whether the answer stands out of its noise.

Shapes: N images, P parameters of the target.
"""

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dphyper.bench.method import Adaptation, Method, Options, Role, Selection
from dphyper.core.errors import UserError
from dphyper.methods.descent import Guide, RateOptions, descend
from dphyper.methods.fitting import FitOptions, fit
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import GaussianMechanism, NoisyHistogram, PoissonGradientSteps
from dphyper.privacy.private_data import PrivateData

Query = NoisyHistogram | PoissonGradientSteps


@dataclass(frozen=True, kw_only=True)
class WarmStartOptions(RateOptions, FitOptions):
    """Hyper-parameters of DP-SGD and of the fit before it, and the query's share of the budget.

    Attributes:
        query_share: Share of the budget's 1/σ² that the query takes, above 0; at 1 no DP-SGD follows.
    """

    query_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.query_share <= 1:
            raise UserError(
                f"options.query_share = {self.query_share}: expected above 0 and at most 1 (no DP-SGD after the query)"
            )


class WarmStart(Method):
    """A method of three parts: query, warm-up, DP-SGD; a subclass gives the query and what becomes of its answer."""

    role: ClassVar[Role] = "method"
    selection: ClassVar[Selection] = "tuned_public"
    uses = frozenset({"task", "n", "epsilon", "seed"})
    reads_public = True
    options_type: ClassVar[type[Options]] = WarmStartOptions
    _options: WarmStartOptions

    @classmethod
    @abstractmethod
    def unscaled_query(cls, options: Any) -> Query:
        """The query, without its noise multiplier."""

    @abstractmethod
    def ask(self, private: PrivateData, query: Query, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Run the query, and choose or make images by its answer.

        Returns:
            (N, ...) images for the warm-up, and (N,) weights with which they are drawn.
        """

    @classmethod
    def mechanisms(cls, budget: Budget, options: WarmStartOptions) -> tuple[GaussianMechanism, ...]:
        """The query and the gradient steps, if any, which together spend the budget."""
        (alone,) = calibrate(budget, cls.unscaled_query(options))
        if options.query_share == 1:
            return (alone,)
        assert alone.noise_multiplier is not None
        query = dataclasses.replace(alone, noise_multiplier=alone.noise_multiplier / math.sqrt(options.query_share))
        return calibrate(budget, query, options.unscaled())

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Run the query, fit the LoRA to its images, and descend the noisy gradients from there."""
        options = self._options
        query, *steps = self.mechanisms(budget, options)
        assert isinstance(query, Query)
        images, weights = self.ask(private, query, rng)
        theta = fit(self.target, self.target.initial(), images, options, rng, weights=weights)
        if not steps:
            return Adaptation(theta=theta)
        (descent,) = steps
        assert isinstance(descent, PoissonGradientSteps)
        guide = Guide(self.target, options, rng)
        return Adaptation(
            theta=descend(
                self.target, private, descent, options, guide, learning_rate=options.learning_rate, theta=theta
            )
        )
