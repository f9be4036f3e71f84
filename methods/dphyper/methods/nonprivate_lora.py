"""The ceiling: the same LoRA, fitted to the private records without any privacy.

It bounds what a perfect method could reach with this base model, rank and number of records. It is the descent of
`dp_sgd` without clipping and noise. Its rows are marked non-private and are never bold.
"""

import math
from dataclasses import dataclass

from dphyper.bench.method import About
from dphyper.methods.descent import RateOptions
from dphyper.methods.dp_sgd import DPSGD
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import PoissonGradientSteps


@dataclass(frozen=True, kw_only=True)
class NonprivateOptions(RateOptions):
    """`RateOptions`, with defaults for training without noise."""

    steps: int = 400
    sampling_prob: float = 0.25
    l2_clip_norm: float = math.inf
    multiplicity: int = 1
    learning_rate: float = 0.01
    optimizer: str = "adam"
    average_last: float = 0.2


class NonprivateLoRA(DPSGD):
    """LoRA by Adam on the plain gradients."""

    label = "Non-private LoRA"
    colour = "#CC79A7"
    marker = "D"
    order = 60
    role = "ceiling"
    about = About(
        source="LoRA (Hu et al. 2022, ICLR, arXiv:2106.09685).",
        public_data="None.",
        private_release="Gradients, neither clipped nor noised: no privacy.",
        passes="q T K gradients.",
        departures="Only B is trained, as by the private methods that it bounds.",
    )
    uses = frozenset({"task", "n", "seed"})
    private = False
    selection = "non_private"
    options_type = NonprivateOptions
    quick_options = {"steps": 2, "sampling_prob": 1.0}

    @classmethod
    def mechanisms(cls, budget: Budget, options: RateOptions) -> tuple[PoissonGradientSteps, ...]:
        """Gradient steps without clipping and noise."""
        return (options.unscaled().with_noise(0.0),)
