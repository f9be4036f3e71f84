"""DP-SGD on the LoRA: the baseline that every private method must beat.

A record's gradient of B (A is frozen) is averaged over `multiplicity` draws of time and noise and clipped. The sum over
a Poisson sample gets Gaussian noise and is divided by the expected batch size; SGD with momentum or Adam follows. The
mean of the last iterates is returned, which is free post-processing. Abadi et al. 2016, algorithm 1; noise multiplicity
of Dockhorn et al. 2023. All of that is `dphyper.methods.descent` with the guide that reads no public record.

Each record draws its own times and noises from a secret generator. If records shared draws, or a published seed gave
them away, a record would show in what others contribute. The defaults were chosen on tuning tasks, not by this method
(``sweeps/small_target/tune_dp_sgd.yaml``, ``docs/results/small_target/tune_dp_sgd``).
"""

from dphyper.bench.method import About
from dphyper.methods.descent import GuidedDescent, RateOptions


class DPSGD(GuidedDescent):
    """DP-SGD or DP-Adam on the LoRA's B."""

    label = "DP-SGD"
    colour = "#D55E00"
    marker = "s"
    order = 10
    about = About(
        source="Abadi et al. 2016 (CCS, arXiv:1607.00133), algorithm 1; noise multiplicity of Dockhorn et al. 2023 "
        "(TMLR, arXiv:2210.09929).",
        public_data="None.",
        private_release="At each of T steps the sum of the records' gradients, each averaged over K draws of time and "
        "noise and clipped to C.",
        passes="q T K gradients.",
        departures="Only B is trained: with A trained too, noise would enter as a product. The last iterates are "
        "averaged, and the step size shrinks as the noise multiplier grows, so that one serves every ε.",
    )
    reads_public = False
    options_type = RateOptions
    quick_options = {"steps": 2, "multiplicity": 1}
