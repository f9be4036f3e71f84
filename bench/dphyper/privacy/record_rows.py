"""Rows of per-record functions: what a function computes from each record, with no trace of the other records.

Kernels of linear algebra change their last bits with the shape of the batch. Such bits tell how many records there are,
and flip whatever hangs on a tie. Hence a function is only ever given batches of one fixed size, filled up with null
records, and for each batch a fresh generator that nobody else knows.

Before a function meets a private record, it is tried on public ones: on two batches that have the same record at every
second place, and differ in the others. The rows of that record must be the same in both, bit for bit. Where the
function draws no random number, they must also be the same at every place. A function that fails by rounding only, as
GPU kernels may, gets batches of one record. One that fails by more treats records jointly, and is refused.

What it does not guarantee: that rows behave so on records unlike those of the trial, or that a function has no memory.
The contract suite (`dphyper.audits.contract`) tries every function of every method at every place of a batch, and looks
for memory.

Shapes: b records of a batch, s slots of a batch, k numbers of a row.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dphyper.core.errors import PrivacyError, UserError
from dphyper.privacy.noise import NoiseSource

PerRecord = Callable[[Tensor, torch.Generator], Tensor]

# Largest change that counts as rounding, relative to the largest number of the rows. Kernels in float32 differ by some
# 1e-6.
ROUNDING = 1e-3


class RecordRows:
    """A per-record function and the one size of batch that it is given.

    Args:
        fn: Maps (s, ...) records and a generator to (s, k) rows. Each row is a function of its own record and of its
            own share of the generator's numbers.
        null: (1, ...) the null record, which fills batches up.
        slots: Size of a batch. It may depend on public values only.
        noise: Gives each batch a generator.
        role: Name of the release, for messages.
        exact: Whether the function is tried and batches are filled up. False only where there is no privacy.

    Raises:
        UserError: The function does not give one row of numbers for each record.
        PrivacyError: The function treats records jointly.
    """

    def __init__(self, fn: PerRecord, null: Tensor, slots: int, noise: NoiseSource, role: str, *, exact: bool) -> None:
        self._fn, self._null, self._noise, self._role, self._exact = fn, null, noise, role, exact
        self.slots = slots
        if exact and slots > 1 and not self._is_record_wise():
            self.slots = 1

    def __call__(self, records: Tensor) -> Iterator[Tensor]:
        """(b, k) rows of (N, ...) records, batch after batch; no batch at all where there is no record."""
        for batch in records.split(self.slots) if len(records) else ():
            padding = self._null.expand(self.slots - len(batch) if self._exact else 0, *batch.shape[1:])
            yield self.rows(torch.cat([batch, padding]), self._noise.generator())[: len(batch)]

    def rows(self, records: Tensor, rng: torch.Generator) -> Tensor:
        """(s, k) rows of one batch."""
        return rows_of(self._fn, records, rng, self._role)

    def _is_record_wise(self) -> bool:
        """Whether rows ignore other records to the last bit; raises where they differ by more than rounding."""
        public = torch.Generator().manual_seed(0)
        shape = (self.slots, *self._null.shape[1:])
        rng = torch.Generator().manual_seed(1)
        before, rows = rng.get_state(), []
        same = (torch.rand(shape[1:], generator=public) * 2 - 1).to(self._null)
        for scale in (1.0, 100.0):
            batch = (torch.rand(shape, generator=public) * 2 - 1).to(self._null) * scale
            batch[1::2] = same
            rows.append(self.rows(batch, rng.set_state(before))[1::2])
        changes = [_relative_change(*rows)]
        if torch.equal(rng.get_state(), before):
            changes.append(_relative_change(rows[0], rows[0][:1].expand_as(rows[0])))
        if max(changes) > ROUNDING:
            raise PrivacyError(
                f"role '{self._role}': a record's row moves by {max(changes):.2g} of its size when only other records "
                "change: a per-record function must treat records one by one (no batch normalisation, no attention "
                "across records, no statistics of the batch)"
            )
        return max(changes) == 0


def rows_of(fn: PerRecord, records: Tensor, rng: torch.Generator, role: str) -> Tensor:
    """(b, k) rows of ``fn`` for (b, ...) records, detached.

    Raises:
        UserError: The function gave another shape.
    """
    rows = fn(records, rng)
    if rows.ndim != 2 or len(rows) != len(records):
        raise UserError(
            f"role '{role}': a per-record function gave shape {tuple(rows.shape)} for {len(records)} records: expected "
            "one row each"
        )
    return rows.detach()


def _relative_change(rows: Tensor, others: Tensor) -> float:
    """Largest difference of two sets of rows, over their largest number; NaN and ±∞ count as values of their own."""
    if not rows.numel():
        return 0.0
    a, b = (torch.nan_to_num(part.double(), nan=1e300, posinf=1e301, neginf=-1e301) for part in (rows, others))
    largest = float(torch.maximum(a.abs(), b.abs()).max())
    return float((a - b).abs().max()) / largest if largest else 0.0
