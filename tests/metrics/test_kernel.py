"""The kernel distance against brute force and clean-fid; that it is unbiased."""

import itertools

import cleanfid.fid
import numpy as np
import pytest
from numpy.typing import NDArray

from dphyper.metrics import kernel
from dphyper.metrics.kernel import Kernel
from dphyper.metrics.metric import Evidence


def random_features(n: int, d: int, seed: int, shift: float = 0.0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((d, d)) / np.sqrt(d)
    return np.maximum(rng.standard_normal((n, d)) @ mixing + shift, 0)


def kernel_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    return Kernel.compute(Evidence(generated_features=first, reference_features=second))


def test_distance_equals_brute_force_in_any_blocks(monkeypatch):
    first, second = random_features(7, 5, 0), random_features(9, 5, 1, shift=0.5)

    def mean_kernel(pairs):
        return np.mean([(x @ y / 5 + 1) ** 3 for x, y in pairs])

    expected = (
        mean_kernel(itertools.permutations(first, 2))
        + mean_kernel(itertools.permutations(second, 2))
        - 2 * mean_kernel(itertools.product(first, second))
    )
    assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr(kernel, "_ROWS", 4)
    assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-10)


def test_distance_equals_clean_fid_on_one_subset_of_everything():
    first, second = random_features(80, 16, 0), random_features(80, 16, 1, shift=0.1)
    state = np.random.get_state()
    expected = cleanfid.fid.kernel_distance(first, second, num_subsets=1, max_subset_size=80)
    np.random.set_state(state)
    assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_distance_is_unbiased():
    values = [kernel_distance(random_features(12, 4, 2 * s), random_features(20, 4, 2 * s + 1)) for s in range(400)]
    standard_error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * standard_error
    # The same test sees a difference of distributions that small.
    shifted = [
        kernel_distance(random_features(12, 4, 2 * s), random_features(20, 4, 2 * s + 1, 0.3)) for s in range(400)
    ]
    assert np.mean(shifted) > 4 * standard_error
