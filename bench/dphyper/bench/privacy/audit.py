"""Empirical lower bounds on ε: attack the real mechanism and see how much it gives away.

A white-box canary audit: two neighbouring data sets that differ as much as the clip norm allows are released many
times through `PrivateData`, an attacker who knows both guesses which one it was, and his error rates bound ε from
below. Two bounds are reported, each with its confidence. The Clopper-Pearson bound assumes nothing, and cannot
reach into a δ far below one over the number of draws. The GDP bound assumes that the trade-off curve is a
Gaussian one, as that of every Gaussian mechanism is (Nasr et al. 2023, arXiv:2302.07956; Dong, Roth & Su 2019).

An audit can show that a claim is false; it cannot show that it is true. A bound above the claim is an alarm, up to
the confidence; a bound near the claim says that the attack was strong and the accounting tight.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, ndtri
from scipy.stats import beta, binom
from torch import Tensor

from dphyper.bench.privacy.accounting import gaussian_epsilon
from dphyper.bench.privacy.budget import Budget, Relation
from dphyper.bench.privacy.ledger import Ledger
from dphyper.bench.privacy.mechanisms import OneShotMean, PoissonGradientSteps
from dphyper.bench.privacy.noise import NoiseSource
from dphyper.bench.privacy.private_data import PrivateData

Scores = NDArray[np.float64]
SELECTION_LEVEL = 1e-4  # of the error rates by which the threshold of the GDP bound is chosen, not of the bound


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an attack showed.

    Attributes:
        claimed_epsilon: ε of the ledger of one release, at ``delta``.
        delta: δ of the claim and of both bounds.
        gdp_epsilon: Lower bound on ε from a Gaussian trade-off curve, at ``confidence``.
        clopper_pearson_epsilon: Lower bound on ε that assumes nothing, at ``confidence``.
        confidence: Probability with which each bound holds, taken alone.
        draws: Releases from each of the two data sets.
        scores: The attacker's scores without and with the canary, for a plot.
        seconds: Wall time.
    """

    claimed_epsilon: float
    delta: float
    gdp_epsilon: float
    clopper_pearson_epsilon: float
    confidence: float
    draws: int
    scores: tuple[Scores, Scores]
    seconds: float

    def __str__(self) -> str:
        return (
            f"claimed ε = {self.claimed_epsilon:.3f} at δ = {self.delta:g}; audited ε ≥ {self.gdp_epsilon:.3f} "
            f"(Gaussian trade-off curve), ε ≥ {self.clopper_pearson_epsilon:.3f} (Clopper-Pearson, no assumption), "
            f"each at {self.confidence:.0%} confidence from 2 × {self.draws} releases in {self.seconds:.0f} s"
        )


def audit_one_shot(
    mechanism: OneShotMean,
    budget: Budget,
    *,
    dimension: int,
    noise: NoiseSource,
    n: int = 16,
    draws: int = 100_000,
    confidence: float = 0.95,
) -> Audit:
    """Audit a one-shot release by a canary whose embedding lies at the clip norm.

    Args:
        mechanism: Calibrated, as a method uses it.
        budget: Of one release.
        dimension: k of the embedding.
        noise: As in the run that is audited.
        n: Records in each data set; all but the canary embed to zero. δ must be below 1/n.
        draws: Releases from each data set, about 0.1 ms each.
        confidence: Of each bound.
    """

    def score(records: Tensor) -> float:
        ledger = Ledger(budget)
        private = PrivateData(records, n=n, ledger=ledger, noise=noise)
        private.release_mean(lambda x, rng: x, mechanism, role="audit")
        released = ledger.charges[0].output
        assert released is not None
        return float(np.dot(released, direction))

    canary = torch.zeros(dimension, dtype=torch.float64)
    canary[0] = 2 * mechanism.l2_clip_norm
    pair = canary_neighbours(canary, n, budget.relation)
    # The way in which the canary moves the released sum, the count coordinate included.
    direction = np.zeros(dimension + (mechanism.count_coordinate(budget.relation) > 0))
    direction[0] = mechanism.l2_clip_norm
    direction[dimension:] = mechanism.count_coordinate(budget.relation)
    return _audit(score, pair, mechanism, budget, draws=draws, confidence=confidence)


def audit_gradient_steps(
    mechanism: PoissonGradientSteps,
    budget: Budget,
    *,
    dimension: int,
    noise: NoiseSource,
    n: int = 16,
    draws: int = 4_000,
    confidence: float = 0.95,
) -> Audit:
    """Audit T gradient steps by a canary whose gradient lies at the clip norm in every step.

    The score is the log-likelihood ratio of the canary being there, summed over the steps: no attack on these
    steps does better. The trade-off curve of Poisson-sampled steps is Gaussian only in the limit of many steps,
    and the GDP bound is to be read with that.

    Args:
        mechanism: Calibrated, as a method uses it.
        budget: Of all T steps.
        dimension: p of the gradient.
        noise: As in the run that is audited.
        n: Records in each data set; all but the canary have zero gradients.
        draws: Runs of T steps on each data set, about 0.1 ms a step.
        confidence: Of each bound.
    """
    q, sigma = mechanism.sampling_prob, mechanism.noise_multiplier or 0.0
    scale = q * n / mechanism.l2_clip_norm  # from a mean gradient to a sum in units of the clip norm

    def log_density(x: Scores, shift: float) -> Scores:
        # of (1-q) N(0, σ²) + q N(shift, σ²) against N(0, σ²)
        ratio = (x * shift - shift**2 / 2) / sigma**2
        return np.logaddexp(np.log1p(-q) if q < 1 else -np.inf, math.log(q) + ratio)

    def score(records: Tensor) -> float:
        private = PrivateData(records, n=n, ledger=Ledger(budget), noise=noise)
        steps = private.gradient_steps(lambda x, rng: x, mechanism, role="audit")
        x = np.array([float(step[0]) for step in steps]) * scale
        other = log_density(x, -1.0) if budget.relation is Relation.REPLACE_ONE else 0.0
        return float(np.sum(log_density(x, 1.0) - other))

    canary = torch.zeros(dimension, dtype=torch.float64)
    canary[0] = 2 * mechanism.l2_clip_norm
    return _audit(
        score, canary_neighbours(canary, n, budget.relation), mechanism, budget, draws=draws, confidence=confidence
    )


def canary_neighbours(canary: Tensor, n: int, relation: Relation) -> tuple[Tensor, Tensor]:
    """Two neighbouring data sets of zero records, without and with the canary.

    Under replace-one the canary replaces its negative. The second data set has n records.

    >>> [len(x) for x in canary_neighbours(torch.ones(3), 5, Relation.ADD_OR_REMOVE_ONE)]
    [4, 5]
    """
    rest = canary.new_zeros(n - 1, *canary.shape)
    null = {
        Relation.ADD_OR_REMOVE_ONE: canary.new_zeros(0, *canary.shape),
        Relation.ZERO_OUT: torch.zeros_like(canary)[None],
        Relation.REPLACE_ONE: -canary[None],
    }[relation]
    return torch.cat([rest, null]), torch.cat([rest, canary[None]])


def _audit(
    score: Callable[[Tensor], float],
    pair: tuple[Tensor, Tensor],
    mechanism: OneShotMean | PoissonGradientSteps,
    budget: Budget,
    *,
    draws: int,
    confidence: float,
) -> Audit:
    begin = time.perf_counter()
    out, canary = (np.fromiter((score(records) for _ in range(draws)), np.float64, draws) for records in pair)
    claim = Ledger(budget)
    claim.charge(mechanism, role="audit")
    return Audit(
        claimed_epsilon=claim.spent(),
        delta=budget.delta,
        gdp_epsilon=gdp_lower_bound(out, canary, budget.delta, confidence=confidence),
        clopper_pearson_epsilon=clopper_pearson_lower_bound(out, canary, budget.delta, confidence=confidence),
        confidence=confidence,
        draws=draws,
        scores=(out, canary),
        seconds=time.perf_counter() - begin,
    )


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


def one_run_audit(
    scores: Scores, included: NDArray[np.bool_], delta: float, *, guesses: int, confidence: float = 0.95
) -> float:
    """Lower bound on ε under add-or-remove-one from the scores of many canaries in a single run.

    The attacker guesses that the ``guesses / 2`` canaries of the highest scores were in and that as many of the
    lowest were not, and abstains on the rest. It works end to end: insert each canary by a fair coin, run a method
    once, and score each canary by what the result gives away about it, such as its negative loss.

    Args:
        scores: (m,) one for each canary, higher if it looks included.
        included: (m,) what the coins said.
        delta: δ at least 0.
        guesses: Even, at most m, and chosen before the scores are seen.
        confidence: Probability with which the bound holds.

    >>> included = np.arange(1000) % 2 == 0
    >>> round(one_run_audit(np.where(included, 1.0, -1.0), included, 1e-5, guesses=1000), 2)
    5.78
    """
    order = np.argsort(scores)
    half = guesses // 2
    correct = int(included[order[-half:]].sum() + (~included[order[:half]]).sum())
    return one_run_lower_bound(correct, 2 * half, len(scores), delta, confidence=confidence)


def one_run_lower_bound(correct: int, guesses: int, canaries: int, delta: float, *, confidence: float = 0.95) -> float:
    """Lower bound on ε at δ from one run with many canaries, each put in by a fair coin.

    Steinke, Nasr & Jagielski 2023, arXiv:2305.08846, Theorem 5.2: were the run (ε, δ)-private, the number of right
    guesses would exceed a binomial of rate 1/(1 + e^-ε) only with small probability; the bound is the largest ε that
    is refuted.

    Args:
        correct: Right guesses of whether a canary was in.
        guesses: Guesses made, at most ``canaries``; an attacker may abstain.
        canaries: Canaries whose membership was drawn.
        delta: δ at least 0.
        confidence: Probability with which the bound holds.

    >>> round(one_run_lower_bound(900, 1000, 1000, 1e-5), 2)
    2.02
    """

    def p_value(epsilon: float) -> float:
        rate = expit(epsilon)
        tail = binom.sf(correct - 1, guesses, rate)
        i = np.arange(1, correct + 1)
        excess = np.max((binom.sf(correct - i - 1, guesses, rate) - tail) / i, initial=0.0)
        return float(min(tail + 2 * canaries * delta * excess, 1.0))

    level = 1 - confidence
    if p_value(0.0) > level:
        return 0.0
    high = 1.0
    while p_value(high) <= level:
        high *= 2
    return float(brentq(lambda epsilon: p_value(epsilon) - level, 0.0, high, xtol=1e-9))
