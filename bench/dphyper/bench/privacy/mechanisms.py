"""The mechanisms: frozen descriptions of every way in which private records may reach a method.

Each one clips what a record contributes to an l2 norm, sums over records and adds Gaussian noise; it states its
sensitivity under each relation and builds the `dp_accounting` event that is charged. A description holds no
record and draws nothing: `PrivateData` draws, and it reads the sampling probability, the clip norm and the noise
from the object whose event it has charged, so that the sampler and the accountant cannot differ.

**One convention for the noise multiplier.** ``noise_multiplier`` is the standard deviation of the noise on the
*sum* divided by the norm bound of *one record's contribution*, under every relation, as in
`dp_accounting.GaussianDpEvent` and in Opacus. It is a multiplier, not a standard deviation. Under replace-one a
record moves the sum by twice that bound; the accountant adds this factor from the relation, so the multiplier
must not contain it. A calibrated multiplier is hence about twice as large under replace-one.
"""

import math
from dataclasses import dataclass

import dp_accounting

from dphyper.bench.errors import PrivacyError, UserError
from dphyper.bench.privacy.budget import Relation


class GaussianMechanism:
    """What all mechanisms share; not a mechanism by itself.

    Attributes:
        l2_clip_norm: Bound C > 0 on the l2 norm of what one record's function value contributes; ``inf`` only
            without noise.
        noise_multiplier: Standard deviation of the noise on the sum over the norm bound of one record's
            contribution; 0 for a non-private run, ``None`` until `calibrate` has set it.
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
        if math.isinf(self.l2_clip_norm) and sigma:
            raise UserError(f"l2_clip_norm = inf with noise_multiplier = {sigma}: unbounded records need a finite clip")
        if not 0 < self.sampling_prob <= 1:
            raise UserError(f"sampling_prob = {self.sampling_prob}: expected above 0 and at most 1")
        if self.steps < 1:
            raise UserError(f"steps = {self.steps}: expected at least 1")

    def count_coordinate(self, relation: Relation) -> float:
        """Value of the extra coordinate in which each record contributes a constant; 0 where there is none."""
        return 0.0

    def record_norm(self, relation: Relation) -> float:
        """Bound on the l2 norm of all that one record adds to the sum, the count coordinate included."""
        return math.hypot(self.l2_clip_norm, self.count_coordinate(relation))

    def sensitivity(self, relation: Relation) -> float:
        """Largest l2 distance between the sums of two data sets that are neighbours under ``relation``."""
        return self.record_norm(relation) * (2 if relation is Relation.REPLACE_ONE else 1)

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

    Sensitivity of the sum, with C the clip norm:

    * add-or-remove-one: the number of records is secret, hence the sum and c·count are released jointly, with
      c = C·count_weight, and divided afterwards. Sensitivity √(C² + c²). It is never C/n on the mean: adding a
      record changes n too.
    * zero-out: C, and C/n on the mean, n being public.
    * replace-one: 2C, and 2C/n on the mean.

    Attributes:
        l2_clip_norm: C, above 0.
        count_weight: c/C, above 0. At 1/3 the noise grows by 5 %.
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

    Sensitivity of each sum: C under add-or-remove-one and zero-out, 2C under replace-one. Each sum is divided by
    the *expected* batch size q·n, n being the nominal number of records of the design; an empty sample still
    receives noise (Abadi et al. 2016, arXiv:1607.00133; Algorithm 1).

    Attributes:
        l2_clip_norm: C, above 0.
        sampling_prob: q, above 0 and at most 1.
        steps: T, at least 1. All T steps are charged before the first is drawn.
        noise_multiplier: See the head of this module; the noise on the sum has standard deviation σ·C.

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

    Sensitivity: 1 under add-or-remove-one and zero-out, 2 under replace-one, for votes of any sign. (Where votes
    are known to be non-negative √2 would do under replace-one; no use is made of it.) Lin et al. 2024,
    arXiv:2305.15560, Algorithm 2.

    Attributes:
        bins: Length of a vote, at least 1.
        noise_multiplier: See the head of this module; it equals the standard deviation on each bin.

    >>> NoisyHistogram(bins=10, noise_multiplier=4.0).noise_std(Relation.ADD_OR_REMOVE_ONE)
    4.0
    """

    bins: int
    noise_multiplier: float | None = None
    l2_clip_norm = 1.0
    sampling_prob = 1.0
    steps = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bins < 1:
            raise UserError(f"bins = {self.bins}: expected at least 1")


Mechanism = OneShotMean | PoissonGradientSteps | NoisyHistogram
