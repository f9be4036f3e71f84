"""The one implementation of "clip each row, sum, add noise"; every mechanism goes through it.

Everything lies on one grid. Its step is a power of two that follows from the mechanism's noise alone, at most 2⁻²⁴ of
the standard deviation. Each row is clipped in float64, truncated toward zero to the grid, and summed as integers. The
noise is a rounded exact Gaussian in the same steps. Two things follow:

* A row adds at most the clip norm to the sum in l2, exactly and not only up to rounding. Rows are clipped a billionth
  below the bound, which is more than float64 can err for vectors of up to nine million numbers. Integer sums are exact,
  so the larger sensitivity of a float sum (Casacuberta et al. 2022, arXiv:2207.10635) does not arise. Neither the order
  of the records nor the chunks that they come in can change a bit of the result.
* What is released is the exact sum plus an exact Gaussian, rounded to the grid: the Gaussian mechanism that the
  accountants assume, and post-processing. Every point of the grid can be reached from every data set, so no digit of
  the result tells the sum from the noise.

A row that is not finite counts as the zero vector: an error would tell that such a record exists. Without noise there
is no privacy, and the step of the grid is at most 2⁻⁴⁰ of the clip norm.

What it does not guarantee: that a row depends on one record only. `dphyper.privacy.record_rows` sees to that.

Shapes: b rows of a chunk, k coordinates.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from dphyper.privacy.budget import Relation
from dphyper.privacy.mechanisms import GaussianMechanism
from dphyper.privacy.noise import NoiseSource

CLIP_MARGIN = 1e-9  # relative; see above
# Truncation takes half a step from each record on average, which is 2⁻²⁵ of the noise. A hundred thousand records bias
# a sum by 0.3 % of its standard deviation.
GRID_BITS = 24
GRID_BITS_WITHOUT_NOISE = 40  # sums of 2²² records at the clip norm still fit into 64 bits


def clip_rows(rows_bk: Tensor, l2_clip_norm: float) -> Tensor:
    """Scale each row down to an l2 norm of at most ``l2_clip_norm``.

    Args:
        rows_bk: (b, k) numbers of any floating type. A row with a NaN or an infinity becomes zero.
        l2_clip_norm: C, above 0; ``inf`` leaves finite rows as they are.

    Returns:
        (b, k) float64 of norms at most C. No intermediate value overflows, whatever the rows hold.

    >>> clip_rows(torch.tensor([[3.0, 4.0], [0.3, 0.4], [float("nan"), 1.0]]), 1.0).norm(dim=1)
    tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """
    rows_bk = rows_bk.detach().to(torch.float64)
    if rows_bk.shape[1] == 0:
        return rows_bk
    rows_bk = torch.where(rows_bk.isfinite().all(dim=1, keepdim=True), rows_bk, 0.0)
    if math.isinf(l2_clip_norm):
        return rows_bk
    largest_b1 = rows_bk.abs().amax(dim=1, keepdim=True)
    unit_bk = rows_bk / torch.where(largest_b1 > 0, largest_b1, 1.0)
    norm_b1 = torch.linalg.vector_norm(unit_bk, dim=1, keepdim=True).clamp(min=1.0)
    return unit_bk * torch.minimum(largest_b1, l2_clip_norm * (1 - CLIP_MARGIN) / norm_b1)


def grid_step(mechanism: GaussianMechanism, relation: Relation) -> float:
    """Step of the grid: a power of two of which everything that the mechanism releases is a multiple.

    It depends on the standard deviation of the noise alone, or on the clip norm alone where there is no noise.

    >>> from dphyper.privacy.mechanisms import NoisyHistogram
    >>> grid_step(NoisyHistogram(noise_multiplier=4.0), Relation.ZERO_OUT) == 2.0**-22
    True
    """
    std = mechanism.noise_std(relation)
    whole, bits = (std, GRID_BITS) if std else (mechanism.l2_clip_norm, GRID_BITS_WITHOUT_NOISE)
    return float(2.0 ** (math.floor(math.log2(whole)) - bits))


def noisy_sum(
    chunks: Iterable[Tensor],
    dimension: int,
    *,
    mechanism: GaussianMechanism,
    relation: Relation,
    noise: NoiseSource,
) -> Tensor:
    """Clip the rows of all chunks, sum them, and add the mechanism's noise once.

    Args:
        chunks: (b, k) tensors with one row for each record; there may be no chunk at all.
        dimension: k.
        mechanism: Gives the clip norm C, the count coordinate c and the standard deviation σ·√(C² + c²) of the noise.
        relation: Decides whether there is a count coordinate.
        noise: Where the noise comes from.

    Returns:
        (k,) float64 on the CPU, or (k + 1,) with the noisy c·count last where there is a count coordinate. The numbers
        are multiples of `grid_step`; their sensitivity is ``mechanism.sensitivity(relation)``.
    """
    clip, count = mechanism.l2_clip_norm, mechanism.count_coordinate(relation)
    std = mechanism.noise_std(relation)
    length = dimension + (count > 0)
    # Without a finite clip norm there is no grid, no noise and no privacy.
    step = grid_step(mechanism, relation) if math.isfinite(clip) else None
    total_k = torch.zeros(length, dtype=torch.float64 if step is None else torch.int64)
    for rows_bk in chunks:
        row_bk = clip_rows(rows_bk, clip)
        if count:
            row_bk = torch.cat([row_bk, row_bk.new_full((len(row_bk), 1), count)], dim=1)
        if step is not None:
            row_bk = (row_bk / step).trunc().to(torch.int64)
        total_k += row_bk.sum(dim=0).cpu()
    if step is None:
        return total_k
    if std:
        total_k += torch.from_numpy(noise.rounded_gaussian(length, std / step))
    return total_k.to(torch.float64) * step
