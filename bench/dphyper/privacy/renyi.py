"""ε of private selections by Rényi divergences: two accountants for the best of several trials.

The first accountant is that of `dp_accounting`, on a grid of orders. The second evaluates the theorems of Papernot &
Steinke (2022, arXiv:2110.03620) on Rényi curves of our own, on another grid. Both account a selection together with
everything else that its run charged, give upper bounds on ε, and assume exact real arithmetic. Poisson samples under
replace-one have no Rényi accountant, and are refused.

`dp_accounting` takes here a multiplier relative to the whole sensitivity, under every relation. Ours is relative to the
norm bound of one record, so both accountants are given half of it under replace-one.

Notation: λ order, q sampling probability, σ noise *multiplier*, K number of trials. Shapes: m orders.
"""

import logging
import math

import dp_accounting
import numpy as np
from dp_accounting.rdp import RdpAccountant
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from dphyper.core.errors import PrivacyError
from dphyper.privacy.budget import Relation
from dphyper.privacy.mechanisms import halting_probability
from dphyper.privacy.normal_form import NEIGHBORING_RELATIONS, Selections, Steps

# Orders of the first accountant, all above 1: at 1 `dp_accounting` divides 0 by 0 for sampled sums. The divergence of a
# sampled sum takes time in proportion to the order. At some orders that are no integers its series does not converge;
# `dp_accounting` leaves these out and warns.
_ORDERS = 1 + np.geomspace(5e-3, 1e6, 160)
_MAX_SAMPLED_ORDER = 4096
_SAMPLED_ORDERS = np.unique(np.where(_ORDERS < 32, _ORDERS, np.round(_ORDERS))[_ORDERS < _MAX_SAMPLED_ORDER])
logging.getLogger("absl").addFilter(lambda record: "_compute_log_a_frac failed" not in record.getMessage())


def rdp_epsilon(steps: Steps, selections: Selections, delta: float, relation: Relation) -> float:
    """Upper bound on ε by the Rényi accountant of `dp_accounting`.

    Raises:
        PrivacyError: There are Poisson samples under replace-one.

    >>> from dphyper.privacy.normal_form import Selection
    >>> selection = Selection(steps=((1.0, 40.0, 1),), mean=10.0, shape=1.0)
    >>> round(rdp_epsilon((), ((selection, 1),), 1e-5, Relation.ADD_OR_REMOVE_ONE), 3)
    0.205
    """
    sampled = _has_sampling(steps, selections)
    if sampled and relation is Relation.REPLACE_ONE:
        raise PrivacyError(
            "private selection of Poisson-sampled releases has no accountant under replace_one: use sampling_prob = 1, "
            "or another relation"
        )
    accountant = RdpAccountant(_SAMPLED_ORDERS if sampled else _ORDERS, NEIGHBORING_RELATIONS[relation])

    def event(sums: Steps) -> dp_accounting.DpEvent:
        parts = []
        for q, sigma, count in sums:
            gaussian = dp_accounting.GaussianDpEvent(sigma / relation.sensitivity_factor)
            once = gaussian if q == 1 else dp_accounting.PoissonSampledDpEvent(q, gaussian)
            parts.append(dp_accounting.SelfComposedDpEvent(once, count))
        return dp_accounting.ComposedDpEvent(parts)

    accountant.compose(event(steps))
    for (trial, mean, shape), count in selections:
        accountant.compose(dp_accounting.dp_event.RepeatAndSelectDpEvent(event(trial), mean, shape), count)
    return float(accountant.get_epsilon(delta))


def papernot_steinke_epsilon(steps: Steps, selections: Selections, delta: float, relation: Relation) -> float:
    """Upper bound on ε by our own Rényi curves and `selected_divergence`, on a denser grid of orders.

    >>> from dphyper.privacy.normal_form import Selection
    >>> selection = Selection(steps=((1.0, 40.0, 1),), mean=10.0, shape=1.0)
    >>> round(papernot_steinke_epsilon((), ((selection, 1),), 1e-5, Relation.ADD_OR_REMOVE_ONE), 3)
    0.205
    """
    if _has_sampling(steps, selections):
        integers = np.unique(np.round(np.geomspace(33, _MAX_SAMPLED_ORDER, 120)))
        orders = np.concatenate([1 + np.geomspace(1e-3, 31, 240), integers])
    else:
        orders = 1 + np.geomspace(1e-3, 2e6, 900)

    def curve(sums: Steps) -> NDArray[np.float64]:
        parts = [count * renyi_divergence(q, sigma / relation.sensitivity_factor, orders) for q, sigma, count in sums]
        return np.sum(parts, axis=0) if parts else np.zeros_like(orders)

    total = curve(steps)
    for (trial, mean, shape), count in selections:
        total += count * selected_divergence(orders, curve(trial), mean, shape)
    # Canonne, Kamath & Steinke 2020, arXiv:2004.00010, Proposition 12.
    epsilons = total + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    return float(max(np.min(epsilons), 0.0))


def _has_sampling(steps: Steps, selections: Selections) -> bool:
    return any(q < 1 for sums in (steps, *(selection.steps for selection, _ in selections)) for q, _, _ in sums)


def selected_divergence(
    orders: NDArray[np.float64], divergences: NDArray[np.float64], mean: float, shape: float
) -> NDArray[np.float64]:
    """Rényi divergences of the best of K trials, from those of one trial.

    Let ε(λ) be the divergence of one trial at the order λ. If K has the truncated negative binomial law of shape η and
    parameter γ, the divergence of the best is, for the best λ̂ ≥ 1 (Theorem 2),

        ε(λ) + (1 + η) (1 - 1/λ̂) ε(λ̂) + (1 + η) log(1/γ) / λ̂ + log(E K) / (λ - 1)

    If K has the Poisson law of mean μ, and one trial is (ε̂, δ̂)-private for ε̂ = log(1 + 1/(λ - 1)), it is (Theorem 6)

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
        # δ̂ follows from the divergences in two ways: by Canonne, Kamath & Steinke 2020, Proposition 12, and by the
        # inequality of Bretagnolle & Huber.
        log_delta = np.min(
            (orders - 1) * (divergences - epsilon[:, None] + np.log1p(-1 / orders)) - np.log(orders), axis=1
        )
        by_kl = np.min(np.log(-np.expm1(-divergences))) / 2
        overhead = mean * np.exp(np.minimum(log_delta, by_kl))
    else:
        gamma = halting_probability(mean, shape)
        overhead = (1 + shape) * np.min((1 - 1 / orders) * divergences - math.log(gamma) / orders)
    return np.asarray(divergences + overhead + math.log(mean) / (orders - 1))


def renyi_divergence(q: float, sigma: float, orders: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rényi divergences of one Gaussian sum that a record moves by 1, Poisson-sampled where q < 1.

    For q < 1 it is D(P‖Q) of P = (1-q) N(0, σ²) + q N(1, σ²) and Q = N(0, σ²), the larger of the two directions
    (Mironov, Talwar & Zhang 2019, arXiv:1908.10530, Theorem 5). Orders up to 32 are integrated; those above must be
    integers, for which their section 3.3 has a finite sum.

    Args:
        q: Above 0 and at most 1.
        sigma: σ, above 0.
        orders: (m,) orders above 1.

    >>> renyi_divergence(1.0, 2.0, np.array([2.0, 3.0])).tolist()
    [0.25, 0.375]
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
    # x is in units of σ. The mass of the integrand lies around points from 0 to order/σ.
    x = np.arange(-14, order / sigma + 14, min(0.02, sigma / 4))
    log_ratio = np.logaddexp(math.log1p(-q), math.log(q) + x / sigma - 1 / (2 * sigma**2))
    return float(logsumexp(order * log_ratio - x * x / 2) + math.log((x[1] - x[0]) / math.sqrt(2 * math.pi)))
