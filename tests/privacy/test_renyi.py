"""What a private selection costs, against the theorems, a true δ and other accountants."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import dp_accounting
import numpy as np
import pytest
from opacus.accountants.analysis.rdp import compute_rdp
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from dphyper.core.errors import PrivacyError
from dphyper.privacy.accounting import calibrate, epsilon_of
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.mechanisms import BestOfTrials, NoisyHistogram, OneShotMean, PoissonGradientSteps
from dphyper.privacy.renyi import renyi_divergence, selected_divergence

DELTA = 1e-5
LAWS = [(10.0, 1.0), (10.0, 0.0), (3.0, 0.5), (20.0, 4.0), (10.0, math.inf), (1.5, math.inf)]


def budget(epsilon: float = 1.0, relation: Relation = Relation.ADD_OR_REMOVE_ONE) -> Budget:
    return Budget(epsilon=epsilon, delta=DELTA, relation=relation)


def votes(sigma: float | None = None) -> NoisyHistogram:
    return NoisyHistogram(noise_multiplier=sigma)


def gradients(q: float = 1.0, steps: int = 30, sigma: float | None = None) -> PoissonGradientSteps:
    return PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=q, steps=steps, noise_multiplier=sigma)


def best(*trial: Any, mean: float = 10.0, shape: float = 1.0) -> BestOfTrials:
    return BestOfTrials(trial=trial or (votes(),), mean_trials=mean, shape=shape)


def calibrated(trials: BestOfTrials, at: Budget | None = None) -> BestOfTrials:
    (mechanism,) = calibrate(at or budget(), trials)
    return mechanism


def conversion(order: float, divergence: float) -> float:
    return divergence + math.log1p(-1 / order) - math.log(DELTA * order) / (order - 1)


def lowest(cost: Callable[[float], float]) -> float:
    """Minimum over orders above 1, which are exp(x) + 1."""
    grid = np.linspace(-4, 14, 400)
    x = grid[np.argmin([cost(1 + math.exp(x)) for x in grid])]
    return float(minimize_scalar(lambda x: cost(1 + math.exp(x)), bounds=(x - 0.1, x + 0.1), method="bounded").fun)


@pytest.mark.parametrize("distance", [1, 2])
@pytest.mark.parametrize("sigma", [0.5, 2.0, 10.0, 200.0])
@pytest.mark.parametrize(("mean", "gamma", "eta"), [(10.0, 0.1, 1.0), (100.0, 0.01, 1.0), (10.0, 0.026919, 0.0)])
def test_epsilon_of_gaussian_trials_by_theorem_2(
    mean: float, gamma: float, eta: float, sigma: float, distance: int
) -> None:
    rho = (distance / sigma) ** 2 / 2
    # The best order λ̂ of the second term is √(log(1/γ)/ρ), or 1.
    other = max(math.sqrt(math.log(1 / gamma) / rho), 1.0)
    second = (1 + eta) * ((1 - 1 / other) * rho * other + math.log(1 / gamma) / other)
    expected = lowest(lambda a: conversion(a, rho * a + second + math.log(mean) / (a - 1)))
    event = best(votes(sigma), mean=mean, shape=eta).event()
    for relation in Relation:
        if (relation is Relation.REPLACE_ONE) == (distance == 2):
            assert epsilon_of(event, DELTA, relation) == pytest.approx(expected, rel=5e-3, abs=2e-3)


@pytest.mark.parametrize("sigma", [1.0, 5.0, 40.0])
def test_epsilon_of_gaussian_trials_by_theorem_6(sigma: float) -> None:
    rho, mean = 1 / (2 * sigma**2), 10.0

    def delta_hat(epsilon: float) -> float:
        return math.exp(lowest(lambda a: (a - 1) * (rho * a - epsilon + math.log1p(-1 / a)) - math.log(a)))

    def cost(order: float) -> float:
        extra = mean * min(delta_hat(math.log1p(1 / (order - 1))), math.sqrt(-math.expm1(-rho)))
        return conversion(order, rho * order + extra + math.log(mean) / (order - 1))

    expected = min(cost(1 + math.exp(x)) for x in np.linspace(-1, 6, 141))
    event = best(votes(sigma), shape=math.inf).event()
    assert epsilon_of(event, DELTA, Relation.ZERO_OUT) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 3.0])
def test_pure_privacy_costs_two_plus_eta_times_epsilon(eta: float) -> None:
    """Corollary 3 of the paper; 3 ε for the geometric law, as Liu and Talwar (2019) found."""
    orders = np.geomspace(1.001, 1e9, 2000)
    pure = selected_divergence(orders, np.full_like(orders, 0.3), 10.0, eta)
    assert pure[-1] == pytest.approx((2 + eta) * 0.3, rel=1e-6)


@pytest.mark.parametrize(("mean", "shape"), LAWS)
@pytest.mark.parametrize("epsilon", [0.5, 4.0])
def test_true_delta_of_the_best_score_is_within_the_guarantee(mean: float, shape: float, epsilon: float) -> None:
    """The best of K Gaussian scores has a density in closed form; its δ is integrated, K's law being the sampler's."""

    def true_delta(mechanism: BestOfTrials, epsilon: float) -> float:
        sigma = mechanism.trial[0].noise_multiplier
        assert sigma
        p = mechanism.probabilities()
        x = np.linspace(-12 * sigma, 12 * sigma + 1, 20_001)
        densities = []
        for centre in (0.0, 1.0):
            below = norm.cdf((x - centre) / sigma)
            slope = np.polynomial.Polynomial(p).deriv()(below)
            densities.append(slope * norm.pdf((x - centre) / sigma) / sigma)
        gaps = [np.maximum(a - math.exp(epsilon) * b, 0).sum() for a, b in (densities, densities[::-1])]
        return float(max(gaps) * (x[1] - x[0]))

    mechanism = calibrated(best(mean=mean, shape=shape), budget(epsilon))
    assert true_delta(mechanism, epsilon) <= DELTA
    # With the noise of a single trial the guarantee would be false.
    (single,) = calibrate(budget(epsilon), votes())
    assert true_delta(dataclasses.replace(mechanism, trial=(single,)), epsilon) > DELTA or mean < 2


def test_more_trials_cost_more_and_each_law_has_its_price() -> None:
    sigmas = [calibrated(best(mean=mean)).trial[0].noise_multiplier or 0.0 for mean in (2.0, 10.0, 100.0)]
    (single,) = calibrate(budget(), votes())
    assert sorted(sigmas) == sigmas
    assert sigmas[0] > (single.noise_multiplier or 0.0)
    by_shape = [calibrated(best(shape=shape)).trial[0].noise_multiplier or 0.0 for shape in (0.0, 0.5, 1.0, 2.0)]
    assert sorted(by_shape) == by_shape


@pytest.mark.parametrize(("q", "epsilon", "sigma"), [(0.25, 1.0, 12.4), (0.05, 4.0, 1.117), (0.5, 4.0, 6.12)])
def test_sampled_trials_cost_less_and_have_two_accountants(q: float, epsilon: float, sigma: float) -> None:
    spent = epsilon_of(best(gradients(q, sigma=sigma), votes(30.0)).event(), DELTA, Relation.ZERO_OUT)
    assert 0.99 * epsilon < spent <= epsilon
    whole = calibrated(best(gradients(), votes(30.0)), budget(epsilon))
    assert sigma < (whole.trial[0].noise_multiplier or 0.0)


def test_sampled_trials_are_calibrated() -> None:
    sampled = calibrated(best(gradients(0.25), votes(30.0)))
    assert sampled.trial[0].noise_multiplier == pytest.approx(12.397, rel=1e-3)
    assert epsilon_of(sampled.event(), DELTA, Relation.ZERO_OUT) <= 1.0


def test_a_bound_from_too_few_orders_is_not_believed() -> None:
    """At these values `dp_accounting` leaves out all orders below 2, and its ε is 6 % above ours."""
    with pytest.raises(PrivacyError, match="two accountants disagree"):
        epsilon_of(best(gradients(0.5, sigma=1.6922), votes(30.0)).event(), DELTA, Relation.ZERO_OUT)


def test_poisson_samples_in_a_selection_are_refused_under_replace_one() -> None:
    with pytest.raises(PrivacyError, match="no accountant under replace_one"):
        calibrated(best(gradients(0.5)), budget(relation=Relation.REPLACE_ONE))
    beside = [gradients(0.5, sigma=9.0).event(), best(votes(9.0)).event()]
    with pytest.raises(PrivacyError, match="no accountant under replace_one"):
        epsilon_of(beside, DELTA, Relation.REPLACE_ONE)


@pytest.mark.parametrize("q", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("sigma", [0.6, 3.0, 40.0])
def test_own_renyi_curve_of_sampled_sums_is_that_of_opacus(q: float, sigma: float) -> None:
    orders = np.array([1.5, 2.0, 3.3, 7.0, 20.0, 64.0, 500.0])
    mine = renyi_divergence(q, sigma, orders)
    theirs = compute_rdp(q=q, noise_multiplier=sigma, steps=1, orders=list(orders))
    np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-12)


def test_a_selection_composes_with_other_releases() -> None:
    alone = best(votes(20.0)).event()
    mean = OneShotMean(noise_multiplier=8.0).event()
    together = epsilon_of([alone, mean], DELTA, Relation.ADD_OR_REMOVE_ONE)
    assert together == epsilon_of([mean, alone], DELTA, Relation.ADD_OR_REMOVE_ONE)
    assert max(epsilon_of(event, DELTA, Relation.ADD_OR_REMOVE_ONE) for event in (alone, mean)) < together
    assert together < sum(epsilon_of(event, DELTA, Relation.ADD_OR_REMOVE_ONE) for event in (alone, mean))
    twice = epsilon_of([alone, alone], DELTA, Relation.ADD_OR_REMOVE_ONE)
    assert twice == epsilon_of(dp_accounting.SelfComposedDpEvent(alone, 2), DELTA, Relation.ADD_OR_REMOVE_ONE)
    mechanisms = calibrate(budget(), best(votes()), OneShotMean())
    assert epsilon_of([m.event() for m in mechanisms], DELTA, Relation.ADD_OR_REMOVE_ONE) <= 1.0
