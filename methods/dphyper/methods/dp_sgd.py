"""DP-SGD on the LoRA: the baseline that every private method must beat.

Per-example gradients of B (A is frozen) by opacus, averaged over `multiplicity` draws of time and noise before
clipping, Poisson sampling, Gaussian noise, division by the expected batch size, then SGD with momentum or Adam; the
iterates of the last part are averaged, which is free post-processing. All of that is `dphyper.methods.descent`, with
the guide that looks at no public record. Each record draws its own times and noises, from a generator that nobody else
knows: one that records share, or that a published seed gives away, would let a record show in what others contribute.
Abadi et al. 2016, algorithm 1; noise multiplicity after Dockhorn et al. 2023. It does not choose its own
hyper-parameters: the defaults come from tuning tasks (``sweeps/tune_dp_sgd.yaml``, ``docs/results/tune_dp_sgd``).
"""

from dphyper.methods.descent import GuidedDescent, RateOptions


class DPSGD(GuidedDescent):
    """DP-SGD or DP-Adam on the LoRA's B."""

    reads_public = False
    options_type = RateOptions
