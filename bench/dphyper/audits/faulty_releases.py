"""Faulty releases, planted on purpose, each with its sound counterpart and the guard that must tell them apart.

A fault is a function or some numbers that a guard is given; so is its counterpart, which comes from this package. No
method can reach any of them. A release from no record at all is noise alone: so many of these are drawn that 5 % of the
scale are beyond doubt.

Shapes: k coordinates of a record.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from dphyper.audits import guards
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import (
    BestOfTrials,
    GaussianMechanism,
    NoisyHistogram,
    OneShotMean,
    PoissonGradientSteps,
)
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.noisy_sum import clip_rows, grid_step, noisy_sum
from dphyper.privacy.private_data import PrivateData
from dphyper.privacy.record_rows import RecordRows
from dphyper.targets.diffusion import corrupt, new_scheduler

K = 8  # coordinates of a record
N = 64  # nominal number of records
NUM_RELEASES = 3000
ADD, REPLACE = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE
ONE_SHOT, SILENT = OneShotMean(noise_multiplier=2.0), OneShotMean(noise_multiplier=0.0)


@dataclass(frozen=True, kw_only=True)
class FaultyRelease:
    """A fault and its counterpart.

    Attributes:
        bug: What is wrong.
        source: Where it was seen.
        guard: The guard that must tell them apart.
        faulty: Arguments of the guard that show the fault.
        sound: Arguments of the guard that show none.
    """

    bug: str
    source: str
    guard: Callable[..., guards.Guard]
    faulty: tuple[Any, ...]
    sound: tuple[Any, ...]


def faulty_releases() -> Iterator[FaultyRelease]:
    """Every fault, in the order of the table."""
    yield from _sums_that_a_record_moves_too_far()
    yield from _shared_randomness()
    yield from _noise_of_another_scale()
    yield from _rows_that_see_other_records()
    yield from _digits()
    yield from _what_runs_tell()


def _sums_that_a_record_moves_too_far() -> Iterator[FaultyRelease]:
    pairs, swaps = [list(guards.adversarial_neighbours(relation, K)) for relation in (ADD, REPLACE)]
    of_seven = [pair for pair in pairs if len(pair[0]) == 7]

    def squares(x: Tensor) -> Tensor:
        return clip_rows(clip_rows(x, 1.0).square(), 1.0).sum(0)

    yield FaultyRelease(
        bug="micro-batches of four clipped instead of records, noise for one record",
        source="litian96/AdaDPS",
        guard=guards.sensitivity,
        faulty=(_micro_batches, 1.0, pairs),
        sound=(_clipped, 1.0, pairs),
    )
    yield FaultyRelease(
        bug="second moment with half the sensitivity of a replacement, being positive",
        source="ParkLabML/DP-MEPF",
        guard=guards.sensitivity,
        faulty=(squares, SILENT.sensitivity(REPLACE) / 2, swaps),
        sound=(squares, SILENT.sensitivity(REPLACE), swaps),
    )
    yield FaultyRelease(
        bug="sum divided by the realised instead of the expected batch size",
        source="DP-FETA in 2019ChenGong/DPImageBench",
        guard=guards.sensitivity,
        faulty=(lambda x: _clipped(x) / max(len(x), 1), 1 / N, pairs),
        sound=(_gradient_step, 1 / N, pairs),
    )
    yield FaultyRelease(
        bug="sensitivity C/n of the mean under add-or-remove-one",
        source="common where n is taken as public",
        guard=guards.sensitivity,
        faulty=(lambda x: _clipped(x) / len(x), 1 / 7, of_seven),
        sound=(lambda x: _sum(x, SILENT, NoiseSource.os()), SILENT.sensitivity(ADD), of_seven),
    )
    yield FaultyRelease(
        bug="each record augmented four times, not averaged before clipping",
        source="a trap of augmentation multiplicity",
        guard=guards.sensitivity,
        faulty=(lambda x: _clipped(x.repeat_interleave(4, 0)), 1.0, pairs),
        sound=(lambda x: _clipped(x.repeat_interleave(4, 0).unflatten(0, (-1, 4)).mean(1)), 1.0, pairs),
    )


def _shared_randomness() -> Iterator[FaultyRelease]:
    nobody = torch.zeros(0, K)
    steps = PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=0.25, steps=40, noise_multiplier=0.0)
    yield FaultyRelease(
        bug="times of the diffusion loss spread evenly over the batch, which ties its records together",
        source="an early version of this package",
        guard=guards.noise_scale,
        faulty=(_mean_times(stratified=True), 1.0),
        sound=(_mean_times(stratified=False), 1.0),
    )
    yield FaultyRelease(
        bug="seed fixed just before the noise is drawn",
        source="PrivImage in 2019ChenGong/DPImageBench",
        guard=guards.fresh_noise,
        faulty=(lambda: _sum(nobody, ONE_SHOT, NoiseSource.reproducible(0)),),
        sound=(lambda: _sum(nobody, ONE_SHOT, NoiseSource.os()),),
    )
    yield FaultyRelease(
        bug="shuffled batches under a Poisson ε",
        source="dayu11/Gradient-Embedding-Perturbation",
        guard=guards.poisson_sampling,
        faulty=(_shuffled_batches(steps=40, batch=16), 0.25),
        sound=(_sampled(steps), 0.25),
    )


def _noise_of_another_scale() -> Iterator[FaultyRelease]:
    joint_std, multiplier = ONE_SHOT.noise_std(ADD), float(ONE_SHOT.noise_multiplier or 0)
    quiet_count = torch.cat([_gaussian((NUM_RELEASES, K), joint_std), torch.zeros(NUM_RELEASES, 1)], dim=1)
    yield FaultyRelease(
        bug="noise added before clipping",
        source="a trap of wrapping an optimiser twice",
        guard=guards.noise_scale,
        faulty=(clip_rows(_gaussian((1000, K), multiplier), 1.0), multiplier),
        sound=(_noise_alone(ONE_SHOT), joint_std),
    )
    yield FaultyRelease(
        bug="no noise",
        source="a method that forgot its privacy",
        guard=guards.noise_scale,
        faulty=(_noise_alone(SILENT), joint_std),
        sound=(_noise_alone(ONE_SHOT), joint_std),
    )
    yield FaultyRelease(
        bug="noise for the sum alone, where the count is released with it",
        source="a trap of the joint release",
        guard=guards.noise_scale,
        faulty=(_gaussian((NUM_RELEASES, K + 1), multiplier), joint_std),
        sound=(_noise_alone(ONE_SHOT), joint_std),
    )
    yield FaultyRelease(
        bug="count released without noise",
        source="common where n is taken as public",
        guard=guards.noise_scale,
        faulty=(quiet_count, joint_std),
        sound=(_noise_alone(ONE_SHOT), joint_std),
    )


def _rows_that_see_other_records() -> Iterator[FaultyRelease]:
    mixed = torch.randn(6, K, generator=torch.Generator().manual_seed(0))
    yield FaultyRelease(
        bug="records normalised by the largest of the private norms",
        source="a trap of private statistics",
        guard=guards.record_wise,
        faulty=(lambda x: x / x.norm(dim=1).max(), mixed),
        sound=(lambda x: x / x.norm(dim=1, keepdim=True), mixed),
    )
    yield FaultyRelease(
        bug="batch normalisation over private records",
        source="a trap of borrowed encoders",
        guard=guards.record_wise,
        faulty=(lambda x: (x - x.mean(0)) / (x.std(0, correction=0) + 1e-5), mixed),
        sound=(lambda x: torch.nn.functional.layer_norm(x, (K,)), mixed),
    )


def _digits() -> Iterator[FaultyRelease]:
    joint_std, step = ONE_SHOT.noise_std(ADD), grid_step(ONE_SHOT, ADD)
    yield FaultyRelease(
        bug="noise of a floating-point sampler, released with all its digits",
        source="an early version of this package; Mironov 2012",
        guard=guards.on_grid,
        faulty=(_with_all_digits((100, K), joint_std), step),
        sound=(_noise_alone(ONE_SHOT)[:100], step),
    )
    yield FaultyRelease(
        bug="noise drawn in float32",
        source="the default of torch.randn",
        guard=guards.double_precision,
        faulty=(torch.randn(200, K, generator=torch.Generator().manual_seed(0)) * joint_std,),
        sound=(_noise_alone(ONE_SHOT)[:200],),
    )
    yield FaultyRelease(
        bug="a source of noise seeded with 16 bits",
        source="a trap of own seeding",
        guard=guards.fresh_sources,
        faulty=(lambda: float(NoiseSource.reproducible(int.from_bytes(os.urandom(2))).uniform(1)[0]),),
        sound=(lambda: float(torch.rand(1, generator=NoiseSource.os().generator(), dtype=torch.float64)),),
    )


def _what_runs_tell() -> Iterator[FaultyRelease]:
    system = NoiseSource.os()
    trials = BestOfTrials(trial=(NoisyHistogram(noise_multiplier=50.0),), mean_trials=4.0, shape=math.inf)
    kernel_records = torch.rand(20, 33, generator=torch.Generator().manual_seed(0))
    fixed_batches = RecordRows(_kernel, torch.zeros(1, 33), 8, system, "kernel", exact=True)
    yield FaultyRelease(
        bug="a kernel whose last bits depend on the size of the batch",
        source="an early version of this package",
        guard=guards.batch_sizes,
        faulty=(lambda x: _kernel(x, torch.Generator()), kernel_records),
        sound=(lambda x: torch.cat([*fixed_batches(x)]), kernel_records),
    )
    yield FaultyRelease(
        bug="as many trials run as count, which the time tells",
        source="an early version of this package",
        guard=guards.constant_work,
        faulty=(lambda: trials.draw(float(system.uniform(1)[0])),),
        sound=(lambda: _trials_run(trials, system),),
    )
    yield FaultyRelease(
        bug="what a failed run had released taken off the ledger",
        source="an early version of this package",
        guard=guards.failures_cost,
        faulty=(_picky(Ledger.forget_unseen), 1.0),
        sound=(_picky(Ledger.close_attempt), 1.0),
    )


def _noise_alone(mechanism: GaussianMechanism) -> Tensor:
    system = NoiseSource.os()
    return torch.cat([_sum(torch.zeros(0, K), mechanism, system) for _ in range(NUM_RELEASES)])


def _gaussian(shape: tuple[int, ...], std: float) -> Tensor:
    return torch.from_numpy(NoiseSource.os().rounded_gaussian(shape, 2.0**24)) * (std * 2.0**-24)


def _with_all_digits(shape: tuple[int, ...], std: float) -> Tensor:
    return torch.from_numpy(std * ndtri(NoiseSource.os().uniform(shape)))


def _kernel(x: Tensor, rng: torch.Generator) -> Tensor:
    """Sums of the columns, from the left in small batches and from the right in larger ones."""
    columns = x.unbind(1)
    ordered = columns if len(x) < 16 else columns[::-1]
    return torch.stack(list(itertools.accumulate(ordered)), 1)[:, -1:]


def _trials_run(trials: BestOfTrials, noise: NoiseSource) -> int:
    numbers = itertools.count()
    ledger = Ledger(Budget(epsilon=1e3, delta=1e-5, relation=ADD))
    private = PrivateData(torch.zeros(N, 1), n=N, ledger=ledger, noise=noise)
    private.best_of(lambda door, rng: (next(numbers), 0.0), trials, role="choice")
    return next(numbers)


def _picky(after_failure: Callable[[Ledger], object]) -> Callable[[], float]:
    """Runs on one ledger a method that fails unless its first three noisy sums are positive."""
    budget = Budget(epsilon=1.0, delta=1e-5, relation=ADD)
    (steps,) = calibrate(budget, PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=1.0, steps=2))
    # Of this seed the first sums do not please, those of a later attempt do.
    ledger, noise = Ledger(budget), NoiseSource.reproducible(0)

    def attempt() -> float:
        private = PrivateData(torch.zeros(N, 3), n=N, ledger=ledger, noise=noise)
        first, _ = private.gradient_steps(lambda x, rng: x, steps, role="gradient")
        if not (first > 0).all():
            after_failure(ledger)
            raise ValueError("the release does not please")
        return ledger.spent()

    return attempt


def _clipped(x: Tensor) -> Tensor:
    return clip_rows(x, 1.0).sum(0)


def _mean_times(*, stratified: bool) -> Tensor:
    """Mean times of the loss of a thousand batches, standardised as they are if records draw their own."""
    scheduler, x = new_scheduler(), torch.zeros(32, 1, 1, 1)
    # A generator of its own: that of the process would let whatever ran before decide a test at a significance level.
    rng = torch.Generator().manual_seed(0)
    times = torch.stack([corrupt(scheduler, x, rng, stratified=stratified)[1] for _ in range(1000)])
    return ((times + 0.5) / 1000 - 0.5).mean(1) * math.sqrt(12 * len(x))


def _micro_batches(x: Tensor) -> Tensor:
    finite = x.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return clip_rows(torch.stack([part.mean(0) for part in torch.split(finite, 4)]), 1.0).sum(0)


def _sum(x: Tensor, mechanism: GaussianMechanism, noise: NoiseSource) -> Tensor:
    return noisy_sum([x], K, mechanism=mechanism, relation=ADD, noise=noise)


def _private(records: Tensor) -> PrivateData:
    ledger = Ledger(Budget(epsilon=float("inf"), delta=1e-5, relation=ADD))
    return PrivateData(records, n=N, ledger=ledger, noise=NoiseSource.os())


def _gradient_step(x: Tensor) -> Tensor:
    step = PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=1.0, steps=1, noise_multiplier=0.0)
    return next(_private(x).gradient_steps(lambda records, rng: records, step, role="gradient"))


def _sampled(mechanism: PoissonGradientSteps) -> np.ndarray:
    one_hot = _private(torch.eye(N)).gradient_steps(lambda records, rng: records, mechanism, role="gradient")
    return torch.stack(list(one_hot)).numpy() > 0


def _shuffled_batches(*, steps: int, batch: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    included = np.zeros((steps, N), dtype=bool)
    epochs = np.concatenate([rng.permutation(N) for _ in range(steps * batch // N)])
    included[np.arange(steps).repeat(batch), epochs] = True
    return included
