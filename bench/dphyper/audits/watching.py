"""Doors to private records that watch who goes through: the instruments of the contract suite.

They stand in for parts of `dphyper.privacy.private_data` while a method runs, and tell what no result shows: whether a
row hangs on its place in a batch, who draws from which generator, and what a method makes of releases that are not its
own. They are for audits alone; nothing here protects anybody.

Shapes: s slots of a batch, k numbers of a row.
"""

import math
import random
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dphyper.privacy import private_data
from dphyper.privacy.mechanisms import BestOfTrials
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.noisy_sum import noisy_sum
from dphyper.privacy.private_data import PrivateData
from dphyper.privacy.record_rows import PerRecord, RecordRows

T = TypeVar("T")
# Where kernels were seen to change their last bits, and the numbers around it.
BATCH_SIZES = (1, 3, 4, 15, 16)


class SplitNoise(NoiseSource):
    """A reproducible source in which trials draw the same, however much noise the records take from it."""

    def __init__(self) -> None:
        self._of_records, self._of_trials = np.random.default_rng(1), np.random.default_rng(2)
        super().__init__(self._of_records.bytes, is_reproducible=True)
        self._trials = NoiseSource(self._of_trials.bytes, is_reproducible=True)

    def uniform(self, shape: int | tuple[int, ...]) -> Any:
        """A single number is drawn for a selection, all others for records."""
        return self._trials.uniform(shape) if shape == 1 else super().uniform(shape)

    def generator(self) -> torch.Generator:
        """The generator of a trial; those of batches come from `WatchedRows`."""
        return self._trials.generator()


class Tape:
    """The released sums of one run, in order, to be played to another run instead of its own."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def recording(self) -> AbstractContextManager[Any]:
        """Within, released sums are recorded."""

        def recorded(chunks: Iterable[Tensor], dimension: int, **given: Any) -> Tensor:
            self._sums.append(noisy_sum(chunks, dimension, **given))
            return self._sums[-1]

        return patch.object(private_data, "noisy_sum", recorded)

    def playing(self, *, deaf: bool) -> AbstractContextManager[Any]:
        """Within, the recorded sums are released whatever the records are.

        Args:
            deaf: Functions of records are not even called.
        """
        left = iter(self._sums)

        def played(chunks: Iterable[Tensor], dimension: int, **given: Any) -> Tensor:
            if not deaf:
                for _ in chunks:
                    pass
            return next(left)

        return patch.object(private_data, "noisy_sum", played)


class EqualDraws(TorchFunctionMode):
    """Within, all records of a batch draw the same numbers from the batch's generator.

    Args:
        slots: s; tensors of c·s rows are c rows for each record, one record after the other.
        rng: The generator of the batch.
    """

    def __init__(self, slots: int, rng: torch.Generator) -> None:
        super().__init__()
        self._slots, self._rng = slots, rng

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Repeat the first record's share."""
        out = func(*args, **(kwargs or {}))
        if (kwargs or {}).get("generator") is not self._rng or func not in (torch.rand, torch.randn):
            return out
        share = len(out) // self._slots
        return out[:share].repeat(self._slots, *[1] * (out.dim() - 1))


class WatchedRows(RecordRows):
    """`RecordRows` that tries its function at every place of a batch and watches all generators while it runs.

    Attributes:
        found: Findings of all instances; whoever watches a run empties it first.
        public_rng: The generator that the method was given, which no function of a record may use.
        tries_slots: Whether to try every place.
    """

    found: list[str] = []
    public_rng: torch.Generator
    tries_slots = True

    def __init__(self, fn: PerRecord, null: Tensor, slots: int, noise: NoiseSource, role: str, *, exact: bool) -> None:
        super().__init__(self._watched(fn, role), null, slots, NoiseSource.reproducible(3), role, exact=exact)
        if not exact or not self.tries_slots:
            return
        if self.slots != slots:
            self.found.append(f"role '{role}': rows change by rounding when other records change")
        self._try_every_slot(role)

    def _watched(self, fn: PerRecord, role: str) -> PerRecord:
        def watched(x: Tensor, rng: torch.Generator) -> Tensor:
            before = _states(self.public_rng)
            rows = fn(x, rng)
            for name, state in _states(self.public_rng).items():
                if state != before[name]:
                    self.found.append(f"role '{role}': a function of records draws from {name}")
            return rows

        return watched

    def _equal_rows(self, records: Tensor) -> Tensor:
        """(s, k) rows of one batch in which all records draw the same numbers."""
        rng = torch.Generator().manual_seed(5)
        with EqualDraws(len(records), rng):
            return self.rows(records, rng)

    def _try_every_slot(self, role: str) -> None:
        public = torch.rand((self.slots, *self._null.shape[1:]), generator=torch.Generator().manual_seed(4)) * 2 - 1
        public = public.to(self._null)
        wanted = self._equal_rows(public)
        alike = self._equal_rows(public[:1].expand_as(public).contiguous())
        if not equal_numbers(alike, wanted[:1].expand_as(alike)):
            self.found.append(f"role '{role}': equal records have unequal rows at different places of a batch")
        order = torch.arange(self.slots - 1, -1, -1)
        if not equal_numbers(self._equal_rows(public[order])[order], wanted):
            self.found.append(f"role '{role}': rows change with the order of the records")
        for others, same in (
            (100 * public, slice(0, None, 2)),
            (torch.full_like(public, math.nan), slice(1, None, 2)),
            (torch.zeros_like(public), slice(0, 1)),
        ):
            others[same] = public[same]
            if not equal_numbers(self._equal_rows(others)[same], wanted[same]):
                self.found.append(f"role '{role}': rows change, if only by rounding, when other records change")
        for size in (*BATCH_SIZES, self.slots + 1):
            records = public.repeat(2, *[1] * (public.dim() - 1))[:size]
            batches = [
                self._equal_rows(torch.cat([batch, self._null.expand(self.slots - len(batch), *batch.shape[1:])]))
                for batch in records.split(self.slots)
            ]
            rows = torch.cat(batches)[:size]
            if not equal_numbers(rows, wanted.repeat(2, 1)[:size]):
                self.found.append(f"role '{role}': rows change with the number of records, {size} of them")


class WatchedData(PrivateData):
    """`PrivateData` whose trials must leave the method's generator alone and find one of their own."""

    __slots__ = ()

    def best_of(
        self, trial: Callable[[PrivateData, torch.Generator], tuple[T, float]], mechanism: BestOfTrials, *, role: str
    ) -> T | None:
        """As `PrivateData.best_of`."""
        handed: set[bytes] = set()

        def watched(private: PrivateData, rng: torch.Generator) -> tuple[T, float]:
            before, state = _states(WatchedRows.public_rng), _state(rng)
            if state in handed:
                WatchedRows.found.append(f"role '{role}': two trials have one generator")
            handed.add(state)
            result = trial(private, rng)
            for name, after in _states(WatchedRows.public_rng).items():
                if after != before[name]:
                    WatchedRows.found.append(f"role '{role}': a trial draws from {name}, which other trials share")
            return result

        return super().best_of(watched, mechanism, role=role)


def _state(rng: torch.Generator) -> bytes:
    return rng.get_state().numpy().tobytes()


def _states(public_rng: torch.Generator) -> dict[str, object]:
    """States of all generators that are not the batch's own."""
    return {
        "the generator of the run, which a seed fixes": _state(public_rng),
        "torch's global generator": torch.get_rng_state().numpy().tobytes(),
        "numpy's global generator": np.random.get_state()[1].tobytes(),  # type: ignore[index]
        "Python's global generator": random.getstate(),
    }


def equal_numbers(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers, or no numbers at the same places."""
    return a.shape == b.shape and torch.equal(a.nan_to_num(nan=1e30), b.nan_to_num(nan=1e30))
