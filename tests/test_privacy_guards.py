"""Guards and audits: each shown to find what it is for, and nothing in what is sound."""

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from dphyper.bench.privacy import audit, guards
from dphyper.bench.privacy.accounting import calibrate, gaussian_epsilon, gaussian_noise_multiplier
from dphyper.bench.privacy.budget import Budget, Relation
from dphyper.bench.privacy.ledger import Ledger
from dphyper.bench.privacy.mechanisms import OneShotMean, PoissonGradientSteps
from dphyper.bench.privacy.noise import NoiseSource
from dphyper.bench.privacy.planted import planted_bugs, planted_table
from dphyper.bench.privacy.private_data import PrivateData

# Each bug that was read in published code, and the guard that has to catch it.
EXPECTED = {
    "micro-batches of four": "sensitivity",
    "second moment with half the sensitivity": "sensitivity",
    "realised instead of the expected batch": "sensitivity",
    "C/n of the mean under add-or-remove-one": "sensitivity",
    "augmented four times": "sensitivity",
    "spread evenly over the batch": "noise_scale",
    "seed fixed": "fresh_noise",
    "shuffled batches": "poisson_sampling",
    "noise added before clipping": "noise_scale",
    "no noise": "noise_scale",
    "noise for the sum alone": "noise_scale",
    "count released without noise": "noise_scale",
    "largest of the private norms": "record_wise",
    "batch normalisation": "record_wise",
}


def test_every_planted_bug_is_caught_by_its_guard() -> None:
    planted = planted_bugs()
    assert len(planted) == len(EXPECTED)
    for name, guard in EXPECTED.items():
        (found,) = [p for p in planted if name in p.bug]
        assert found.guard == guard
        assert found.finding is not None, f"{guard} missed: {found.bug}"
        assert found.sound is None, f"{guard} rejects the sound release: {found.sound}"


def test_planted_table_has_a_line_for_each() -> None:
    lines = planted_table(planted_bugs()).splitlines()
    assert len(lines) == len(EXPECTED)
    assert all(line.startswith("caught") for line in lines)


def test_a_guard_that_sees_nothing_shows_as_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    def noise_scale(*_: object) -> None:
        return None

    monkeypatch.setattr(guards, "noise_scale", noise_scale)
    assert sum(line.startswith("MISSED") for line in planted_table(planted_bugs()).splitlines()) == 5


def test_noise_scale_rejects_the_right_scale_in_the_wrong_shape() -> None:
    rng = np.random.default_rng(0)
    assert guards.noise_scale(rng.normal(0, 1, 5000), 1.0) is None
    assert guards.noise_scale(rng.uniform(-(3**0.5), 3**0.5, 5000), 1.0) is not None
    assert guards.noise_scale(rng.normal(0.3, (1 - 0.09) ** 0.5, 5000), 1.0) is not None


def test_record_wise_accepts_networks_and_rejects_attention() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, 8, 8)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.GroupNorm(2, 8), torch.nn.Flatten(), torch.nn.LazyLinear(4)
    ).eval()
    normalised = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Flatten())

    def attention(images: Tensor) -> Tensor:
        tokens = images.flatten(1)
        return (tokens @ tokens.T / 100).softmax(1) @ tokens

    assert guards.record_wise(network, x) is None
    assert guards.record_wise(normalised.train(), x) is not None
    assert guards.record_wise(normalised.eval(), x) is None
    assert guards.record_wise(attention, x) is not None
    assert guards.record_wise(lambda images: images.flatten(1).cumsum(0), x) is not None
    assert guards.record_wise(lambda images: images.flatten(1) / len(images), x) is not None


def test_order_invariant_rejects_a_weighted_sum() -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert guards.order_invariant(lambda rows: (rows * 2**30).round().sum(0), x) is None
    assert guards.order_invariant(lambda rows: (rows * torch.arange(5)[:, None]).sum(0), x) is not None


# --- audits


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "expected"),
    # From jax_privacy 2.0.0, auditing.py, _epsilon_one_run at significance 0.05.
    [
        (1000, 1000, 900, 1e-5, 2.020645594168416),
        (1000, 1000, 550, 1e-5, 0.09398823055434719),
        (500, 100, 95, 1e-5, 2.168821538933098),
        (2000, 2000, 1300, 0.0, 0.5410296867603311),
        (100, 100, 99, 1e-3, 2.8409635614416353),
    ],
)
def test_one_run_bound_equals_that_of_jax_privacy(
    canaries: int, guesses: int, correct: int, delta: float, expected: float
) -> None:
    assert audit.one_run_lower_bound(correct, guesses, canaries, delta) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("events", "expected"), [(1551, 0.32322978635254473), (112, 0.02689141851887646)])
def test_clopper_pearson_rate_equals_that_of_jax_privacy(events: int, expected: float) -> None:
    (rate,) = audit._upper_rate(np.array([events]), 5000, 0.025)
    assert rate == pytest.approx(expected, rel=1e-12)
    assert binom.cdf(events, 5000, rate) == pytest.approx(0.025)


def test_one_run_audit_of_gradient_steps_stays_below_the_claim_and_sees_a_lack_of_noise() -> None:
    m, budget = 400, Budget(epsilon=4.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
    (claimed,) = calibrate(budget, PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=1.0, steps=5))
    included = np.random.default_rng(0).random(m) < 0.5
    bounds = []
    for factor in (1.0, 0.1):
        sigma = claimed.noise_multiplier * factor
        mechanism = PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=1.0, steps=5, noise_multiplier=sigma)
        ledger = Ledger(Budget(epsilon=np.inf, delta=1e-5, relation=budget.relation))
        private = PrivateData(torch.eye(m)[torch.from_numpy(included)], n=m, ledger=ledger, noise=NoiseSource.os())
        scores = torch.stack(list(private.gradient_steps(lambda x, rng: x, mechanism, role="audit"))).sum(0).numpy()
        bounds.append(audit.one_run_audit(scores, included, 1e-5, guesses=200))
    assert 0.2 < bounds[0] < 4.0
    assert bounds[1] > 4.0


def test_bounds_hold_as_often_as_they_say() -> None:
    mu, repetitions = 1 / gaussian_noise_multiplier(1.0, 1e-5), 200
    rng = np.random.default_rng(0)
    too_high = {"gdp": 0, "clopper_pearson": 0}
    for _ in range(repetitions):
        scores = rng.normal(0, 1, 2000), rng.normal(mu, 1, 2000)
        too_high["gdp"] += audit.gdp_lower_bound(*scores, 1e-5) > 1.0
        too_high["clopper_pearson"] += audit.clopper_pearson_lower_bound(*scores, 1e-5) > 1.0
    for name, count in too_high.items():
        assert binom.sf(count - 1, repetitions, 0.05) > 1e-3, f"{name} exceeds the claim {count} times"


def test_the_bound_comes_close_in_every_run_and_not_only_in_most() -> None:
    """A threshold chosen on tail scores by luck gives a valid bound that is useless, in one run out of ten."""
    rng = np.random.default_rng(0)
    for factor, claim in ((1.0, 1.0), (0.5, 2.155)):
        mu = 1 / (factor * gaussian_noise_multiplier(1.0, 1e-5))
        assert gaussian_epsilon(mu, 1e-5) == pytest.approx(claim, rel=1e-3)
        bounds = [audit.gdp_lower_bound(rng.normal(0, 1, 40_000), rng.normal(mu, 1, 40_000), 1e-5) for _ in range(100)]
        assert min(bounds) > 0.7 * claim


def test_bounds_of_no_signal_are_zero_and_of_a_clear_one_large() -> None:
    rng = np.random.default_rng(0)
    for bound in (audit.gdp_lower_bound, audit.clopper_pearson_lower_bound):
        assert bound(rng.normal(0, 1, 4000), rng.normal(0, 1, 4000), 1e-5) < 0.3
        assert bound(np.zeros(4000), np.ones(4000), 1e-5) > 6
        assert bound(rng.normal(0, 1, 4000), rng.normal(-1, 1, 4000), 1e-5) < 0.3


@pytest.mark.parametrize("relation", Relation)
def test_one_shot_release_audits_close_to_its_claim(relation: Relation) -> None:
    budget = Budget(epsilon=1.0, delta=1e-5, relation=relation)
    (mechanism,) = calibrate(budget, OneShotMean(l2_clip_norm=0.3))
    result = audit.audit_one_shot(mechanism, budget, dimension=8, noise=NoiseSource.os(), draws=8_000)
    assert result.claimed_epsilon == pytest.approx(1.0)
    assert 0.3 < result.gdp_epsilon < 1.15
    assert result.clopper_pearson_epsilon < result.gdp_epsilon
    assert "claimed ε = 1.000" in str(result)


@pytest.mark.slow
def test_one_shot_audit_reaches_four_fifths_of_the_claim() -> None:
    budget = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
    (mechanism,) = calibrate(budget, OneShotMean())
    result = audit.audit_one_shot(mechanism, budget, dimension=32, noise=NoiseSource.os())
    assert 0.8 <= result.gdp_epsilon <= 1.05


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize(("q", "t"), [(1.0, 4), (0.5, 6)])
def test_gradient_steps_audit_below_their_claim_and_above_nothing(relation: Relation, q: float, t: int) -> None:
    budget = Budget(epsilon=8.0, delta=1e-5, relation=relation)
    (mechanism,) = calibrate(budget, PoissonGradientSteps(l2_clip_norm=0.5, sampling_prob=q, steps=t))
    result = audit.audit_gradient_steps(mechanism, budget, dimension=20, noise=NoiseSource.os(), draws=800)
    assert 3.0 < result.gdp_epsilon < 8.5
    assert 0.5 < result.clopper_pearson_epsilon < 8.0


def test_audit_raises_the_alarm_when_noise_is_half_of_what_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = NoiseSource.gaussian
    monkeypatch.setattr(NoiseSource, "gaussian", lambda self, shape, std: honest(self, shape, std / 2))
    budget = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
    (mechanism,) = calibrate(budget, OneShotMean())
    result = audit.audit_one_shot(mechanism, budget, dimension=8, noise=NoiseSource.os(), draws=8_000)
    assert result.gdp_epsilon > 1.3 > result.claimed_epsilon
    assert gaussian_epsilon(2 / 3.7306, 1e-5) > 2
