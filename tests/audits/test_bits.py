"""The attack on the last bits convicts the former release, and nothing in the present one.

Noise is reproducible here, so that no test at a level of confidence fails by chance.
"""

import numpy as np
import pytest
import torch

from dphyper.audits.bits import (
    SETTINGS,
    Release,
    audit_bits,
    coarse_noisy_sum,
    compared_releases,
    former_gaussian,
    former_noisy_sum,
    largest_bits_bound,
)
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.mechanisms import GaussianMechanism, OneShotMean, PoissonGradientSteps
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.noisy_sum import noisy_sum

ADD = Relation.ADD_OR_REMOVE_ONE


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


def test_both_releases_are_compared_at_every_setting() -> None:
    compared = [*compared_releases(200)]
    assert len(compared) == 2 * len(SETTINGS)
    for former, present in zip(compared[::2], compared[1::2], strict=True):
        assert (former.release, present.release) == ("former", "present")
        assert (former.epsilon, former.dimension, former.records) == (
            present.epsilon,
            present.dimension,
            present.records,
        )
        # Of gradients the canary is in a quarter of the sums only: forty releases are too few to tell.
        assert former.records or former.audit.right["sampler"] > present.audit.right["sampler"]


def test_the_largest_bound_of_several_releases_is_that_of_the_worst() -> None:
    budget = Budget(epsilon=1.0, delta=1e-5, relation=ADD)
    parts = calibrate(budget, OneShotMean(), PoissonGradientSteps(l2_clip_norm=0.5, sampling_prob=0.5, steps=3))
    settings = {"dimension": 4, "n": 16, "draws": 100}
    together = largest_bits_bound(parts, budget, noise=NoiseSource.reproducible(0), **settings)
    alone = largest_bits_bound(parts[:1], budget, noise=NoiseSource.reproducible(0), **settings)
    assert alone <= together <= 1.0
