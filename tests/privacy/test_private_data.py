"""What leaves `PrivateData`: clipped, summed, noised as claimed, charged before it is drawn, and nothing else."""

import copy
import math
import os
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import Tensor

from dphyper.audits import guards
from dphyper.core.errors import PrivacyError, UserError
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import NoisyHistogram, OneShotMean, PoissonGradientSteps
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.noisy_sum import grid_step
from dphyper.privacy.private_data import PrivateData

K = 6


def identity(x: Tensor, rng: torch.Generator) -> Tensor:
    return x


def budget(epsilon: float = 1.0, relation: Relation = Relation.ADD_OR_REMOVE_ONE) -> Budget:
    return Budget(epsilon=epsilon, delta=1e-5, relation=relation)


def open_private(
    records: Tensor,
    *,
    epsilon: float = math.inf,
    relation: Relation = Relation.ADD_OR_REMOVE_ONE,
    n: int | None = None,
    noise: NoiseSource | None = None,
    ledger: Ledger | None = None,
    chunk_size: int = 256,
) -> PrivateData:
    return PrivateData(
        records,
        n=len(records) if n is None else n,
        ledger=ledger or Ledger(budget(epsilon, relation)),
        noise=noise or NoiseSource.os(),
        chunk_size=chunk_size,
    )


class RecordingNoise(NoiseSource):
    """Counts the bytes that were drawn."""

    def __init__(self) -> None:
        self.drawn = 0
        super().__init__(self._draw, is_reproducible=False)

    def _draw(self, count: int) -> bytes:
        self.drawn += count
        return os.urandom(count)


@settings(max_examples=100, deadline=None)
@given(
    rows=npst.arrays(np.float64, npst.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(width=64)),
    seed=st.integers(0, 2**16),
    chunk=st.integers(1, 9),
)
def test_order_and_chunks_do_not_change_a_bit(rows: np.ndarray, seed: int, chunk: int) -> None:
    x = torch.from_numpy(rows)
    for relation in Relation:
        mechanism = OneShotMean(noise_multiplier=0.0)
        whole = open_private(x, relation=relation).release_mean(identity, mechanism, role="a").mean
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        private = open_private(x[order], relation=relation, chunk_size=chunk)
        assert torch.equal(private.release_mean(identity, mechanism, role="a").mean, whole)


def test_a_record_that_is_not_finite_counts_as_zero_and_raises_nothing() -> None:
    x = torch.tensor([[1.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [0.0, -math.inf]])
    release = open_private(x).release_mean(identity, OneShotMean(noise_multiplier=0.0), role="a")
    assert release.mean.tolist() == pytest.approx([0.25, 0.0])
    assert release.count == pytest.approx(4.0)


def test_unclipped_mean_is_the_mean() -> None:
    x = torch.randn(100, K, generator=torch.Generator().manual_seed(0)) * 1e3
    for relation in Relation:
        mechanism = OneShotMean(l2_clip_norm=math.inf, noise_multiplier=0.0)
        release = open_private(x, relation=relation).release_mean(identity, mechanism, role="a")
        torch.testing.assert_close(release.mean, x.double().mean(0))
        assert release.noise_std == 0.0
        assert release.count == pytest.approx(100)


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("q", [0.25, 1.0])
def test_gradient_noise_is_that_of_the_mechanism_over_the_expected_batch(relation: Relation, q: float) -> None:
    n = 8  # at q = 1/4 every tenth batch is empty
    (mechanism,) = calibrate(budget(1.0, relation), PoissonGradientSteps(l2_clip_norm=0.5, sampling_prob=q, steps=2000))
    private = open_private(torch.zeros(n, K), epsilon=1.0, relation=relation)
    samples = torch.stack(list(private.gradient_steps(identity, mechanism, role="gradient")))
    std = mechanism.noise_multiplier * 0.5 / (q * n)
    assert guards.noise_scale(samples, std) is None
    assert guards.noise_scale(samples, std * 2 / 3) is not None
    assert guards.noise_scale(samples, std * 3 / 2) is not None


def test_mean_noise_is_reported_as_it_is() -> None:
    for relation in (Relation.ZERO_OUT, Relation.REPLACE_ONE):
        (mechanism,) = calibrate(budget(1.0, relation), OneShotMean())
        releases = [
            open_private(torch.zeros(50, K), epsilon=1.0, relation=relation).release_mean(identity, mechanism, role="a")
            for _ in range(1000)
        ]
        assert {r.noise_std for r in releases} == {mechanism.noise_multiplier / 50}
        assert guards.noise_scale(torch.stack([r.mean for r in releases]), releases[0].noise_std) is None
    (mechanism,) = calibrate(budget(1.0), OneShotMean())
    release = open_private(torch.zeros(500, K), epsilon=1.0).release_mean(identity, mechanism, role="a")
    assert release.noise_std == pytest.approx(mechanism.noise_std(Relation.ADD_OR_REMOVE_ONE) / release.count)
    assert release.count == pytest.approx(500, abs=100)


def test_noise_does_not_follow_any_seed() -> None:
    (mechanism,) = calibrate(budget(), OneShotMean())

    def draw() -> np.ndarray:
        torch.manual_seed(0)
        np.random.seed(0)
        release = open_private(torch.zeros(50, K), epsilon=1.0).release_mean(identity, mechanism, role="a")
        return release.mean.numpy()

    assert guards.fresh_noise(draw) is None
    assert guards.fresh_noise(lambda: NoiseSource.reproducible(3).rounded_gaussian(9, 1e6)) is not None


@pytest.mark.parametrize("relation", Relation)
def test_everything_released_lies_on_a_grid_that_follows_from_the_noise_alone(relation: Relation) -> None:
    mechanism = OneShotMean(l2_clip_norm=0.7, noise_multiplier=2.0)
    step = grid_step(mechanism, relation)
    assert 2.0**24 <= mechanism.noise_std(relation) / step < 2.0**25
    ledger = Ledger(budget(50.0, relation))
    rows = torch.rand(50, K, generator=torch.Generator().manual_seed(0))
    open_private(rows, ledger=ledger).release_mean(identity, mechanism, role="a")
    released = np.array(ledger.charges[0].output) / step
    assert (released == released.round()).all()
    assert len(set((released % 2**8).tolist())) > 1  # and uses it to the last bit


@pytest.mark.parametrize("relation", Relation)
def test_batches_are_poisson_samples(relation: Relation) -> None:
    n, q, steps = 60, 0.25, 80
    mechanism = PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=q, steps=steps, noise_multiplier=0.0)
    private = open_private(torch.eye(n), relation=relation)
    sums = torch.stack(list(private.gradient_steps(identity, mechanism, role="a"))) * q * n
    torch.testing.assert_close(sums, sums.round(), rtol=0, atol=1e-8)
    included = sums.numpy() > 0.5
    assert guards.poisson_sampling(included, q) is None
    assert guards.poisson_sampling(included, 0.2) is not None
    assert guards.poisson_sampling(included[:, ::-1].repeat(2, axis=0)[::2], q) is None
    assert guards.poisson_sampling(np.repeat(included[:1], steps, axis=0), q) is not None  # one batch for all steps


def test_empty_batches_release_noise_and_never_call_the_function() -> None:
    sizes: list[int] = []

    def gradient(x: Tensor, rng: torch.Generator) -> Tensor:
        sizes.append(len(x))
        return x

    mechanism = PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=1e-9, steps=5, noise_multiplier=9.0)
    ledger = Ledger(budget(1.0))
    private = open_private(torch.ones(10, K), ledger=ledger)
    released = torch.stack(list(private.gradient_steps(gradient, mechanism, role="a")))
    assert (released != 0).all()
    assert sizes == [1]  # the null record, to learn p
    empty = open_private(torch.zeros(0, K), n=10, epsilon=1.0)
    assert next(empty.gradient_steps(gradient, mechanism, role="a")).shape == (K,)


def test_the_denominator_is_the_expected_batch() -> None:
    mechanism = PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=1.0, steps=1, noise_multiplier=0.0)
    for size in (1, 5, 20):  # under add-or-remove-one the realised number may be any
        private = open_private(torch.ones(size, 1) / 2, n=10)
        assert float(next(private.gradient_steps(identity, mechanism, role="a"))) == pytest.approx(size / 2 / 10)


def test_steps_see_parameters_that_were_just_updated() -> None:
    theta = torch.zeros(1, dtype=torch.float64)

    def gradient(x: Tensor, rng: torch.Generator) -> Tensor:
        return theta - x

    mechanism = PoissonGradientSteps(l2_clip_norm=10.0, sampling_prob=1.0, steps=60, noise_multiplier=0.0)
    private = open_private(torch.full((5, 1), 3.0, dtype=torch.float64))
    for step in private.gradient_steps(gradient, mechanism, role="a"):
        theta.sub_(0.3 * step)
    assert float(theta) == pytest.approx(3.0, abs=1e-6)


def test_nothing_is_drawn_when_the_budget_would_be_exceeded() -> None:
    noise = RecordingNoise()
    seen: list[int] = []

    def embed(x: Tensor, rng: torch.Generator) -> Tensor:
        seen.append(bool((x == 1).all(1).any()))  # a private record, no public one of the trial
        return x

    ledger = Ledger(budget(1.0))
    private = open_private(torch.ones(50, K), noise=noise, ledger=ledger)
    (mean,) = calibrate(budget(1.0), OneShotMean())
    private.release_mean(embed, mean, role="embedding")
    drawn, calls = noise.drawn, sum(seen)
    before = ledger.to_json()
    with pytest.raises(PrivacyError, match="would bring the run to"):
        private.release_mean(embed, mean, role="again")
    with pytest.raises(PrivacyError, match="would bring the run to"):
        private.release_histogram(embed, NoisyHistogram(noise_multiplier=50.0), role="histogram")
    with pytest.raises(PrivacyError, match="would bring the run to"):
        private.gradient_steps(
            embed,
            PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=0.1, steps=2, noise_multiplier=9.0),
            role="steps",
        )
    with pytest.raises(PrivacyError, match="would bring the run to ε = inf"):
        private.release_mean(embed, OneShotMean(noise_multiplier=0.0), role="clear")
    with pytest.raises(PrivacyError, match="no noise_multiplier"):
        private.release_mean(embed, OneShotMean(), role="uncalibrated")
    assert (noise.drawn, sum(seen)) == (drawn, calls)
    assert ledger.to_json() == before


def test_all_steps_are_charged_before_the_first() -> None:
    noise, ledger = RecordingNoise(), Ledger(budget(1.0))
    private = open_private(torch.ones(50, K), noise=noise, ledger=ledger)
    (mechanism,) = calibrate(budget(1.0), PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=0.2, steps=20))
    private.gradient_steps(identity, mechanism, role="steps")
    assert noise.drawn == 0
    assert ledger.spent() == pytest.approx(1.0, rel=1e-5)


def door() -> PrivateData:
    return open_private(torch.full((12, K), 0.123), n=12, epsilon=1.0)


@pytest.mark.parametrize(
    "read",
    [
        lambda p: p.records,
        lambda p: p._records,
        lambda p: p.data,
        lambda p: p.shape,
        lambda p: p.mean(),
        lambda p: p.__dict__,
        vars,
        len,
        list,
        iter,
        bool,
        repr,
        str,
        format,
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        np.asarray,
        torch.as_tensor,
        lambda p: p[0],
        lambda p: p[:2],
        lambda p: 0.123 in p,
        lambda p: [*p],
    ],
)
def test_reading_a_record_is_refused(read: Callable[[PrivateData], object]) -> None:
    with pytest.raises(PrivacyError, match="private data do not give"):
        read(door())


def test_public_attributes_hold_no_record() -> None:
    private = door()
    assert private.n == 12
    for name in PrivateData.__slots__:
        assert not isinstance(getattr(private, name), (Tensor, np.ndarray))
    with pytest.raises(PrivacyError):
        _ = private.anything


def test_what_a_function_returns_is_checked_before_anything_is_charged() -> None:
    private = door()
    (mean,) = calibrate(budget(1.0), OneShotMean())
    with pytest.raises(UserError, match="expected one row each"):
        private.release_mean(lambda x, rng: x.sum(), mean, role="a")
    with pytest.raises(UserError, match="expected one row each"):
        private.release_mean(lambda x, rng: torch.cat([x, x]), mean, role="a")
    assert not private.ledger.charges


def test_public_n_must_be_the_number_of_records() -> None:
    for relation in (Relation.ZERO_OUT, Relation.REPLACE_ONE):
        with pytest.raises(UserError, match="the number is public"):
            open_private(torch.ones(50, K), n=49, relation=relation)
    open_private(torch.ones(50, K), n=49)
    with pytest.raises(UserError, match="n = 0"):
        open_private(torch.ones(50, K), n=0)


def test_images_are_released_like_vectors() -> None:
    images = np.full((20, 4, 4, 1), 128, np.uint8)
    private = PrivateData(images, n=20, ledger=Ledger(budget(math.inf)), noise=NoiseSource.os(), chunk_size=7)
    release = private.release_mean(
        lambda x, rng: x.flatten(1).float() / 255,
        OneShotMean(l2_clip_norm=100.0, noise_multiplier=0.0),
        role="a",
    )
    assert release.mean.tolist() == pytest.approx([128 / 255] * 16)


def test_long_rows_come_in_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by numbers and not by records, and the sum does not know."""
    x = torch.rand(20, 8, generator=torch.Generator().manual_seed(0))
    mechanism = OneShotMean(l2_clip_norm=1.0, noise_multiplier=0.0)
    released = []
    for most, largest in ((2**24, 20), (24, 3), (1, 1)):
        monkeypatch.setattr("dphyper.privacy.private_data.MAX_NUMBERS", most)
        sizes: list[int] = []

        def embed(rows: Tensor, rng: torch.Generator, sizes: list[int] = sizes) -> Tensor:
            sizes.append(len(rows))
            return rows

        released.append(open_private(x).release_mean(embed, mechanism, role="a").mean)
        assert max(sizes) == largest
    assert torch.equal(released[0], released[1])
    assert torch.equal(released[0], released[2])
