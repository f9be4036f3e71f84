"""The only door to private records.

`PrivateData` hands out noisy sums and never a record. Each call charges the ledger first; then it samples, clips, sums
and adds noise with the parameters of the very mechanism that was charged. Records live in a closure, not in an
attribute. Every way in which code would read them by accident (indexing, iterating, attributes, ``vars``, ``len``,
``repr``, pickling, conversion to an array) raises `PrivacyError`.

A per-record function gets the randomness that it needs (times and noises of a loss) from here: a fresh generator for
each batch, whose state nobody knows. What a method draws elsewhere may be public. A selection always runs as many
trials as could count, so its running time does not tell their number.

What it does not guarantee: protection from a malicious function. The functions given to the mechanisms see the records,
as they must, and could store them. Methods are reviewed code, and the contract suite (`dphyper.audits.contract`)
freezes what was released, changes the records behind it, and asks for the same result bit for bit. A function that
raises, loops or allocates depending on a record is outside the guarantee too.

Shapes: b records of a chunk, k embedding dimension, p parameters.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dphyper.core.errors import PrivacyError, UserError
from dphyper.privacy.budget import Relation
from dphyper.privacy.ledger import Ledger, TrialLedger
from dphyper.privacy.mechanisms import (
    BestOfTrials,
    GaussianMechanism,
    NoisyHistogram,
    OneShotMean,
    PoissonGradientSteps,
)
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.noisy_sum import noisy_sum
from dphyper.privacy.record_rows import PerRecord, RecordRows, rows_of

MAX_NUMBERS = 2**24  # most numbers in the rows of one batch: 128 MB in float64

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanRelease:
    """A released mean; everything in it may be published.

    Attributes:
        mean: (k,) float64, the noisy mean of the clipped vectors.
        noise_std: Standard deviation of the noise on each coordinate of ``mean``. It is computed from released numbers
            only: under add-or-remove-one the noisy count stands for the secret one.
        count: The noisy count under add-or-remove-one (at least 1), else the public n.
    """

    mean: Tensor
    noise_std: float
    count: float


class PrivateData:
    """The only door to private records.

    Args:
        records: (N, ...) private records.
        n: Nominal number of records, a constant of the design that depends on no record. Under zero-out and replace-one
            it is public and equals N. Under add-or-remove-one N is secret, and n only sets the denominator of gradient
            steps.
        ledger: Charged before anything is drawn.
        noise: Source of the noise, of the Poisson samples and of the generators for per-record functions.
        chunk_size: Most records in one call of a per-record function; a call has fewer where rows are very long, or
            where fewer records are expected. It changes speed and memory only.
        parts: Into how many such calls each of them is cut, where memory is short.

    Raises:
        UserError: n is not positive, or differs from N under a relation that makes it public.
        PrivacyError: The ledger was bound to another n or noise source, or δ is not below 1/n.

    >>> from dphyper.privacy.budget import Budget
    >>> from dphyper.privacy.accounting import calibrate
    >>> budget = Budget(epsilon=8.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
    >>> (mechanism,) = calibrate(budget, OneShotMean(l2_clip_norm=1.0))
    >>> noise = NoiseSource.reproducible(0)
    >>> private = PrivateData(torch.ones(1000, 2), n=1000, ledger=Ledger(budget), noise=noise)
    >>> release = private.release_mean(lambda x, rng: x / 2, mechanism, role="embedding")
    >>> [round(x, 2) for x in release.mean.tolist()]
    [0.5, 0.5]
    """

    __slots__ = ("_noisy_sums", "_selected", "ledger", "n")

    def __init__(
        self,
        records: NDArray[np.generic] | Tensor,
        *,
        n: int,
        ledger: Ledger,
        noise: NoiseSource,
        chunk_size: int = 256,
        parts: int = 1,
    ) -> None:
        if n < 1:
            raise UserError(f"n = {n}: expected at least 1 record")
        if ledger.budget.relation is not Relation.ADD_OR_REMOVE_ONE and len(records) != n:
            raise UserError(
                f"{len(records)} records with n = {n}: under {ledger.budget.relation} the number is public, give it"
            )
        ledger.bind(n=n, noise=noise)
        self.n = n
        self.ledger = ledger
        records = torch.as_tensor(records)
        self._noisy_sums = _charged_sums(records, n, ledger, noise, chunk_size, parts)
        self._selected = _charged_selection(records, n, ledger, noise, chunk_size, parts)

    def release_mean(self, embed: PerRecord, mechanism: OneShotMean, *, role: str) -> MeanRelease:
        """Release the mean of one clipped vector for each record, once.

        Args:
            embed: Maps (b, ...) records and a generator to (b, k) vectors. Each row is a function of its own record and
                its own random numbers only. Before anything is charged it is called on public records, to learn k and
                whether it treats records one by one.
            mechanism: Calibrated.
            role: Name of the release in the ledger. If the ledger holds its output, that is returned and nothing is
                drawn.

        Returns:
            The noisy mean. Under add-or-remove-one it is the noisy sum over the noisy count, which together have
            sensitivity √(C² + c²). Else it is the noisy sum over the public n, of sensitivity C/n (zero-out) or 2C/n
            (replace-one).

        Raises:
            PrivacyError: The budget would be exceeded, the role was interrupted before, or ``embed`` treats records
                jointly.
        """
        relation = self.ledger.budget.relation
        sum_k = self._one_sum(embed, mechanism, role)
        std = mechanism.noise_std(relation)
        weight = mechanism.count_coordinate(relation)
        if not weight:
            return MeanRelease(mean=sum_k / self.n, noise_std=std / self.n, count=float(self.n))
        count = max(float(sum_k[-1]) / weight, 1.0)
        return MeanRelease(mean=sum_k[:-1] / count, noise_std=std / count, count=count)

    def release_histogram(self, vote: PerRecord, mechanism: NoisyHistogram, *, role: str) -> Tensor:
        """Release the sum of the records' votes, once.

        Args:
            vote: Maps (b, ...) records and a generator to (b, bins) votes, as ``embed`` in `release_mean`. Rows of norm
                above 1 are clipped.
            mechanism: Calibrated.
            role: As in `release_mean`.

        Returns:
            (bins,) float64 noisy sums; a bin may be negative.

        Raises:
            PrivacyError: As in `release_mean`.
        """
        return self._one_sum(vote, mechanism, role)

    def gradient_steps(
        self, per_example_gradient: PerRecord, mechanism: PoissonGradientSteps, *, role: str
    ) -> Iterator[Tensor]:
        """Charge T steps and return an iterator over their noisy mean gradients.

        A step is drawn when it is asked for, so the function may use parameters that were updated with the step before.

        Args:
            per_example_gradient: Maps (b, ...) records and a generator to (b, p) gradients, as ``embed`` in
                `release_mean`. It is never called on zero records.
            mechanism: Calibrated.
            role: Name of the release in the ledger. If the ledger holds its output, as it does for a single step, that
                is returned and nothing is drawn.

        Returns:
            An iterator of T float64 (p,) tensors. Each is the sum of the clipped gradients of a Poisson sample, plus
            noise of standard deviation σ·C, over the expected batch size q·n. An empty sample gives noise alone.

        Raises:
            PrivacyError: The budget would be exceeded, or the role was charged before. This is raised by the call
                itself, not by the first step.
        """
        expected_batch = mechanism.sampling_prob * self.n
        return (sum_p / expected_batch for sum_p in self._noisy_sums(per_example_gradient, mechanism, role))

    def best_of(
        self, trial: Callable[["PrivateData", torch.Generator], tuple[T, float]], mechanism: BestOfTrials, *, role: str
    ) -> T | None:
        """Run trials and return the result of the best of the first K, where K is random and secret.

        Args:
            trial: Called `BestOfTrials.most_trials` times, whatever K is. Each call gets a door to the same records,
                which permits each of the mechanism's releases once, and a fresh secret generator, from which it draws
                its hyper-parameters. It returns its result and its score. Both may depend on its releases, its
                generator and public values only: no state may pass from one trial to the next, or out of them.
            mechanism: Calibrated.
            role: Name of the selection in the ledger.

        Returns:
            The result with the highest score, or None if K = 0, which a Poisson law allows. The first of equal scores
            wins; trials are exchangeable, so that is fair.

        Raises:
            PrivacyError: The budget would be exceeded, the role was charged before, or a trial asks for a release
                that the mechanism does not list.
            UserError: A score is not a number.

        Example:
            >>> from dphyper.privacy.budget import Budget
            >>> from dphyper.privacy.accounting import calibrate
            >>> budget = Budget(epsilon=8.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
            >>> (best,) = calibrate(budget, BestOfTrials(trial=(NoisyHistogram(),), mean_trials=10.0))
            >>> noise = NoiseSource.reproducible(4)
            >>> private = PrivateData(torch.ones(1000, 1), n=1000, ledger=Ledger(budget), noise=noise)
            >>> def trial(private: PrivateData, rng: torch.Generator) -> tuple[int, float]:
            ...     weight = int(torch.randint(3, (1,), generator=rng))
            ...     score = private.release_histogram(lambda x, rng: x * weight / 2, best.trial[0], role="score")
            ...     return weight, float(score)
            >>> private.best_of(trial, best, role="weight")
            2
        """
        best: T | None = self._selected(trial, mechanism, role)
        return best

    def _one_sum(self, fn: PerRecord, mechanism: OneShotMean | NoisyHistogram, role: str) -> Tensor:
        return next(iter(self._noisy_sums(fn, mechanism, role)))

    def __getattr__(self, name: str) -> NoReturn:
        _refuse(f"the attribute '{name}'")

    def __getitem__(self, key: object) -> NoReturn:
        _refuse("a record")

    def __iter__(self) -> NoReturn:
        _refuse("the records one by one")

    def __contains__(self, item: object) -> NoReturn:
        _refuse("whether a record is among them")

    def __len__(self) -> NoReturn:  # noqa: PLE0303
        _refuse("the number of records (n is the nominal one)")

    def __bool__(self) -> NoReturn:  # noqa: PLE0304
        _refuse("a truth value")

    def __repr__(self) -> NoReturn:
        _refuse("a printed form")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        _refuse("a copy or a pickle")


def _refuse(what: str) -> NoReturn:
    raise PrivacyError(
        f"private data do not give {what}: use release_mean, release_histogram, gradient_steps or best_of, "
        "which charge the ledger"
    )


def _charged_sums(
    records: Tensor, n: int, ledger: Ledger, noise: NoiseSource, chunk_size: int, parts: int
) -> Callable[[PerRecord, GaussianMechanism, str], Iterator[Tensor]]:
    """Close over the records. The function that is returned charges before it reads one, so nothing can bypass it."""
    null = records.new_zeros(1, *records.shape[1:])

    def sums(fn: PerRecord, mechanism: GaussianMechanism, role: str) -> Iterator[Tensor]:
        null_row = rows_of(fn, null, torch.Generator().manual_seed(0), role)
        stored = ledger.output(role, mechanism)
        if stored is not None:
            return iter([torch.tensor(stored, dtype=torch.float64, device=null_row.device)])
        most = max(min(chunk_size, MAX_NUMBERS // max(null_row.shape[1], 1)), 1)
        slots, exact = math.ceil(min(_expected_most(mechanism, n), most) / parts), bool(mechanism.noise_multiplier)
        rows = RecordRows(fn, null, slots, noise, role, exact=exact)
        ledger.charge(mechanism, role)
        return draw(rows, mechanism, role, null_row)

    def draw(rows: RecordRows, mechanism: GaussianMechanism, role: str, null_row: Tensor) -> Iterator[Tensor]:
        for step in range(1, mechanism.steps + 1):
            in_sample = torch.from_numpy(noise.uniform(len(records)) < mechanism.sampling_prob)
            total = noisy_sum(
                rows(records[in_sample.to(records.device)]),
                null_row.shape[1],
                mechanism=mechanism,
                relation=ledger.budget.relation,
                noise=noise,
            )
            if step == mechanism.steps:
                ledger.complete(role, total.tolist() if mechanism.steps == 1 else None)
            yield total.to(null_row.device)

    return sums


def _expected_most(mechanism: GaussianMechanism, n: int) -> int:
    """Number of records that a Poisson sample of n rarely exceeds; one that does gets a second batch."""
    mean = mechanism.sampling_prob * n
    return math.ceil(mean + 3 * math.sqrt(mean * (1 - mechanism.sampling_prob)))


def _charged_selection(
    records: Tensor, n: int, ledger: Ledger, noise: NoiseSource, chunk_size: int, parts: int
) -> Callable[..., Any]:
    """Close over the records. The function that is returned charges before it draws the number of trials."""

    def select(
        trial: Callable[[PrivateData, torch.Generator], tuple[T, float]], mechanism: BestOfTrials, role: str
    ) -> T | None:
        ledger.charge(mechanism, role)
        trials = mechanism.draw(float(noise.uniform(1)[0]))
        best: tuple[T, float] | None = None
        for number in range(mechanism.most_trials):
            trial_ledger = TrialLedger(ledger.budget, mechanism.trial)
            private = PrivateData(records, n=n, ledger=trial_ledger, noise=noise, chunk_size=chunk_size, parts=parts)
            # Trials must be independent and their randomness secret: none of it comes from the run's seed.
            result, score = trial(private, noise.generator())
            if math.isnan(score):
                raise UserError(f"role '{role}': the score of a trial is NaN, expected a number")
            # All trials are run, or the time would tell how many count.
            if number < trials and (best is None or score > best[1]):
                best = result, score
        ledger.complete(role)
        return best[0] if best else None

    return select
