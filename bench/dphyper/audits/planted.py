"""Bugs of published code, planted on purpose, and the guard that catches each.

Every entry puts a faulty release and its sound counterpart of this package to the same guard, which must find the
fault and must find nothing in the sound one: a guard that catches nothing is thereby shown to be broken. The
sources name code in which the fault was read; they are no judgement of the papers.
"""

import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unittest.mock import patch

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
SIGMA = 2.0
ADD, REPLACE = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One bug and what its guard said.

    Attributes:
        bug: What is wrong.
        source: Where it was seen.
        guard: Name of the guard, or of the check of the contract suite.
        finding: What the guard said of the faulty release; None if it missed it.
        sound: What the guard said of the sound release; None as it should be.
    """

    bug: str
    source: str
    guard: str
    finding: guards.Guard
    sound: guards.Guard

    @property
    def caught(self) -> bool:
        """Whether the guard tells the faulty release from the sound one."""
        return self.finding is not None and self.sound is None


def planted_releases() -> list[Planted]:
    """Put every faulty release and its sound counterpart to their guard; some seconds.

    >>> all(planted.caught for planted in planted_releases())
    True
    """
    one_shot = OneShotMean(noise_multiplier=SIGMA)
    joint_std = one_shot.noise_std(ADD)
    silent = OneShotMean(noise_multiplier=0.0)
    pairs, swaps = [list(guards.adversarial_neighbours(relation, K)) for relation in (ADD, REPLACE)]
    of_seven = [pair for pair in pairs if len(pair[0]) == 7]
    mixed = torch.randn(6, K, generator=torch.Generator().manual_seed(0))

    def squares(x: Tensor) -> Tensor:
        return clip_rows(clip_rows(x, 1.0).square(), 1.0).sum(0)

    system = NoiseSource.os()
    trials = BestOfTrials(trial=(NoisyHistogram(noise_multiplier=50.0),), mean_trials=4.0, shape=math.inf)
    step = grid_step(one_shot, ADD)
    kernel_records = torch.rand(20, 33, generator=torch.Generator().manual_seed(0))
    fixed_batches = RecordRows(_kernel, torch.zeros(1, 33), 8, system, "kernel", exact=True)

    # A release from no record at all is noise alone. So many that 5 % of the scale are beyond doubt.
    def releases(mechanism: GaussianMechanism, noise: NoiseSource) -> Tensor:
        return torch.cat([_sum(torch.zeros(0, K), mechanism, noise) for _ in range(3000)])

    def fixed_seed() -> Tensor:
        return _sum(torch.zeros(0, K), one_shot, NoiseSource.reproducible(0))

    quiet_count = torch.cat([_gaussian((3000, K), joint_std), torch.zeros(3000, 1)], dim=1)
    rows: list[tuple[str, str, Callable[..., guards.Guard], tuple[object, ...], tuple[object, ...]]] = [
        (
            "micro-batches of four clipped instead of records, noise for one record",
            "litian96/AdaDPS",
            guards.sensitivity,
            (_micro_batches, 1.0, pairs),
            (_clipped, 1.0, pairs),
        ),
        (
            "second moment with half the sensitivity of a replacement, being positive",
            "ParkLabML/DP-MEPF",
            guards.sensitivity,
            (squares, silent.sensitivity(REPLACE) / 2, swaps),
            (squares, silent.sensitivity(REPLACE), swaps),
        ),
        (
            "sum divided by the realised instead of the expected batch size",
            "DP-FETA in 2019ChenGong/DPImageBench",
            guards.sensitivity,
            (lambda x: _clipped(x) / max(len(x), 1), 1 / N, pairs),
            (_gradient_step, 1 / N, pairs),
        ),
        (
            "sensitivity C/n of the mean under add-or-remove-one",
            "common where n is taken as public",
            guards.sensitivity,
            (lambda x: _clipped(x) / len(x), 1 / 7, of_seven),
            (lambda x: _sum(x, silent, system), silent.sensitivity(ADD), of_seven),
        ),
        (
            "each record augmented four times, not averaged before clipping",
            "a trap of augmentation multiplicity",
            guards.sensitivity,
            (lambda x: _clipped(x.repeat_interleave(4, 0)), 1.0, pairs),
            (lambda x: _clipped(x.repeat_interleave(4, 0).unflatten(0, (-1, 4)).mean(1)), 1.0, pairs),
        ),
        (
            "times of the diffusion loss spread evenly over the batch, which ties its records together",
            "an early version of this package",
            guards.noise_scale,
            (_mean_times(stratified=True), 1.0),
            (_mean_times(stratified=False), 1.0),
        ),
        (
            "seed fixed just before the noise is drawn",
            "PrivImage in 2019ChenGong/DPImageBench",
            guards.fresh_noise,
            (fixed_seed,),
            (lambda: _sum(torch.zeros(0, K), one_shot, system),),
        ),
        (
            "shuffled batches under a Poisson ε",
            "dayu11/Gradient-Embedding-Perturbation",
            guards.poisson_sampling,
            (_shuffled_batches(steps=40, batch=16), 0.25),
            (
                _sampled(PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=0.25, steps=40, noise_multiplier=0.0)),
                0.25,
            ),
        ),
        (
            "noise added before clipping",
            "a trap of wrapping an optimiser twice",
            guards.noise_scale,
            (clip_rows(_gaussian((1000, K), SIGMA), 1.0), SIGMA),
            (releases(one_shot, system), joint_std),
        ),
        (
            "no noise",
            "a method that forgot its privacy",
            guards.noise_scale,
            (releases(silent, system), joint_std),
            (releases(one_shot, system), joint_std),
        ),
        (
            "noise for the sum alone, where the count is released with it",
            "a trap of the joint release",
            guards.noise_scale,
            (_gaussian((3000, K + 1), SIGMA), joint_std),
            (releases(one_shot, system), joint_std),
        ),
        (
            "count released without noise",
            "common where n is taken as public",
            guards.noise_scale,
            (quiet_count, joint_std),
            (releases(one_shot, system), joint_std),
        ),
        (
            "records normalised by the largest of the private norms",
            "a trap of private statistics",
            guards.record_wise,
            (lambda x: x / x.norm(dim=1).max(), mixed),
            (lambda x: x / x.norm(dim=1, keepdim=True), mixed),
        ),
        (
            "batch normalisation over private records",
            "a trap of borrowed encoders",
            guards.record_wise,
            (lambda x: (x - x.mean(0)) / (x.std(0, correction=0) + 1e-5), mixed),
            (lambda x: torch.nn.functional.layer_norm(x, (K,)), mixed),
        ),
        (
            "noise of a floating-point sampler, released with all its digits",
            "an early version of this package; Mironov 2012",
            guards.on_grid,
            (_with_all_digits((100, K), joint_std), step),
            (releases(one_shot, system)[:100], step),
        ),
        (
            "noise drawn in float32",
            "the default of torch.randn",
            guards.double_precision,
            (torch.randn(200, K, generator=torch.Generator().manual_seed(0)) * joint_std,),
            (releases(one_shot, system)[:200],),
        ),
        (
            "a source of noise seeded with 16 bits",
            "a trap of own seeding",
            guards.fresh_sources,
            (lambda: float(NoiseSource.reproducible(int.from_bytes(os.urandom(2))).uniform(1)[0]),),
            (lambda: float(torch.rand(1, generator=NoiseSource.os().generator(), dtype=torch.float64)),),
        ),
        (
            "a kernel whose last bits depend on the size of the batch",
            "an early version of this package",
            guards.batch_sizes,
            (lambda x: _kernel(x, torch.Generator()), kernel_records),
            (lambda x: torch.cat([*fixed_batches(x)]), kernel_records),
        ),
        (
            "as many trials run as count, which the time tells",
            "an early version of this package",
            guards.constant_work,
            (lambda: trials.draw(float(system.uniform(1)[0])),),
            (lambda: _trials_run(trials, system),),
        ),
        (
            "what a failed run had released taken off the ledger",
            "an early version of this package",
            guards.failures_cost,
            (_picky(Ledger.forget_unseen), 1.0),
            (_picky(Ledger.close_attempt), 1.0),
        ),
    ]
    return [
        Planted(bug=bug, source=source, guard=guard.__name__, finding=guard(*faulty), sound=guard(*sound))
        for bug, source, guard, faulty, sound in rows
    ]


def planted_methods() -> list[Planted]:
    """Put every faulty method, and the sound one that it is made of, to the contract suite; about a minute."""
    from dphyper.audits import contract, faulty_methods
    from dphyper.bench.catalog import METHODS

    places = {name: f"{faulty_methods.__name__}:{name}" for name in (faulty_methods.SOUND, *faulty_methods.FAULTY)}
    with patch.dict(METHODS.locations, places):
        sound = next(contract.findings(faulty_methods.SOUND), None)
        return [
            Planted(
                bug=(METHODS[name].__doc__ or "").splitlines()[0].rstrip("."),
                source="an outside method",
                guard=check,
                finding=next((found for found in contract.findings(name) if found.startswith(check)), None),
                sound=sound,
            )
            for name, check in faulty_methods.FAULTY.items()
        ]


def planted_table(planted: Sequence[Planted]) -> str:
    """What the functions above gave, one a line: caught or missed, by which guard, and what it said."""
    return "\n".join(
        f"{'caught' if p.caught else 'MISSED'}  {p.guard:16}  {p.bug} ({p.source}): {p.finding or 'nothing found'}"
        + (f"; and the sound one was rejected: {p.sound}" if p.sound else "")
        for p in planted
    )


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
