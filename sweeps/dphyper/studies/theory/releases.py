"""The harness's private releases, for many data sets and noise draws at once.

Clip norms, noise standard deviations and denominators come from `dphyper.privacy`, calibrated to the whole budget
under its relation. Only the arithmetic is batched, and the tests hold it against `PrivateData`. The noise comes from
a seeded stream that thousands of runs share, so it protects nobody: the records are simulated. Code for real records
goes through `PrivateData`.

Shapes: B data sets, n records of each, k embedding dimension, R draws of the noise.
"""

import dataclasses
from functools import lru_cache

import torch
from torch import Tensor

from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import OneShotMean, PoissonGradientSteps


@lru_cache(maxsize=1024)
def calibrate_mean(budget: Budget, l2_clip_norm: float) -> OneShotMean:
    """The one release with its noise; the multiplier does not depend on the clip norm and is found once."""
    (unit,) = calibrate(budget, OneShotMean())
    return dataclasses.replace(unit, l2_clip_norm=l2_clip_norm)


@lru_cache(maxsize=1024)
def calibrate_steps(budget: Budget, steps: int, releases: int = 1) -> tuple[PoissonGradientSteps, ...]:
    """Full-batch gradient steps of clip norm 1; each step releases ``releases`` sums, which share the budget."""
    return calibrate(budget, *[PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=1.0, steps=steps)] * releases)


def release_means(
    rows_Bnk: Tensor, mechanism: OneShotMean, budget: Budget, *, draws: int, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """`PrivateData.release_mean` for B data sets and several draws of the noise.

    Args:
        rows_Bnk: One vector for each record.
        mechanism: Calibrated.
        budget: Its relation decides whether the count is released too.
        draws: R; one column more is drawn without noise.
        rng: Noise.

    Returns:
        (B, R + 1, k) means, the noiseless one last; (B, R + 1) standard deviations of their noise; (B, R + 1) counts.
    """
    clipped_Bnk = rows_Bnk * (mechanism.l2_clip_norm / rows_Bnk.norm(dim=2, keepdim=True)).clamp(max=1)
    on_R = torch.ones(draws + 1)
    on_R[-1] = 0
    std = mechanism.noise_std(budget.relation)
    sums_BRk = clipped_Bnk.sum(1)[:, None] + on_R[:, None] * std * torch.randn(
        len(rows_Bnk), draws + 1, rows_Bnk.shape[2], generator=rng
    )
    count_BR = torch.full(sums_BRk.shape[:2], float(rows_Bnk.shape[1]))
    weight = mechanism.count_coordinate(budget.relation)
    if weight:
        count_BR = (count_BR + on_R * std / weight * torch.randn(count_BR.shape, generator=rng)).clamp(min=1)
    return sums_BRk / count_BR[..., None], on_R * std / count_BR, count_BR
