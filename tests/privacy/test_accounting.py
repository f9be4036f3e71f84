"""ε and σ against reference values, from two accountants that must agree."""

import dataclasses
import math

import dp_accounting
import pytest
from scipy.stats import norm

from dphyper.core.errors import PrivacyError, UserError
from dphyper.privacy import accounting
from dphyper.privacy.accounting import (
    calibrate,
    epsilon_of,
    gaussian_epsilon,
    gaussian_log_delta,
    gaussian_noise_multiplier,
)
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.mechanisms import BestOfTrials, NoisyHistogram, OneShotMean, PoissonGradientSteps
from dphyper.privacy.normal_form import normal_form
from dphyper.privacy.privacy_loss import pld_epsilon, prv_epsilon

EPSILONS = (0.5, 1, 2, 4, 8, 10, 16)
# Standard deviation over sensitivity of the analytic Gaussian mechanism (Balle & Wang 2018), computed elsewhere.
ANALYTIC = {
    1e-6: (8.0576, 4.2247, 2.2305, 1.1935, 0.6529, 0.5411, 0.3686),
    1e-5: (7.0318, 3.7306, 1.9938, 1.0812, 0.6002, 0.4999, 0.3442),
    1e-3: (4.6101, 2.5747, 1.4452, 0.8231, 0.4800, 0.4061, 0.2886),
}
# σ of DP-SGD at δ = 1e-5 under add-or-remove-one: (q, T, σ at ε = 1, σ at ε = 8), computed elsewhere by an FFT of
# the privacy loss on a grid of 1e-3, to the digits given there.
DP_SGD = [
    (1.0, 50, "26.38", "4.244"),
    (1.0, 200, "52.75", "8.488"),
    (1.0, 1000, "118.0", "18.98"),
    (0.25, 50, "6.80", "1.329"),
    (0.25, 200, "13.30", "2.281"),
    (0.25, 1000, "29.6", "4.82"),
    (0.125, 50, "3.57", "0.888"),
    (0.125, 200, "6.74", "1.311"),
    (0.125, 1000, "14.8", "2.50"),
]


def budget(epsilon: float, delta: float = 1e-5, relation: Relation = Relation.ADD_OR_REMOVE_ONE) -> Budget:
    return Budget(epsilon=epsilon, delta=delta, relation=relation)


def steps(q: float, t: int, sigma: float | None = None) -> PoissonGradientSteps:
    return PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=q, steps=t, noise_multiplier=sigma)


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("delta", ANALYTIC)
def test_one_shot_multiplier_has_the_reference_value(delta: float, relation: Relation) -> None:
    for epsilon, expected in zip(EPSILONS, ANALYTIC[delta], strict=True):
        (mean,) = calibrate(budget(epsilon, delta, relation), OneShotMean())
        distance = 2 if relation is Relation.REPLACE_ONE else 1
        assert mean.noise_multiplier == pytest.approx(distance * expected, abs=distance * 6e-5)
        # The second accountant, at the four digits.
        pld = pld_epsilon(normal_form(mean.event())[0], delta, relation)
        assert pld == pytest.approx(epsilon, rel=1e-4)


@pytest.mark.parametrize("delta", ANALYTIC)
def test_multiplier_agrees_with_the_google_implementation(delta: float) -> None:
    for epsilon in EPSILONS:
        assert gaussian_noise_multiplier(epsilon, delta) == pytest.approx(
            dp_accounting.get_sigma_gaussian(epsilon, delta), rel=1e-6
        )


@pytest.mark.parametrize(("q", "t", "at_1", "at_8"), DP_SGD)
def test_dp_sgd_multiplier_has_the_reference_value(q: float, t: int, at_1: str, at_8: str) -> None:
    for epsilon, printed in ((1.0, at_1), (8.0, at_8)):
        # One unit of the last digit: the reference's coarser grid puts 29.6 where both accountants say 29.54.
        last_digit = 10.0 ** -len(printed.partition(".")[2])
        less, same, more = (
            pld_epsilon(((q, float(printed) + digits * last_digit, t),), 1e-5, Relation.ADD_OR_REMOVE_ONE)
            for digits in (-1, 0, 1)
        )
        assert more <= epsilon <= less
        assert not more <= epsilon * 1.1 <= less
        prv = prv_epsilon(((q, float(printed), t),), 1e-5, Relation.ADD_OR_REMOVE_ONE)
        assert prv == pytest.approx(same, rel=2.5e-3)


@pytest.mark.parametrize(("q", "t", "expected"), [(0.25, 50, 6.80), (1.0, 1000, 118.0)])
def test_calibrated_dp_sgd_multiplier_has_the_reference_value(q: float, t: int, expected: float) -> None:
    (mechanism,) = calibrate(budget(1.0), steps(q, t))
    assert mechanism.noise_multiplier == pytest.approx(expected, rel=1.5e-3)
    (parts, _) = normal_form(mechanism.event())
    for accountant in (pld_epsilon, prv_epsilon):
        assert accountant(parts, 1e-5, Relation.ADD_OR_REMOVE_ONE) == pytest.approx(1.0, rel=2.5e-3)


def test_composition_of_full_batches_is_one_gaussian() -> None:
    for relation in Relation:
        (many,) = calibrate(budget(1.0, relation=relation), steps(1.0, 200))
        (one,) = calibrate(budget(1.0, relation=relation), OneShotMean())
        assert many.noise_multiplier == pytest.approx(math.sqrt(200) * one.noise_multiplier, rel=1e-6)


def test_replace_one_doubles_the_sensitivity_inside_the_accountant() -> None:
    event = dp_accounting.GaussianDpEvent(2.0)
    assert epsilon_of(event, 1e-5, Relation.REPLACE_ONE) == pytest.approx(gaussian_epsilon(2 / 2.0, 1e-5))
    assert epsilon_of(event, 1e-5, Relation.ADD_OR_REMOVE_ONE) == pytest.approx(gaussian_epsilon(1 / 2.0, 1e-5))
    pld = pld_epsilon(((1.0, 2.0, 1),), 1e-5, Relation.REPLACE_ONE)
    assert pld == pytest.approx(gaussian_epsilon(1.0, 1e-5), rel=1e-4)


@pytest.mark.parametrize("relation", Relation)
def test_two_accountants_agree_on_a_mixture(relation: Relation) -> None:
    mechanisms = calibrate(budget(2.0, relation=relation), OneShotMean(), steps(0.1, 30), NoisyHistogram())
    assert len({m.noise_multiplier for m in mechanisms}) == 1
    events = [m.event() for m in mechanisms]
    spent = epsilon_of(events, 1e-5, relation)
    assert 1.999 < spent <= 2.0
    assert spent == epsilon_of(events[::-1], 1e-5, relation)  # to the last bit
    prv = prv_epsilon(normal_form(dp_accounting.ComposedDpEvent(events))[0], 1e-5, relation)
    assert prv == pytest.approx(2.0, rel=5e-3)


def test_calibration_keeps_multipliers_that_are_set() -> None:
    histogram, mean = calibrate(budget(1.0), NoisyHistogram(noise_multiplier=8.0), OneShotMean())
    assert histogram.noise_multiplier == 8.0
    assert 1 / mean.noise_multiplier**2 + 1 / 64 == pytest.approx(gaussian_noise_multiplier(1.0, 1e-5) ** -2, rel=1e-5)
    with pytest.raises(PrivacyError, match="already set spend"):
        calibrate(budget(1.0), NoisyHistogram(noise_multiplier=1.0), OneShotMean())
    with pytest.raises(PrivacyError, match="already set spend"):
        calibrate(budget(1.0), OneShotMean(noise_multiplier=3.73))


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("epsilon", [0.05, 1.0, 20.0])
def test_calibration_never_spends_more_than_the_budget_and_wastes_little(epsilon: float, relation: Relation) -> None:
    for mechanism in (OneShotMean(), steps(0.5, 20)):
        (calibrated,) = calibrate(budget(epsilon, relation=relation), mechanism)
        spent = epsilon_of(calibrated.event(), 1e-5, relation)
        assert spent <= epsilon
        assert spent == pytest.approx(epsilon, rel=1e-4)


def test_infinite_budget_means_no_noise() -> None:
    mean, gradients = calibrate(budget(math.inf), OneShotMean(), steps(0.5, 3))
    assert (mean.noise_multiplier, gradients.noise_multiplier) == (0.0, 0.0)
    assert epsilon_of([mean.event()], 1e-5, Relation.ZERO_OUT) == math.inf
    assert epsilon_of([], 1e-5, Relation.ZERO_OUT) == 0.0


def test_accountants_that_disagree_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = accounting.pld_epsilon
    for factor, raises in ((1.01, False), (1.03, True), (0.97, True)):
        accounting._agreed_epsilon.cache_clear()
        monkeypatch.setattr(accounting, "pld_epsilon", lambda *a, f=factor: f * honest(*a))
        event = dp_accounting.GaussianDpEvent(1.7)
        if raises:
            with pytest.raises(PrivacyError, match="two accountants disagree"):
                epsilon_of(event, 1e-5, Relation.ZERO_OUT)
        else:
            epsilon_of(event, 1e-5, Relation.ZERO_OUT)
    accounting._agreed_epsilon.cache_clear()


def test_second_accountant_that_fails_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise RuntimeError("no")

    accounting._agreed_epsilon.cache_clear()
    monkeypatch.setattr(accounting, "pld_epsilon", fail)
    with pytest.raises(PrivacyError, match="second accountant gives no"):
        epsilon_of(dp_accounting.GaussianDpEvent(1.9), 1e-5, Relation.ZERO_OUT)


def test_an_infinite_second_opinion_is_no_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of infinity is infinite, and would tolerate any difference."""
    accounting._agreed_epsilon.cache_clear()
    monkeypatch.setattr(accounting, "pld_epsilon", lambda *_: math.inf)
    with pytest.raises(PrivacyError, match=r"two accountants disagree: ε = .* and inf"):
        epsilon_of(dp_accounting.GaussianDpEvent(1.9), 1e-5, Relation.ZERO_OUT)
    accounting._agreed_epsilon.cache_clear()


@pytest.mark.parametrize("relation", [Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE])
def test_large_budgets_are_confirmed_on_a_grid_that_grows_no_longer(relation: Relation) -> None:
    """The second accountant errs by a share of ε there, and both still tell half a per cent apart."""
    (found,) = calibrate(budget(200.0, relation=relation), steps(0.25, 50))
    parts = normal_form(found.event())
    assert parts
    first = pld_epsilon(parts[0], 1e-5, relation)
    second = prv_epsilon(parts[0], 1e-5, relation, first)
    assert second == pytest.approx(first, rel=2e-3)
    assert first == pytest.approx(200.0, rel=1e-5)
    closer = prv_epsilon(((0.25, found.noise_multiplier * 0.99, 50),), 1e-5, relation, first)
    assert abs(closer - first) > 0.005 * first


def test_budgets_that_cannot_be_confirmed_are_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"epsilon = 1000 with Poisson samples, more than the 500 .*: choose a smaller"):
        calibrate(budget(1000.0), steps(0.25, 50))
    with pytest.raises(PrivacyError, match=r"is spent with Poisson samples, more than the 500"):
        epsilon_of(steps(0.25, 50, 0.1).event(), 1e-5, Relation.ADD_OR_REMOVE_ONE)
    assert calibrate(budget(1000.0), steps(1.0, 50))[0].is_calibrated  # without samples the formula is exact


def test_gaussian_formula_at_extremes() -> None:
    assert gaussian_epsilon(0.0, 1e-5) == 0.0
    assert gaussian_epsilon(1e-9, 1e-5) == 0.0
    assert gaussian_epsilon(40.0, 1e-5) == pytest.approx(800 + 40 * norm.isf(1e-5), rel=1e-3)
    assert gaussian_log_delta(1.0, 50.0) < math.log(1e-300)
    assert gaussian_log_delta(1e-8, 0.0) == pytest.approx(math.log(1e-8 / math.sqrt(2 * math.pi)), rel=1e-6)


def test_calibration_asks_no_accountant_once_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(epsilon: float) -> float:
        (calibrated,) = calibrate(budget(epsilon), dataclasses.replace(steps(0.25, 200)))
        return epsilon_of(calibrated.event(), 1e-5, Relation.ADD_OR_REMOVE_ONE)

    def asked(*_: object) -> float:
        raise AssertionError("an accountant was asked")

    first = answers(1.0)
    for accountant in ("pld_epsilon", "prv_epsilon"):
        monkeypatch.setattr(accounting, accountant, asked)
    assert answers(1.0) == first
    with pytest.raises(AssertionError, match="an accountant was asked"):
        answers(1.03)


def test_classical_formula_wastes_noise_where_it_holds_and_lacks_it_where_it_does_not() -> None:
    """√(2 ln(1.25/δ))/ε holds for ε < 1 only (Dwork & Roth 2014, Theorem A.1)."""
    at_1, far = math.sqrt(2 * math.log(1.25 / 1e-5)), 64.0
    assert at_1 / gaussian_noise_multiplier(1.0, 1e-5) == pytest.approx(1.30, abs=0.005)
    (calibrated,) = calibrate(budget(far), OneShotMean())
    assert calibrated.noise_multiplier > 1.05 * at_1 / far
    classical = OneShotMean(noise_multiplier=at_1 / far)
    assert epsilon_of(classical.event(), 1e-5, Relation.ADD_OR_REMOVE_ONE) > far
    with pytest.raises(PrivacyError, match="already set spend"):
        calibrate(budget(far), classical)


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("epsilon", [0.05, 1.0, 8.0])
@pytest.mark.parametrize(("mean", "shape"), [(10.0, 1.0), (10.0, math.inf)])
def test_calibration_keeps_the_budget_and_two_thirds_of_the_noise_do_not(
    mean: float, shape: float, epsilon: float, relation: Relation
) -> None:
    trial = (steps(1.0, 30), NoisyHistogram())
    trials = BestOfTrials(trial=trial, mean_trials=mean, shape=shape, noise_ratios=(1.0, 0.4))
    (mechanism,) = calibrate(budget(epsilon, relation=relation), trials)
    training, score = mechanism.trial
    assert score.noise_multiplier == pytest.approx(0.4 * training.noise_multiplier)
    assert 0.999 * epsilon < epsilon_of(mechanism.event(), 1e-5, relation) <= epsilon
    parts = tuple(dataclasses.replace(p, noise_multiplier=p.noise_multiplier * 2 / 3) for p in (training, score))
    assert epsilon_of(dataclasses.replace(mechanism, trial=parts).event(), 1e-5, relation) > 1.3 * epsilon


def test_accountants_that_disagree_on_a_selection_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = accounting.papernot_steinke_epsilon
    event = BestOfTrials(trial=(NoisyHistogram(noise_multiplier=7.7),), mean_trials=10.0).event()
    for factor, raises in ((1.01, False), (1.03, True), (0.97, True)):
        accounting._agreed_epsilon.cache_clear()
        monkeypatch.setattr(accounting, "papernot_steinke_epsilon", lambda *a, f=factor: f * honest(*a))
        if raises:
            with pytest.raises(PrivacyError, match="two accountants disagree"):
                epsilon_of(event, 1e-5, Relation.ZERO_OUT)
        else:
            epsilon_of(event, 1e-5, Relation.ZERO_OUT)
    accounting._agreed_epsilon.cache_clear()


def test_a_selection_without_noise_is_not_private() -> None:
    (trials,) = calibrate(budget(math.inf), BestOfTrials(trial=(steps(1.0, 30), NoisyHistogram()), mean_trials=10.0))
    assert [part.noise_multiplier for part in trials.trial] == [0.0, 0.0]
    assert epsilon_of(trials.event(), 1e-5, Relation.ZERO_OUT) == math.inf
    half = dataclasses.replace(trials, trial=(steps(1.0, 30, 9.0), NoisyHistogram(noise_multiplier=0.0)))
    assert epsilon_of(half.event(), 1e-5, Relation.ZERO_OUT) == math.inf
