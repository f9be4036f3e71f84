"""DP-MEPF: the mean of public perceptual features, released once, and a LoRA fitted to it.

The features are the target's own (pixels and activations of the base U-Net), standardised by public statistics and
scaled to norm 1 record by record. The mean of their squares may be released beside their mean. Harder et al. 2023,
arXiv:2205.12900. The fit is that of `dphyper.methods.matching`.

Departures: the features come from the base U-Net, not from a classifier, and no noisy Fréchet distance chooses a
checkpoint. Repaired: published code takes half the sensitivity for the squares because they are not negative, but two
such vectors of norm 1 can be √2 apart. Here the mechanism states 1 under add-or-remove-one and 2 under replace-one,
whatever the signs.

Shapes: b records of a chunk, F features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dphyper.bench.method import About
from dphyper.core.errors import UserError
from dphyper.methods.fitting import PublicFeatures, sample_records
from dphyper.methods.matching import Embedding, Matching, MatchingOptions
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import OneShotMean
from dphyper.privacy.private_data import PrivateData


@dataclass(frozen=True, kw_only=True)
class DPMEPFOptions(MatchingOptions):
    """Hyper-parameters of `DPMEPF`.

    Attributes:
        moments: 1 for the mean of the features alone, 2 for that of their squares too.
    """

    moments: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.moments not in (1, 2):
            raise UserError(f"options.dp_mepf.moments = {self.moments}: expected 1 or 2")


def squares(features_bF: Tensor) -> Tensor:
    """(b, F) squares of features of norm 1, scaled so that those of Gaussian features have norm 1.

    Greater ones are clipped.

    >>> squares(torch.tensor([[0.6, 0.8, 0.0]]))
    tensor([[0.3600, 0.6400, 0.0000]])
    """
    scale: float = (features_bF.shape[1] / 3) ** 0.5
    return scale * features_bF.square()


class Moments:
    """An embedding of features and their squares, side by side.

    Args:
        features: The embedding whose squares are added.
    """

    def __init__(self, features: PublicFeatures) -> None:
        self.features, self.records = features, features.records
        self.features_NF = self._both(features.features_NF)

    def __call__(self, x: Tensor) -> Tensor:
        """(b, 2F) rows, each half of norm at most 1."""
        return self._both(self.features(x))

    def differentiable(self, x: Tensor) -> Tensor:
        """The same with gradients in ``x``."""
        return self._both(self.features.differentiable(x))

    def _both(self, features_bF: Tensor) -> Tensor:
        squared_bF = squares(features_bF)
        norm_b1 = squared_bF.norm(dim=1, keepdim=True).clamp(min=1.0)
        return torch.cat([features_bF, squared_bF / norm_b1], 1)


class DPMEPF(Matching):
    """The mean of perceptual features, released once, and a LoRA fitted to it."""

    label = "DP-MEPF"
    colour = "#882255"
    marker = "o"
    order = 190
    about = About(
        source="DP-MEPF, Harder et al. 2023 (TMLR, arXiv:2205.12900).",
        public_data="Records' features are standardised by `public_images` public records, which are then weighted so "
        "that their mean features match the released ones; the LoRA is fitted to them.",
        private_release="The mean of features of norm 1, once, and with `moments` = 2 the mean of their squares, "
        "clipped to norm 1; under add-or-remove-one each with the count.",
        passes="`moments` forward passes, no gradient.",
        departures="Features are those of the base U-Net, not of a classifier. Public records are weighted, which "
        "works at n in the hundreds; `fitting: samples` minimises the MMD through a sampler, as the paper does with a "
        "generator. No noisy Fréchet distance chooses a checkpoint. Repaired: the sensitivity of the squares, which is "
        "√2 too small in published code.",
    )
    options_type = DPMEPFOptions
    quick_options = {"fit_steps": 2, "fit_batch_size": 8, "moments": 2}
    _options: DPMEPFOptions

    def embedding(self, rng: torch.Generator) -> Embedding:
        """Standardised features, and their squares where they are wanted."""
        features = PublicFeatures(self.target, sample_records(self.public, self._options.public_images, rng))
        return Moments(features) if self._options.moments == 2 else features

    @classmethod
    def mechanisms(cls, budget: Budget, options: DPMEPFOptions) -> tuple[OneShotMean, ...]:
        """One release for each moment, with one noise multiplier."""
        mean = OneShotMean(l2_clip_norm=1.0, count_weight=options.count_weight)
        return calibrate(budget, *(mean,) * options.moments)

    def release(self, private: PrivateData, embedding: Embedding, budget: Budget) -> tuple[Tensor, Tensor, float]:
        """As in `Matching`, with one release for each moment."""
        size = self.target.num_features
        releases = [
            private.release_mean(
                lambda x, rng, part=part: embedding(x)[:, part * size : (part + 1) * size],  # type: ignore[misc]
                mechanism,
                role=f"moment {part + 1} of the features",
            )
            for part, mechanism in enumerate(self.mechanisms(budget, self._options))
        ]
        mean_F = torch.cat([release.mean for release in releases])
        noise_std_F = torch.cat([torch.full_like(release.mean, release.noise_std) for release in releases])
        return mean_F, noise_std_F, releases[0].count
