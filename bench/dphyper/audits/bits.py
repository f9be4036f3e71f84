"""The attack on the last bits: of which of two neighbouring sums can a number be the release?

A floating-point sampler does not draw every number. Whoever knows all records but one subtracts the sum without that
record, and the sum with it, from what was released. Where only one of the two remainders is a number that the sampler
can draw, the guess is right whatever the scale of the noise (Mironov 2012; Jin et al. 2022, arXiv:2112.05307). Two such
marks are looked at:

* ``sampler``: in how many coordinates the remainder can be drawn by the former sampler of this package, the inverse of
  the normal distribution function at 64 random bits.
* ``lattice``: the last binary places of the remainders, summed over coordinates. It sees noise on a coarser grid than
  the sum's, whatever sampler drew it.

`former_noisy_sum` is a release that the first mark convicts, `coarse_noisy_sum` one that the second convicts. Both are
here to be attacked and for nothing else. There may be marks that this attack does not look at.

Shapes: k coordinates of the released sum, with the count where there is one.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor

from dphyper.audits.bounds import Scores, clopper_pearson_lower_bound, require_enough
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.mechanisms import GaussianMechanism, OneShotMean, PoissonGradientSteps
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.noisy_sum import clip_rows, noisy_sum

Numbers = NDArray[np.float64]
Release = Callable[..., Tensor]  # as `noisy_sum`

MARKS = ("sampler", "lattice")
# In units in the last place: what the distribution function and its inverse may err by together.
NEIGHBOURS = 4
DRAWS = 10_000  # of a mean embedding; gradients have more coordinates, and a fifth of it is enough
# (ε, k, records) of the comparison; with records, of the mean gradient over a Poisson sample of a quarter of them: once
# where q n is a power of two, by which a division is exact, and once where it is not.
SETTINGS = ((1.0, 32, 0), (0.1, 32, 0), (1.0, 4, 0), (16.0, 32, 0), (1.0, 1000, 128), (1.0, 1000, 100))
_SILENCE = NoiseSource(lambda size: b"\xff" * size, is_reproducible=True)  # of which every sampler makes noise 0


@dataclass(frozen=True, kw_only=True)
class BitsAudit:
    """What the last bits gave away.

    Attributes:
        clopper_pearson: For each of `MARKS` the lower bound on ε that assumes nothing.
        right: For each the share of right guesses, if the guess is the remainder that bears more of the mark; a tie
            counts as half right.
        draws: Releases from each of the two data sets.
    """

    clopper_pearson: dict[str, float]
    right: dict[str, float]
    draws: int

    @property
    def epsilon(self) -> float:
        """The larger bound; both hold together at the confidence that was asked for."""
        return max(self.clopper_pearson.values())


def audit_bits(
    mechanism: GaussianMechanism,
    budget: Budget,
    *,
    dimension: int,
    noise: NoiseSource,
    release: Release = noisy_sum,
    denominator: float = 1.0,
    draws: int = 20_000,
    confidence: float = 0.95,
) -> BitsAudit:
    """Attack one released sum of a mechanism by its last bits.

    The other records contribute nothing; the canary lies at the clip norm and contributes the same to each coordinate.
    ``release`` is called once for each sum, without `PrivateData`, whose only arithmetic on it is a division.

    Args:
        mechanism: Calibrated, as a method uses it; one of its steps is attacked.
        budget: Gives relation and δ.
        dimension: k, less the count.
        noise: As in the run that is attacked.
        release: The code that is attacked.
        denominator: By which the sum is divided before it is published: q n for gradients.
        draws: From each of the two data sets.
        confidence: With which the bounds hold together.

    Raises:
        UserError: There is too little to look at.
    """
    require_enough(dimension=dimension, draws=draws)
    relation, clip = budget.relation, mechanism.l2_clip_norm
    canary = torch.full((1, dimension), 2 * clip / math.sqrt(dimension), dtype=torch.float64)
    nothing = canary[:0]
    other = {Relation.REPLACE_ONE: -canary, Relation.ZERO_OUT: 0 * canary}.get(relation, nothing)

    def released(records: Tensor, source: NoiseSource) -> Tensor:
        return release([records], dimension, mechanism=mechanism, relation=relation, noise=source)

    exact = [released(records, _SILENCE).numpy() for records in (other, canary)]
    marked: dict[str, list[Scores]] = {mark: [] for mark in MARKS}
    for records in (other, canary):
        sampled = noise.uniform(draws) < mechanism.sampling_prob
        y = torch.stack([released(records if drawn else nothing, noise) for drawn in sampled]).numpy() / denominator
        for mark in MARKS:
            without, with_it = (_marks(mark, y, total, mechanism.noise_std(relation), denominator) for total in exact)
            marked[mark].append(with_it - without)
    level = 1 - (1 - confidence) / len(MARKS)
    bounds = {
        mark: clopper_pearson_lower_bound(out, canary, budget.delta, confidence=level)
        for mark, (out, canary) in marked.items()
    }
    signs = {mark: np.concatenate([-np.sign(out), np.sign(canary)]) for mark, (out, canary) in marked.items()}
    return BitsAudit(
        clopper_pearson=bounds,
        right={mark: float((sign > 0).mean() + (sign == 0).mean() / 2) for mark, sign in signs.items()},
        draws=draws,
    )


def largest_bits_bound(
    parts: Sequence[GaussianMechanism], budget: Budget, *, dimension: int, noise: NoiseSource, n: int, draws: int = 0
) -> float:
    """The largest lower bound on ε that the last bits of any of several releases give.

    Args:
        parts: Calibrated, as a method uses them; equal ones are attacked once.
        budget: Gives relation and δ.
        dimension: k, less the count.
        noise: As in the run that is attacked.
        n: Nominal number of records; sums of gradients are divided by q n.
        draws: From each of the two data sets; 0 for a fifth of `DRAWS`.
    """
    return max(
        audit_bits(
            part,
            budget,
            dimension=dimension,
            noise=noise,
            denominator=part.sampling_prob * n if isinstance(part, PoissonGradientSteps) else 1.0,
            draws=draws or DRAWS // 5,
        ).epsilon
        for part in dict.fromkeys(parts)
    )


@dataclass(frozen=True, kw_only=True)
class ComparedRelease:
    """The last bits of the former or the present release at one of `SETTINGS`.

    Attributes:
        release: ``former`` or ``present``.
        epsilon: Claimed ε.
        dimension: k.
        records: Of the set whose Poisson sample gives the gradients; 0 for a mean embedding.
        audit: What the attack saw.
    """

    release: str
    epsilon: float
    dimension: int
    records: int
    audit: BitsAudit


def compared_releases(draws: int = 0) -> Iterator[ComparedRelease]:
    """Attack the former and the present release at each of `SETTINGS`, with noise of the operating system.

    Args:
        draws: Of a mean embedding, from each of the two data sets; of gradients a fifth; 0 for `DRAWS`.
    """
    draws = draws or DRAWS
    for epsilon, k, records in SETTINGS:
        budget = Budget(epsilon=epsilon, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
        unscaled: GaussianMechanism = OneShotMean()
        if records:
            unscaled = PoissonGradientSteps(l2_clip_norm=0.03, sampling_prob=0.25, steps=30)
        (mechanism,) = calibrate(budget, unscaled)
        for name, release in (("former", former_noisy_sum), ("present", noisy_sum)):
            audit = audit_bits(
                mechanism,
                budget,
                dimension=k,
                noise=NoiseSource.os(),
                release=release,
                denominator=mechanism.sampling_prob * records if records else 1.0,
                draws=draws // 5 if records else draws,
            )
            yield ComparedRelease(release=name, epsilon=epsilon, dimension=k, records=records, audit=audit)


def drawable(x: Numbers, std: float) -> NDArray[np.bool_]:
    """Whether `former_gaussian` draws these numbers: its formula, at the words nearest to where they come from.

    >>> x = former_gaussian(NoiseSource.reproducible(0), 100_000, 2.0)
    >>> bool(drawable(x, 2.0).mean() > 0.95), bool(drawable(x - 0.3, 2.0).mean() > 0.6)
    (True, False)
    """
    size = np.abs(x)
    word = np.rint(ndtr(-size / std) * 2.0**64 - 0.5)
    found = np.zeros(x.shape, dtype=bool)
    for away in range(-NEIGHBOURS, NEIGHBOURS + 1):
        near = np.clip(word + away * np.maximum(np.spacing(word), 1.0), 0.0, 2.0**63)
        found |= std * ndtri((near + 0.5) * 2.0**-64) == -size
    return found


def last_place(x: Numbers, std: float) -> NDArray[np.int64]:
    """Exponent of the greatest power of two that divides each number; of the one below ``std`` at most.

    >>> last_place(np.array([0.75, 6.0, 0.0]), 4.0).tolist()
    [-2, 1, 2]
    """
    fraction, exponent = np.frexp(x)
    digits = (fraction * 2.0**53).astype(np.int64)
    _, trailing = np.frexp((digits & -digits).astype(np.float64))
    most = math.floor(math.log2(std))
    return np.asarray(np.where(digits == 0, most, np.minimum(exponent - 53 + trailing - 1, most)), dtype=np.int64)


def _marks(mark: str, y: Numbers, total_k: Numbers, std: float, denominator: float) -> Scores:
    """(draws,) how much of a mark the remainders of (draws, k) releases bear, if this was the sum without noise."""
    look = drawable if mark == "sampler" else last_place
    nearest = y * denominator
    best = look(nearest - total_k, std).astype(np.float64)
    # The division rounded: any sum that gives the same quotient may have been there.
    for way in (-np.inf, np.inf) if denominator != 1 else ():
        near = np.nextafter(nearest, way)
        best = np.where(near / denominator == y, np.maximum(best, look(near - total_k, std)), best)
    return np.asarray(best.sum(1), dtype=np.float64)


def former_gaussian(noise: NoiseSource, shape: int | tuple[int, ...], std: float) -> Numbers:
    """The former sampler: one bit of a word for the sign, 63 for the tail probability, all in float64."""
    words = noise._words(shape)
    tail = ((words >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64
    sign = 1.0 - 2.0 * (words & np.uint64(1)).astype(np.float64)
    return np.asarray(sign * std * ndtri(tail), dtype=np.float64)


def former_noisy_sum(
    chunks: Iterable[Tensor],
    dimension: int,
    *,
    mechanism: GaussianMechanism,
    relation: Relation,
    noise: NoiseSource,
) -> Tensor:
    """The former release, faithfully: a sum on a grid of 2⁻⁴⁰ of the clip norm, plus noise of float64."""
    step = 2.0 ** (math.floor(math.log2(mechanism.l2_clip_norm)) - 40)
    sum_k = _sum_on_grid(chunks, dimension, mechanism, relation, step)
    return sum_k + torch.from_numpy(former_gaussian(noise, len(sum_k), mechanism.noise_std(relation)))


def coarse_noisy_sum(
    chunks: Iterable[Tensor],
    dimension: int,
    *,
    mechanism: GaussianMechanism,
    relation: Relation,
    noise: NoiseSource,
) -> Tensor:
    """A release whose noise is exact and on a grid, but on a coarser one than the sum's."""
    step = 2.0 ** (math.floor(math.log2(mechanism.l2_clip_norm)) - 40)
    sum_k = _sum_on_grid(chunks, dimension, mechanism, relation, step)
    coarse = 2.0**20 * step
    return sum_k + coarse * torch.from_numpy(noise.rounded_gaussian(len(sum_k), mechanism.noise_std(relation) / coarse))


def _sum_on_grid(
    chunks: Iterable[Tensor], dimension: int, mechanism: GaussianMechanism, relation: Relation, step: float
) -> Tensor:
    count = mechanism.count_coordinate(relation)
    total_k = torch.zeros(dimension + (count > 0), dtype=torch.int64)
    for rows_bk in chunks:
        row_bk = clip_rows(rows_bk, mechanism.l2_clip_norm)
        if count:
            row_bk = torch.cat([row_bk, row_bk.new_full((len(row_bk), 1), count)], dim=1)
        total_k += (row_bk / step).trunc().to(torch.int64).sum(dim=0)
    return total_k.to(torch.float64) * step
