"""ε from privacy losses, by two accountants: privacy-loss distributions, and privacy-loss random variables.

Both give upper bounds on ε for compositions of Gaussian sums, Poisson-sampled or not. The first is that of
`dp_accounting`. The second is the PRV accountant of Opacus; it cannot express replace-one, for which it is given our
own privacy loss. Both assume exact real arithmetic.

Notation: q sampling probability, σ noise *multiplier*.
"""

import math
import warnings
from dataclasses import dataclass

import dp_accounting
import numpy as np
from dp_accounting.pld import PLDAccountant
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtr

from dphyper.privacy.budget import Relation
from dphyper.privacy.normal_form import NEIGHBORING_RELATIONS, Steps

# The error in ε that the PRV accountant may make: a number, and a share of ε, well within the tolerance for its
# disagreement with the first accountant. Its grid has as many points as the loss is wide over this error.
PRV_ERROR = 2e-3
_PRV_SHARE = 5e-4


def pld_epsilon(steps: Steps, delta: float, relation: Relation) -> float:
    """Upper bound on ε by privacy-loss distributions, on a grid that is fine against the loss of one step.

    >>> round(pld_epsilon(((1.0, 3.7306, 1),), 1e-5, Relation.ADD_OR_REMOVE_ONE), 3)
    1.0
    """
    spread = min(((q if q < 1 else math.sqrt(count)) / sigma for q, sigma, count in steps), default=1.0)
    interval = min(max(spread / 100, 5e-5), 1e-3)
    accountant = PLDAccountant(NEIGHBORING_RELATIONS[relation], value_discretization_interval=interval)
    for q, sigma, count in steps:
        event = dp_accounting.GaussianDpEvent(sigma)
        accountant.compose(event if q == 1 else dp_accounting.PoissonSampledDpEvent(q, event), count)
    return float(accountant.get_epsilon(delta))


def prv_epsilon(steps: Steps, delta: float, relation: Relation, about: float = 0.0) -> float:
    """Upper bound on ε by privacy-loss random variables (Gopi, Lee & Wutschitz 2021, arXiv:2106.02848).

    Args:
        steps: What is composed.
        delta: δ.
        relation: Neighbouring relation.
        about: What ε is about, by another accountant: the larger, the coarser the grid may be.

    >>> round(prv_epsilon(((0.25, 6.8, 50),), 1e-5, Relation.ADD_OR_REMOVE_ONE), 2)
    1.0
    """
    from opacus.accountants import PRVAccountant

    error = max(PRV_ERROR, _PRV_SHARE * about)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus takes log(1 - q) at q = 1 and warns of its optimal RDP order
        if relation is not Relation.REPLACE_ONE:
            accountant = PRVAccountant()
            accountant.history = [(sigma, q, count) for q, sigma, count in steps]
            return float(accountant.get_epsilon(delta, eps_error=error, delta_error=delta / 1000))
        return _replace_one_epsilon(steps, delta, error)


def _replace_one_epsilon(steps: Steps, delta: float, error: float) -> float:
    """As the PRV accountant of Opacus, with the privacy loss of replace-one."""
    from opacus.accountants.analysis import prv

    delta_error = delta / 1000
    losses = [ReplaceOneLoss(q, sigma) for q, sigma, _ in steps]
    counts = [count for _, _, count in steps]
    # By Chernoff's bound all but delta_error / 4 of the composed loss lies within it.
    bound = min(
        (sum(c * loss.log_moment(order) for c, loss in zip(counts, losses, strict=True)) + math.log(4 / delta_error))
        / order
        for order in np.geomspace(0.5, 256, 40)
    )
    mesh = error / math.sqrt(sum(counts) * math.log(12 / delta_error) / 2)
    domain = prv.Domain.create_aligned(-bound - 3, bound + 3, mesh)
    variables = [prv.TruncatedPrivacyRandomVariable(loss, domain.t_min, domain.t_max) for loss in losses]
    composition = prv.compose_heterogeneous([prv.discretize(v, domain) for v in variables], counts)
    return float(composition.compute_epsilon(delta, delta_error, error)[2])


@dataclass(frozen=True)
class ReplaceOneLoss:
    """Privacy loss of one Poisson-sampled Gaussian sum when a record is replaced by its negative.

    It is log(P/Q) under P, with P = (1-q) N(0, σ²) + q N(1, σ²) and Q = (1-q) N(0, σ²) + q N(-1, σ²). This pair
    dominates every other under replace-one (Lebeda et al. 2024, arXiv:2405.20769).

    Attributes:
        sampling_prob: q, above 0 and at most 1.
        noise_multiplier: σ, above 0.

    >>> loss = ReplaceOneLoss(sampling_prob=1.0, noise_multiplier=2.0)  # a Gaussian of mean 2/σ² = 1/2
    >>> round(float(loss.cdf(np.array(0.5))), 12)
    0.5
    """

    sampling_prob: float
    noise_multiplier: float

    def cdf(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability under P that the loss is at most t."""
        q, sigma = self.sampling_prob, self.noise_multiplier
        # loss(x) = t is a quadratic in u = exp(x/σ²): u² - 2 b u - exp(t) = 0. Its positive root is taken in the form
        # that cancels no digits for this sign of b.
        with np.errstate(over="ignore"):
            b = (1 - q) * np.expm1(t) / (2 * q) * math.exp(1 / (2 * sigma**2))
            root = np.sqrt(b * b + np.exp(t))
            log_u = np.where(b >= 0, np.log(np.abs(b) + root), t - np.log(np.abs(b) + root))
        x = sigma * log_u  # in units of σ
        return np.asarray((1 - q) * ndtr(x) + q * ndtr(x - 1 / sigma))

    def log_moment(self, order: float) -> float:
        """log E exp(order · loss) under P, by the trapezoid rule."""
        q, sigma = self.sampling_prob, self.noise_multiplier
        x = np.linspace(-1 - 12 * sigma, 2 + order + 12 * sigma, 8001)
        null = np.log1p(-q) if q < 1 else -np.inf
        upper = np.logaddexp(null, math.log(q) + (x - 0.5) / sigma**2)
        lower = np.logaddexp(null, math.log(q) + (-x - 0.5) / sigma**2)
        density = upper - x * x / (2 * sigma**2) - math.log(sigma * math.sqrt(2 * math.pi))
        return float(logsumexp(density + order * (upper - lower)) + math.log(x[1] - x[0]))
