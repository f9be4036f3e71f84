"""Audits of mechanisms: bounds that hold as often as they say, and attacks that see what is wrong and only that.

Noise is reproducible here, so that no test at a level of confidence fails by chance.
"""

import numpy as np
import pytest
import torch
from scipy.stats import binom

from dphyper.audits import bounds
from dphyper.audits.bits import Release, audit_bits, coarse_noisy_sum, former_gaussian, former_noisy_sum
from dphyper.audits.bounds import clopper_pearson_lower_bound, gdp_lower_bound
from dphyper.audits.mechanism import audit_mechanisms
from dphyper.audits.whole_run_faults import FAULTS
from dphyper.bench.catalog import METHODS
from dphyper.cli.audit import audited_parts
from dphyper.core.errors import UserError
from dphyper.privacy.accounting import calibrate, gaussian_epsilon, gaussian_noise_multiplier
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.mechanisms import (
    BestOfTrials,
    GaussianMechanism,
    NoisyHistogram,
    OneShotMean,
    PoissonGradientSteps,
)
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.noisy_sum import noisy_sum

ADD = Relation.ADD_OR_REMOVE_ONE
STEPS = PoissonGradientSteps(l2_clip_norm=0.5, sampling_prob=0.5, steps=3)


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


# --- mechanisms


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize(
    "unscaled",
    [(OneShotMean(l2_clip_norm=0.3),), (NoisyHistogram(),), (STEPS,), (NoisyHistogram(), OneShotMean(), STEPS)],
    ids=lambda parts: "+".join(type(part).__name__ for part in parts),
)
def test_releases_audit_below_their_common_claim_and_above_nothing(
    relation: Relation, unscaled: tuple[GaussianMechanism, ...]
) -> None:
    budget = Budget(epsilon=8.0, delta=1e-5, relation=relation)
    parts = calibrate(budget, *unscaled)
    result = audit_mechanisms(parts, budget, dimension=4, noise=NoiseSource.reproducible(0), draws=200)
    assert result.claimed_epsilon == pytest.approx(8.0, rel=1e-4)
    assert 2.0 < result.gdp_epsilon < 8.0
    assert 0.3 < result.clopper_pearson_epsilon < result.gdp_epsilon


def test_what_several_releases_show_together_is_more_than_what_one_of_them_shows() -> None:
    budget = Budget(epsilon=8.0, delta=1e-5, relation=ADD)
    parts = calibrate(budget, *(NoisyHistogram(),) * 4)
    bounds = [
        audit_mechanisms(some, budget, dimension=4, noise=NoiseSource.reproducible(0), draws=400).gdp_epsilon
        for some in (parts, parts[:1])
    ]
    assert bounds[0] > 1.5 * bounds[1]


def test_audit_raises_the_alarm_when_there_is_a_tenth_of_the_noise() -> None:
    budget = Budget(epsilon=1.0, delta=1e-5, relation=ADD)
    parts = calibrate(budget, OneShotMean())
    bounds = [
        audit_mechanisms(parts, budget, dimension=4, noise=source, draws=200).gdp_epsilon
        for source in (NoiseSource.reproducible(0), FAULTS[0].source(NoiseSource.reproducible(0)))
    ]
    assert bounds[0] <= 1.0
    assert bounds[1] > 5.0


def test_one_shot_audit_comes_near_the_claim() -> None:
    budget = Budget(epsilon=1.0, delta=1e-5, relation=ADD)
    parts = calibrate(budget, OneShotMean())
    result = audit_mechanisms(parts, budget, dimension=32, noise=NoiseSource.reproducible(0), draws=6_000)
    assert 0.6 <= result.gdp_epsilon <= 1.0


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_parts_to_attack_or_one_line_of_refusal(name: str) -> None:
    budget = Budget(epsilon=1.0, delta=1e-5, relation=ADD)
    if METHODS[name].private and "epsilon" in METHODS[name].uses:
        parts = audited_parts(name, budget)
        assert parts
        assert all(part.noise_multiplier for part in parts)
    else:
        with pytest.raises(UserError, match="claims no ε to audit"):
            audited_parts(name, budget)


def test_of_a_selection_one_trial_is_attacked(capsys: pytest.CaptureFixture[str]) -> None:
    budget = Budget(epsilon=4.0, delta=1e-5, relation=ADD)
    (selection,) = METHODS["dp_sgd_tuned"].mechanisms(budget, METHODS["dp_sgd_tuned"].options_type())
    assert isinstance(selection, BestOfTrials)
    assert audited_parts("dp_sgd_tuned", budget) == selection.trial
    assert "accounted and not attacked" in capsys.readouterr().out


def test_audit_refuses_releases_without_noise() -> None:
    budget = Budget(epsilon=float("inf"), delta=1e-5, relation=ADD)
    for parts in ((), calibrate(budget, OneShotMean())):
        with pytest.raises(UserError, match="there is no claim to audit"):
            audit_mechanisms(parts, budget, dimension=4, noise=NoiseSource.reproducible(0))


# --- last bits


def bits(
    mechanism: GaussianMechanism, release: Release, relation: Relation = ADD, **options: float
) -> dict[str, float]:
    budget = Budget(epsilon=1.0, delta=1e-5, relation=relation)
    (calibrated,) = calibrate(budget, mechanism)
    settings = {"dimension": 32, "draws": 300} | options
    noise = NoiseSource.reproducible(0)
    return audit_bits(calibrated, budget, noise=noise, release=release, **settings).clopper_pearson  # type: ignore[arg-type]


@pytest.mark.parametrize("relation", Relation)
def test_last_bits_convict_the_former_release_and_not_the_present_one(relation: Relation) -> None:
    assert bits(OneShotMean(), former_noisy_sum, relation)["sampler"] > 3.0
    assert max(bits(OneShotMean(), noisy_sum, relation).values()) <= 1.0


@pytest.mark.parametrize("records", [64, 50])  # q n a power of two, and not
def test_last_bits_of_gradients_show_through_the_division(records: int) -> None:
    steps = PoissonGradientSteps(l2_clip_norm=0.03, sampling_prob=1.0, steps=3)
    of_former = bits(steps, former_noisy_sum, dimension=400, denominator=records, draws=200)
    assert of_former["sampler"] > 2.5
    assert max(bits(steps, noisy_sum, dimension=400, denominator=records, draws=200).values()) <= 1.0


def test_the_lattice_convicts_exact_noise_on_too_coarse_a_grid() -> None:
    found = bits(OneShotMean(), coarse_noisy_sum)
    assert found["lattice"] > 3.0
    assert found["sampler"] <= 1.0


def test_the_planted_sampler_is_the_former_one() -> None:
    """Numbers of the former `NoiseSource.reproducible(0).gaussian(4, std=2.0)`."""
    drawn = former_gaussian(NoiseSource.reproducible(0), 4, 2.0)
    words = np.frombuffer(np.random.default_rng(0).bytes(32), np.uint64)
    assert np.array_equal(-np.sign(drawn), 1.0 - 2.0 * (words & np.uint64(1)))
    assert drawn.tolist() == [0.9439022151659853, 2.207107728130479, -4.087595654025665, 4.794101449649288]
    large = torch.from_numpy(former_gaussian(NoiseSource.reproducible(1), 100_000, 2.0))
    assert float(large.std()) == pytest.approx(2.0, rel=0.01)
