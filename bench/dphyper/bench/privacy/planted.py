"""Bugs of published code, planted on purpose, and the guard that catches each.

Every entry puts a faulty release and its sound counterpart of this package to the same guard, which must find the
fault and must find nothing in the sound one: a guard that catches nothing is thereby shown to be broken. The
sources name code in which the fault was read; they are no judgement of the papers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dphyper.bench.privacy import guards
from dphyper.bench.privacy.budget import Budget, Relation
from dphyper.bench.privacy.ledger import Ledger
from dphyper.bench.privacy.mechanisms import GaussianMechanism, OneShotMean, PoissonGradientSteps
from dphyper.bench.privacy.noise import NoiseSource
from dphyper.bench.privacy.noisy_sum import clip_rows, noisy_sum
from dphyper.bench.privacy.private_data import PrivateData
from dphyper.bench.target import corrupt, new_scheduler

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
        guard: Name of the guard.
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


def planted_bugs() -> list[Planted]:
    """Put every planted bug and its sound counterpart to their guard; about two seconds.

    >>> all(planted.caught for planted in planted_bugs())
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

    # A release from no record at all is noise alone. So many that 5 % of the scale are beyond doubt.
    def releases(mechanism: GaussianMechanism, noise: NoiseSource) -> Tensor:
        return torch.cat([_sum(torch.zeros(0, K), mechanism, noise) for _ in range(3000)])

    def fixed_seed() -> Tensor:
        return _sum(torch.zeros(0, K), one_shot, NoiseSource.reproducible(0))

    system = NoiseSource.os()
    quiet_count = torch.cat([torch.from_numpy(system.gaussian((3000, K), joint_std)), torch.zeros(3000, 1)], dim=1)
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
            (clip_rows(torch.from_numpy(system.gaussian((1000, K), SIGMA)), 1.0), SIGMA),
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
            (torch.from_numpy(system.gaussian((3000, K + 1), SIGMA)), joint_std),
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
    ]
    return [
        Planted(bug=bug, source=source, guard=guard.__name__, finding=guard(*faulty), sound=guard(*sound))
        for bug, source, guard, faulty, sound in rows
    ]


def planted_table(planted: Sequence[Planted]) -> str:
    """What `planted_bugs` gave, one a line: caught or missed, by which guard, and what it said."""
    return "\n".join(
        f"{'caught' if p.caught else 'MISSED'}  {p.guard:16}  {p.bug} ({p.source}): {p.finding or 'nothing found'}"
        + (f"; and the sound one was rejected: {p.sound}" if p.sound else "")
        for p in planted
    )


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
