"""The noise is exact, Gaussian, rounded to the grid, and follows no seed."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import ndtri
from scipy.stats import chi2, norm

from dphyper.audits import guards
from dphyper.core.errors import PrivacyError
from dphyper.privacy.noise import NoiseSource


def test_noise_source_is_gaussian_and_uniform() -> None:
    noise = NoiseSource.os()
    x = noise.rounded_gaussian(200_000, 2.0**24)
    assert x.dtype == np.int64
    assert guards.noise_scale(x, 2.0**24) is None
    assert guards.noise_scale(x, 1.02 * 2.0**24) is not None
    assert abs(float(np.mean((x * 2.0**-24) ** 4)) - 3) < 0.15
    u = noise.uniform((100, 2000))
    assert u.shape == (100, 2000)
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert abs(float((u < 0.25).mean()) - 0.25) < 0.01


def test_extreme_bits_give_finite_noise_or_an_error_and_no_endless_loop() -> None:
    ones = NoiseSource(lambda count: b"\xff" * count, is_reproducible=True)
    assert ones.rounded_gaussian(3, 2.0**24).tolist() == [0, 0, 0]
    assert (ones.uniform(3) < 1.0).all()
    with pytest.raises(PrivacyError, match="it is not random"):
        NoiseSource(bytes, is_reproducible=True).rounded_gaussian(3, 1.0)


def test_noise_is_the_exact_number_rounded() -> None:
    """Against the inverse of the distribution function in 60 digits, and with digits that do not settle at once."""
    words = np.random.default_rng(0).integers(0, 2**64, 400, dtype=np.uint64)
    words[:100] >>= np.uint64(30)  # far tails, which one word does not settle
    more = np.random.default_rng(1)

    def stream(count: int) -> bytes:
        return words.tobytes() if count == words.nbytes else more.bytes(count)

    with mpmath.workdps(60):
        ends = [
            [-mpmath.sqrt(2) * mpmath.erfinv(mpmath.mpf(2 * end) / 2**64 - 1) if end else mpmath.inf for end in pair]
            for pair in ((digits + 1, digits) for digits in (words >> np.uint64(1)).tolist())
        ]
        for std in (0.3, 7.0, 1.7 * 2.0**24):
            drawn = NoiseSource(stream, is_reproducible=True).rounded_gaussian(400, std)
            for word, integer, (low, high) in zip(words.tolist(), drawn.tolist(), ends, strict=True):
                assert std * low - 0.5 <= (-1) ** (word & 1) * integer <= std * high + 0.5


def test_inverse_of_the_normal_distribution_errs_by_less_than_is_assumed() -> None:
    rng = np.random.default_rng(0)
    edges = [math.exp(-2.0), math.exp(-32.0), 0.5]  # where the approximation changes its form, and its end
    near = np.concatenate([edge * (1 - 2.0 ** -rng.uniform(1, 52, 300)) for edge in edges])
    tails = np.concatenate([2.0 ** -rng.uniform(1, 20, 2000), near])

    def largest_error(x: np.ndarray) -> float:
        # The error in x is that in the probability over the density, up to 2⁻⁵⁰ of itself.
        with mpmath.workdps(40):
            pairs = zip(tails.tolist(), x.tolist(), strict=True)
            return float(max(abs(mpmath.ncdf(x) - mpmath.mpf(p)) / mpmath.npdf(x) / (1 - x) for p, x in pairs))

    assert largest_error(ndtri(tails)) < 2.0**-50
    assert largest_error(ndtri(tails) * (1 + 2.0**-48)) > 2.0**-50


def test_a_stream_is_reproducible_from_its_seed_and_the_system_is_not() -> None:
    def draw(noise: NoiseSource) -> np.ndarray:
        return noise.rounded_gaussian(9, 1e6)

    assert guards.fresh_noise(lambda: draw(NoiseSource.os())) is None
    assert guards.fresh_noise(lambda: draw(NoiseSource.reproducible(3))) is not None
    assert np.array_equal(draw(NoiseSource.reproducible(3)), draw(NoiseSource.reproducible(3)))
    assert not np.array_equal(draw(NoiseSource.reproducible(3)), draw(NoiseSource.reproducible(4)))


def test_a_generator_takes_its_whole_state_from_the_stream() -> None:
    noise = NoiseSource.os()
    states = [noise.generator().get_state().numpy()[24 : 24 + 624 * 8] for _ in range(2)]
    words = np.stack([state.view(np.uint64) for state in states])
    assert (words < 2**32).all()
    assert (words[0] != words[1]).mean() > 0.99
    seeded = [torch.Generator().manual_seed(0).get_state().numpy() for _ in range(2)]
    assert np.array_equal(*seeded)
    draws = [torch.rand(3, generator=NoiseSource.reproducible(seed).generator()) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_noise_on_a_coarse_grid_has_the_probabilities_of_its_cells() -> None:
    std = 1.3
    x = NoiseSource.os().rounded_gaussian(100_000, std)
    support = np.arange(-5, 6)
    expected = len(x) * (norm.cdf((support + 0.5) / std) - norm.cdf((support - 0.5) / std))
    counts = np.array([(x == s).sum() for s in support])
    assert chi2.sf(float(((counts - expected) ** 2 / expected).sum()), len(support)) > 1e-6
    assert chi2.sf(float(((np.roll(counts, 1) - expected) ** 2 / expected).sum()), len(support)) < 1e-6
