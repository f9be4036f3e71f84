"""What leaves `PrivateData`: clipped, summed, noised as claimed, charged before it is drawn, and nothing else."""

import copy
import json
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.special import ndtri
from scipy.stats import chi2, norm
from torch import Tensor

from dphyper.audits import guards
from dphyper.core.errors import PrivacyError, UserError
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import GaussianMechanism, NoisyHistogram, OneShotMean, PoissonGradientSteps
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.noisy_sum import clip_rows, grid_step, noisy_sum
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


# --- clipping and sensitivity

any_rows = npst.arrays(
    np.float64,
    npst.array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.floats(allow_nan=True, allow_infinity=True, width=64),
)


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


MECHANISMS: list[GaussianMechanism] = [
    OneShotMean(l2_clip_norm=0.7, noise_multiplier=0.0),
    OneShotMean(l2_clip_norm=3.0, count_weight=2.0, noise_multiplier=0.0),
    PoissonGradientSteps(l2_clip_norm=1e-6, sampling_prob=1.0, steps=1, noise_multiplier=0.0),
    NoisyHistogram(noise_multiplier=0.0),
]


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


@settings(max_examples=100, deadline=None)
@given(rows=any_rows, seed=st.integers(0, 2**16), chunk=st.integers(1, 9))
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


# --- noise


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

    for std in (0.3, 7.0, 1.7 * 2.0**24):
        drawn = NoiseSource(stream, is_reproducible=True).rounded_gaussian(400, std)
        with mpmath.workdps(60):
            for word, integer in zip(words.tolist(), drawn.tolist(), strict=True):
                ends = [
                    -std * mpmath.sqrt(2) * mpmath.erfinv(mpmath.mpf(2 * end) / 2**64 - 1) if end else mpmath.inf
                    for end in ((word >> 1) + 1, word >> 1)
                ]
                assert ends[0] - 0.5 <= (-1) ** (word & 1) * integer <= ends[1] + 0.5


def test_inverse_of_the_normal_distribution_errs_by_less_than_is_assumed() -> None:
    rng = np.random.default_rng(0)
    edges = [math.exp(-2.0), math.exp(-32.0), 0.5]  # where the approximation changes its form, and its end
    near = np.concatenate([edge * (1 - 2.0 ** -rng.uniform(1, 52, 300)) for edge in edges])
    tails = np.concatenate([2.0 ** -rng.uniform(1, 20, 2000), near])
    with mpmath.workdps(60):
        errors = [
            abs(mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(p) - 1) - float(ndtri(p))) / (1 - ndtri(p)) for p in tails
        ]
    assert max(errors) < 2.0**-50


def test_noise_on_a_coarse_grid_has_the_probabilities_of_its_cells() -> None:
    std = 1.3
    x = NoiseSource.os().rounded_gaussian(100_000, std)
    support = np.arange(-5, 6)
    expected = len(x) * (norm.cdf((support + 0.5) / std) - norm.cdf((support - 0.5) / std))
    counts = np.array([(x == s).sum() for s in support])
    assert chi2.sf(float(((counts - expected) ** 2 / expected).sum()), len(support)) > 1e-6
    assert chi2.sf(float(((np.roll(counts, 1) - expected) ** 2 / expected).sum()), len(support)) < 1e-6


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


# --- Poisson sampling


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


# --- the ledger


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


def test_shared_budget_is_spent_exactly() -> None:
    mechanisms = calibrate(budget(2.0), OneShotMean(), NoisyHistogram(), OneShotMean(l2_clip_norm=9.0))
    ledger = Ledger(budget(2.0))
    private = open_private(torch.ones(50, K), ledger=ledger)
    private.release_mean(identity, mechanisms[0], role="a")
    private.release_histogram(identity, mechanisms[1], role="b")
    assert ledger.spent() < 2.0
    private.release_mean(identity, mechanisms[2], role="c")
    assert ledger.spent() == pytest.approx(2.0, rel=1e-5)


def test_resumed_run_gets_the_stored_release_and_never_a_second(tmp_path: Path) -> None:
    path, noise = tmp_path / "ledger.json", RecordingNoise()
    mean, gradients = calibrate(
        budget(1.0), OneShotMean(), PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=1.0, steps=3)
    )
    private = open_private(torch.ones(50, K), ledger=Ledger.open(path, budget(1.0)), noise=noise)
    first = private.release_mean(identity, mean, role="embedding")
    next(private.gradient_steps(identity, gradients, role="gradient"))  # and killed here

    resumed = open_private(torch.ones(50, K), ledger=Ledger.open(path, budget(1.0)), noise=RecordingNoise())
    assert resumed.ledger.spent() == pytest.approx(1.0, rel=1e-5)
    again = resumed.release_mean(identity, mean, role="embedding")
    assert torch.equal(again.mean, first.mean)
    assert (again.noise_std, again.count) == (first.noise_std, first.count)
    with pytest.raises(PrivacyError, match="role 'gradient' is charged already"):
        resumed.gradient_steps(identity, gradients, role="gradient")
    with pytest.raises(PrivacyError, match="was released by"):
        resumed.release_mean(identity, OneShotMean(noise_multiplier=99.0), role="embedding")
    with pytest.raises(PrivacyError, match="was opened for"):
        Ledger.open(path, budget(2.0))
    with pytest.raises(PrivacyError, match="the ledger has n = 50"):
        open_private(torch.ones(51, K), ledger=Ledger.open(path, budget(1.0)))
    with pytest.raises(PrivacyError, match="'reproducible'"):
        open_private(torch.ones(50, K), ledger=Ledger.open(path, budget(1.0)), noise=NoiseSource.reproducible(0))


def test_the_charge_is_on_disk_before_noise_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    states: list[bool] = []

    def stream(count: int) -> bytes:
        states.append(json.loads(path.read_text())["charges"][0]["complete"])
        return os.urandom(count)

    (mean,) = calibrate(budget(1.0), OneShotMean())
    noise = NoiseSource(stream, is_reproducible=False)
    open_private(torch.ones(50, K), ledger=Ledger.open(path, budget(1.0)), noise=noise).release_mean(
        identity, mean, role="a"
    )
    assert states
    assert not any(states)
    assert json.loads(path.read_text())["charges"][0]["complete"]


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize("epsilon", [1.0, math.inf])
def test_ledger_survives_json(relation: Relation, epsilon: float) -> None:
    ledger = Ledger(budget(epsilon, relation))
    private = open_private(torch.ones(50, K), ledger=ledger)
    mechanisms = calibrate(
        budget(epsilon, relation),
        OneShotMean(),
        PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=0.3, steps=4),
        NoisyHistogram(),
    )
    private.release_mean(identity, mechanisms[0], role="a")
    list(private.gradient_steps(identity, mechanisms[1], role="b"))
    private.release_histogram(identity, mechanisms[2], role="c")
    if epsilon == math.inf:
        clear = OneShotMean(l2_clip_norm=math.inf, noise_multiplier=0.0)
        private.release_mean(identity, clear, role="d")
    plain = json.loads(json.dumps(ledger.to_json(), allow_nan=False))
    copied = Ledger.from_json(plain)
    assert copied.to_json() == ledger.to_json()
    assert copied.spent() == ledger.spent()
    assert copied.charges == ledger.charges
    assert copied.private is (epsilon < math.inf)
    with pytest.raises(UserError, match="schema 99"):
        Ledger.from_json(plain | {"schema": 99})


def test_reproducible_noise_is_never_private() -> None:
    (mean,) = calibrate(budget(1.0), OneShotMean())
    for noise, private in ((NoiseSource.reproducible(0), False), (NoiseSource.os(), True)):
        ledger = Ledger(budget(1.0))
        open_private(torch.ones(50, K), ledger=ledger, noise=noise).release_mean(identity, mean, role="a")
        assert ledger.private is private
        assert ledger.to_json()["private"] is private


def test_delta_must_lie_below_one_over_n() -> None:
    with pytest.raises(PrivacyError, match="expected far below 1/n"):
        open_private(torch.ones(200_000, 1), epsilon=1.0)


# --- the door


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
