"""From mechanisms to ε and back, by two accountants that must agree.

Sums without subsampling compose to one Gaussian mechanism, for which ε is exact (Balle & Wang 2018). Everything
else is accounted by the privacy-loss distributions of `dp_accounting`, an upper bound. Every ε is computed a
second time by other means: the exact Gaussian formula is checked by `dp_accounting`, Poisson sampling under
add-or-remove-one and zero-out by the PRV accountant of Opacus, and under replace-one, which Opacus cannot
express, by our own privacy-loss variable in Opacus' discretisation. A disagreement beyond 2 % (or 0.005 in ε,
where that is more) raises. The accountants assume exact real arithmetic and true randomness; what the noise
source does about that is said there.

Runs that select the best of several trials are accounted in Rényi divergences, with everything else that they
charged: by `dp_accounting` on a grid of orders, an upper bound, and by our own evaluation of the theorems of
Papernot & Steinke (2022, arXiv:2110.03620) on our own Rényi curves. The Rényi accountant of `dp_accounting` takes a
multiplier relative to the whole sensitivity under every relation; here it is given half of ours under replace-one.
Poisson samples under replace-one have no Rényi accountant and are refused inside or beside a selection.

Notation: σ is always the noise *multiplier* of `dphyper.privacy.mechanisms`.
"""

import dataclasses
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, TypeVar

import dp_accounting
import numpy as np
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaln, log_ndtr, logsumexp, ndtr

from dphyper.core.errors import PrivacyError
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.mechanisms import Mechanism, halting_probability

RELATIVE_TOLERANCE = 0.02
ABSOLUTE_TOLERANCE = 5e-3
PRV_ERROR = 2e-3  # the PRV accountant's own bound on its error in ε

# One entry a kind of step: sampling probability, noise multiplier, number of steps. Sorted, so that the order of
# the releases cannot change a digit of ε.
Steps = tuple[tuple[float, float, int], ...]
M = TypeVar("M", bound=Mechanism)


class Selection(NamedTuple):
    """The best of a random number of trials: the sums of one trial, and the law of their number."""

    steps: Steps
    mean: float
    shape: float


# With the number of times that each was done.
Selections = tuple[tuple[Selection, int], ...]

# Rényi orders of the first accountant. Above 1 only: at 1 `dp_accounting` divides 0 by 0 for sampled sums. Sampled
# sums take time in proportion to the order, and orders that are not integers do not always converge, in which case
# `dp_accounting` leaves them out and warns.
_ORDERS = 1 + np.geomspace(5e-3, 1e6, 160)
_MAX_SAMPLED_ORDER = 4096
_SAMPLED_ORDERS = np.unique(np.where(_ORDERS < 32, _ORDERS, np.round(_ORDERS))[_ORDERS < _MAX_SAMPLED_ORDER])
logging.getLogger("absl").addFilter(lambda record: "_compute_log_a_frac failed" not in record.getMessage())

_RELATIONS = {
    Relation.ADD_OR_REMOVE_ONE: dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    Relation.ZERO_OUT: dp_accounting.NeighboringRelation.REPLACE_SPECIAL,
    Relation.REPLACE_ONE: dp_accounting.NeighboringRelation.REPLACE_ONE,
}


def gaussian_log_delta(mu: float, epsilon: float) -> float:
    """Natural logarithm of the δ at which a μ-GDP Gaussian mechanism is (ε, δ)-private, exactly.

    Args:
        mu: Sensitivity over the standard deviation of the noise, above 0.
        epsilon: ε ≥ 0.

    Source: Balle & Wang 2018, arXiv:1805.06530, Theorem 8; evaluated in log space.

    >>> round(math.exp(gaussian_log_delta(1 / 3.7306, 1.0)), 8)
    1e-05
    """
    upper = float(log_ndtr(mu / 2 - epsilon / mu))
    lower = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return upper + math.log(-math.expm1(min(lower - upper, -1e-300)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Smallest ε ≥ 0 at which a μ-GDP Gaussian mechanism is (ε, δ)-private; 0 for μ = 0.

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
    """Standard deviation over sensitivity of the analytic Gaussian mechanism at (ε, δ).

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
    """ε spent by these events together at δ, agreed on by two accountants; ``inf`` if one of them is non-private.

    Args:
        events: One event or several that are composed: Gaussian, Poisson-sampled Gaussian, their
            self-compositions and compositions, selections among trials made of these, and the non-private event.
        delta: δ of the guarantee, above 0 and below 1.
        relation: Neighbouring relation of the guarantee.

    Raises:
        PrivacyError: The accountants disagree beyond 2 %, one of them fails, an event is of another kind, or
            Poisson samples meet a selection under replace-one.

    >>> event = dp_accounting.GaussianDpEvent(noise_multiplier=3.7306)
    >>> round(epsilon_of(event, 1e-5, Relation.ADD_OR_REMOVE_ONE), 3)
    1.0
    >>> round(epsilon_of(event, 1e-5, Relation.REPLACE_ONE), 3)  # twice the sensitivity
    2.155
    """
    composed = events if isinstance(events, dp_accounting.DpEvent) else dp_accounting.ComposedDpEvent(list(events))
    normal = _normal_form(composed)
    return math.inf if normal is None else _agreed_epsilon(*normal, delta, Relation(relation))


def calibrate(budget: Budget, *mechanisms: M) -> tuple[M, ...]:
    """Set the noise multipliers so that the mechanisms together spend the budget and not more.

    All mechanisms whose ``noise_multiplier`` is None receive one common multiplier, the smallest (to 1e-6 of its
    value) that keeps the composition within the budget; those that have one keep it and are charged with it. The
    releases inside `BestOfTrials` receive it times their ratio. At ε = ∞ the common multiplier is 0. Results are
    cached by value.

    Args:
        budget: ε, δ and the relation.
        mechanisms: In the order in which they are returned.

    Returns:
        The same mechanisms with every ``noise_multiplier`` set.

    Raises:
        PrivacyError: The multipliers already set spend more than the budget, or the accountants disagree.

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
        normal = _normal_form(dp_accounting.ComposedDpEvent([m.event() for m in at(sigma)]))
        return math.inf if normal is None else _reference_epsilon(*normal, budget.delta, budget.relation)

    if math.isinf(budget.epsilon):
        return at(0.0)
    free = sum(m.steps for m in mechanisms if not m.is_calibrated)
    if not free:
        if spent(1.0) > budget.epsilon:
            raise PrivacyError(
                f"the noise multipliers already set spend ε = {spent(1.0):.4g}, above the budget {budget.epsilon:.4g}"
            )
        return mechanisms
    fixed = tuple(m for m in mechanisms if m.is_calibrated)
    if fixed:
        _calibrate(budget, fixed)
    # Without subsampling, selections and fixed ones this would be the answer; sampling only lowers it. A little
    # above it, so that rounding cannot put it on the wrong side.
    exact = _distance(budget.relation) * gaussian_noise_multiplier(budget.epsilon, budget.delta) * math.sqrt(free)
    high = exact * 1.0001
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


def _distance(relation: Relation) -> int:
    """Norm bounds by which a record moves the sum."""
    return 2 if relation is Relation.REPLACE_ONE else 1


def _normal_form(event: dp_accounting.DpEvent) -> tuple[Steps, Selections] | None:
    """The sums of an event and its selections; None if it is not private."""
    counts: Counter[tuple[float, float]] = Counter()
    selections: Counter[Selection] = Counter()
    stack = [(event, 1)]
    while stack:
        part, times = stack.pop()
        match part:
            case dp_accounting.NonPrivateDpEvent():
                return None
            case dp_accounting.NoOpDpEvent():
                pass
            case dp_accounting.ComposedDpEvent():
                stack += [(inner, times) for inner in part.events]
            case dp_accounting.SelfComposedDpEvent():
                stack.append((part.event, times * part.count))
            case dp_accounting.GaussianDpEvent():
                counts[1.0, part.noise_multiplier] += times
            case dp_accounting.PoissonSampledDpEvent(event=dp_accounting.GaussianDpEvent()):
                counts[part.sampling_probability, part.event.noise_multiplier] += times
            case dp_accounting.dp_event.RepeatAndSelectDpEvent():
                trial = _normal_form(part.event)
                if trial is None:
                    return None
                sums, inner = trial
                if inner:
                    raise PrivacyError("no accountant here for a selection inside a selection")
                selections[Selection(sums, part.mean, part.shape)] += times
            case _:
                raise PrivacyError(f"no accountant here for the event {part}: expected (Poisson-sampled) Gaussians")
    if any(sigma <= 0 for _, sigma in counts):
        return None
    steps = tuple(sorted((q, sigma, count) for (q, sigma), count in counts.items()))
    return steps, tuple(sorted(selections.items()))


def _gaussian_mu(steps: Steps, relation: Relation) -> float:
    """μ of the composition of the steps that are not subsampled (Dong, Roth & Su 2019, Corollary 3.3)."""
    return _distance(relation) * math.sqrt(sum(count / sigma**2 for q, sigma, count in steps if q == 1))


@lru_cache(maxsize=65536)
def _reference_epsilon(steps: Steps, selections: Selections, delta: float, relation: Relation) -> float:
    if selections:
        return _rdp_epsilon(steps, selections, delta, relation)
    if all(q == 1 for q, _, _ in steps):
        return gaussian_epsilon(_gaussian_mu(steps, relation), delta)
    return _pld_epsilon(steps, delta, relation)


@lru_cache(maxsize=65536)
def _agreed_epsilon(steps: Steps, selections: Selections, delta: float, relation: Relation) -> float:
    first = _reference_epsilon(steps, selections, delta, relation)
    try:
        if selections:
            second = _papernot_steinke_epsilon(steps, selections, delta, relation)
        elif all(q == 1 for q, _, _ in steps):
            second = _pld_epsilon(steps, delta, relation)
        else:
            second = _prv_epsilon(steps, delta, relation)
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise PrivacyError(f"the second accountant gives no ε (the first: {first:.4g}): {error}") from error
    if not abs(first - second) <= max(RELATIVE_TOLERANCE * max(first, second), ABSOLUTE_TOLERANCE):
        raise PrivacyError(
            f"two accountants disagree: ε = {first:.5g} and {second:.5g} at δ = {delta:g} for {steps + selections}"
        )
    return first


def _pld_epsilon(steps: Steps, delta: float, relation: Relation) -> float:
    """Upper bound on ε by privacy-loss distributions, on a grid that is fine against the loss of one step."""
    spread = min(((q if q < 1 else math.sqrt(count)) / sigma for q, sigma, count in steps), default=1.0)
    accountant = PLDAccountant(_RELATIONS[relation], value_discretization_interval=min(max(spread / 100, 5e-5), 1e-3))
    for q, sigma, count in steps:
        event = dp_accounting.GaussianDpEvent(sigma)
        accountant.compose(event if q == 1 else dp_accounting.PoissonSampledDpEvent(q, event), count)
    return float(accountant.get_epsilon(delta))


def _prv_epsilon(steps: Steps, delta: float, relation: Relation) -> float:
    """Upper bound on ε by privacy-loss random variables (Gopi, Lee & Wutschitz 2021, arXiv:2106.02848)."""
    from opacus.accountants import PRVAccountant

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus takes log(1 - q) at q = 1 and warns of its optimal RDP order
        if relation is not Relation.REPLACE_ONE:
            accountant = PRVAccountant()
            accountant.history = [(sigma, q, count) for q, sigma, count in steps]
            return float(accountant.get_epsilon(delta, eps_error=PRV_ERROR, delta_error=delta / 1000))
        return _replace_one_epsilon(steps, delta)


def _replace_one_epsilon(steps: Steps, delta: float) -> float:
    """As the PRV accountant of Opacus, with the privacy loss of replace-one."""
    from opacus.accountants.analysis import prv

    delta_error = delta / 1000
    losses = [ReplaceOneLoss(q, sigma) for q, sigma, _ in steps]
    counts = [count for _, _, count in steps]
    # The domain holds the composed loss but for mass delta_error / 4, by Chernoff's bound.
    bound = min(
        (sum(c * loss.log_moment(order) for c, loss in zip(counts, losses, strict=True)) + math.log(4 / delta_error))
        / order
        for order in np.geomspace(0.5, 256, 40)
    )
    mesh = PRV_ERROR / math.sqrt(sum(counts) * math.log(12 / delta_error) / 2)
    domain = prv.Domain.create_aligned(-bound - 3, bound + 3, mesh)
    variables = [prv.TruncatedPrivacyRandomVariable(loss, domain.t_min, domain.t_max) for loss in losses]
    composed = prv.compose_heterogeneous([prv.discretize(v, domain) for v in variables], counts)
    return float(composed.compute_epsilon(delta, delta_error, PRV_ERROR)[2])


@dataclasses.dataclass(frozen=True)
class ReplaceOneLoss:
    """Privacy loss of one Poisson-sampled Gaussian sum when a record is replaced by its negative.

    The pair is P = (1-q) N(0, σ²) + q N(1, σ²) against Q = (1-q) N(0, σ²) + q N(-1, σ²), the loss
    log(P/Q) under P; this is the pair that dominates replace-one (Lebeda et al. 2024, arXiv:2405.20769).

    Attributes:
        sampling_prob: q, above 0 and at most 1.
        noise_multiplier: σ, above 0.
    """

    sampling_prob: float
    noise_multiplier: float

    def cdf(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability under P that the loss is at most t."""
        q, sigma = self.sampling_prob, self.noise_multiplier
        # loss(x) = t is a quadratic in u = exp(x/σ²): u² - 2 b u - exp(t) = 0. Its positive root, for b of either
        # sign, without cancellation.
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


def _rdp_epsilon(steps: Steps, selections: Selections, delta: float, relation: Relation) -> float:
    """Upper bound on ε by `dp_accounting` in Rényi divergences, on a finite grid of orders."""
    sampled = _has_sampling(steps, selections)
    if sampled and relation is Relation.REPLACE_ONE:
        raise PrivacyError(
            "private selection of Poisson-sampled releases has no accountant under replace_one: use sampling_prob = 1, "
            "or another relation"
        )
    accountant = RdpAccountant(_SAMPLED_ORDERS if sampled else _ORDERS, _RELATIONS[relation])

    def composed(sums: Steps) -> dp_accounting.DpEvent:
        # `dp_accounting` takes the multiplier relative to the sensitivity here, whatever the relation.
        gaussians = [(q, dp_accounting.GaussianDpEvent(sigma / _distance(relation)), count) for q, sigma, count in sums]
        return dp_accounting.ComposedDpEvent(
            [
                dp_accounting.SelfComposedDpEvent(
                    gaussian if q == 1 else dp_accounting.PoissonSampledDpEvent(q, gaussian), count
                )
                for q, gaussian, count in gaussians
            ]
        )

    accountant.compose(composed(steps))
    for (trial, mean, shape), count in selections:
        accountant.compose(dp_accounting.dp_event.RepeatAndSelectDpEvent(composed(trial), mean, shape), count)
    return float(accountant.get_epsilon(delta))


def _papernot_steinke_epsilon(steps: Steps, selections: Selections, delta: float, relation: Relation) -> float:
    """The same by our own Rényi curves and theorems, on another and denser grid of orders."""
    if _has_sampling(steps, selections):
        integers = np.unique(np.round(np.geomspace(33, _MAX_SAMPLED_ORDER, 120)))
        orders = np.concatenate([1 + np.geomspace(1e-3, 31, 240), integers])
    else:
        orders = 1 + np.geomspace(1e-3, 2e6, 900)

    def curve(sums: Steps) -> NDArray[np.float64]:
        parts = [count * _renyi_divergence(q, sigma / _distance(relation), orders) for q, sigma, count in sums]
        return np.sum(parts, axis=0) if parts else np.zeros_like(orders)

    total = curve(steps)
    for (trial, mean, shape), count in selections:
        total += count * selected_divergence(orders, curve(trial), mean, shape)
    return float(max(np.min(_converted_epsilon(orders, total, delta)), 0.0))


def _has_sampling(steps: Steps, selections: Selections) -> bool:
    return any(q < 1 for sums in (steps, *(selection.steps for selection, _ in selections)) for q, _, _ in sums)


def selected_divergence(
    orders: NDArray[np.float64], divergences: NDArray[np.float64], mean: float, shape: float
) -> NDArray[np.float64]:
    """Rényi divergences of the best of K trials from those of one.

    For the truncated negative binomial law of shape η and parameter γ (Theorem 2), at every order λ and for the
    best λ̂ ≥ 1, with ε(λ) the divergence of one trial:

        ε(λ) + (1 + η) (1 - 1/λ̂) ε(λ̂) + (1 + η) log(1/γ) / λ̂ + log(E K) / (λ - 1)

    For the Poisson law of mean μ (Theorem 6), δ̂ being what one trial has at ε̂ = log(1 + 1/(λ - 1)):

        ε(λ) + μ δ̂ + log(μ) / (λ - 1)

    Args:
        orders: (m,) orders λ above 1, from which λ̂ is taken too.
        divergences: (m,) upper bounds on the divergence of one trial at these orders.
        mean: E K, above 1.
        shape: η, at least 0, or ``inf`` for Poisson.

    Source: Papernot & Steinke 2022, arXiv:2110.03620.

    >>> orders = np.arange(2.0, 100.0)
    >>> round(float(selected_divergence(orders, orders / (2 * 40**2), 10.0, 1.0)[20]), 4)  # order 22
    0.2232
    """
    if math.isinf(shape):
        epsilon = np.log1p(1 / (orders - 1))
        # Rényi divergences give δ by Canonne, Kamath & Steinke 2020, Proposition 12, and by Bretagnolle & Huber.
        log_delta = np.min(
            (orders - 1) * (divergences - epsilon[:, None] + np.log1p(-1 / orders)) - np.log(orders), axis=1
        )
        by_kl = np.min(np.log(-np.expm1(-divergences))) / 2
        overhead = mean * np.exp(np.minimum(log_delta, by_kl))
    else:
        gamma = halting_probability(mean, shape)
        overhead = (1 + shape) * np.min((1 - 1 / orders) * divergences - math.log(gamma) / orders)
    return np.asarray(divergences + overhead + math.log(mean) / (orders - 1))


def _converted_epsilon(
    orders: NDArray[np.float64], divergences: NDArray[np.float64], delta: float
) -> NDArray[np.float64]:
    """ε at δ from the divergence at each order (Canonne, Kamath & Steinke 2020, arXiv:2004.00010, Proposition 12)."""
    return np.asarray(divergences + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1))


def _renyi_divergence(q: float, sigma: float, orders: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rényi divergences of one Gaussian sum, Poisson-sampled for q < 1, that a record moves by 1.

    For q < 1 it is D(P‖Q) of P = (1-q) N(0, σ²) + q N(1, σ²) and Q = N(0, σ²), which is the larger of the two
    directions (Mironov, Talwar & Zhang 2019, arXiv:1908.10530, Theorem 5): by quadrature, and at integer orders
    from 33 on by the finite sum of their section 3.3.
    """
    if q == 1:
        return orders / (2 * sigma**2)
    return np.array([_log_moment(q, sigma, float(order)) / (order - 1) for order in orders])


def _log_moment(q: float, sigma: float, order: float) -> float:
    """log E (P/Q)^order under Q."""
    if order > 32:
        k = np.arange(int(order) + 1)
        binomial = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
        terms = binomial + k * math.log(q) + (order - k) * math.log1p(-q) + k * (k - 1) / (2 * sigma**2)
        return float(logsumexp(terms))
    # In units of σ; the integrand has its mass around points from 0 to order/σ.
    x = np.arange(-14, order / sigma + 14, min(0.02, sigma / 4))
    log_ratio = np.logaddexp(math.log1p(-q), math.log(q) + x / sigma - 1 / (2 * sigma**2))
    return float(logsumexp(order * log_ratio - x * x / 2) + math.log((x[1] - x[0]) / math.sqrt(2 * math.pi)))
