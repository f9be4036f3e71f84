"""PAZO: private zeroth-order descent whose probes lie in the space of public gradients.

In each step q orthonormal probes u are drawn in the space. A record contributes its q symmetric loss differences
(ℓ(θ + λu) − ℓ(θ − λu)) / 2λ, clipped as one vector and noised in q dimensions. The step follows Σ u · difference.
Private records take forward passes only. Both losses of a record, along all probes, are taken at the same times and
noises of its own; otherwise the differences would be differences of noise. Gong & Li 2025, arXiv:2511.10859, the
variant PAZO-P. No code is published, so this follows summaries of the paper.

Departures: the paper draws probes independently from the sphere of the space and adds noise to each. Orthonormal probes
measure nothing twice, and with q = k they give the projected gradient itself. No factor k/q is put on the step, since
the learning rate holds it. The space is that of the k largest directions of public tasks' gradients; with
``basis_size = public_tasks`` it is all that they span, as in the paper.

Shapes: b records, q probes, k directions, P parameters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dphyper.bench.method import About
from dphyper.core.errors import UserError
from dphyper.methods.descent import GuidedDescent
from dphyper.methods.public_space import PublicSpaceGuide, PublicSpaceOptions


@dataclass(frozen=True, kw_only=True)
class PAZOOptions(PublicSpaceOptions):
    """Hyper-parameters of `PAZO`.

    Attributes:
        probes: q, directions probed in a step; at least 1 and at most k. A record costs 2 q K forward passes.
        smoothing: λ, distance of the two losses from the present parameters along a probe, above 0.
        l2_clip_norm: C, bound on the norm of a record's q differences together.
    """

    learning_rate: float = 104.0
    probes: int = 4
    smoothing: float = 0.1
    l2_clip_norm: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.probes <= self.basis_size:
            raise UserError(
                f"options.probes = {self.probes}: expected at least 1 and at most options.basis_size = "
                f"{self.basis_size}"
            )
        if not self.smoothing > 0:
            raise UserError(f"options.smoothing = {self.smoothing}: expected a number above 0")


class Probes(PublicSpaceGuide):
    """The guide of PAZO: losses on both sides of θ along q public directions."""

    def prepare(self, theta: Tensor, step: int) -> None:
        """Draw the probes of this step."""
        super().prepare(theta, step)
        mixed_kq = torch.randn(len(self.basis_kP), self.options.probes, generator=self.rng, device=self.rng.device)
        self.probes_qP: Tensor = torch.linalg.qr(mixed_kq).Q.T.to(self.basis_kP) @ self.basis_kP

    @torch.no_grad()
    def contribution(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, q) symmetric differences, averaged over K draws of time and noise."""
        draws, reach = int(self.options.multiplicity), float(self.options.smoothing)
        repeated, state = x.repeat_interleave(draws, 0), rng.get_state()

        def loss(moved: Tensor) -> Tensor:
            rng.set_state(state)
            return self.target.per_example_loss(moved, repeated, rng)

        differences = [loss(theta + reach * u_P) - loss(theta - reach * u_P) for u_P in self.probes_qP]
        mean_bq: Tensor = torch.stack(differences, 1).unflatten(0, (-1, draws)).mean(1)
        return mean_bq / (2 * reach)

    def gradient(self, noisy_D: Tensor) -> Tensor:
        """(P,) the sum of the probes, each times its noisy difference."""
        return noisy_D @ self.probes_qP


class PAZO(GuidedDescent):
    """Descent by noisy loss differences along directions of public gradients."""

    label = "PAZO"
    colour = "#999933"
    marker = "*"
    order = 180
    about = About(
        source="PAZO-P, Gong & Li 2025 (NeurIPS, arXiv:2511.10859).",
        public_data="Probes are drawn in the space of `pdp_sgd`.",
        private_release="The loss differences along `probes` directions, clipped as one vector.",
        passes="2 q T K `probes` forward passes, no gradient.",
        departures="Orthonormal probes. Both losses of a record are taken at the same times and noises, without which "
        "their difference would be noise.",
    )
    options_type = PAZOOptions
    quick_options = {"steps": 2, "multiplicity": 1, "public_tasks": 4, "public_images": 2, "basis_size": 3, "probes": 2}
    guide_type = Probes
