"""The hypernetwork's answer as the start of DP-SGD, both within one budget.

The embedding is released with a share of the budget and decoded; the rest of the budget goes into noisy gradient steps
from there. The steps move θ in the span of the decoder around its answer, of few dimensions, or in all parameters.
Where the network knows nothing of the private family its answer is the prior, and what follows is DP-SGD from the
prior. Nothing here looks whether the first step succeeded.

Shapes: b records of a chunk, K embedding dimension, W width of the decoder, D directions of the descent, P parameters.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import jacfwd

from dphyper.bench.method import About, Adaptation, Selection
from dphyper.core.errors import UserError
from dphyper.methods.descent import DescentOptions, Guide, descend
from dphyper.methods.hypernetwork import Hypernetwork, HypernetworkOptions
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import OneShotMean, PoissonGradientSteps
from dphyper.privacy.private_data import PrivateData

SPACES = ("embedding", "hidden", "all")


@dataclass(frozen=True, kw_only=True)
class HypernetworkThenDPSGDOptions(HypernetworkOptions):
    """The network's options, and those of the two steps.

    Attributes:
        release_share: Share of the budget's 1/σ² that the release takes, above 0 and below 1.
        space: Where the descent moves: ``embedding``, the K directions in which the answer moves with the embedding;
            ``hidden``, the W directions in which it moves with the input of the last layer; ``all``, every parameter.
        steps: T, steps of the descent, over all records.
        l2_clip_norm: C, bound on a record's gradient in the space's orthonormal coordinates.
        multiplicity: Draws of time and noise over which a record's gradient is averaged.
        descent_rate: Learning rate of the descent, as in `dphyper.methods.descent.RateOptions`.
    """

    release_share: float = 0.5
    space: str = "embedding"
    steps: int = 15
    l2_clip_norm: float = 0.03
    multiplicity: int = 2
    descent_rate: float = 26.0

    def __post_init__(self) -> None:
        if not 0 < self.release_share < 1:
            raise UserError(
                f"options.release_share = {self.release_share}: expected above 0 and below 1; for 1 take hypernetwork"
            )
        if self.space not in SPACES:
            raise UserError(f"options.space = '{self.space}': expected one of {', '.join(SPACES)}")

    def descent(self) -> DescentOptions:
        """The descent's part."""
        return DescentOptions(steps=self.steps, l2_clip_norm=self.l2_clip_norm, multiplicity=self.multiplicity)


class _SpanGuide(Guide):
    """The guide of a descent in orthonormal directions around a start.

    Args:
        start_P: θ at coordinates 0.
        span_PD: Orthonormal columns.
    """

    def __init__(self, method: Hypernetwork, rng: torch.Generator, start_P: Tensor, span_PD: Tensor) -> None:
        super().__init__(method.target, method.options, rng)
        self.start_P, self.span_PD = start_P, span_PD

    def contribution(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        at_P = self.start_P + self.span_PD @ theta
        return self.target.per_example_gradients(at_P, x, rng, self.options.multiplicity) @ self.span_PD


class HypernetworkThenDPSGD(Hypernetwork):
    """One release of the mean embedding, decoded, then DP-SGD from there."""

    label = "Hypernetwork, then DP-SGD"
    colour = "#0F4C75"
    marker = "P"
    order = 2
    about = About(
        source="Ours: DP-DeepSets (arXiv:2606.26772) as a start of DP-SGD, as HyperDreamBooth (Ruiz et al. 2024, "
        "CVPR, arXiv:2307.06949) fine-tunes its hypernetwork's answer, without privacy.",
        public_data="As `hypernetwork`, whose network it is.",
        private_release="The embeddings' sum as by `hypernetwork`, with a share of the budget; then gradients as by "
        "`dp_sgd`, in the directions that the decoder spans around its answer.",
        passes="1 forward pass and T K gradients.",
    )
    uses = frozenset({"task", "n", "epsilon", "embedding_dim", "seed"})
    selection: ClassVar[Selection] = "fixed"
    options_type = HypernetworkThenDPSGDOptions
    phase_options = HypernetworkOptions
    quick_options = {**Hypernetwork.quick_options, "steps": 2, "multiplicity": 1}
    _options: HypernetworkThenDPSGDOptions

    @classmethod
    def mechanisms(  # type: ignore[override]
        cls, budget: Budget, options: HypernetworkThenDPSGDOptions
    ) -> tuple[OneShotMean | PoissonGradientSteps, ...]:
        """The release and the gradient steps, which together spend the budget."""
        (alone,) = Hypernetwork.mechanisms(budget, options)
        assert alone.noise_multiplier is not None
        multiplier = alone.noise_multiplier / math.sqrt(options.release_share)
        release = dataclasses.replace(alone, noise_multiplier=multiplier)
        return calibrate(budget, release, options.descent().unscaled())

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Release, decode, and descend."""
        release, steps = self.mechanisms(budget, self._options)
        assert isinstance(release, OneShotMean)
        assert isinstance(steps, PoissonGradientSteps)
        code, diagnostics = self.release_code(private, release)
        with torch.no_grad():
            start_P = self.decode(*code)[0]
        options = self._options
        if options.space == "all":
            guide, begin = Guide(self.target, options, rng), start_P
        else:
            guide = _SpanGuide(self, rng, start_P, self.span(*code))
            begin = start_P.new_zeros(guide.span_PD.shape[1])
        found = descend(
            self.target, private, steps, options.descent(), guide, learning_rate=options.descent_rate, theta=begin
        )
        theta = start_P + guide.span_PD @ found if isinstance(guide, _SpanGuide) else found
        return Adaptation(theta=theta, diagnostics=diagnostics)

    @torch.no_grad()
    def span(self, z_1k: Tensor, noise_std_1: Tensor, n_1: Tensor) -> Tensor:
        """(P, D) orthonormal directions in which the decoder's answer moves, by `space`; arguments as for `decode`."""
        if self._options.space == "embedding":
            moved = jacfwd(lambda inputs: self.head(self.trunk(inputs)))(self.trunk_inputs(z_1k, noise_std_1, n_1)[0])
            moved_PD = moved[:, : self.public_dim]  # the last input is how much the release resolves
        else:
            moved_PD = jacfwd(self.head)(self.hidden(z_1k, noise_std_1, n_1)[0])
        span_PD: Tensor = torch.linalg.qr(moved_PD).Q
        return span_PD
