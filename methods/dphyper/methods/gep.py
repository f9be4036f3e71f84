"""Gradient embedding perturbation: coordinates in the public space and the residual are clipped and noised apart.

A record's gradient g gives its coordinates e = V g, clipped at C0, and its residual r = g − Vᵀ V g, clipped at C1. The
step follows Vᵀ ẽ + r̃. The few coordinates get little noise. The residual removes the bias of the projection at the
price of noise in P dimensions, which is small only where a small C1 is enough. B-GEP leaves the residual out. Yu,
Zhang, Chen & Liu 2021, arXiv:2102.12677, algorithm 1.

**Accounting.** Both parts are one release: a row [e/C0, r/C1] of norm at most √2, and so noise of multiplier σ√2 on
either part. The published code charges two releases by doubling the RDP of one, which is the same number. It draws
batches of fixed size from a shuffle under an accountant for Poisson samples, which is not sound; here they are Poisson
samples.

Departures: V holds the exact top directions of public tasks' mean gradients, where the paper takes one power iteration
on single examples' gradients. There is one group of parameters, not three. With k in the tens both are cheap.

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
    """Hyper-parameters of `BiasedGEP`; the release is in units of C0, so that `l2_clip_norm` is 1.

    Attributes:
        embedding_clip_norm: C0, bound on a record's coordinates in the public space.
        l2_clip_norm: Norm of a record's row in units of C0 and C1; fixed, set the other clip norms instead.
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
    """`BiasedGEPOptions` and the residual; `l2_clip_norm` is √2, the norm of [e/C0, r/C1].

    Attributes:
        residual_clip_norm: C1, bound on the part of a record's gradient outside the public space.
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
    """The guide of B-GEP, Vᵀ ẽ: the gradient in the public space alone."""

    def contribution(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, k) coordinates in units of C0."""
        return self.embed(super().contribution(theta, x, rng))

    def embed(self, gradient_bP: Tensor) -> Tensor:
        """(b, k) coordinates of (b, P) gradients, in units of C0 and of norm at most 1."""
        clip: float = self.options.embedding_clip_norm
        return clip_rows(gradient_bP @ self.basis_kP.T, clip) / clip

    def gradient(self, noisy_D: Tensor) -> Tensor:
        """(P,) from (k,) coordinates."""
        clip: float = self.options.embedding_clip_norm
        return clip * (noisy_D @ self.basis_kP)


class EmbeddingAndResidual(Embedding):
    """The guide of GEP, Vᵀ ẽ + r̃: coordinates and residual."""

    def contribution(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, k + P) coordinates in units of C0, then the residual in units of C1."""
        gradient_bP = PublicSpaceGuide.contribution(self, theta, x, rng)
        # Less the coordinates before they are clipped: the residual does not make up for their clipping.
        residual_bP = gradient_bP - (gradient_bP @ self.basis_kP.T) @ self.basis_kP
        clip = self.options.residual_clip_norm
        return torch.cat([self.embed(gradient_bP), clip_rows(residual_bP, clip) / clip], 1)

    def gradient(self, noisy_D: Tensor) -> Tensor:
        """(P,) from (k + P,)."""
        k, clip = len(self.basis_kP), float(self.options.residual_clip_norm)
        return super().gradient(noisy_D[:k]) + clip * noisy_D[k:]


class BiasedGEP(GuidedDescent):
    """DP-SGD on the coordinates of gradients in the space of public gradients, without the residual."""

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
    """DP-SGD on gradients split into coordinates in the space of public gradients and a residual."""

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
        "one group of parameters. Repaired: samples are Poisson, as the accountant assumes; the published code "
        "shuffles.",
    )
    options_type = GEPOptions
    quick_options = {"steps": 2, "multiplicity": 1, "public_tasks": 4, "public_images": 2, "basis_size": 3}
    guide_type = EmbeddingAndResidual
