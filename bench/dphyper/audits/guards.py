"""Guards: small checks of what a mechanism or a method really does, each able to fail.

A guard returns None when it finds nothing, and one line of finding otherwise. The contract suite runs guards on every
registered method; `dphyper.audits.planted` runs them on known bugs, where each must find something. A statistical guard
rejects a sound mechanism with at most the probability that it is given. No guard proves privacy: each looks at some
inputs, chosen to be adversarial.

Shapes: N records, k coordinates of a record's contribution.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, chi2, kstest
from torch import Tensor

from dphyper.core.errors import PrivacyError
from dphyper.privacy.budget import Relation

Guard = str | None
SIGNIFICANCE = 1e-6  # of each statistical guard: a suite may run thousands, and none may fail by chance


def noise_scale(samples: ArrayLike, std: float, *, significance: float = SIGNIFICANCE) -> Guard:
    """Whether numbers are independent draws of N(0, std²): a chi-square test of the scale, a KS test of the shape.

    Args:
        samples: Released values less what they would be without noise, such as releases from zero records; a
            thousand of them tell std from 2/3 and 3/2 of it beyond doubt.
        std: Claimed standard deviation of the noise, above 0.
        significance: Probability of a finding where there is none.

    >>> draws = np.random.default_rng(0).normal(0.0, 2.0, 2000)
    >>> noise_scale(draws, 2.0) is None, noise_scale(draws, 3.0) is None
    (True, False)
    """
    scaled = np.ravel(np.asarray(samples, dtype=np.float64)) / std
    square = float(np.square(scaled).sum())
    scale_p = 2 * min(chi2.cdf(square, len(scaled)), chi2.sf(square, len(scaled)))
    shape_p = kstest(scaled, "norm").pvalue
    p = min(scale_p, shape_p)
    if p < significance / 2:
        return f"noise of standard deviation {np.std(scaled) * std:.4g}, claimed {std:.4g} (p = {p:.1g})"
    return None


def fresh_noise(draw: Callable[[], ArrayLike]) -> Guard:
    """Whether two runs of the same release share any noise, as they do when a seed fixes it."""
    first, second = np.ravel(draw()), np.ravel(draw())
    shared = int((first == second).sum())
    return f"{shared} of {first.size} released numbers are equal in two runs: the noise is fixed" if shared else None


def fresh_sources(begin: Callable[[], float], *, sources: int = 4096) -> Guard:
    """Whether fresh sources of randomness begin differently, as they do unless they have few bits of entropy.

    By the birthday paradox 4,096 sources of 16 bits hold some 128 equal pairs, and of 53 bits one in a billion runs.

    Args:
        begin: Makes a source and gives its first number, of 53 bits or more.
        sources: How many; pairs become likely from about 2 log2(sources) bits of entropy down.
    """
    seen = [begin() for _ in range(sources)]
    equal = len(seen) - len(set(seen))
    return f"{equal} of {sources} fresh sources begin like another: they have few bits of entropy" if equal else None


def on_grid(samples: ArrayLike, step: float) -> Guard:
    """Whether released numbers are multiples of a step, so that their digits tell nothing but the multiple."""
    multiples = np.ravel(np.asarray(samples, dtype=np.float64)) / step
    off = int((multiples != np.rint(multiples)).sum())
    return f"{off} of {multiples.size} released numbers lie off the grid of step {step:.3g}" if off else None


def double_precision(samples: ArrayLike) -> Guard:
    """Whether numbers use the digits of float64, as noise that was drawn or stored in float32 does not."""
    numbers = np.ravel(np.asarray(samples, dtype=np.float64))
    if (numbers == numbers.astype(np.float32)).all():
        return f"all of {numbers.size} released numbers are float32: their noise has 24 bits"
    return None


def batch_sizes(rows_of: Callable[[Tensor], Tensor], records: Tensor) -> Guard:
    """Whether the first record's row is the same, bit for bit, however many records are with it."""
    alone = rows_of(records[:1])[0]
    for size in range(2, len(records) + 1):
        if not torch.equal(rows_of(records[:size])[0], alone):
            return f"a record's row is another among {size} records than alone"
    return None


def constant_work(run: Callable[[], int], *, runs: int = 20) -> Guard:
    """Whether a selection does the same work in each run, so that its time does not tell how many trials counted."""
    numbers = {run() for _ in range(runs)}
    return f"runs of a selection make {min(numbers)} to {max(numbers)} trials" if len(numbers) > 1 else None


def failures_cost(attempt: Callable[[], float], budget: float, *, attempts: int = 64) -> Guard:
    """Whether trying until a run succeeds costs more than one run.

    Args:
        attempt: Runs once more on the same ledger: ε spent so far if the run succeeds; raises `ValueError` if it fails,
            as this one does where the release does not please it, and `PrivacyError` if it may not.
        budget: ε that one run may spend.
        attempts: At most.
    """
    for number in range(1, attempts + 1):
        try:
            spent = attempt()
        except ValueError:
            continue
        except PrivacyError:
            return None
        if number > 1 and spent <= budget * (1 + 1e-6):
            return f"the {number}th attempt succeeded, and ε = {spent:.3g} is said to be spent"
    return None


def adversarial_neighbours(relation: Relation, dimension: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of small data sets that are neighbours, made to move clipped sums as far as possible.

    Args:
        relation: Under zero-out the null record is the zero vector, which a per-record sum treats alike.
        dimension: k ≥ 2, so that orthogonal records exist.

    Yields:
        Pairs of (N, k) float64 records, with aligned, opposed, orthogonal, huge, tiny and non-finite members.
    """
    up = torch.zeros(dimension, dtype=torch.float64)
    up[0] = 1.0
    side = torch.zeros_like(up)
    side[1] = 1.0
    changed = [up, -up, side, 3 * up, 1e6 * up, -1e300 * up, 1e-12 * up, up * torch.nan, side * torch.inf]
    empty = up.new_zeros(0, dimension)
    for rest in (
        empty,
        up[None],
        -up[None],
        -up.repeat(7, 1),
        -1e-3 * up.repeat(3, 1),
        torch.stack([up, -side, 5 * side]),
    ):
        for new in changed:
            if relation is Relation.ADD_OR_REMOVE_ONE:
                yield rest, torch.cat([rest, new[None]])
            elif relation is Relation.ZERO_OUT:
                yield torch.cat([rest, torch.zeros_like(new)[None]]), torch.cat([rest, new[None]])
            else:
                for old in changed:
                    yield torch.cat([rest, old[None]]), torch.cat([rest, new[None]])


def sensitivity(
    statistic: Callable[[Tensor], Tensor], bound: float, neighbours: Iterable[tuple[Tensor, Tensor]]
) -> Guard:
    """Whether a noise-free statistic moves by at most ``bound`` in l2 between neighbours.

    Args:
        statistic: What is released, before noise; of the same length for all data sets.
        bound: Claimed sensitivity; a relative excess of 1e-9 is rounding.
        neighbours: Pairs of data sets, for instance `adversarial_neighbours`.
    """
    worst = max(float(torch.linalg.vector_norm(statistic(a) - statistic(b))) for a, b in neighbours)
    if not worst <= bound * (1 + 1e-9):
        return f"a neighbour moves the statistic by {worst:.4g}, claimed at most {bound:.4g}"
    return None


def record_wise(fn: Callable[[Tensor], Tensor], records: Tensor, *, tolerance: float = 1e-4) -> Guard:
    """Whether each row of ``fn(records)`` depends on its own record only.

    Row by row, the output of the whole batch must equal that of a batch of one, of the batch in another order, and
    of the batch in which all *other* records are scaled by 100 or zero: batch normalisation, attention across
    records and private normalisation statistics fail.

    Args:
        fn: As given to a mechanism; deterministic (reseed its generator inside where it draws).
        records: (N, ...) floating-point records, N ≥ 2.
        tolerance: Relative to the largest entry of the output; float32 kernels differ by about 1e-6 between batch
            sizes.
    """
    whole = fn(records).detach()
    scale = tolerance * max(float(whole.abs().max()), 1e-30)
    order = torch.arange(len(records) - 1, -1, -1)
    if not torch.allclose(fn(records[order])[order], whole, rtol=0, atol=scale):
        return "the rows change with the order of the records"
    for factor in (100.0, 0.0):
        for i in range(len(records)):
            others = records * factor
            others[i] = records[i]
            for batch, row in ((others, i), (records[i : i + 1], 0)):
                moved = float((fn(batch)[row].detach() - whole[i]).abs().max())
                if not moved <= scale:
                    return f"the row of record {i} moves by {moved:.3g} when only other records change"
    return None


def order_invariant(statistic: Callable[[Tensor], Tensor], records: Tensor) -> Guard:
    """Whether a noise-free statistic is the same, to the last bit, for the records in another order."""
    order = torch.arange(len(records) - 1, -1, -1)
    if torch.equal(statistic(records), statistic(records[order])):
        return None
    return "the statistic changes with the order of the records"


def poisson_sampling(included: NDArray[np.bool_], sampling_prob: float, *, significance: float = SIGNIFICANCE) -> Guard:
    """Whether steps × records of inclusion bits are Poisson samples of rate q, not shuffled or fixed batches.

    Three chi-square tests: on the batch sizes, which a fixed batch size leaves without spread; on how often each
    record was taken, which an epoch makes equal; and on the total.

    Args:
        included: (T, N) bits. Some tens of steps are enough.
        sampling_prob: q, above 0 and below 1.
        significance: Probability of a finding where there is none (approximate for small batches).
    """
    q = sampling_prob
    steps, size = included.shape
    tests = {
        "batch sizes": (included.sum(axis=1), size),
        "visits of a record": (included.sum(axis=0), steps),
    }
    for name, (counts, trials) in tests.items():
        statistic = float(np.square(counts - trials * q).sum() / (trials * q * (1 - q)))
        p = 2 * min(chi2.cdf(statistic, len(counts)), chi2.sf(statistic, len(counts)))
        if p < significance / 3:
            return f"the {name} are not those of Poisson samples of rate {q:g} (p = {p:.1g})"
    total = int(included.sum())
    p = 2 * min(binom.cdf(total, steps * size, q), binom.sf(total - 1, steps * size, q))
    return f"{total} records sampled, expected {steps * size * q:.0f} (p = {p:.1g})" if p < significance / 3 else None
