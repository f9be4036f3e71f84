"""DP-SGD and its public-guided relatives on half the squared error, for many data sets and settings at once.

Every step uses all records. Every kind clips vectors, adds noise of standard deviation σC to their sum and divides
by n. A per-example gradient is −r x with r the residual, so it is clipped by its norm |r| ‖x‖ without being formed.
The arithmetic is held against `PrivateData` by the tests; the noise is seeded, as in
`dphyper.studies.theory.releases`.

Shapes: B data sets, n records of each, p features in use (d, or k inside the subspace), k dimension of the subspace,
R columns of settings side by side, M pooled public records.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dphyper.privacy.budget import Budget
from dphyper.studies.theory.knowledge import PublicKnowledge
from dphyper.studies.theory.releases import calibrate_steps

RESIDUAL_CLIP = 0.4  # of the clip norm inside the subspace: Yu et al. 2021 clip at 5 and 2


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Hyper-parameters side by side, all of one number of steps.

    Attributes:
        steps: T.
        rates_R: Learning rates.
        clips_R: Clip norms C.
        noise_R: 1, or 0 for a column that runs without noise as a control.
    """

    steps: int
    rates_R: Tensor
    clips_R: Tensor
    noise_R: Tensor


class PlainGradients:
    """Noisy gradients of DP-SGD (Abadi et al. 2016, arXiv:1607.00133, algorithm 1, at q = 1).

    On features inside the subspace it is B-GEP too. Subclasses are the public-guided kinds.

    Class attributes:
        releases: Sums that a step releases, which share the budget.

    Args:
        x_Bnp: Features.
        y_Bn: Labels.
        columns: Settings.
        budget: Of the whole descent.
        rng: Noise.
        public: Guides the other kinds.
    """

    releases = 1

    def __init__(
        self,
        x_Bnp: Tensor,
        y_Bn: Tensor,
        columns: Columns,
        budget: Budget,
        rng: torch.Generator,
        public: PublicKnowledge,
    ) -> None:
        self.x_Bnp, self.y_Bn1, self.columns, self.rng, self.public = x_Bnp, y_Bn[..., None], columns, rng, public
        self.norm_Bn1 = x_Bnp.norm(dim=2, keepdim=True)
        mechanisms = calibrate_steps(budget, columns.steps, self.releases)
        self.multipliers = [mechanism.noise_multiplier or 0.0 for mechanism in mechanisms]

    def __call__(self, theta_BpR: Tensor, step: int) -> Tensor:
        """(B, p, R) noisy mean gradients at θ; fresh noise at every call."""
        residual_BnR = self._clip(self._residuals(theta_BpR), self.norm_Bn1, self.columns.clips_R)
        p = self.x_Bnp.shape[2]
        return (-self.x_Bnp.mT @ residual_BnR + self._noise(p, self.multipliers[0])) / self.x_Bnp.shape[1]

    def _residuals(self, theta_BpR: Tensor) -> Tensor:
        return self.y_Bn1 - self.x_Bnp @ theta_BpR

    def _noise(self, dimension: int, multiplier: float) -> Tensor:
        draw_BpR = torch.randn(len(self.x_Bnp), dimension, len(self.columns.clips_R), generator=self.rng)
        return draw_BpR * (multiplier * self.columns.clips_R * self.columns.noise_R)

    @staticmethod
    def _clip(residual_BnR: Tensor, norm_Bn1: Tensor, bound_R: Tensor) -> Tensor:
        """Residuals shrunk so that |r| ‖x‖ is at most the bound."""
        limit_BnR = bound_R / norm_Bn1.clamp(min=1e-12)
        return torch.minimum(torch.maximum(residual_BnR, -limit_BnR), limit_BnR)

    def _public_gradient(self, theta_BpR: Tensor) -> Tensor:
        """h, the mean gradient of the pooled public records at each θ."""
        residual_BMR = self.public.y_M[:, None] - self.public.x_Md @ theta_BpR
        return -self.public.x_Md.T @ residual_BMR / len(self.public.y_M)


class ProjectedGradients(PlainGradients):
    """PDP-SGD (Zhou, Wu & Banerjee 2021, arXiv:2007.03813): the noisy gradient is projected on Û.

    The gradient is clipped before the projection, so its norm bound still grows with √d.
    """

    def __call__(self, theta_BpR: Tensor, step: int) -> Tensor:
        """Projected gradients, as in `PlainGradients`."""
        basis_dk = self.public.basis_dk
        return basis_dk @ (basis_dk.T @ super().__call__(theta_BpR, step))


class ResidualGradients(PlainGradients):
    """GEP (Yu et al. 2021, arXiv:2102.12677): the gradient's coordinates in Û and the rest of it, clipped apart.

    The two are released together and share the budget.
    """

    releases = 2

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """(B, n, k) coordinates of the features in Û, and (B, n, 1) norms of what lies inside and outside of it."""
        coordinates_Bnk = self.x_Bnp @ self.public.basis_dk
        inside_Bn1 = coordinates_Bnk.norm(dim=2, keepdim=True)
        return coordinates_Bnk, inside_Bn1, (self.norm_Bn1.square() - inside_Bn1.square()).clamp(min=0).sqrt()

    def __call__(self, theta_BpR: Tensor, step: int) -> Tensor:
        """Both parts put together, as in `PlainGradients`."""
        basis_dk, clips_R = self.public.basis_dk, self.columns.clips_R
        d, k = basis_dk.shape
        coordinates_Bnk, inside_Bn1, outside_Bn1 = self._parts
        residual_BnR = self._residuals(theta_BpR)
        inner_BkR = -coordinates_Bnk.mT @ self._clip(residual_BnR, inside_Bn1, clips_R)
        inner_BkR = inner_BkR + self._noise(k, self.multipliers[0])
        outer_BpR = -self.x_Bnp.mT @ self._clip(residual_BnR, outside_Bn1, RESIDUAL_CLIP * clips_R)
        outer_BpR = outer_BpR - basis_dk @ (basis_dk.T @ outer_BpR)
        outer_BpR = outer_BpR + RESIDUAL_CLIP * self._noise(d, self.multipliers[1])
        return (basis_dk @ inner_BkR + outer_BpR) / self.x_Bnp.shape[1]


class MirroredGradients(PlainGradients):
    """PDA-DPMD (Amid et al. 2022, arXiv:2112.00193) in its practical form.

    With ĝ the noisy and h the public gradient it steps along α_t ĝ + (1 − α_t) h, where α_t = cos(π t / 2T).
    """

    def __call__(self, theta_BpR: Tensor, step: int) -> Tensor:
        """Mixed gradients, as in `PlainGradients`."""
        alpha = math.cos(math.pi * step / (2 * self.columns.steps))
        return alpha * super().__call__(theta_BpR, step) + (1 - alpha) * self._public_gradient(theta_BpR)


class CentredGradients(PlainGradients):
    """DOPE-SGD (Nasr et al. 2023): g_i − h is clipped; h, which depends on no private record, is added back once."""

    def __call__(self, theta_BpR: Tensor, step: int) -> Tensor:
        """Gradients with the public one as their centre, as in `PlainGradients`."""
        residual_BnR, h_BpR = self._residuals(theta_BpR), self._public_gradient(theta_BpR)
        # ‖g − h‖² = r²‖x‖² + 2 r ⟨x, h⟩ + ‖h‖²
        square_BnR = residual_BnR.square() * self.norm_Bn1.square() + 2 * residual_BnR * (self.x_Bnp @ h_BpR)
        square_BnR = (square_BnR + h_BpR.square().sum(1, keepdim=True)).clamp(min=1e-12)
        factor_BnR = (self.columns.clips_R / square_BnR.sqrt()).clamp(max=1)
        total_BpR = -self.x_Bnp.mT @ (factor_BnR * residual_BnR) - h_BpR * factor_BnR.sum(1, keepdim=True)
        n, p = self.x_Bnp.shape[1:]
        gradient_BpR: Tensor = h_BpR + (total_BpR + self._noise(p, self.multipliers[0])) / n
        return gradient_BpR


def descend(gradients: PlainGradients) -> Tensor:
    """(B, p, R) parameters after all steps from 0."""
    columns = gradients.columns
    theta_BpR = torch.zeros(len(gradients.x_Bnp), gradients.x_Bnp.shape[2], len(columns.clips_R))
    for step in range(columns.steps):
        theta_BpR = theta_BpR - columns.rates_R * gradients(theta_BpR, step)
    return theta_BpR
