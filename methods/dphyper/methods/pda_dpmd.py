"""PDA-DPMD: the private gradient leads at first, the public one at the end.

Amid et al. 2022 (arXiv:2112.00193), in its practical form. The step follows α_t ĝ + (1 − α_t) h, with the noisy private
gradient ĝ, the public gradient h and α_t = cos(π t / 2T). Sampling, clipping and noise are those of `dp_sgd`; the blend
is post-processing. It does not learn whether the public gradient helps: where public and private families disagree, the
last steps lead away from the private records.

Shapes: P parameters.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from dphyper.bench.method import About
from dphyper.methods.descent import Guide, GuidedDescent, GuidedOptions


@dataclass(frozen=True, kw_only=True)
class PDADPMDOptions(GuidedOptions):
    """Hyper-parameters of `PDADPMD`.

    Attributes:
        rescale: Whether h is given the norm of ĝ, so that α_t is a share of the step at every ε. As it is, the norm of
            ĝ is nearly all noise and many times that of h, and h counts for little before the last steps. The norm of
            ĝ is public, because ĝ was released.
    """

    rescale: bool = True


class Blend(Guide):
    """The guide of PDA-DPMD: α_t ĝ + (1 − α_t) h."""

    _h_P: Tensor
    _alpha: float

    def prepare(self, theta: Tensor, step: int) -> None:
        """Take the public gradient h and the weight α_t of the private one."""
        self._h_P = self.public_gradients(theta).mean(0)
        self._alpha = math.cos(math.pi * step / (2 * self.options.steps))

    def gradient(self, noisy_D: Tensor) -> Tensor:
        """(P,) the blend of both gradients."""
        h_P = self._h_P
        if self.options.rescale:
            h_P = h_P * (noisy_D.norm() / h_P.norm().clamp(min=1e-12))
        return self._alpha * noisy_D + (1 - self._alpha) * h_P


class PDADPMD(GuidedDescent):
    """DP-SGD whose gradient gives way to a public one (PDA-DPMD)."""

    label = "PDA-DPMD"
    colour = "#332288"
    marker = "P"
    order = 140
    about = About(
        source="Amid et al. 2022 (ICML, arXiv:2112.00193), the practical form.",
        public_data="At each step the mean gradient h of `public_tasks` public tasks, over `public_images` records "
        "each.",
        private_release="As `dp_sgd`; what is blended in afterwards is public.",
        passes="q T K gradients.",
        departures="Public records are of other tasks; the codes read (litian96/AdaDPS, kenziyuliu/DP2) cut them from "
        "the training set. Momentum and averaging as in `dp_sgd`.",
    )
    options_type = PDADPMDOptions
    quick_options = {"steps": 2, "multiplicity": 1, "public_tasks": 2, "public_images": 2}
    guide_type = Blend
