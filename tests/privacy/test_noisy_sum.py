"""Clipping, sensitivity and noise of the one noisy sum."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import Tensor

from dphyper.audits import guards
from dphyper.privacy.budget import Relation
from dphyper.privacy.mechanisms import GaussianMechanism, NoisyHistogram, OneShotMean, PoissonGradientSteps
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.noisy_sum import clip_rows, noisy_sum

K = 6

any_rows = npst.arrays(
    np.float64,
    npst.array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.floats(allow_nan=True, allow_infinity=True, width=64),
)

MECHANISMS: list[GaussianMechanism] = [
    OneShotMean(l2_clip_norm=0.7, noise_multiplier=0.0),
    OneShotMean(l2_clip_norm=3.0, count_weight=2.0, noise_multiplier=0.0),
    PoissonGradientSteps(l2_clip_norm=1e-6, sampling_prob=1.0, steps=1, noise_multiplier=0.0),
    NoisyHistogram(noise_multiplier=0.0),
]


@settings(max_examples=300, deadline=None)
@given(rows=any_rows, clip=st.floats(1e-12, 1e12))
def test_clipped_norms_never_exceed_the_bound(rows: np.ndarray, clip: float) -> None:
    clipped = clip_rows(torch.from_numpy(rows), clip)
    assert clipped.isfinite().all()
    exact = [math.fsum((value / clip) ** 2 for value in row) for row in clipped.tolist()]
    assert max(exact) <= 1.0
    finite = np.isfinite(rows).all(axis=1)
    assert not clipped[torch.from_numpy(~finite)].any()


@settings(max_examples=200, deadline=None)
@given(rows=any_rows)
def test_rows_inside_the_bound_are_left_alone(rows: np.ndarray) -> None:
    rows = np.nan_to_num(rows, nan=0.0, posinf=1.0, neginf=-1.0)
    scaled = rows / max(float(np.abs(rows).max()), 1e-300) / 10
    torch.testing.assert_close(clip_rows(torch.from_numpy(scaled), 1.0), torch.from_numpy(scaled), rtol=1e-14, atol=0)
    torch.testing.assert_close(
        clip_rows(torch.from_numpy(scaled), math.inf), torch.from_numpy(scaled), rtol=1e-14, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_clipping_takes_every_floating_type(dtype: torch.dtype) -> None:
    rows = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0)).to(dtype) * 50
    clipped = clip_rows(rows, 0.3)
    assert clipped.dtype == torch.float64
    torch.testing.assert_close(clipped.norm(dim=1), torch.full((50,), 0.3, dtype=torch.float64), rtol=1e-8, atol=0)
    torch.testing.assert_close(clipped / 0.3, torch.nn.functional.normalize(rows.double()), rtol=1e-8, atol=1e-12)


def noise_free(mechanism: GaussianMechanism, relation: Relation) -> Callable[[Tensor], Tensor]:
    return lambda x: noisy_sum([x], K, mechanism=mechanism, relation=relation, noise=NoiseSource.os())


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_neighbours_move_the_sum_by_the_stated_sensitivity_and_no_less(
    mechanism: GaussianMechanism, relation: Relation
) -> None:
    statistic, bound = noise_free(mechanism, relation), mechanism.sensitivity(relation)
    pairs = list(guards.adversarial_neighbours(relation, K))
    assert len(pairs) > 50
    # Under zero-out the null record adds nothing, like the zero row; the count has no coordinate there.
    assert guards.sensitivity(statistic, bound, pairs) is None
    assert guards.sensitivity(statistic, bound * (1 - 1e-6), pairs) is not None


@settings(max_examples=150, deadline=None)
@given(data=st.data(), relation=st.sampled_from(Relation), mechanism=st.sampled_from(MECHANISMS))
def test_no_swap_found_by_search_exceeds_the_sensitivity(
    data: st.DataObject, relation: Relation, mechanism: GaussianMechanism
) -> None:
    row = npst.arrays(np.float64, K, elements=st.floats(allow_nan=True, allow_infinity=True))
    rest = torch.from_numpy(
        data.draw(npst.arrays(np.float64, (data.draw(st.integers(0, 5)), K), elements=st.floats(-9, 9)))
    )
    new, old = (torch.from_numpy(data.draw(row))[None] for _ in range(2))
    if relation is Relation.ADD_OR_REMOVE_ONE:
        old = old[:0]
    elif relation is Relation.ZERO_OUT:
        old = torch.zeros_like(old)
    pair = torch.cat([rest, old]), torch.cat([new, rest])  # and in another place
    assert guards.sensitivity(noise_free(mechanism, relation), mechanism.sensitivity(relation), [pair]) is None


def pure_noise(mechanism: GaussianMechanism, relation: Relation, noise: NoiseSource, draws: int = 1500) -> np.ndarray:
    return np.stack(
        [noisy_sum([], K, mechanism=mechanism, relation=relation, noise=noise).numpy() for _ in range(draws)]
    )


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize(
    "mechanism",
    [
        OneShotMean(l2_clip_norm=0.2, noise_multiplier=3.7306),
        PoissonGradientSteps(l2_clip_norm=5.0, sampling_prob=0.5, steps=1, noise_multiplier=0.6),
        NoisyHistogram(noise_multiplier=11.0),
    ],
)
def test_noise_has_the_claimed_deviation_and_not_two_thirds_or_three_halves_of_it(
    mechanism: GaussianMechanism, relation: Relation
) -> None:
    samples, std = pure_noise(mechanism, relation, NoiseSource.os()), mechanism.noise_std(relation)
    assert guards.noise_scale(samples, std) is None
    assert guards.noise_scale(samples, std * 2 / 3) is not None
    assert guards.noise_scale(samples, std * 3 / 2) is not None
