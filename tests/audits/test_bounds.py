"""Lower bounds on ε hold as often as they say, and come close."""

import numpy as np
import pytest
from scipy.stats import binom

from dphyper.audits import bounds
from dphyper.audits.bounds import clopper_pearson_lower_bound, gdp_lower_bound
from dphyper.privacy.accounting import gaussian_epsilon, gaussian_noise_multiplier


@pytest.mark.parametrize(("events", "expected"), [(1551, 0.32322978635254473), (112, 0.02689141851887646)])
def test_clopper_pearson_rate_equals_that_of_jax_privacy(events: int, expected: float) -> None:
    (rate,) = bounds._upper_rate(np.array([events]), 5000, 0.025)
    assert rate == pytest.approx(expected, rel=1e-12)
    assert binom.cdf(events, 5000, rate) == pytest.approx(0.025)


def test_bounds_hold_as_often_as_they_say() -> None:
    mu, repetitions = 1 / gaussian_noise_multiplier(1.0, 1e-5), 200
    rng = np.random.default_rng(0)
    too_high = {"gdp": 0, "clopper_pearson": 0}
    for _ in range(repetitions):
        scores = rng.normal(0, 1, 2000), rng.normal(mu, 1, 2000)
        too_high["gdp"] += gdp_lower_bound(*scores, 1e-5) > 1.0
        too_high["clopper_pearson"] += clopper_pearson_lower_bound(*scores, 1e-5) > 1.0
    for name, count in too_high.items():
        assert binom.sf(count - 1, repetitions, 0.05) > 1e-3, f"{name} exceeds the claim {count} times"


def test_the_bound_comes_close_in_every_run_and_not_only_in_most() -> None:
    """A threshold chosen on tail scores by luck gives a valid bound that is useless, in one run out of ten."""
    rng = np.random.default_rng(0)
    for factor, claim in ((1.0, 1.0), (0.5, 2.155)):
        mu = 1 / (factor * gaussian_noise_multiplier(1.0, 1e-5))
        assert gaussian_epsilon(mu, 1e-5) == pytest.approx(claim, rel=1e-3)
        bounds = [gdp_lower_bound(rng.normal(0, 1, 40_000), rng.normal(mu, 1, 40_000), 1e-5) for _ in range(100)]
        assert min(bounds) > 0.7 * claim


def test_bounds_of_no_signal_are_zero_and_of_a_clear_one_large() -> None:
    rng = np.random.default_rng(0)
    for bound in (gdp_lower_bound, clopper_pearson_lower_bound):
        assert bound(rng.normal(0, 1, 4000), rng.normal(0, 1, 4000), 1e-5) < 0.3
        assert bound(np.zeros(4000), np.ones(4000), 1e-5) > 6
        assert bound(rng.normal(0, 1, 4000), rng.normal(-1, 1, 4000), 1e-5) < 0.3
