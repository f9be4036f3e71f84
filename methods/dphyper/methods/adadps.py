"""AdaDPS: gradients scaled coordinate by coordinate before they are clipped, by what public gradients look like.

Li et al. 2022 (arXiv:2202.05963), with public data as side information. Each record's gradient is divided by √v + ε₀,
where v is a running second moment of public gradients. Then it is clipped and the sum noised, and the step is the
scaled noisy mean itself. The noise is equal in all scaled coordinates, so it drowns none for having small gradients.

Each record is clipped by itself; the authors' code clips means of micro-batches, which one record moves by twice the
clip norm. v sees no private record: if it fits private gradients badly, that costs accuracy and no privacy.

Shapes: b records of a chunk, P parameters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dphyper.bench.method import About
from dphyper.core.errors import UserError
from dphyper.methods.descent import Guide, GuidedDescent, GuidedOptions


@dataclass(frozen=True, kw_only=True)
class AdaDPSOptions(GuidedOptions):
    """Hyper-parameters of `AdaDPS`; the learning rate is one for scaled gradients.

    Attributes:
        decay: Decay of the running second moment v, at least 0 and below 1.
        damping: ε₀, added to √v, above 0. Where it is far above √v the method is DP-SGD.
        l2_clip_norm: C, bound on a record's scaled gradient.
    """

    decay: float = 0.9
    damping: float = 1e-4
    l2_clip_norm: float = 60.0
    learning_rate: float = 0.026

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < 1 or not self.damping > 0:
            raise UserError(
                f"options.adadps: decay = {self.decay}, damping = {self.damping}: expected a decay of at least 0 and "
                "below 1, and a damping above 0"
            )


class Preconditioner(Guide):
    """The guide of AdaDPS: g / (√v + ε₀), with v as in RMSProp but over public gradients."""

    _v_P: Tensor | float = 0.0
    _scale_P: Tensor

    def prepare(self, theta: Tensor, step: int) -> None:
        """Update the second moment of the public tasks' gradients.

        It is corrected for its start at 0, as in Adam, so that the clip norm means the same from the first step on. The
        published codes do not correct it.
        """
        decay = self.options.decay
        self._v_P = decay * self._v_P + (1 - decay) * self.public_gradients(theta).square().mean(0)
        self._scale_P = (self._v_P / (1 - decay ** (step + 1))).sqrt() + self.options.damping

    def contribution(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, P) scaled gradients, to be clipped as they are."""
        return super().contribution(theta, x, rng) / self._scale_P


class AdaDPS(GuidedDescent):
    """DP-SGD on gradients that are scaled by public ones (AdaDPS)."""

    label = "AdaDPS"
    colour = "#88CCEE"
    marker = "X"
    order = 150
    about = About(
        source="Li et al. 2022 (ICML, arXiv:2202.05963).",
        public_data="At each step the second moment of the mean gradients of `public_tasks` public tasks, over "
        "`public_images` records each.",
        private_release="As `dp_sgd`, of gradients divided by √v + ε₀; C is in these units.",
        passes="q T K gradients.",
        departures="Each record is clipped by itself: the authors' code clips means of micro-batches, which one "
        "record moves by 2C, with noise for C. v is updated at every step and corrected for its start at 0, so that C "
        "means the same throughout. Public records are of other tasks, not cut from the training set.",
    )
    options_type = AdaDPSOptions
    quick_options = {"steps": 2, "multiplicity": 1, "public_tasks": 2, "public_images": 2}
    guide_type = Preconditioner
