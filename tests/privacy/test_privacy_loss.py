"""Privacy losses against quadrature and moments."""

import math

import dp_accounting
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from dphyper.privacy.accounting import epsilon_of
from dphyper.privacy.budget import Relation
from dphyper.privacy.privacy_loss import ReplaceOneLoss, prv_epsilon


@pytest.mark.parametrize(("q", "sigma"), [(0.05, 0.7), (0.25, 1.5), (0.9, 3.0), (1.0, 2.0)])
def test_one_subsampled_step_under_replace_one_by_quadrature(q: float, sigma: float) -> None:
    delta = 1e-5

    def density(x: float, centre: float) -> float:
        return (1 - q) * norm.pdf(x, 0, sigma) + q * norm.pdf(x, centre, sigma)

    def gap(epsilon: float) -> float:
        excess = quad(
            lambda x: max(density(x, 1.0) - math.exp(epsilon) * density(x, -1.0), 0.0),
            -12 * sigma,
            1 + 12 * sigma,
            limit=2000,
            points=[0.0, 1.0],
        )[0]
        return excess / delta - 1

    exact = brentq(gap, 1e-6, 60.0)
    event = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
    assert epsilon_of(event, delta, Relation.REPLACE_ONE) == pytest.approx(exact, rel=2e-3, abs=2e-3)
    prv = prv_epsilon(((q, sigma, 1),), delta, Relation.REPLACE_ONE)
    assert prv == pytest.approx(exact, rel=2e-3, abs=5e-3)


def test_replace_one_loss_is_a_distribution_with_the_right_moments() -> None:
    loss = ReplaceOneLoss(0.3, 1.2)
    t = np.linspace(-6, 6, 200_001)
    cdf = loss.cdf(t)
    assert cdf[0] == pytest.approx(0, abs=1e-6)
    assert cdf[-1] == pytest.approx(1, abs=1e-6)
    assert (np.diff(cdf) >= 0).all()
    middle = (t[1:] + t[:-1]) / 2
    # E exp(-loss) = 1 for a privacy loss, and one Rényi moment.
    assert float(np.exp(-middle) @ np.diff(cdf)) == pytest.approx(1.0, abs=1e-4)
    assert math.log(float(np.exp(2 * middle) @ np.diff(cdf))) == pytest.approx(loss.log_moment(2.0), rel=1e-3)
