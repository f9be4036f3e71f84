"""A method of your own: fit the LoRA to the public images that are most like the private ones.

It takes one noisy mean of the private records, picks the public images nearest to it, and fits the model to these. The
harness does everything else: it hands out the data, keeps the books on privacy, draws samples and judges them.
"""

from dataclasses import dataclass

from dphyper.bench.method import About, Adaptation, Method, Options
from dphyper.methods.fitting import FitOptions, PublicFeatures, fit
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.mechanisms import OneShotMean


# 1. Options are the knobs of your method. A sweep file sets them under `options: nearest_images:`.
@dataclass(frozen=True, kw_only=True)
class NearestImagesOptions(FitOptions):
    """How many images the fit is given; the knobs of the fit itself are inherited.

    Attributes:
        images: Public images that are taken.
    """

    images: int = 64


# 2. The class says what the method is. Tables, plots and `dphyper ls methods` read it from here.
class NearestImages(Method):
    """The LoRA fitted to the public images nearest to a noisy mean of the private ones."""

    label = "Nearest public images"
    role = "method"  # private, and compared with the others
    uses = frozenset({"task", "n", "epsilon", "seed"})  # the axes of a sweep that can change its result
    reads_public = True  # `self.public` then holds the public records
    options_type: type[Options] = NearestImagesOptions
    quick_options = {"fit_steps": 2, "fit_batch_size": 8, "images": 8}  # for the contract suite: a second or two
    about = About(
        source="The example of the documentation.",
        public_data="The public images nearest to the release are what the LoRA is fitted to.",
        private_release="The sum of the records' features, each of norm 1, once, with their number.",
        passes="1 forward pass, no gradient.",
    )

    # 3. Which releases the method will ask for. `calibrate` finds the noise that spends exactly the budget.
    @classmethod
    def mechanisms(cls, budget, options):
        """One mean of vectors whose norm is at most 1."""
        return calibrate(budget, OneShotMean(l2_clip_norm=1.0))

    # 4. From private records to parameters. `private` is the only way to the records, and it never hands them out: it
    #    applies your function to each record by itself, clips, sums, adds the noise, and writes it into the ledger.
    def adapt(self, private, budget, rng):
        """Release the mean feature once; everything after it is post-processing."""
        options: NearestImagesOptions = self.options
        features = PublicFeatures(self.target, self.public.records)
        (mechanism,) = self.mechanisms(budget, options)
        release = private.release_mean(lambda x, _rng: features(x), mechanism, role="mean feature")
        nearness_N = features.features_NF @ release.mean.to(features.features_NF)
        nearest = self.public.records[nearness_N.topk(options.images).indices]
        return Adaptation(theta=fit(self.target, self.target.initial(), nearest, options, rng))
