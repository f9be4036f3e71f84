"""Lower bounds on ε from the scores of an attacker who guesses whether a record was there.

Two bounds, each with its confidence. The Clopper-Pearson bound assumes nothing, and cannot reach into a δ far below one
over the number of scores. The GDP bound assumes that the trade-off curve is a Gaussian one, as that of every Gaussian
mechanism is (Nasr et al. 2023, arXiv:2302.07956; Dong, Roth & Su 2019, arXiv:1905.02383). A bound above the claim is an
alarm, up to the confidence; a bound near the claim says that the attack was strong and the accounting tight.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import beta

from dphyper.core.errors import UserError
from dphyper.privacy.accounting import gaussian_epsilon

Scores = NDArray[np.float64]
SELECTION_LEVEL = 1e-4  # of the error rates by which the threshold of the GDP bound is chosen, not of the bound

FEWEST_SCORES = 4  # from each data set: a quarter of them chooses the threshold


def require_enough(*, dimension: int, draws: int) -> None:
    """Refuse an attack that has nothing to look at.

    Args:
        dimension: k, numbers of a release.
        draws: Releases from each of the two data sets.

    Raises:
        UserError: The dimension is below 1, or there are fewer releases than `FEWEST_SCORES`.
    """
    if dimension < 1:
        raise UserError(f"embedding_dim = {dimension}: expected at least 1 number in each release")
    if draws < FEWEST_SCORES:
        raise UserError(f"{draws} releases from each data set: expected at least {FEWEST_SCORES}, better 1,000 or more")


def gdp_lower_bound(out: Scores, canary: Scores, delta: float, *, confidence: float = 0.95) -> float:
    """Lower bound on ε at δ, if the trade-off curve is Gaussian.

    A threshold is chosen on the first quarter of the scores. On the rest, Clopper-Pearson bounds on both error
    rates give μ ≥ Φ⁻¹(1 - α) - Φ⁻¹(β), and μ gives ε (Nasr et al. 2023, arXiv:2302.07956, Section 4; Dong, Roth &
    Su 2019, arXiv:1905.02383, Corollary 2.13).

    Args:
        out: Scores without the canary.
        canary: Scores with it; higher on the whole.
        delta: δ above 0.
        confidence: Probability with which the bound holds.

    >>> rng = np.random.default_rng(0)
    >>> round(gdp_lower_bound(rng.normal(0, 1, 100_000), rng.normal(1, 1, 100_000), 1e-5), 2)
    4.3
    """

    def mu(alpha: Scores, miss: Scores) -> Scores:
        return np.asarray(-ndtri(alpha) - ndtri(miss), dtype=np.float64)

    return gaussian_epsilon(max(_split_bound(out, canary, mu, confidence, SELECTION_LEVEL), 0.0), delta)


def clopper_pearson_lower_bound(out: Scores, canary: Scores, delta: float, *, confidence: float = 0.95) -> float:
    """Lower bound on ε at δ from two error rates, with no assumption on the mechanism.

    ε ≥ log((1 - δ - β) / α), and the same with the errors exchanged (Kairouz, Oh & Viswanath 2015,
    arXiv:1311.0776, Theorem 2.1), for Clopper-Pearson bounds α, β on the error rates.

    Args:
        out: Scores without the canary.
        canary: Scores with it; higher on the whole.
        delta: δ at least 0.
        confidence: Probability with which the bound holds.

    >>> rng = np.random.default_rng(0)
    >>> round(clopper_pearson_lower_bound(rng.normal(0, 1, 100_000), rng.normal(1, 1, 100_000), 1e-5), 2)
    2.68
    """

    def epsilon(alpha: Scores, miss: Scores) -> Scores:
        with np.errstate(divide="ignore"):
            one_way = np.log(np.maximum(1 - delta - miss, 0.0)) - np.log(alpha)
            other_way = np.log(np.maximum(1 - delta - alpha, 0.0)) - np.log(miss)
        return np.asarray(np.maximum(one_way, other_way), dtype=np.float64)

    return max(_split_bound(out, canary, epsilon, confidence, (1 - confidence) / 2), 0.0)


def _split_bound(
    out: Scores, canary: Scores, merit: Callable[[Scores, Scores], Scores], confidence: float, selection: float
) -> float:
    """``merit`` at upper confidence bounds on both error rates, at the threshold that looked best on other scores.

    That threshold is chosen by rates at the level ``selection``. A stricter one than the bound's keeps it from tails
    in which a few scores happened to fall well, to which a Gaussian curve gives far too much weight. The bound is
    taken on scores that the choice did not see, so that every choice is valid.
    """

    def bound(out: Scores, canary: Scores, thresholds: Scores, level: float) -> Scores:
        alarms = len(out) - np.searchsorted(np.sort(out), thresholds, side="right")
        misses = np.searchsorted(np.sort(canary), thresholds, side="right")
        return merit(_upper_rate(alarms, len(out), level), _upper_rate(misses, len(canary), level))

    (first_out, rest_out), (first_in, rest_in) = (np.split(scores, [len(scores) // 4]) for scores in (out, canary))
    thresholds = np.quantile(np.concatenate([first_out, first_in]), np.linspace(0, 1, 1001))
    best = np.argmax(bound(first_out, first_in, thresholds, selection))
    return float(bound(rest_out, rest_in, thresholds[[best]], (1 - confidence) / 2)[0])


def _upper_rate(events: NDArray[np.int64], trials: int, level: float) -> Scores:
    """Clopper-Pearson: the rate at which so few events or fewer have probability ``level``."""
    rate: Scores = beta.ppf(1 - level, events + 1, np.maximum(trials - events, 1))
    return np.where(events < trials, rate, 1.0)
