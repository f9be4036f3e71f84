"""PDP-SGD: DP-SGD whose noisy gradient is projected on the space of the largest public gradients.

Zhou, Wu & Banerjee 2021, arXiv:2007.03813, algorithm 1: ĝ ← V Vᵀ ĝ, with V the top k eigenvectors of Σ_j h_j h_jᵀ / m.
Clipping, noise and accounting are those of DP-SGD; the projection is post-processing. It removes the noise outside the
space, and with it the private gradient outside the space: there is no bias only where public tasks span the private
one. Each h_j is the mean gradient of a public task, not of one public example (see `Guide.public_gradients`).

Shapes: k directions, P parameters.
"""

from dataclasses import dataclass

from torch import Tensor

from dphyper.bench.method import About
from dphyper.methods.descent import GuidedDescent
from dphyper.methods.public_space import PublicSpaceGuide, PublicSpaceOptions


@dataclass(frozen=True, kw_only=True)
class PDPSGDOptions(PublicSpaceOptions):
    """Hyper-parameters of `PDPSGD`."""

    basis_size: int = 64


class Projection(PublicSpaceGuide):
    """The guide of PDP-SGD: V Vᵀ ĝ."""

    def gradient(self, noisy_D: Tensor) -> Tensor:
        """(P,) projection of the noisy (P,) gradient."""
        return (self.basis_kP @ noisy_D) @ self.basis_kP


class PDPSGD(GuidedDescent):
    """DP-SGD with the noisy gradient projected on the space of public gradients."""

    label = "PDP-SGD"
    colour = "#44AA99"
    marker = "^"
    order = 100
    about = About(
        source="PDP-SGD, Zhou, Wu & Banerjee 2021 (ICLR, arXiv:2007.03813), algorithm 1.",
        public_data="Every `public_every` steps the top k directions of the mean gradients of `public_tasks` public "
        "tasks.",
        private_release="As `dp_sgd`; the noisy mean is projected afterwards.",
        passes="q T K gradients.",
        departures="Directions of public tasks' mean gradients, from their Gram matrix; a published baseline "
        "(kenziyuliu/DP2) decomposes a P × P matrix and cuts its public records from the training set.",
    )
    options_type = PDPSGDOptions
    quick_options = {"steps": 2, "multiplicity": 1, "public_tasks": 4, "public_images": 2, "basis_size": 3}
    guide_type = Projection
