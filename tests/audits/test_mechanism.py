"""Attacks on mechanisms see what is wrong and only that.

Noise is reproducible here, so that no test at a level of confidence fails by chance.
"""

import pytest

from dphyper.audits.mechanism import attacked_parts, audit_mechanisms
from dphyper.audits.whole_run_faults import FAULTS
from dphyper.core.errors import UserError
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.mechanisms import (
    BestOfTrials,
    GaussianMechanism,
    NoisyHistogram,
    OneShotMean,
    PoissonGradientSteps,
)
from dphyper.privacy.noise import NoiseSource

ADD = Relation.ADD_OR_REMOVE_ONE
STEPS = PoissonGradientSteps(l2_clip_norm=0.5, sampling_prob=0.5, steps=3)


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
    """At a large ε a thousand releases are enough for that."""
    budget = Budget(epsilon=8.0, delta=1e-5, relation=ADD)
    parts = calibrate(budget, OneShotMean())
    result = audit_mechanisms(parts, budget, dimension=32, noise=NoiseSource.reproducible(0), draws=1_000)
    assert 6.0 <= result.gdp_epsilon <= 8.0


def test_audit_refuses_releases_without_noise() -> None:
    budget = Budget(epsilon=float("inf"), delta=1e-5, relation=ADD)
    for parts in ((), calibrate(budget, OneShotMean())):
        with pytest.raises(UserError, match="there is no claim to audit"):
            audit_mechanisms(parts, budget, dimension=4, noise=NoiseSource.reproducible(0))


def test_of_a_selection_one_trial_is_attacked() -> None:
    selection = BestOfTrials(trial=(OneShotMean(), NoisyHistogram()), mean_trials=4.0)
    assert attacked_parts((selection, STEPS)) == (OneShotMean(), NoisyHistogram(), STEPS)


def test_a_mechanism_that_nobody_says_how_to_release_is_refused() -> None:
    class Stranger(GaussianMechanism):
        """Of an outside package."""

        l2_clip_norm, sampling_prob, steps, noise_multiplier = 1.0, 1.0, 1, 1.0

    budget = Budget(epsilon=1.0, delta=1e-5, relation=ADD)
    with pytest.raises(UserError, match="Stranger has no audit"):
        audit_mechanisms((Stranger(),), budget, dimension=4, noise=NoiseSource.reproducible(0))
