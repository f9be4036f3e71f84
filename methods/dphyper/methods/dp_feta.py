"""DP-FETA: noisy central images warm up the LoRA, DP-SGD follows.

Each query is one Poisson sample of the records. Their images, less a public mean image and clipped, are summed, noised
and divided by the *expected* size of the sample. Published code divides by the realised count, which is private and not
covered by its sensitivity. Gong et al. 2025, arXiv:2504.01521. Nothing tells whether a central image stands out of its
noise.

Departures: no class labels. The paper trains on the central images, from which a model that draws sharp images already
learns blur. So the warm-up may take public images instead, weighted so that their mean comes near that of the central
images (`dphyper.methods.matching`). ``images`` trains as the paper does, on the central images or on variations of
them. Both are post-processing.

Shapes: Q central images, N images of the warm-up, b records of a chunk, D = C·H·W pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dphyper.bench.method import About
from dphyper.core.errors import UserError
from dphyper.methods.fitting import sample_records
from dphyper.methods.matching import match_weights
from dphyper.methods.warm_start import Query, WarmStart, WarmStartOptions
from dphyper.privacy.mechanisms import PoissonGradientSteps
from dphyper.privacy.noisy_sum import clip_rows
from dphyper.privacy.private_data import PrivateData


@dataclass(frozen=True, kw_only=True)
class DPFETAOptions(WarmStartOptions):
    """Hyper-parameters of `DPFETA`.

    Attributes:
        queries: Q, central images.
        query_prob: Probability of each record to enter a central image.
        image_clip_norm: Bound on the norm of a record's image less the public mean image.
        warm_up: ``weights`` to train on weighted public images, ``images`` to train on the central images.
        ridge: For ``weights``, as in `dp_mepf`.
        public_images: For ``weights``, public images that are weighted, at most.
        vary_strength: For ``images``, strength of the variations of a central image that are trained on; 0 for the
            image itself.
        variations: For ``images``, variations of each central image.
    """

    query_share: float = 0.2
    queries: int = 1
    query_prob: float = 1.0
    image_clip_norm: float = 10.0
    warm_up: str = "weights"
    ridge: float = 20.0
    public_images: int = 8192
    vary_strength: float = 0.75
    variations: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warm_up not in ("weights", "images"):
            raise UserError(f"options.dp_feta.warm_up = '{self.warm_up}': expected 'weights' or 'images'")


class DPFETA(WarmStart):
    """Noisy central images, a warm-up by them, then DP-SGD."""

    label = "DP-FETA"
    colour = "#88CCEE"
    marker = "P"
    order = 240
    about = About(
        source="DP-FETA, Gong et al. 2025 (arXiv:2504.01521).",
        public_data="The public mean image is subtracted from each record. The LoRA is warmed up on public images, "
        "weighted so that their mean is the central image, or (`warm_up: images`) on the base model's variations of "
        "the central image.",
        private_release="`queries` sums of clipped images, which take `query_share` of 1/σ²; then DP-SGD.",
        passes="The pixels `queries` times, then q T K gradients.",
        departures="No class labels. Repaired: divided by the expected and not by the realised number of records. The "
        "central image weighs public images, since a LoRA fitted to a blurred image learns blur.",
    )
    options_type = DPFETAOptions
    quick_options = {"steps": 2, "multiplicity": 1, "fit_steps": 2, "fit_batch_size": 8, "variations": 4, "queries": 2}
    _options: DPFETAOptions

    @classmethod
    def asks(cls, options: DPFETAOptions) -> tuple[str, ...]:
        """Variations of the central images, where they are trained on."""
        return ("vary",) if options.warm_up == "images" and options.vary_strength else ()

    @classmethod
    def unscaled_query(cls, options: DPFETAOptions) -> PoissonGradientSteps:
        """Sums of clipped images over Poisson samples, divided by their expected size."""
        return PoissonGradientSteps(
            l2_clip_norm=options.image_clip_norm, sampling_prob=options.query_prob, steps=options.queries
        )

    def central_offsets(self, private: PrivateData, query: PoissonGradientSteps) -> Tensor:
        """(Q, D) noisy central images less the public mean image."""
        centre = self.public.records.mean(0)
        steps = private.gradient_steps(lambda x, rng: (x - centre).flatten(1), query, role="central images")
        return torch.stack(list(steps)).to(centre)

    def ask(self, private: PrivateData, query: Query, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Public images, weighted to match the central ones, or the central images and their variations."""
        options, public = self._options, self.public.records
        assert isinstance(query, PoissonGradientSteps)
        offsets_QD = self.central_offsets(private, query)
        centre = public.mean(0)
        if options.warm_up == "weights":
            images = sample_records(self.public, options.public_images, rng)
            rows_ND = clip_rows((images - centre).flatten(1), query.l2_clip_norm) / query.l2_clip_norm
            drawn = query.sampling_prob * private.n * query.steps  # records in all samples together, as expected
            mean_D = offsets_QD.mean(0) / query.l2_clip_norm
            noise = query.noise_std(private.ledger.budget.relation) * query.steps**0.5 / drawn / query.l2_clip_norm
            count = min(drawn, private.n)  # more draws than records are the same records again
            return images, match_weights(rows_ND, mean_D, torch.full_like(mean_D, noise), count, options.ridge)
        images = self.target.bound(centre + offsets_QD.unflatten(1, centre.shape))
        if options.vary_strength:
            copies = images.repeat_interleave(options.variations, 0)
            images = self.target.vary(self.target.initial(), copies, options.vary_strength, rng)
        return images, torch.ones(len(images))
