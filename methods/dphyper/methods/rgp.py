"""Reparametrised gradient perturbation: each weight matrix is reached through two thin gradient carriers.

For a matrix W of the parameters, with L (out × c) and R (c × in) orthonormal, a record contributes ∂L = ∂W Rᵀ and
∂R = Lᵀ ∂W. Over all matrices together these are clipped and noised as in DP-SGD. The step follows
(∂L) R + L (∂R) − L Lᵀ (∂L) R, the part of ∂W that the carriers can express, with noise in c (out + in) instead of
out · in dimensions. Yu, Zhang, Chen, Yin & Liu 2021, arXiv:2106.09352, algorithm 1. The published code drops ∂R and
reports better results; ``carriers: left`` does the same.

Departures: the paper takes the carriers from W's own history by power iteration. A fine-tuning that begins at B = 0 has
no history, so here they are the leading singular directions, on either side, of all public tasks' gradients of that
matrix. A record's row is clipped once over all matrices; there is no classifier to be treated apart.

Shapes: b records, m public tasks, c columns of a carrier, P parameters; o × i one matrix.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dphyper.bench.method import About
from dphyper.core.errors import UserError
from dphyper.methods.descent import Guide, GuidedDescent, GuidedOptions
from dphyper.methods.public_space import finite_rows


@dataclass(frozen=True, kw_only=True)
class RGPOptions(GuidedOptions):
    """Hyper-parameters of `RGP`.

    Attributes:
        carrier_rank: c, columns of each carrier, at least 1; no more than the thin side of a matrix has.
        carriers: ``both``, or ``left`` for (∂L) R alone.
        public_every: Steps between two choices of carriers; each is made at the parameters of its step.
        l2_clip_norm: C, bound on a record's gradients of all carriers together.
    """

    carrier_rank: int = 1
    carriers: str = "left"
    public_every: int = 5
    public_tasks: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.carriers not in ("both", "left"):
            raise UserError(f"options.carriers = '{self.carriers}': expected 'both' or 'left'")
        if self.carrier_rank < 1 or self.public_every < 1:
            raise UserError(
                f"options.carrier_rank = {self.carrier_rank}, options.public_every = {self.public_every}: expected "
                "at least 1"
            )


class Carriers(Guide):
    """(∂L) R + L (∂R) − L Lᵀ (∂L) R for each weight matrix; a target without matrices is one column."""

    def prepare(self, theta: Tensor, step: int) -> None:
        """Renew the carriers, if it is time."""
        if step % self.options.public_every:
            return
        public_mP = finite_rows(self.public_gradients(theta))
        self.left_oc, self.right_ci = [], []
        for public_moi in self._matrices(public_mP):
            c = min(self.options.carrier_rank, *public_moi.shape[1:])
            left = torch.linalg.svd(public_moi.transpose(0, 1).flatten(1), full_matrices=False).U
            right = torch.linalg.svd(public_moi.flatten(0, 1), full_matrices=False).Vh
            self.left_oc.append(left[:, :c].float())
            self.right_ci.append(right[:c].float())

    def _matrices(self, rows_bP: Tensor) -> Iterator[Tensor]:
        """The (b, o, i) part of each weight matrix in (b, P) rows."""
        shapes = self.target.layer_shapes
        parts = rows_bP.split([o * i for o, i in shapes], dim=1)
        return (part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True))

    def contribution(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, D) gradients of all carriers, one matrix after the other."""
        rows = []
        matrices = self._matrices(super().contribution(theta, x, rng))
        for gradient_boi, left_oc, right_ci in zip(matrices, self.left_oc, self.right_ci, strict=True):
            rows.append((gradient_boi @ right_ci.T).flatten(1))
            if self.options.carriers == "both":
                rows.append((left_oc.T @ gradient_boi).flatten(1))
        return torch.cat(rows, 1)

    def gradient(self, noisy_D: Tensor) -> Tensor:
        """(P,) rebuilt from the carriers' noisy gradients."""
        rebuilt, start = [], 0
        for left_oc, right_ci in zip(self.left_oc, self.right_ci, strict=True):
            d_left_oc = noisy_D[start : (start := start + left_oc.numel())].view_as(left_oc)
            gradient_oi = d_left_oc @ right_ci
            if self.options.carriers == "both":
                d_right_ci = noisy_D[start : (start := start + right_ci.numel())].view_as(right_ci)
                gradient_oi = gradient_oi + left_oc @ (d_right_ci - left_oc.T @ gradient_oi)
            rebuilt.append(gradient_oi.flatten())
        return torch.cat(rebuilt)


class RGP(GuidedDescent):
    """DP-SGD on low-rank carriers of each matrix's gradient, from public gradients."""

    label = "RGP"
    colour = "#117733"
    marker = "s"
    order = 130
    about = About(
        source="RGP, Yu et al. 2021 (ICML, arXiv:2106.09352), algorithm 1.",
        public_data="Every `public_every` steps the leading singular directions of public tasks' gradients of each "
        "matrix are its carriers.",
        private_release="The gradients of all carriers, clipped together.",
        passes="q T K gradients.",
        departures="Carriers come from public gradients, not from the history of the weights, which begin at 0. "
        "The default, the left carrier alone, is the published code's form.",
    )
    options_type = RGPOptions
    quick_options = {"steps": 2, "multiplicity": 1, "public_tasks": 4, "public_images": 2}
    guide_type = Carriers
