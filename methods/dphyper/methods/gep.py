"""Gradient embedding perturbation: coordinates in the public space and the residual are clipped and noised apart.

A record's gradient g gives e = V g, clipped at C0, and r = g − Vᵀ V g, clipped at C1; the step follows Vᵀ ẽ + r̃. The
few coordinates get little noise; the residual keeps the estimate from bias, at the price of noise in P dimensions: it
is small only where a small C1 will do. B-GEP leaves it out. Yu, Zhang, Chen & Liu 2021, arXiv:2102.12677, algorithm 1.

**Accounting.** Both parts are one release: a row [e/C0, r/C1] of norm at most √2, hence noise of multiplier σ√2 on
either part. The published code charges two releases by doubling the RDP of one, which is the same number; its batches
of fixed size from a shuffle under a Poisson accountant, which it is not entitled to, are Poisson samples here.

Departures: V are the exact top directions of public tasks' mean gradients instead of one power iteration on single
examples', and there is one group of parameters, not three: with k in the tens both are cheap.

Shapes: b records, k directions, P parameters.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dphyper.bench.method import About
from dphyper.core.errors import UserError
from dphyper.methods.descent import GuidedDescent
from dphyper.methods.public_space import PublicSpaceGuide, PublicSpaceOptions
from dphyper.privacy.noisy_sum import clip_rows


@dataclass(frozen=True, kw_only=True)
class BiasedGEPOptions(PublicSpaceOptions):
    """Hyper-parameters of `BiasedGEP`; what is released is in units of C0, so that `l2_clip_norm` is 1.

    Attributes:
        embedding_clip_norm: C0, bound on a record's coordinates in the public space.
    """

    basis_size: int = 64
    learning_rate: float = 104.0
    embedding_clip_norm: float = 0.03
    l2_clip_norm: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.embedding_clip_norm < math.inf:
            raise UserError(f"options.embedding_clip_norm = {self.embedding_clip_norm}: expected a number above 0")
        if self.l2_clip_norm != type(self).l2_clip_norm:
            raise UserError(
                f"options.l2_clip_norm = {self.l2_clip_norm}: the parts, in units of their clip norms, have norm "
                f"{type(self).l2_clip_norm:.3g} together, leave it and set embedding_clip_norm"
            )


@dataclass(frozen=True, kw_only=True)
class GEPOptions(BiasedGEPOptions):
    """As `BiasedGEPOptions`, with the residual: [e/C0, r/C1] has norm √2.

    Attributes:
        residual_clip_norm: C1, bound on what is left of a record's gradient.
    """

    basis_size: int = 16
    learning_rate: float = 26.0
    residual_clip_norm: float = 0.003
    l2_clip_norm: float = math.sqrt(2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.residual_clip_norm < math.inf:
            raise UserError(f"options.residual_clip_norm = {self.residual_clip_norm}: expected a number above 0")


class Embedding(PublicSpaceGuide):
    """Vᵀ ẽ: the gradient seen in the public space alone."""

    def contribution(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, k) coordinates in units of C0."""
        return self.embedded(super().contribution(theta, x, rng))

    def embedded(self, gradient_bP: Tensor) -> Tensor:
        """(b, k) coordinates of the gradients, of norm at most 1."""
        clip: float = self.options.embedding_clip_norm
        return clip_rows(gradient_bP @ self.basis_kP.T, clip) / clip

    def gradient(self, noisy_D: Tensor) -> Tensor:
        """(P,) from (k,) coordinates."""
        clip: float = self.options.embedding_clip_norm
        return clip * (noisy_D @ self.basis_kP)


class EmbeddingAndResidual(Embedding):
    """Vᵀ ẽ + r̃."""

    def contribution(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, k + P) coordinates in units of C0, residual in units of C1."""
        gradient_bP = PublicSpaceGuide.contribution(self, theta, x, rng)
        # What the coordinates say before they are clipped: the residual does not make up for their clipping.
        residual_bP = gradient_bP - (gradient_bP @ self.basis_kP.T) @ self.basis_kP
        clip = self.options.residual_clip_norm
        return torch.cat([self.embedded(gradient_bP), clip_rows(residual_bP, clip) / clip], 1)

    def gradient(self, noisy_D: Tensor) -> Tensor:
        """(P,) from (k + P,)."""
        k, clip = len(self.basis_kP), float(self.options.residual_clip_norm)
        return super().gradient(noisy_D[:k]) + clip * noisy_D[k:]


class BiasedGEP(GuidedDescent):
    """Gradients released by their coordinates in the space of public gradients alone."""

    label = "B-GEP"
    colour = "#CC6677"
    marker = "D"
    order = 120
    about = About(
        source="B-GEP, Yu et al. 2021 (ICLR, arXiv:2102.12677).",
        public_data="As `pdp_sgd`.",
        private_release="Coordinates in the public space, clipped at C0 = `embedding_clip_norm`.",
        passes="q T K gradients.",
        departures="As `gep`.",
    )
    options_type = BiasedGEPOptions
    quick_options = {"steps": 2, "multiplicity": 1, "public_tasks": 4, "public_images": 2, "basis_size": 3}
    guide_type = Embedding


class GEP(GuidedDescent):
    """Gradients released as coordinates in the space of public gradients and a residual."""

    label = "GEP"
    colour = "#AA4499"
    marker = "v"
    order = 110
    about = About(
        source="GEP, Yu et al. 2021 (ICLR, arXiv:2102.12677), algorithm 1.",
        public_data="As `pdp_sgd`.",
        private_release="Coordinates in the public space, clipped at C0 = `embedding_clip_norm`, and the residual, "
        "clipped at `residual_clip_norm`: one release of joint norm √2.",
        passes="q T K gradients.",
        departures="Exact directions of public tasks' mean gradients, not one power iteration on single records, and "
        "one group of parameters. Repaired: Poisson samples, where the published code shuffles and accounts for "
        "Poisson.",
    )
    options_type = GEPOptions
    quick_options = {"steps": 2, "multiplicity": 1, "public_tasks": 4, "public_images": 2, "basis_size": 3}
    guide_type = EmbeddingAndResidual
