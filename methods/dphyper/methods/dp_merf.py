"""DP-MERF: the mean of random Fourier features of the pixels, released once, and a LoRA fitted to it.

The features are those of a Gaussian kernel on pixels: cosines and sines of random frequencies, of norm 1 whatever the
record. Their mean is released once. Harder et al. 2021, arXiv:2002.11603. The fit is that of
`dphyper.methods.matching`. Departures: no labels; the bandwidth is a multiple of the median distance of public images;
the sensitivity is that of the budget's relation. The features know nothing but pixels.

Shapes: b records of a chunk, D = C·H·W pixels, R frequencies, F = 2R features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dphyper.bench.method import About
from dphyper.methods.fitting import sample_records
from dphyper.methods.matching import Embedding, Matching, MatchingOptions


@dataclass(frozen=True, kw_only=True)
class DPMERFOptions(MatchingOptions):
    """Hyper-parameters of `DPMERF`.

    Attributes:
        frequencies: R, random frequencies of the features.
        bandwidth: Bandwidth of the Gaussian kernel, in median distances of two public images.
    """

    frequencies: int = 500
    bandwidth: float = 0.5
    ridge: float = 20.0


class FourierFeatures:
    """Random Fourier features of a Gaussian kernel, on a sphere: cosines and sines of the same frequencies.

    ⟨φ(x), φ(y)⟩ is near exp(−‖x − y‖² / 2h²), and ‖φ(x)‖ = 1 exactly. Rahimi & Recht 2007.

    Args:
        records: (N, ...) public images, whose median distance is taken.
        frequencies: R.
        bandwidth: h, in median distances.
        rng: Draws the frequencies.
    """

    def __init__(self, records: Tensor, frequencies: int, bandwidth: float, rng: torch.Generator) -> None:
        self.records = records
        # Some hundreds of images fix a median.
        median = torch.pdist(records[:500].flatten(1)).median()
        normal_RD = torch.randn((frequencies, records[0].numel()), generator=rng, device=rng.device)
        self.frequencies_RD = normal_RD.to(records) / (bandwidth * median)
        self.features_NF = self(records)

    def __call__(self, x: Tensor) -> Tensor:
        """(b, F) rows of norm 1, each a function of its own record."""
        phase_bR = x.flatten(1) @ self.frequencies_RD.T
        rows_bF: Tensor = torch.cat([phase_bR.cos(), phase_bR.sin()], 1) / len(self.frequencies_RD) ** 0.5
        return rows_bF

    def differentiable(self, x: Tensor) -> Tensor:
        """The same, which has gradients in ``x`` anyway."""
        return self(x)


class DPMERF(Matching):
    """The mean of random Fourier features of the pixels, released once, and a LoRA fitted to it."""

    label = "DP-MERF"
    colour = "#CC6677"
    marker = "s"
    order = 200
    about = About(
        source="DP-MERF, Harder et al. 2021 (AISTATS, arXiv:2002.11603).",
        public_data="The kernel's bandwidth is a multiple of the median distance of public records, which are then "
        "weighted as in `dp_mepf`.",
        private_release="The mean of random Fourier features of the pixels, of norm 1, once, with the count under "
        "add-or-remove-one.",
        passes="The pixels once, no forward pass.",
        departures="No labels. The fit is that of `dp_mepf`. The sensitivity is that of the relation, where the "
        "published code has 2/n only.",
    )
    options_type = DPMERFOptions
    quick_options = {"fit_steps": 2, "fit_batch_size": 8, "fitting": "samples", "frequencies": 16}
    _options: DPMERFOptions

    def embedding(self, rng: torch.Generator) -> Embedding:
        """Fourier features, whose frequencies depend on no private record."""
        options = self._options
        records = sample_records(self.public, options.public_images, rng)
        return FourierFeatures(records, options.frequencies, options.bandwidth, rng)
