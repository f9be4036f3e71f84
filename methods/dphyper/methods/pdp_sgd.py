"""PDP-SGD: DP-SGD whose noisy gradient is projected on the space of the largest public gradients.

Clipping, noise and accounting are those of DP-SGD; the projection is post-processing. It removes the noise outside
the space, and whatever of the private gradient lies there: without bias only where public tasks span the private one.
Zhou, Wu & Banerjee 2021, arXiv:2007.03813, algorithm 1: ĝ ← V Vᵀ ĝ, with V the top k eigenvectors of Σ_j h_j h_jᵀ / m.
Here each h_j is the mean gradient of a public task (see `Guide.public_gradients`), not that of one public example.
"""

from torch import Tensor

from dphyper.methods.descent import GuidedDescent
from dphyper.methods.subspace import SubspaceGuide, SubspaceOptions


class Projection(SubspaceGuide):
    """V Vᵀ ĝ."""

    def gradient(self, noisy_D: Tensor) -> Tensor:
        """(P,) projection of the noisy (P,) gradient."""
        return (self.basis_kP @ noisy_D) @ self.basis_kP


class PDPSGD(GuidedDescent):
    """DP-SGD with the noisy gradient projected on the space of public gradients."""

    options_type = SubspaceOptions
    guide_type = Projection
