"""From mechanisms to ε and back, by two accountants that must agree.

Every ε is computed twice, by different means. A disagreement beyond 2 % (or 0.005 in ε, where that is more) raises.

| what is composed | first accountant, whose ε counts | second |
|---|---|---|
| sums without subsampling | the exact Gaussian formula (Balle & Wang 2018) | privacy-loss distributions |
| with Poisson samples | privacy-loss distributions | privacy-loss random variables |
| with a selection of the best of several trials | Rényi accountant of `dp_accounting` | our own, on other orders |

All but the exact formula give upper bounds on ε. `dphyper.privacy.privacy_loss` and `dphyper.privacy.renyi` hold them.
The accountants assume exact real arithmetic and true randomness; `dphyper.privacy.noise` says how far the noise is so.

Notation: σ is always the noise *multiplier* of `dphyper.privacy.mechanisms`.
"""

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import TypeVar

import dp_accounting
from scipy.optimize import brentq
from scipy.special import log_ndtr

from dphyper.core.errors import PrivacyError, UserError
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.mechanisms import Mechanism
from dphyper.privacy.normal_form import Selections, Steps, normal_form
from dphyper.privacy.privacy_loss import pld_epsilon, prv_epsilon
from dphyper.privacy.renyi import papernot_steinke_epsilon, rdp_epsilon

# Sound accountants differ by at most 0.5 % in tests/privacy, and one with too few Rényi orders by 6 %.
RELATIVE_TOLERANCE = 0.02
# With Poisson samples, the most that both accountants reach: the second one takes exp(ε), and both a grid as long as ε.
MOST_EPSILON = 500.0
ABSOLUTE_TOLERANCE = 5e-3  # for small ε: the second accountant may err by `privacy_loss.PRV_ERROR`

_BEYOND = (
    f"more than the {MOST_EPSILON:g} up to which two accountants can be compared, and no protection: choose a smaller "
    "epsilon, or inf for no privacy at all"
)

M = TypeVar("M", bound=Mechanism)


def gaussian_log_delta(mu: float, epsilon: float) -> float:
    """Natural logarithm of the smallest δ at which a μ-GDP Gaussian mechanism is (ε, δ)-private.

    Args:
        mu: Sensitivity over the standard deviation of the noise, above 0.
        epsilon: ε ≥ 0.

    Source: Balle & Wang 2018, arXiv:1805.06530, Theorem 8. The formula is exact, and evaluated in log space.

    >>> round(math.exp(gaussian_log_delta(1 / 3.7306, 1.0)), 8)
    1e-05
    """
    upper = float(log_ndtr(mu / 2 - epsilon / mu))
    lower = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return upper + math.log(-math.expm1(min(lower - upper, -1e-300)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Smallest ε ≥ 0 at which a μ-GDP Gaussian mechanism is (ε, δ)-private.

    Args:
        mu: Sensitivity over the standard deviation of the noise, at least 0.
        delta: δ, above 0 and below 1.

    >>> round(gaussian_epsilon(1 / 3.7306, 1e-5), 4)
    1.0
    """
    if mu == 0 or gaussian_log_delta(mu, 0.0) <= math.log(delta):
        return 0.0
    high = 1.0
    while gaussian_log_delta(mu, high) > math.log(delta):
        high *= 2
    root = brentq(lambda epsilon: gaussian_log_delta(mu, epsilon) - math.log(delta), 0.0, high, xtol=1e-14, rtol=1e-13)
    return float(root)


def gaussian_noise_multiplier(epsilon: float, delta: float) -> float:
    """Standard deviation of the noise over the sensitivity, for a Gaussian mechanism that spends exactly (ε, δ).

    Args:
        epsilon: ε, above 0 and finite.
        delta: δ, above 0 and below 1.

    >>> round(gaussian_noise_multiplier(1.0, 1e-5), 4)
    3.7306
    """
    low, high = math.log(1e-6), math.log(1e12)
    root = brentq(
        lambda x: math.log(max(gaussian_epsilon(math.exp(-x), delta), 1e-300) / epsilon), low, high, xtol=1e-13
    )
    return math.exp(float(root))


def epsilon_of(
    events: dp_accounting.DpEvent | Iterable[dp_accounting.DpEvent], delta: float, relation: Relation
) -> float:
    """ε that these events spend together at δ, agreed on by two accountants.

    Args:
        events: One event, or several that are composed. Known are Gaussian and Poisson-sampled Gaussian sums, their
            compositions, selections among trials made of these, and the non-private event.
        delta: δ of the guarantee, above 0 and below 1.
        relation: Neighbouring relation of the guarantee.

    Returns:
        ε; ``inf`` if an event is not private.

    Raises:
        PrivacyError: The accountants disagree, the second one fails, an event is of another kind, or Poisson samples
            stand in or beside a selection under replace-one.

    >>> event = dp_accounting.GaussianDpEvent(noise_multiplier=3.7306)
    >>> round(epsilon_of(event, 1e-5, Relation.ADD_OR_REMOVE_ONE), 3)
    1.0
    >>> round(epsilon_of(event, 1e-5, Relation.REPLACE_ONE), 3)  # twice the sensitivity
    2.155
    """
    event = events if isinstance(events, dp_accounting.DpEvent) else dp_accounting.ComposedDpEvent(list(events))
    parts = normal_form(event)
    return math.inf if parts is None else _agreed_epsilon(*parts, delta, Relation(relation))


def calibrate(budget: Budget, *mechanisms: M) -> tuple[M, ...]:
    """Set the noise multipliers so that the mechanisms together spend the budget and no more.

    Mechanisms whose ``noise_multiplier`` is None receive one common multiplier: the smallest, to 1e-6 of its value,
    that keeps the composition within the budget. Releases inside `BestOfTrials` receive it times their ratio. A
    multiplier that is set already stays and counts towards the budget. At ε = ∞ the common multiplier is 0. Results
    are cached by value.

    Args:
        budget: ε, δ and the relation.
        mechanisms: In the order in which they are returned.

    Returns:
        The same mechanisms with every ``noise_multiplier`` set.

    Raises:
        PrivacyError: The multipliers already set spend more than the budget, or the accountants disagree.
        UserError: ε is finite and beyond `MOST_EPSILON`, and the mechanisms take Poisson samples.

    >>> from dphyper.privacy.mechanisms import OneShotMean
    >>> (mean,) = calibrate(Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE), OneShotMean())
    >>> round(mean.noise_multiplier, 4)
    3.7306
    """
    return _calibrate(budget, mechanisms)  # type: ignore[return-value]


@lru_cache(maxsize=4096)
def _calibrate(budget: Budget, mechanisms: tuple[Mechanism, ...]) -> tuple[Mechanism, ...]:
    def at(sigma: float) -> tuple[Mechanism, ...]:
        return tuple(m.with_noise(sigma) for m in mechanisms)

    def spent(sigma: float) -> float:
        parts = normal_form(dp_accounting.ComposedDpEvent([m.event() for m in at(sigma)]))
        return math.inf if parts is None else _first_epsilon(*parts, budget.delta, budget.relation)

    if math.isinf(budget.epsilon):
        return at(0.0)
    parts = normal_form(dp_accounting.ComposedDpEvent([m.event() for m in at(1.0)]))
    if budget.epsilon > MOST_EPSILON and parts and _sampled(parts[0]):
        raise UserError(f"epsilon = {budget.epsilon:g} with Poisson samples, {_BEYOND}")
    free = sum(m.steps for m in mechanisms if not m.is_calibrated)
    if not free:
        if spent(1.0) > budget.epsilon:
            raise PrivacyError(
                f"the noise multipliers already set spend ε = {spent(1.0):.4g}, above the budget {budget.epsilon:.4g}"
            )
        return mechanisms
    fixed = tuple(m for m in mechanisms if m.is_calibrated)
    if fixed:
        _calibrate(budget, fixed)  # raises where these alone spend too much
    # This is the answer where there is no subsampling, no selection and no fixed multiplier; subsampling only lowers
    # it. The search starts a little above, so that rounding cannot put it on the wrong side.
    whole = gaussian_noise_multiplier(budget.epsilon, budget.delta) * math.sqrt(free)
    high = budget.relation.sensitivity_factor * whole * 1.0001
    while spent(high) > budget.epsilon and high < 1e9:
        high *= 2
    low = high / 2
    while spent(low) <= budget.epsilon:
        low /= 2
    sigma = math.exp(
        brentq(lambda x: math.log(spent(math.exp(x)) / budget.epsilon), math.log(low), math.log(high), xtol=1e-7)
    )
    while spent(sigma) > budget.epsilon:
        sigma *= 1 + 1e-7
    calibrated = at(sigma)
    epsilon_of([m.event() for m in calibrated], budget.delta, budget.relation)
    return calibrated


def _sampled(steps: Steps) -> bool:
    return any(q < 1 for q, _, _ in steps)


@lru_cache(maxsize=65536)
def _first_epsilon(steps: Steps, selections: Selections, delta: float, relation: Relation) -> float:
    """ε by the first accountant of the table at the head of this module."""
    if selections:
        return rdp_epsilon(steps, selections, delta, relation)
    if all(q == 1 for q, _, _ in steps):
        # μ of a composition: Dong, Roth & Su 2019, arXiv:1905.02383, Corollary 3.3.
        mu = relation.sensitivity_factor * math.sqrt(sum(count / sigma**2 for _, sigma, count in steps))
        return gaussian_epsilon(mu, delta)
    return pld_epsilon(steps, delta, relation)


@lru_cache(maxsize=65536)
def _agreed_epsilon(steps: Steps, selections: Selections, delta: float, relation: Relation) -> float:
    first = _first_epsilon(steps, selections, delta, relation)
    if MOST_EPSILON < first < math.inf and _sampled(steps):
        raise PrivacyError(f"ε = {first:.4g} is spent with Poisson samples, {_BEYOND}")
    try:
        if selections:
            second = papernot_steinke_epsilon(steps, selections, delta, relation)
        elif all(q == 1 for q, _, _ in steps):
            second = pld_epsilon(steps, delta, relation)
        else:
            second = prv_epsilon(steps, delta, relation, first)
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise PrivacyError(f"the second accountant gives no ε (the first: {first:.4g}): {error}") from error
    # Where one is infinite they agree only if both are.
    difference = 0.0 if first == second else abs(first - second)
    if math.isinf(difference) or not difference <= max(RELATIVE_TOLERANCE * max(first, second), ABSOLUTE_TOLERANCE):
        raise PrivacyError(
            f"two accountants disagree: ε = {first:.5g} and {second:.5g} at δ = {delta:g} for {steps + selections}"
        )
    return first
