"""Private selection: what it costs, the law of the number of trials, what a trial may do and what leaves it."""

import dataclasses
import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import chi2, geom, logser, nbinom, norm, poisson
from torch import Tensor

from dphyper.audits.store_check import check_store
from dphyper.bench.store import Store
from dphyper.cli.main import main
from dphyper.core.errors import PrivacyError, UserError
from dphyper.methods.dp_sgd_tuned import DPSGDTunedOptions
from dphyper.privacy import accounting
from dphyper.privacy.accounting import calibrate, epsilon_of, selected_divergence
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger, event_from_json, event_json
from dphyper.privacy.mechanisms import (
    BestOfTrials,
    NoisyHistogram,
    OneShotMean,
    PoissonGradientSteps,
    halting_probability,
)
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData

DELTA = 1e-5
LAWS = [(10.0, 1.0), (10.0, 0.0), (3.0, 0.5), (20.0, 4.0), (10.0, math.inf), (1.5, math.inf)]


def budget(epsilon: float = 1.0, relation: Relation = Relation.ADD_OR_REMOVE_ONE) -> Budget:
    return Budget(epsilon=epsilon, delta=DELTA, relation=relation)


def votes(sigma: float | None = None) -> NoisyHistogram:
    return NoisyHistogram(noise_multiplier=sigma)


def gradients(q: float = 1.0, steps: int = 30, sigma: float | None = None) -> PoissonGradientSteps:
    return PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=q, steps=steps, noise_multiplier=sigma)


def best(*trial: Any, mean: float = 10.0, shape: float = 1.0, ratios: tuple[float, ...] = ()) -> BestOfTrials:
    return BestOfTrials(trial=trial or (votes(),), mean_trials=mean, shape=shape, noise_ratios=ratios)


def calibrated(trials: BestOfTrials, at: Budget | None = None) -> BestOfTrials:
    (mechanism,) = calibrate(at or budget(), trials)
    return mechanism


def door(epsilon: float = 1.0, *, noise: NoiseSource | None = None, ledger: Ledger | None = None) -> PrivateData:
    return PrivateData(
        torch.ones(50, 1), n=50, ledger=ledger or Ledger(budget(epsilon)), noise=noise or NoiseSource.os()
    )


# --- what it costs


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


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("epsilon", [0.05, 1.0, 8.0])
@pytest.mark.parametrize(("mean", "shape"), [(10.0, 1.0), (10.0, math.inf)])
def test_calibration_keeps_the_budget_and_two_thirds_of_the_noise_do_not(
    mean: float, shape: float, epsilon: float, relation: Relation
) -> None:
    mechanism = calibrated(
        best(gradients(), votes(), mean=mean, shape=shape, ratios=(1.0, 0.4)), budget(epsilon, relation)
    )
    training, score = mechanism.trial
    assert score.noise_multiplier == pytest.approx(0.4 * (training.noise_multiplier or 0.0))
    assert 0.999 * epsilon < epsilon_of(mechanism.event(), DELTA, relation) <= epsilon
    parts = [dataclasses.replace(p, noise_multiplier=(p.noise_multiplier or 0.0) * 2 / 3) for p in (training, score)]
    assert epsilon_of(best(*parts, mean=mean, shape=shape).event(), DELTA, relation) > 1.3 * epsilon


@pytest.mark.parametrize(("q", "epsilon"), [(0.25, 1.0), (0.05, 4.0), (0.5, 4.0)])
def test_sampled_trials_cost_less_and_have_two_accountants(q: float, epsilon: float) -> None:
    sampled = calibrated(best(gradients(q), votes(30.0)), budget(epsilon))
    whole = calibrated(best(gradients(), votes(30.0)), budget(epsilon))
    assert (sampled.trial[0].noise_multiplier or 0.0) < (whole.trial[0].noise_multiplier or 0.0)
    assert epsilon_of(sampled.event(), DELTA, Relation.ZERO_OUT) <= epsilon


def test_a_bound_from_too_few_orders_is_not_believed() -> None:
    """At these values `dp_accounting` leaves out all orders below 2, and its ε is 6 % above ours."""
    with pytest.raises(PrivacyError, match="two accountants disagree"):
        calibrated(best(gradients(0.5), votes(30.0)), budget(16.0))


def test_poisson_samples_in_a_selection_are_refused_under_replace_one() -> None:
    with pytest.raises(PrivacyError, match="no accountant under replace_one"):
        calibrated(best(gradients(0.5)), budget(relation=Relation.REPLACE_ONE))
    beside = [gradients(0.5, sigma=9.0).event(), best(votes(9.0)).event()]
    with pytest.raises(PrivacyError, match="no accountant under replace_one"):
        epsilon_of(beside, DELTA, Relation.REPLACE_ONE)


@pytest.mark.parametrize("q", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("sigma", [0.6, 3.0, 40.0])
def test_own_renyi_curve_of_sampled_sums_is_that_of_opacus(q: float, sigma: float) -> None:
    from opacus.accountants.analysis.rdp import compute_rdp

    orders = np.array([1.5, 2.0, 3.3, 7.0, 20.0, 64.0, 500.0])
    mine = accounting._renyi_divergence(q, sigma, orders)
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


def test_accountants_that_disagree_on_a_selection_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, event = accounting._papernot_steinke_epsilon, best(votes(7.7)).event()
    for factor, raises in ((1.01, False), (1.03, True), (0.97, True)):
        accounting._agreed_epsilon.cache_clear()
        monkeypatch.setattr(accounting, "_papernot_steinke_epsilon", lambda *a, f=factor: f * honest(*a))
        if raises:
            with pytest.raises(PrivacyError, match="two accountants disagree"):
                epsilon_of(event, DELTA, Relation.ZERO_OUT)
        else:
            epsilon_of(event, DELTA, Relation.ZERO_OUT)
    accounting._agreed_epsilon.cache_clear()


def test_a_selection_inside_a_selection_is_refused() -> None:
    inner = best(votes(9.0))
    with pytest.raises(UserError, match="no selection inside a selection"):
        best(inner)
    nested = dp_accounting.dp_event.RepeatAndSelectDpEvent(inner.event(), 3.0, 1.0)
    with pytest.raises(PrivacyError, match="no accountant here"):
        epsilon_of(nested, DELTA, Relation.ZERO_OUT)


def test_without_noise_there_is_no_privacy() -> None:
    mechanism = calibrated(best(gradients(), votes()), budget(math.inf))
    assert [part.noise_multiplier for part in mechanism.trial] == [0.0, 0.0]
    assert epsilon_of(mechanism.event(), DELTA, Relation.ZERO_OUT) == math.inf
    assert epsilon_of(best(gradients(sigma=9.0), votes(0.0)).event(), DELTA, Relation.ZERO_OUT) == math.inf


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
    ],
)
def test_selections_name_the_wrong_value(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BestOfTrials(**({"trial": (votes(),), "mean_trials": 10.0} | wrong))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rates": "2, six"}, "learning_rates = '2, six'"),
        ({"learning_rates": "2, -1"}, "expected numbers above 0"),
        ({"score_share": 1.0}, "score_share = 1.0"),
        ({"score_clip": 0.0}, "score_clip = 0.0"),
        ({"score_draws": 0}, "score_draws = 0"),
    ],
)
def test_options_name_the_wrong_value(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DPSGDTunedOptions.parse("dp_sgd_tuned", wrong)


# --- the law of the number of trials


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
    from dp_accounting.rdp.rdp_privacy_accountant import _gamma_truncated_negative_binomial

    if math.isfinite(shape):
        assert halting_probability(mean, shape) == pytest.approx(
            _gamma_truncated_negative_binomial(shape, mean), rel=2e-9
        )


def misfit(counts: Counter[int], law: BestOfTrials) -> float:
    """p-value of Pearson's test; the tail beyond expected counts of 5 is one class."""
    total = sum(counts.values())
    expected = total * law.probabilities()
    classes = [k for k in range(len(expected)) if expected[k] >= 5]
    seen = [counts[k] for k in classes] + [total - sum(counts[k] for k in classes)]
    wanted = [expected[k] for k in classes] + [total - sum(expected[k] for k in classes)]
    statistic = sum((s - w) ** 2 / max(w, 1e-9) for s, w in zip(seen, wanted, strict=True))
    return float(chi2.sf(statistic, len(classes)))


@pytest.mark.parametrize(("mean", "shape"), [(4.0, 1.0), (4.0, 0.0), (4.0, math.inf)])
def test_the_door_draws_the_number_of_trials_that_was_charged(mean: float, shape: float) -> None:
    mechanism = calibrated(best(mean=mean, shape=shape))
    counts: Counter[int] = Counter()
    for _ in range(600):
        numbers = itertools.count(1)
        last = door().best_of(lambda private, rng, numbers=numbers: (next(numbers),) * 2, mechanism, role="choice")
        counts[last or 0] += 1  # each scores higher than the one before
        assert next(numbers) == mechanism.most_trials + 1  # all are run, however many count
    assert misfit(counts, mechanism) > 1e-6
    assert misfit(counts, dataclasses.replace(mechanism, mean_trials=mean * 2)) < 1e-6
    assert misfit(counts, dataclasses.replace(mechanism, shape=3.0 if shape < 3 else 0.0)) < 1e-6


def test_inversion_covers_the_whole_interval() -> None:
    for mean, shape in LAWS:
        law = best(mean=mean, shape=shape)
        first = 0 if math.isinf(shape) else 1
        assert law.draw(0.0) == first
        assert law.draw(1 - 2.0**-53) < len(law.probabilities()) + 1
        draws = [law.draw(u) for u in np.linspace(0, 1, 50, endpoint=False)]
        assert sorted(draws) == draws


# --- the door


def score(private: PrivateData, mechanism: BestOfTrials) -> float:
    part = mechanism.trial[0]
    assert isinstance(part, NoisyHistogram)
    return float(private.release_histogram(lambda x, rng: x, part, role="score"))


def test_only_the_best_trial_leaves_and_a_poisson_number_of_none_leaves_nothing() -> None:
    mechanism, scores = calibrated(best(mean=5.0, shape=1.0)), []

    def trial(private: PrivateData, rng: torch.Generator) -> tuple[int, float]:
        scores.append(score(private, mechanism))
        return len(scores) - 1, scores[-1]

    best_of_counted = door().best_of(trial, mechanism, role="choice")
    assert best_of_counted in [int(np.argmax(scores[:counted])) for counted in range(1, len(scores) + 1)]
    assert len(scores) == mechanism.most_trials
    # u = 0: no trial of a Poisson number counts, one of the others.
    nobody = NoiseSource(lambda count: bytes(count) if count == 8 else os.urandom(count), is_reproducible=False)
    empty = calibrated(best(mean=5.0, shape=math.inf))
    assert door(noise=nobody).best_of(lambda private, rng: (0, 1.0), empty, role="choice") is None
    with pytest.raises(UserError, match="the score of a trial is NaN"):
        door(noise=nobody).best_of(lambda private, rng: (0, math.nan), mechanism, role="choice")


def test_a_selection_prefers_what_scores_higher() -> None:
    mechanism = calibrated(best(mean=10.0, shape=math.inf), budget(100.0))

    def trial(private: PrivateData, rng: torch.Generator) -> tuple[int, float]:
        candidate = int(torch.randint(3, (1,), generator=rng))
        part = mechanism.trial[0]
        assert isinstance(part, NoisyHistogram)
        return candidate, float(private.release_histogram(lambda x, rng: x * candidate / 2, part, role="score"))

    chosen = Counter(door(100.0).best_of(trial, mechanism, role="choice") for _ in range(60))
    assert chosen[2] > 40


def overspend_twice(private: PrivateData, mechanism: BestOfTrials) -> object:
    private.release_histogram(lambda x, rng: x, mechanism.trial[0], role="a")  # type: ignore[arg-type]
    return private.release_histogram(lambda x, rng: x, mechanism.trial[0], role="b")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spend",
    [
        overspend_twice,
        lambda private, mechanism: private.release_histogram(lambda x, rng: x, votes(1.0), role="a"),
        # Less noise than charged, or more steps; also what would be cheaper, for it was not described.
        lambda private, mechanism: private.release_mean(
            lambda x, rng: x, OneShotMean(noise_multiplier=500.0), role="a"
        ),
        lambda private, mechanism: private.gradient_steps(lambda x, rng: x, gradients(0.1, 4, 500.0), role="a"),
        lambda private, mechanism: private.best_of(lambda p, r: (0, 0.0), mechanism, role="a"),
    ],
)
def test_a_trial_that_asks_for_more_than_was_charged_is_refused(
    spend: Callable[[PrivateData, BestOfTrials], object],
) -> None:
    mechanism = calibrated(best())
    with pytest.raises(PrivacyError, match=r"each once; it may not draw|is charged already"):
        door().best_of(lambda private, rng: (spend(private, mechanism), 0.0), mechanism, role="choice")


def test_a_trial_gets_what_was_described_and_no_record() -> None:
    mechanism = calibrated(best(gradients(steps=3), votes()))

    def trial(private: PrivateData, rng: torch.Generator) -> tuple[Tensor, float]:
        with pytest.raises(PrivacyError, match="private data do not give"):
            len(private)
        steps, part = mechanism.trial
        sums = list(private.gradient_steps(lambda x, rng: x, steps, role="gradient"))  # type: ignore[arg-type]
        return sums[-1], float(private.release_histogram(lambda x, rng: x, part, role="score"))  # type: ignore[arg-type]

    private = door()
    assert private.best_of(trial, mechanism, role="choice") is not None
    (charge,) = private.ledger.charges
    assert (charge.role, charge.complete, charge.output) == ("choice", True, None)
    assert private.ledger.spent() == pytest.approx(1.0, rel=1e-3)


def test_trials_share_no_randomness_and_none_comes_from_a_seed() -> None:
    seen: list[tuple[float, float]] = []

    def trial(private: PrivateData, rng: torch.Generator) -> tuple[None, float]:
        seen.append((float(torch.rand(1, generator=rng)), score(private, mechanism)))
        return None, 0.0

    mechanism = calibrated(best(mean=30.0, shape=math.inf))
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        door().best_of(trial, mechanism, role="choice")
    for numbers in zip(*seen, strict=True):
        assert len(set(numbers)) == len(seen)


def test_nothing_is_drawn_beyond_the_budget() -> None:
    drawn: list[int] = []
    noise = NoiseSource(lambda count: drawn.append(count) or bytes(count), is_reproducible=False)
    ledger = Ledger(budget(1.0))
    private = door(noise=noise, ledger=ledger)
    with pytest.raises(PrivacyError, match="would bring the run to"):
        private.best_of(lambda p, r: (0, 0.0), calibrated(best(), budget(2.0)), role="choice")
    with pytest.raises(PrivacyError, match="no noise_multiplier"):
        private.best_of(lambda p, r: (0, 0.0), best(), role="choice")
    assert not drawn
    assert not ledger.charges


def test_an_interrupted_selection_is_refused(tmp_path: Path) -> None:
    path, mechanism = tmp_path / "ledger.json", calibrated(best())

    def killed(private: PrivateData, rng: torch.Generator) -> tuple[int, float]:
        assert not json.loads(path.read_text())["charges"][0]["complete"]  # charged on disk before the first trial
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        door(ledger=Ledger.open(path, budget())).best_of(killed, mechanism, role="choice")
    resumed = Ledger.open(path, budget())
    assert [(charge.role, charge.complete) for charge in resumed.charges] == [("choice", False)]
    with pytest.raises(PrivacyError, match="role 'choice' is charged already"):
        door(ledger=resumed).best_of(lambda p, r: (0, 0.0), mechanism, role="choice")


# --- the ledger


@pytest.mark.parametrize("shape", [0.0, 1.0, math.inf])
@pytest.mark.parametrize("epsilon", [1.0, math.inf])
def test_ledger_of_a_selection_survives_json(epsilon: float, shape: float) -> None:
    trials = best(gradients(0.3, 4), OneShotMean(), votes(), shape=shape, ratios=(1.0, 2.0, 0.5))
    ledger = Ledger(budget(epsilon))
    mechanisms = calibrate(budget(epsilon), trials, OneShotMean())
    private = door(ledger=ledger)
    private.best_of(lambda p, r: (0, 0.0), mechanisms[0], role="choice")
    private.release_mean(lambda x, rng: x, mechanisms[1], role="mean")  # type: ignore[arg-type]
    plain = json.loads(json.dumps(ledger.to_json(), allow_nan=False))
    copied = Ledger.from_json(plain)
    assert copied.to_json() == ledger.to_json()
    assert copied.charges == ledger.charges
    assert copied.spent() == ledger.spent()
    assert copied.has_selection
    assert copied.private is (epsilon < math.inf)
    for charge, line in zip(ledger.charges, plain["charges"], strict=True):
        assert event_from_json(line["event"]) == charge.mechanism.event()
        assert line["event"] == event_json(charge.mechanism.event())
    assert len(plain["charges"][0]["noise_std"]) == 3


# --- a whole run


def test_a_run_tells_nothing_of_the_number_of_trials_and_does_not_start_over(
    sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    options = {"steps": 2, "multiplicity": 1, "mean_trials": 2.0, "score_draws": 1}
    path = sweep_file(
        grid=[{"method": ["dp_sgd_tuned"], "epsilon": [8]}],
        options={"dp_sgd_tuned": options},
        cell={"reproducible_noise": False},
    )
    store = Store(tmp_path / "store")

    def run() -> dict[str, Any]:
        with pytest.raises(SystemExit):
            main(["sweep", "run", str(path)])
        (row,) = store.rows().to_dict("records")
        return {str(key): value for key, value in row.items()}

    row = run()
    assert (row["status"], row["private"], row["selection"]) == ("done", True, "tuned_private")
    assert "seconds_adapt" not in row
    assert row["statement"].startswith("The output is (ε = 8")
    assert "best of K trials" in row["statement"]
    # What the commit of this checkout lets a row claim is none of this test's business.
    assert [finding for finding in check_store(store) if "commit" not in finding] == []

    folder = store.directory(row["cell"])
    (folder / "row.json").unlink()
    (folder / "theta.safetensors").unlink()  # as if killed before the result was kept
    row = run()
    assert row["status"] == "failed"
    assert "role 'learning rate' is charged already" in row["error"]
