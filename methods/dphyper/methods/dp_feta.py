"""DP-FETA: noisy central images warm up the LoRA, DP-SGD follows.

Each query is a Poisson sample of the records whose images, less a public mean image and clipped, are summed, noised
and divided by the *expected* size of the sample: published code divides by the realised count, which is private and
which its sensitivity does not cover. Gong et al. 2025, arXiv:2504.01521. Departures: no class labels; a central image
is blurred, and a LoRA that is fitted to it learns blur, so that the base model draws images around it first
(`vary_strength`); that is post-processing. Nothing tells whether a central image stands out of its noise.

Shapes: N central images, b records of a chunk, D = C·H·W pixels, R copies.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dphyper.bench.method import About
from dphyper.bench.privacy.mechanisms import PoissonGradientSteps
from dphyper.bench.privacy.private_data import PrivateData
from dphyper.methods.warm_start import Query, WarmStart, WarmStartOptions


@dataclass(frozen=True, kw_only=True)
class DPFETAOptions(WarmStartOptions):
    """Hyper-parameters of `DPFETA`.

    Attributes:
        queries: N, central images.
        query_prob: Chance of each record to enter a central image.
        image_clip_norm: Bound on the norm of a record's image less the public mean image.
        vary_strength: Strength of the variations of a central image that are trained on; 0 for the image as it is.
        variations: R, variations of each.
    """

    queries: int = 1
    query_prob: float = 1.0
    image_clip_norm: float = 10.0
    vary_strength: float = 0.75
    variations: int = 128


class DPFETA(WarmStart):
    """Noisy central images, training on images around them, then DP-SGD."""

    about = About(
        source="DP-FETA, Gong et al. 2025 (arXiv:2504.01521).",
        public_data="The public mean image is taken off each record. Variations of the central images by the base "
        "model warm the LoRA up.",
        private_release="`queries` sums of clipped images, which take `query_share` of 1/σ²; then DP-SGD.",
        passes="`queries` looks at the pixels, then q T K gradients.",
        departures="No class labels. Repaired: divided by the expected and not by the realised number of records. "
        "Images around the central ones, since a LoRA fitted to blurred ones learns blur.",
    )
    options_type = DPFETAOptions
    _options: DPFETAOptions

    def unscaled_query(self) -> PoissonGradientSteps:
        """Sums of clipped images over Poisson samples, divided by their expected size."""
        options = self._options
        return PoissonGradientSteps(
            l2_clip_norm=options.image_clip_norm, sampling_prob=options.query_prob, steps=options.queries
        )

    def central_images(self, private: PrivateData, query: PoissonGradientSteps) -> Tensor:
        """(N, C, H, W) noisy means of the samples, in [-1, 1]."""
        centre = self.public.records.mean(0)
        steps = private.gradient_steps(lambda x: (x - centre).flatten(1), query, role="central images")
        offsets_ND = torch.stack(list(steps)).to(centre)
        images: Tensor = (centre + offsets_ND.unflatten(1, centre.shape)).clamp(-1, 1)
        return images

    def ask(self, private: PrivateData, query: Query, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Central images, or variations of them, with equal weights."""
        options = self._options
        assert isinstance(query, PoissonGradientSteps)
        images = self.central_images(private, query)
        if options.vary_strength:
            copies = images.repeat_interleave(options.variations, 0)
            images = self.target.vary(self.target.initial(), copies, options.vary_strength, rng)
        return images, torch.ones(len(images))
