"""Mechanisms name their wrong values, and draw the number of trials from the law that is charged."""

import math
from typing import Any

import numpy as np
import pytest
from dp_accounting.rdp.rdp_privacy_accountant import _gamma_truncated_negative_binomial
from scipy.stats import geom, logser, nbinom, poisson

from dphyper.core.errors import PrivacyError, UserError
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.mechanisms import (
    BestOfTrials,
    GaussianMechanism,
    NoisyHistogram,
    OneShotMean,
    PoissonGradientSteps,
    halting_probability,
)

LAWS = [(10.0, 1.0), (10.0, 0.0), (3.0, 0.5), (20.0, 4.0), (10.0, math.inf), (1.5, math.inf)]


def budget() -> Budget:
    return Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


def gradients(q: float, steps: int) -> PoissonGradientSteps:
    return PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=q, steps=steps)


def best(*, mean: float = 10.0, shape: float = 1.0) -> BestOfTrials:
    return BestOfTrials(trial=(NoisyHistogram(),), mean_trials=mean, shape=shape)


MECHANISMS = [
    (OneShotMean(l2_clip_norm=3.0, noise_multiplier=2.0), math.sqrt(10.0), 3.0),
    (PoissonGradientSteps(l2_clip_norm=3.0, sampling_prob=0.5, steps=2, noise_multiplier=2.0), 3.0, 3.0),
    (NoisyHistogram(noise_multiplier=2.0), 1.0, 1.0),
]


@pytest.mark.parametrize(("mechanism", "joint", "alone"), MECHANISMS)
def test_replace_one_doubles_the_sensitivity_and_not_the_noise(
    mechanism: GaussianMechanism, joint: float, alone: float
) -> None:
    add, zero, replace = Relation.ADD_OR_REMOVE_ONE, Relation.ZERO_OUT, Relation.REPLACE_ONE
    assert [mechanism.sensitivity(r) for r in (add, zero, replace)] == pytest.approx([joint, alone, 2 * alone])
    assert [mechanism.noise_std(r) for r in (add, zero, replace)] == pytest.approx([2 * joint, 2 * alone, 2 * alone])
    trials = BestOfTrials(trial=(mechanism, mechanism), mean_trials=3.0)
    assert trials.sensitivity(replace) == (mechanism.sensitivity(replace),) * 2
    assert trials.noise_std(replace) == (mechanism.noise_std(replace),) * 2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OneShotMean(l2_clip_norm=0.0), "l2_clip_norm = 0.0"),
        (lambda: OneShotMean(l2_clip_norm=math.nan), "l2_clip_norm = nan"),
        (lambda: OneShotMean(l2_clip_norm=math.inf, noise_multiplier=1.0), "need a finite clip"),
        (lambda: OneShotMean(noise_multiplier=-1.0), "noise_multiplier = -1.0"),
        (lambda: OneShotMean(noise_multiplier=math.inf), "noise_multiplier = inf"),
        (lambda: OneShotMean(count_weight=0.0), "count_weight = 0.0"),
        (lambda: gradients(0.0, 1), "sampling_prob = 0.0"),
        (lambda: gradients(1.1, 1), "sampling_prob = 1.1"),
        (lambda: gradients(0.5, 0), "steps = 0"),
        (lambda: NoisyHistogram(noise_multiplier=1e-4), "expected 0 .no privacy. or at least 0.000976562"),
        (lambda: calibrate(budget(), OneShotMean(l2_clip_norm=math.inf)), "need a finite clip"),
    ],
)
def test_mechanisms_name_the_wrong_value(build: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()  # type: ignore[operator]


def test_uncalibrated_mechanism_has_no_event() -> None:
    with pytest.raises(PrivacyError, match="no noise_multiplier"):
        OneShotMean().event()
    with pytest.raises(PrivacyError, match="no noise_multiplier"):
        OneShotMean().noise_std(Relation.ZERO_OUT)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mean_trials": 1.0}, "mean_trials = 1.0"),
        ({"mean_trials": math.inf}, "mean_trials = inf"),
        ({"shape": -0.5}, "shape = -0.5"),
        ({"shape": math.nan}, "shape = nan"),
        ({"noise_ratios": (1.0, 2.0)}, "one for each of 1 releases"),
        ({"noise_ratios": (0.0,)}, "expected numbers above 0"),
        ({"trial": ()}, "at least one mechanism"),
        ({"trial": (best(),)}, "no selection inside a selection"),
    ],
)
def test_selections_name_the_wrong_value(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BestOfTrials(**({"trial": (NoisyHistogram(),), "mean_trials": 10.0} | wrong))


@pytest.mark.parametrize(("mean", "shape"), LAWS)
def test_probabilities_are_those_of_the_law(mean: float, shape: float) -> None:
    p = best(mean=mean, shape=shape).probabilities()
    k = np.arange(len(p))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert k @ p == pytest.approx(mean, rel=1e-9)
    if math.isinf(shape):
        expected = poisson(mean).pmf(k)
    else:
        gamma = halting_probability(mean, shape)
        if shape == 0:
            expected = logser(1 - gamma).pmf(k)
        elif shape == 1:
            expected = geom(1 / mean).pmf(k)
        else:
            expected = np.where(k > 0, nbinom(shape, gamma).pmf(k), 0) / (1 - gamma**shape)
    np.testing.assert_allclose(p, expected, rtol=1e-7, atol=1e-15)


@pytest.mark.parametrize(("mean", "shape"), LAWS)
def test_halting_probability_is_that_of_the_accountant(mean: float, shape: float) -> None:
    if math.isfinite(shape):
        assert halting_probability(mean, shape) == pytest.approx(
            _gamma_truncated_negative_binomial(shape, mean), rel=2e-9
        )


def test_inversion_covers_the_whole_interval() -> None:
    for mean, shape in LAWS:
        law = best(mean=mean, shape=shape)
        first = 0 if math.isinf(shape) else 1
        assert law.draw(0.0) == first
        assert law.draw(1 - 2.0**-53) < len(law.probabilities()) + 1
        draws = [law.draw(u) for u in np.linspace(0, 1, 50, endpoint=False)]
        assert sorted(draws) == draws
