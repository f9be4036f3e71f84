"""The space of the largest public gradients, which PDP-SGD, GEP and PAZO share.

A `PublicSpaceGuide` holds an orthonormal basis of the k directions in which public gradients are largest. It comes from
the m × m Gram matrix in float64, so that no P × P matrix is ever formed. Nothing private enters but θ, which is made of
released sums. Only the space is determined: signs are arbitrary, and so are directions within equal singular values.

Shapes: m public gradients, k directions, P parameters of the target.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dphyper.core.errors import UserError
from dphyper.methods.descent import Guide, GuidedOptions


@dataclass(frozen=True, kw_only=True)
class PublicSpaceOptions(GuidedOptions):
    """`GuidedOptions`, and how the space of public gradients is taken.

    Attributes:
        basis_size: k, directions of the space; at least 1 and at most m.
        public_every: Steps between two bases; each is computed at the parameters of its step.
    """

    basis_size: int = 16
    public_every: int = 5
    public_tasks: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.basis_size <= self.public_tasks:
            raise UserError(
                f"options.basis_size = {self.basis_size}: expected at least 1 and at most "
                f"options.public_tasks = {self.public_tasks}"
            )
        if self.public_every < 1:
            raise UserError(f"options.public_every = {self.public_every}: expected at least 1 step")


def finite_rows(rows_mP: Tensor) -> Tensor:
    """(m, P) float64 rows, zero where one is not finite: a run whose parameters diverge ends like any other.

    >>> finite_rows(torch.tensor([[1.0, 2.0], [float("nan"), 3.0]])).tolist()
    [[1.0, 2.0], [0.0, 0.0]]
    """
    return torch.where(rows_mP.isfinite().all(1, keepdim=True), rows_mP, 0.0).double()


def principal_directions(rows_mP: Tensor, k: int) -> Tensor:
    """The k right-singular directions of largest singular values.

    Args:
        rows_mP: (m, P) vectors.
        k: At least 1.

    Returns:
        (k, P) float32 orthonormal rows. Where the vectors span fewer than k dimensions the last rows are zero, so that
        the shape depends on k alone. A singular value below 1e-5 of the largest counts as zero.

    >>> principal_directions(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), 3).abs().tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    rows_mP = finite_rows(rows_mP)
    values, vectors = torch.linalg.eigh(rows_mP @ rows_mP.T)  # in rising order
    values_k, vectors_mk = values[-k:].flip(0), vectors[:, -k:].flip(1)
    scale_k = torch.where(values_k > 1e-10 * values_k[0], values_k.clamp(min=0).rsqrt(), 0.0)
    found_kP = scale_k[:, None] * (vectors_mk.T @ rows_mP)
    return torch.nn.functional.pad(found_kP, (0, 0, 0, k - len(found_kP))).float()


class PublicSpaceGuide(Guide):
    """A guide with a (k, P) basis of the space of public gradients, renewed every `public_every` steps."""

    basis_kP: Tensor

    def prepare(self, theta: Tensor, step: int) -> None:
        """Renew the basis, if it is time."""
        if step % self.options.public_every == 0:
            self.basis_kP = principal_directions(self.public_gradients(theta), self.options.basis_size)
