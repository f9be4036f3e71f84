"""The mechanisms: frozen descriptions of every way in which private records may reach a method.

A mechanism clips what each record contributes to an l2 norm, sums over records and adds Gaussian noise. Its description
states the sensitivity under each relation and builds the `dp_accounting` event that is charged. It holds no record and
draws nothing: `PrivateData` draws, with the sampling probability, the clip norm and the noise of the very object that
was charged. The sampler and the accountant therefore cannot differ.

**One convention for the noise multiplier.** Under every relation ``noise_multiplier`` is the standard deviation of the
noise on the *sum*, divided by the norm bound of *one record's contribution*, as in `dp_accounting.GaussianDpEvent` and
in Opacus. Under replace-one a record moves the sum by twice that bound. The accountant adds this factor from the
relation, so the multiplier must not contain it. A calibrated multiplier is about twice as large under replace-one.

`BestOfTrials` is made of these: a random number of trials, each of which may make the releases that it lists. Only the
best trial is seen. It states its event too, and holds the law from which the number of trials is drawn.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Self

import dp_accounting
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaln

from dphyper.core.errors import PrivacyError, UserError
from dphyper.privacy.budget import Relation

# With noise of at least this multiplier, a sum of 2²⁶ records in steps of 2⁻²⁴ of the noise fits into 64 bits.
LEAST_NOISE = 2.0**-10


class GaussianMechanism:
    """What all mechanisms share; not a mechanism by itself.

    Attributes:
        l2_clip_norm: Bound C > 0 on the l2 norm of a record's vector, without the count coordinate; ``inf`` only where
            there is no noise.
        noise_multiplier: Standard deviation of the noise on the sum, over the norm bound of one record's contribution.
            0 for a non-private run, None until `calibrate` has set it.
        sampling_prob: Probability q with which each record enters a sum, independently of the others.
        steps: Number T of sums that are released.
    """

    l2_clip_norm: float
    noise_multiplier: float | None
    sampling_prob: float
    steps: int

    def __post_init__(self) -> None:
        sigma = self.noise_multiplier
        if not self.l2_clip_norm > 0:
            raise UserError(f"l2_clip_norm = {self.l2_clip_norm}: expected a number above 0")
        if sigma is not None and not 0 <= sigma < math.inf:
            raise UserError(f"noise_multiplier = {sigma}: expected 0 (no privacy) or a number above it")
        if sigma and sigma < LEAST_NOISE:
            raise UserError(
                f"noise_multiplier = {sigma:g}: expected 0 (no privacy) or at least {LEAST_NOISE:g}, for less protects "
                "nobody (ε is above 100,000)"
            )
        if math.isinf(self.l2_clip_norm) and sigma:
            raise UserError(f"l2_clip_norm = inf with noise_multiplier = {sigma}: unbounded records need a finite clip")
        if not 0 < self.sampling_prob <= 1:
            raise UserError(f"sampling_prob = {self.sampling_prob}: expected above 0 and at most 1")
        if self.steps < 1:
            raise UserError(f"steps = {self.steps}: expected at least 1")

    @property
    def is_calibrated(self) -> bool:
        """Whether the noise multiplier is set."""
        return self.noise_multiplier is not None

    def with_noise(self, noise_multiplier: float) -> Self:
        """The same mechanism with this multiplier; one that is calibrated already comes back unchanged."""
        if self.is_calibrated:
            return self
        return dataclasses.replace(self, noise_multiplier=noise_multiplier)  # type: ignore[type-var]

    def count_coordinate(self, relation: Relation) -> float:
        """Constant that each record adds to an extra coordinate of the sum; 0 where there is no such coordinate."""
        return 0.0

    def record_norm(self, relation: Relation) -> float:
        """Bound on the l2 norm of all that one record adds to the sum, the count coordinate included."""
        return math.hypot(self.l2_clip_norm, self.count_coordinate(relation))

    def sensitivity(self, relation: Relation) -> float:
        """Largest l2 distance between the sums of two data sets that are neighbours under ``relation``."""
        return self.record_norm(relation) * relation.sensitivity_factor

    def noise_std(self, relation: Relation) -> float:
        """Standard deviation of the noise on each coordinate of the sum.

        Raises:
            PrivacyError: The mechanism has not been calibrated.
        """
        sigma = self._sigma()
        return sigma * self.record_norm(relation) if sigma else 0.0

    def event(self) -> dp_accounting.DpEvent:
        """The event that is charged, the same under every relation (the accountant knows the relation).

        Raises:
            PrivacyError: The mechanism has not been calibrated.
        """
        sigma = self._sigma()
        if sigma == 0:
            return dp_accounting.NonPrivateDpEvent()
        event: dp_accounting.DpEvent = dp_accounting.GaussianDpEvent(sigma)
        if self.sampling_prob < 1:
            event = dp_accounting.PoissonSampledDpEvent(self.sampling_prob, event)
        return dp_accounting.SelfComposedDpEvent(event, self.steps) if self.steps > 1 else event

    def _sigma(self) -> float:
        if self.noise_multiplier is None:
            raise PrivacyError(f"{type(self).__name__} has no noise_multiplier: calibrate it to a budget first")
        return self.noise_multiplier


@dataclass(frozen=True, kw_only=True)
class OneShotMean(GaussianMechanism):
    """The mean of one clipped vector for each record, released once.

    Sensitivity, with C the clip norm:

    * add-or-remove-one: √(C² + c²) on the sum, with c = C·count_weight. The number of records is secret, so the sum and
      c·count are released jointly and divided afterwards. It is never C/n on the mean: adding a record changes n too.
    * zero-out: C on the sum, and C/n on the mean, since n is public.
    * replace-one: 2C on the sum, and 2C/n on the mean.

    Attributes:
        l2_clip_norm: C, above 0.
        count_weight: c/C, above 0. At 1/3 it makes the noise 5 % larger than the sum alone would need.
        noise_multiplier: See the head of this module.

    >>> round(OneShotMean(l2_clip_norm=3.0).sensitivity(Relation.ADD_OR_REMOVE_ONE), 4)  # √(3² + 1²)
    3.1623
    >>> OneShotMean(l2_clip_norm=3.0).sensitivity(Relation.REPLACE_ONE)
    6.0
    """

    l2_clip_norm: float = 1.0
    count_weight: float = 1 / 3
    noise_multiplier: float | None = None
    sampling_prob = 1.0
    steps = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.count_weight < math.inf:
            raise UserError(f"count_weight = {self.count_weight}: expected a number above 0, for instance 1/3")

    def count_coordinate(self, relation: Relation) -> float:
        """The constant c that each record adds under add-or-remove-one, else 0."""
        if relation is not Relation.ADD_OR_REMOVE_ONE:
            return 0.0
        return self.count_weight * (1.0 if math.isinf(self.l2_clip_norm) else self.l2_clip_norm)


@dataclass(frozen=True, kw_only=True)
class PoissonGradientSteps(GaussianMechanism):
    """T noisy sums of clipped per-example gradients over Poisson samples: the private part of DP-SGD.

    Sensitivity of each sum: C under add-or-remove-one and zero-out, 2C under replace-one. Each sum is divided by the
    *expected* batch size q·n, where n is the nominal number of records. An empty sample receives noise too (Abadi et
    al. 2016, arXiv:1607.00133, Algorithm 1).

    Attributes:
        l2_clip_norm: C, above 0.
        sampling_prob: q, above 0 and at most 1.
        steps: T, at least 1. All T steps are charged before the first is drawn.
        noise_multiplier: σ as at the head of this module; the noise on the sum has standard deviation σ·C.

    >>> PoissonGradientSteps(l2_clip_norm=0.5, sampling_prob=0.25, steps=50).sensitivity(Relation.ZERO_OUT)
    0.5
    """

    l2_clip_norm: float
    sampling_prob: float
    steps: int
    noise_multiplier: float | None = None


@dataclass(frozen=True, kw_only=True)
class NoisyHistogram(GaussianMechanism):
    """A histogram in which each record casts votes of l2 norm at most 1, released once.

    Sensitivity: 1 under add-or-remove-one and zero-out, 2 under replace-one, for votes of any sign. (For non-negative
    votes √2 would do under replace-one; we do not use it.) Lin et al. 2024, arXiv:2305.15560, Algorithm 2.

    Attributes:
        noise_multiplier: See the head of this module; it equals the standard deviation on each bin.

    >>> NoisyHistogram(noise_multiplier=4.0).noise_std(Relation.ADD_OR_REMOVE_ONE)
    4.0
    """

    noise_multiplier: float | None = None
    l2_clip_norm = 1.0
    sampling_prob = 1.0
    steps = 1


@dataclass(frozen=True, kw_only=True)
class BestOfTrials:
    """A random number K of independent trials, of which only the one with the best score is released.

    Each trial draws its hyper-parameters at random from a list that depends on no record, makes the releases of
    ``trial``, and scores itself by them. Every candidate makes the same releases, so all have one Rényi curve.

    K is secret, and must not be drawn again: whoever learns K, for instance from a running time, learns more than was
    charged. Therefore `most_trials` are always run, and the first K count. Papernot & Steinke 2022, arXiv:2110.03620,
    Theorems 2 and 6.

    Attributes:
        trial: The releases of one trial, at least one.
        mean_trials: Expectation of K, above 1.
        shape: η of the law of K. A finite one, at least 0, means truncated negative binomial (0 logarithmic, 1
            geometric); ``inf`` means Poisson, for which K = 0 releases nothing.
        noise_ratios: Noise multipliers of the releases relative to one another, for `calibrate`; each above 0. Empty
            means that all are equal.

    >>> trials = BestOfTrials(trial=(NoisyHistogram(noise_multiplier=9.0),), mean_trials=10.0)
    >>> [round(float(p), 4) for p in trials.probabilities()[:4]]  # of 0, 1, 2 and 3 trials: geometric
    [0.0, 0.1, 0.09, 0.081]
    """

    trial: tuple[GaussianMechanism, ...]
    mean_trials: float
    shape: float = 1.0
    noise_ratios: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.trial or not all(isinstance(part, GaussianMechanism) for part in self.trial):
            raise UserError("trial: expected at least one mechanism, and no selection inside a selection")
        if not 1 + 1e-6 < self.mean_trials < math.inf:
            raise UserError(f"mean_trials = {self.mean_trials}: expected a number above 1, for instance 10")
        if not self.shape >= 0:
            raise UserError(f"shape = {self.shape}: expected 0 (logarithmic), 1 (geometric), inf (Poisson) or between")
        if self.noise_ratios and len(self.noise_ratios) != len(self.trial):
            raise UserError(f"noise_ratios = {self.noise_ratios}: expected one for each of {len(self.trial)} releases")
        if not all(0 < ratio < math.inf for ratio in self.noise_ratios):
            raise UserError(f"noise_ratios = {self.noise_ratios}: expected numbers above 0")

    @property
    def steps(self) -> int:
        """Number of sums that one trial releases."""
        return sum(part.steps for part in self.trial)

    @property
    def is_calibrated(self) -> bool:
        """Whether every release of a trial has its noise multiplier."""
        return all(part.is_calibrated for part in self.trial)

    def with_noise(self, noise_multiplier: float) -> Self:
        """The same trials, in which each release without a multiplier receives this one times its ratio."""
        ratios = self.noise_ratios or (1.0,) * len(self.trial)
        parts = (part.with_noise(noise_multiplier * ratio) for part, ratio in zip(self.trial, ratios, strict=True))
        return dataclasses.replace(self, trial=tuple(parts))

    def sensitivity(self, relation: Relation) -> tuple[float, ...]:
        """The sensitivity of each release of a trial."""
        return tuple(part.sensitivity(relation) for part in self.trial)

    def noise_std(self, relation: Relation) -> tuple[float, ...]:
        """The standard deviation of the noise on the sum, for each release of a trial."""
        return tuple(part.noise_std(relation) for part in self.trial)

    def event(self) -> dp_accounting.DpEvent:
        """The event that is charged, once for all trials.

        Raises:
            PrivacyError: A release of the trial has not been calibrated.
        """
        events = [part.event() for part in self.trial]
        if any(isinstance(event, dp_accounting.NonPrivateDpEvent) for event in events):
            return dp_accounting.NonPrivateDpEvent()
        once = dp_accounting.ComposedDpEvent(events)
        return dp_accounting.dp_event.RepeatAndSelectDpEvent(once, self.mean_trials, self.shape)

    def probabilities(self) -> NDArray[np.float64]:
        """Probabilities of K = 0, 1, 2, …, up to where less than 2⁻⁵³ is left."""
        eta = self.shape
        if math.isinf(eta):
            k = np.arange(math.ceil(self.mean_trials + 12 * math.sqrt(self.mean_trials) + 60))
            return np.asarray(np.exp(k * math.log(self.mean_trials) - self.mean_trials - gammaln(k + 1)))
        gamma = halting_probability(self.mean_trials, eta)
        k = np.arange(1, math.ceil((eta + 12 * math.sqrt(eta) + 60) / gamma))
        if eta == 0:
            log_p = k * math.log1p(-gamma) - np.log(k) - math.log(-math.log(gamma))
        else:
            # The denominator γ^-η - 1 in log space.
            log_scale = -eta * math.log(gamma) + math.log(-math.expm1(eta * math.log(gamma)))
            log_p = k * math.log1p(-gamma) + gammaln(k + eta) - gammaln(k + 1) - gammaln(eta) - log_scale
        return np.concatenate([[0.0], np.exp(log_p)])

    @property
    def most_trials(self) -> int:
        """The greatest K that `draw` gives; a greater one has a probability of at most 2⁻⁵³.

        A Poisson law has the smallest for its mean.

        >>> [BestOfTrials(trial=(NoisyHistogram(),), mean_trials=5.0, shape=eta).most_trials for eta in (math.inf, 1.0)]
        [32, 165]
        """
        tails = np.cumsum(self.probabilities()[::-1])[::-1]  # of k trials or more
        return int(np.flatnonzero(tails > 2.0**-53)[-1])

    def draw(self, uniform: float) -> int:
        """K by inversion of its distribution function.

        Args:
            uniform: In [0, 1). Its 53 bits are the only error of the law of K.

        >>> BestOfTrials(trial=(NoisyHistogram(),), mean_trials=10.0).draw(0.5)  # the median
        7
        """
        number = int(np.searchsorted(np.cumsum(self.probabilities()), uniform, side="right"))
        return min(number, self.most_trials)


def halting_probability(mean: float, shape: float) -> float:
    """γ of the truncated negative binomial law that has this mean and shape.

    The mean is η (1-γ) / (γ (1-γ^η)), and (1/γ - 1) / log(1/γ) at η = 0.

    Args:
        mean: Above 1.
        shape: η, at least 0 and finite.

    Source: Papernot & Steinke 2022, arXiv:2110.03620, Definition 1.

    >>> round(halting_probability(10.0, 1.0), 12), round(halting_probability(10.0, 0.0), 4)
    (0.1, 0.0269)
    """

    def excess(t: float) -> float:  # at γ = exp(-t)
        slope = shape / -math.expm1(-shape * t) if shape else 1 / t
        return math.log(slope * math.expm1(t) / mean)

    return math.exp(-float(brentq(excess, 1e-9, 2 * math.log(mean) + 3, xtol=1e-15, rtol=1e-14)))


Mechanism = GaussianMechanism | BestOfTrials
