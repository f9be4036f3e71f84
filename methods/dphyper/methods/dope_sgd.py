"""DOPE-SGD: private gradients are clipped around a public one instead of around zero.

Nasr et al. 2023 (ICML, PMLR v202), section 3.1, algorithm 1: ĝ = h + [Σ clip_C(g_i − h) + noise] / (q n). Here h is the
gradient of one public batch, the same for all records of a step and fixed before any of them is drawn. A record adds
one vector of norm at most C whatever h is, so the sensitivity is that of `dp_sgd`. Where private gradients gather
around h, a smaller C is enough.

h is added back once, with a coefficient that no record can change. What was subtracted is |batch| / (q n) times h. That
is h only in expectation over the Poisson sample, and only if n is the true number of records. So ĝ has
(1 − |batch| / (q n)) h too much. To add back |batch| / (q n) times h would cancel this term and reveal the size of the
batch, which add-or-remove-one protects. At q = 1 and the true n the term is 0.

Shapes: b records of a chunk, P parameters.
"""

import torch
from torch import Tensor

from dphyper.bench.method import About
from dphyper.methods.descent import Guide, GuidedDescent


class Origin(Guide):
    """The guide of DOPE-SGD: h plus the noisy mean of clip(g_i − h)."""

    _h_P: Tensor

    def prepare(self, theta: Tensor, step: int) -> None:
        """Take the public gradient h that this step clips around."""
        self._h_P = self.public_gradients(theta).mean(0)

    def contribution(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, P) differences from the public gradient."""
        return super().contribution(theta, x, rng) - self._h_P

    def gradient(self, noisy_D: Tensor) -> Tensor:
        """(P,) the noisy mean difference, with the public gradient added back once."""
        return self._h_P + noisy_D


class DOPESGD(GuidedDescent):
    """DP-SGD that clips around a public gradient (DOPE-SGD)."""

    label = "DOPE-SGD"
    colour = "#CC6677"
    marker = "^"
    order = 160
    about = About(
        source="Nasr et al. 2023 (ICML, PMLR v202), section 3.1, algorithm 1.",
        public_data="At each step the mean gradient h of `public_tasks` public tasks, over `public_images` records "
        "each.",
        private_release="As `dp_sgd`, of gradients less h.",
        passes="q T K gradients.",
        departures="h is added back once. To add it back for each record drawn would reveal their number. So the step "
        "is off by (1 − batch / q n) h, which is 0 in expectation. The paper's synthetic public data and its votes of "
        "several models are left out.",
    )
    quick_options = {"steps": 2, "multiplicity": 1, "public_tasks": 2, "public_images": 2}
    guide_type = Origin
