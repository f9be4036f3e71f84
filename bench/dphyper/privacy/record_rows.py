"""Rows of per-record functions in which no record can show but its own, to the last bit.

Kernels of linear algebra change their last bits with the shape of the batch, which tells how many records there are and
flips what hangs on a tie. Here a function meets batches of one fixed size only, filled up with null records, with
randomness of its own for each batch that nobody else can know. Before it meets a private record it is tried on public
ones: equal records at every second place must keep their rows, bit for bit, when the others change, and have one row
where the function draws no random number. A function that fails by rounding, as kernels of a GPU may, is given batches
of one record; one that fails by more treats records jointly and is refused.

What it does not guarantee: that rows stay so on records unlike those of the trial, or that a function has no memory.
The contract suite tries every function of every method at every place, and looks for memory
(`dphyper.audits.contract`).

Shapes: b records of a batch, s slots of a batch, k numbers of a row.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dphyper.core.errors import PrivacyError, UserError
from dphyper.privacy.noise import NoiseSource

PerRecord = Callable[[Tensor, torch.Generator], Tensor]

# Relative to the largest number of the rows. Kernels in float32 differ by about 1e-6.
ROUNDING = 1e-3


class RecordRows:
    """A per-record function and the one size of batch that it is given.

    Args:
        fn: Maps (s, ...) records and a generator to (s, k) rows, each a function of its own record and of its own share
            of the generator's numbers.
        null: (1, ...) the null record, which fills batches up.
        slots: Size of a batch, a function of public values only.
        noise: Gives each batch a generator.
        role: For messages.
        exact: Whether rows must be their records' own to the last bit; where there is no privacy, batches are not
            filled up.

    Raises:
        UserError: The function does not give one row of numbers for each record.
        PrivacyError: It treats records jointly.
    """

    def __init__(self, fn: PerRecord, null: Tensor, slots: int, noise: NoiseSource, role: str, *, exact: bool) -> None:
        self._fn, self._null, self._noise, self._role, self._exact = fn, null, noise, role, exact
        self.slots = slots
        if exact and slots > 1 and not self._is_record_wise():
            self.slots = 1

    def __call__(self, records: Tensor) -> Iterator[Tensor]:
        """(b, k) rows of (N, ...) records, batch after batch; none where there is no record."""
        for batch in records.split(self.slots) if len(records) else ():
            padding = self._null.expand(self.slots - len(batch) if self._exact else 0, *batch.shape[1:])
            yield self.rows(torch.cat([batch, padding]), self._noise.generator())[: len(batch)]

    def rows(self, records: Tensor, rng: torch.Generator) -> Tensor:
        """(s, k) rows of one batch."""
        return rows_of(self._fn, records, rng, self._role)

    def _is_record_wise(self) -> bool:
        draws = torch.Generator().manual_seed(0)  # of public records
        shape = (self.slots, *self._null.shape[1:])
        rng = torch.Generator().manual_seed(1)
        before, rows = rng.get_state(), []
        kept = (torch.rand(shape[1:], generator=draws) * 2 - 1).to(self._null)
        for scale in (1.0, 100.0):
            batch = (torch.rand(shape, generator=draws) * 2 - 1).to(self._null) * scale
            batch[1::2] = kept
            rows.append(self.rows(batch, rng.set_state(before))[1::2])
        moved = [_moved(*rows)]
        if torch.equal(rng.get_state(), before):
            moved.append(_moved(rows[0], rows[0][:1].expand_as(rows[0])))
        if max(moved) > ROUNDING:
            raise PrivacyError(
                f"role '{self._role}': a record's row moves by {max(moved):.2g} of its size when only other records "
                "change: a per-record function must treat records one by one (no batch normalisation, no attention "
                "across records, no statistics of the batch)"
            )
        return max(moved) == 0


def rows_of(fn: PerRecord, records: Tensor, rng: torch.Generator, role: str) -> Tensor:
    """(b, k) rows of ``fn``.

    Raises:
        UserError: Another shape.
    """
    rows = fn(records, rng)
    if rows.ndim != 2 or len(rows) != len(records):
        raise UserError(
            f"role '{role}': a per-record function gave shape {tuple(rows.shape)} for {len(records)} records: expected "
            "one row each"
        )
    return rows.detach()


def _moved(rows: Tensor, others: Tensor) -> float:
    """Largest difference over the largest number, at most 1; not-a-number counts as a value like any other."""
    if not rows.numel():
        return 0.0
    a, b = (torch.nan_to_num(part.double(), nan=1e300, posinf=1e301, neginf=-1e301) for part in (rows, others))
    largest = float(torch.maximum(a.abs(), b.abs()).max())
    return float((a - b).abs().max()) / largest if largest else 0.0
