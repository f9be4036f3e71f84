"""PE-SGD: private gradients as combinations of a few synthetic images' gradients, and images that evolve with them.

With G (N × P) the gradients of N synthetic images at θ, the gradient h of a private record has the coefficients
z = (G Gᵀ + ηI)⁻¹ G h. They are scaled to norm 1, summed and noised in N dimensions, and the step follows Gᵀ ẑ. Then
images are drawn again in proportion to |ẑ| and joined by variations under the present model. All that follows ẑ is
post-processing. Zou et al., ICLR 2026, "PE-SGD: Differentially Private Deep Learning via Evolution of Gradient Subspace
for Text".

z is scaled to norm exactly 1, as in the paper; the published code adds 1e-8 to its norm. This discards the size of a
record's gradient. A record that G describes badly votes as loudly as any other.

Departures: the images begin as public records and not as free generations, since a fine-tuned model of one kind of
image has no prompt. They are drawn in proportion to |ẑ|; the published code takes a softmax of |ẑ| after its division
by the batch, which is nearly uniform. η is a share of the mean squared norm of the rows of G, since their scale is that
of the loss (theirs is 1e-6). The noisy sum is divided by the expected batch; the code divides by the number of
records that came, a secret under add-or-remove-one.

Shapes: b records, N synthetic images, P parameters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dphyper.bench.method import About
from dphyper.core.errors import UserError
from dphyper.methods.descent import Guide, GuidedDescent, RateOptions
from dphyper.methods.public_space import finite_rows


@dataclass(frozen=True, kw_only=True)
class PESGDOptions(RateOptions):
    """Hyper-parameters of `PESGD`.

    Attributes:
        synthetic_images: N, synthetic images, at least 2.
        synthetic_draws: Draws of time and noise over which the gradient of each image is averaged, at least 1.
        ridge: η over the mean squared norm of these gradients, above 0.
        evolve_every: Steps between two choices of images. 0 keeps the public records throughout, as a target that
            cannot vary records needs.
        variation_strength: Strength of the variations, above 0 and at most 1; see `Target.vary`.
        l2_clip_norm: Norm of a record's coefficients; fixed.
    """

    learning_rate: float = 26.0
    synthetic_images: int = 64
    synthetic_draws: int = 4
    ridge: float = 0.1
    evolve_every: int = 5
    variation_strength: float = 0.5
    l2_clip_norm: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.synthetic_images < 2 or self.synthetic_draws < 1 or self.evolve_every < 0:
            raise UserError(
                f"options.synthetic_images = {self.synthetic_images}, synthetic_draws = {self.synthetic_draws}, "
                f"evolve_every = {self.evolve_every}: expected at least 2, 1 and 0"
            )
        if not self.ridge > 0 or not 0 < self.variation_strength <= 1:
            raise UserError(
                f"options.ridge = {self.ridge}, variation_strength = {self.variation_strength}: expected a number "
                "above 0 and one above 0 and at most 1"
            )
        if self.l2_clip_norm != 1:
            raise UserError(f"options.l2_clip_norm = {self.l2_clip_norm}: PE-SGD's coefficients have norm 1, leave it")


class SyntheticSpan(Guide):
    """The guide of PE-SGD: Gᵀ ẑ, and the evolution of the images behind G."""

    def prepare(self, theta: Tensor, step: int) -> None:
        """Choose the images, if it is time, and take their gradients and the solution operator at θ."""
        options = self.options
        if step == 0:
            assert self._public is not None, "PE-SGD reads public records"
            self.images = self._public.draw(options.synthetic_images, 1, self.rng).flatten(0, 1)
        elif options.evolve_every and step % options.evolve_every == 0:
            self._evolve(theta)
        rows_NP = finite_rows(self.target.per_example_gradients(theta, self.images, self.rng, options.synthetic_draws))
        gram_NN = rows_NP @ rows_NP.T
        # The least number keeps a matrix of zeros invertible, whose coefficients are then zero.
        ridge = (options.ridge * gram_NN.diagonal().mean()).clamp(min=torch.finfo(gram_NN.dtype).tiny)
        solved_NP = torch.linalg.solve(gram_NN + ridge * torch.eye(len(gram_NN)).to(gram_NN), rows_NP)
        self.synthetic_NP, self.solved_NP = rows_NP.to(theta), solved_NP.to(theta)

    def _evolve(self, theta: Tensor) -> None:
        """Draw half of the images, in proportion to |ẑ|, and add a variation of each."""
        count = self.options.synthetic_images
        share_N = self.coefficients_N.abs().clamp(min=1e-12).to(self.rng.device)
        rows = torch.multinomial(share_N, (count + 1) // 2, generator=self.rng)
        parents = self.images[rows.to(self.images.device)]
        children = self.target.vary(theta, parents, self.options.variation_strength, self.rng)
        self.images = torch.cat([parents, children])[:count]

    def contribution(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, N) coefficients, of norm 1."""
        coefficients_bN = super().contribution(theta, x, rng) @ self.solved_NP.T
        return torch.nn.functional.normalize(coefficients_bN.double(), eps=1e-300)

    def gradient(self, noisy_D: Tensor) -> Tensor:
        """(P,) the synthetic gradients, weighted by the noisy mean coefficients."""
        self.coefficients_N = noisy_D
        return noisy_D @ self.synthetic_NP


class PESGD(GuidedDescent):
    """Descent in the span of synthetic images' gradients, with images that evolve."""

    label = "PE-SGD"
    colour = "#AA4499"
    marker = "v"
    order = 170
    about = About(
        source="PE-SGD, Zou et al. 2026 (ICLR).",
        public_data="The synthetic images begin as public records.",
        private_release="The coefficients of a record's gradient in the span of `synthetic_images` gradients, of norm "
        "1.",
        passes="q T K gradients.",
        departures="η relative to the gradients' size. Images are drawn in proportion to their coefficients; "
        "published code takes a nearly uniform softmax. Repaired: divided by the expected batch, where the published "
        "code divides by the number of records that came.",
    )
    options_type = PESGDOptions
    quick_options = {"steps": 2, "multiplicity": 1, "synthetic_images": 4, "synthetic_draws": 1, "evolve_every": 2}
    guide_type = SyntheticSpan

    @classmethod
    def asks(cls, options: PESGDOptions) -> tuple[str, ...]:
        """Variations of the images, where these evolve."""
        return ("vary",) if options.evolve_every else ()
