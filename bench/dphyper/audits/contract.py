"""What every private method must keep, as checks that an outside method goes through as well.

Each check runs a method on a tiny model, with tiny data, as the harness would, and returns one line of finding or None.
They look at what a method does and not at what it says: what was released is frozen and the records behind it are
exchanged; every function that the method gives to the door is tried at every place of a batch; the states of all
generators are compared before and after. `findings` runs all of them. No check proves privacy: a method that waits for
its thousandth run to leak passes.

Shapes: s slots of a batch, N records, k numbers of a row, P parameters.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dphyper.audits.guards import Guard
from dphyper.bench.catalog import METHODS
from dphyper.bench.method import Adaptation, Method
from dphyper.bench.public import PublicRecords
from dphyper.core.errors import PrivacyError
from dphyper.privacy import private_data
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import BestOfTrials
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.noisy_sum import noisy_sum
from dphyper.privacy.private_data import PrivateData
from dphyper.privacy.record_rows import PerRecord, RecordRows
from dphyper.targets.diffusion import new_scheduler, new_unet
from dphyper.targets.lora import LoRADiffusion

T = TypeVar("T")
BUDGET = Budget(epsilon=2.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
NO_BUDGET = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
NUM_RECORDS = 24
# Where kernels were seen to change their last bits, and the numbers around it.
BATCH_SIZES = (1, 3, 4, 15, 16)


@cache
def tiny_target(channels: int = 1) -> LoRADiffusion:
    """An untrained model of 8×8 pixels."""
    torch.manual_seed(0)
    unet = new_unet(image_size=8, channels=channels, block_out_channels=(16, 32), layers_per_block=1)
    return LoRADiffusion(unet, new_scheduler(), rank=2, sampling_steps=2, seed=0)


def tiny_records(count: int = NUM_RECORDS, channels: int = 1, seed: int = 0) -> Tensor:
    """(count, channels, 8, 8) noise in [-1, 1]."""
    return torch.rand((count, channels, 8, 8), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def tiny_method(name: str, channels: int = 1, options: Mapping[str, Any] | None = None) -> Method:
    """A registered method on the tiny model, with its quick options.

    Its networks are random rather than zero, so that private records can show in the output.
    """
    kind, model = METHODS[name], tiny_target(channels)  # the target seeds too, when it is first built
    torch.manual_seed(1)
    parsed = kind.options_type.parse(name, {**kind.quick_options, **(options or {})})
    made: Method = kind(model, parsed, embedding_dim=4)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    if made.reads_public:
        made.public = PublicRecords(
            records=tiny_records(96, channels, seed=7),
            tasks=tuple(np.arange(96).reshape(6, 16)),
            shares=np.full(6, 1 / 6),
        )
    return made.eval()


def adapt(
    made: Method,
    records: Tensor,
    *,
    n: int = NUM_RECORDS,
    budget: Budget = BUDGET,
    noise: NoiseSource | None = None,
    rng: torch.Generator | None = None,
) -> tuple[Adaptation, Ledger]:
    """Adaptation and ledger of one run, as the harness makes it; the noise is that of seed 0 if not given."""
    ledger = Ledger(budget if made.private else NO_BUDGET)
    private = PrivateData(records, n=n, ledger=ledger, noise=noise or NoiseSource.reproducible(0))
    return made.adapt(private, ledger.budget, rng or torch.Generator().manual_seed(0)), ledger


class SplitNoise(NoiseSource):
    """A reproducible source in which trials draw the same whatever the number of records takes from it."""

    def __init__(self) -> None:
        self._of_records, self._of_trials = np.random.default_rng(1), np.random.default_rng(2)
        super().__init__(self._of_records.bytes, is_reproducible=True)
        self._trials = NoiseSource(self._of_trials.bytes, is_reproducible=True)

    def uniform(self, shape: int | tuple[int, ...]) -> Any:
        """A single number is that of a selection."""
        return self._trials.uniform(shape) if shape == 1 else super().uniform(shape)

    def generator(self) -> torch.Generator:
        """Of a trial: batches have generators of their own in `WatchedRows`."""
        return self._trials.generator()


class Tape:
    """The released sums of one run, in order, to be played to another run instead of its own."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def recording(self) -> AbstractContextManager[Any]:
        """Within, released sums are kept."""

        def recorded(chunks: Iterable[Tensor], dimension: int, **given: Any) -> Tensor:
            self._sums.append(noisy_sum(chunks, dimension, **given))
            return self._sums[-1]

        return patch.object(private_data, "noisy_sum", recorded)

    def playing(self, *, deaf: bool) -> AbstractContextManager[Any]:
        """Within, the kept sums are released whatever the records are.

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
        found: Findings of all instances, emptied by `watched`.
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
        same = self._equal_rows(public[:1].expand_as(public).contiguous())
        if not _equal(same, wanted[:1].expand_as(same)):
            self.found.append(f"role '{role}': equal records have unequal rows at different places of a batch")
        order = torch.arange(self.slots - 1, -1, -1)
        if not _equal(self._equal_rows(public[order])[order], wanted):
            self.found.append(f"role '{role}': rows change with the order of the records")
        for others, kept in (
            (100 * public, slice(0, None, 2)),
            (torch.full_like(public, math.nan), slice(1, None, 2)),
            (torch.zeros_like(public), slice(0, 1)),
        ):
            others[kept] = public[kept]
            if not _equal(self._equal_rows(others)[kept], wanted[kept]):
                self.found.append(f"role '{role}': rows change, if only by rounding, when other records change")
        for size in (*BATCH_SIZES, self.slots + 1):
            records = public.repeat(2, *[1] * (public.dim() - 1))[:size]
            batches = [
                self._equal_rows(torch.cat([batch, self._null.expand(self.slots - len(batch), *batch.shape[1:])]))
                for batch in records.split(self.slots)
            ]
            rows = torch.cat(batches)[:size]
            if not _equal(rows, wanted.repeat(2, 1)[:size]):
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


class Subject:
    """A registered method under the checks, whose runs are made once each.

    Args:
        name: Of the method.
    """

    def __init__(self, name: str) -> None:
        self.name, self.method = name, tiny_method(name)
        self._once = cache(self._run)

    def run(
        self, *, seed: int = 0, scale: float = 1.0, budget: Budget = BUDGET, noise_seed: int = 0
    ) -> tuple[Tensor, Ledger]:
        """Parameters and ledger for the records of a seed, times ``scale``."""
        return self._once(seed, scale, budget, noise_seed)

    def _run(self, seed: int, scale: float, budget: Budget, noise_seed: int) -> tuple[Tensor, Ledger]:
        records = scale * tiny_records(seed=seed)
        adaptation, ledger = adapt(self.method, records, budget=budget, noise=NoiseSource.reproducible(noise_seed))
        return adaptation.theta, ledger

    def spread(self, budget: Budget) -> float:
        """How far apart two draws of the noise put the result."""
        return float((self.run(budget=budget)[0] - self.run(budget=budget, noise_seed=1)[0]).norm())


def released_alone(subject: Subject) -> Guard:
    """Whether the parameters follow from what was released.

    The releases of one run are played to a second, on other records, whose functions are called and their rows thrown
    away; and to a third, on other records of another number, whose functions are not called. All must give the same
    parameters and diagnostics, bit for bit. A method that carries the exact mean, a count or a decision past the
    mechanism does not.
    """
    tape = Tape()

    def run(records: Tensor) -> tuple[Tensor, Mapping[str, float]]:
        made = tiny_method(subject.name)
        WatchedRows.public_rng = torch.Generator().manual_seed(0)
        with patch.object(private_data, "RecordRows", WatchedRows), patch.object(WatchedRows, "tries_slots", False):
            adaptation, _ = adapt(made, records, noise=SplitNoise(), rng=WatchedRows.public_rng)
        return adaptation.theta, adaptation.diagnostics

    with tape.recording():
        theta, diagnostics = run(tiny_records())
    for what, records, deaf in (
        ("other records", tiny_records(seed=9), False),
        ("another number of records", tiny_records(NUM_RECORDS - 7, seed=9), False),
        ("records that it did not read", tiny_records(NUM_RECORDS - 7, seed=9), True),
    ):
        with tape.playing(deaf=deaf):
            other, others = run(records)
        if not _equal(other, theta) or diagnostics != others:
            moved = float((other - theta).norm() / theta.norm().clamp(min=1e-30))
            return f"with equal releases and {what} the result is another, by {moved:.2g} of its size"
    return None


def record_wise(subject: Subject) -> Guard:
    """Whether each function given to the door treats records one by one, to the last bit, and draws secretly."""
    WatchedRows.found.clear()
    WatchedRows.public_rng = torch.Generator().manual_seed(0)
    made = tiny_method(subject.name)
    ledger = Ledger(BUDGET if made.private else NO_BUDGET)
    with patch.object(private_data, "RecordRows", WatchedRows):
        private = WatchedData(tiny_records(), n=NUM_RECORDS, ledger=ledger, noise=NoiseSource.reproducible(0))
        made.adapt(private, ledger.budget, WatchedRows.public_rng)
    return WatchedRows.found[0] if made.private and WatchedRows.found else None


def declared(subject: Subject) -> Guard:
    """Whether a run releases what the method declares, at every relation, and spends its budget and no more."""
    for relation in Relation:
        _, ledger = subject.run(budget=Budget(epsilon=2.0, delta=1e-5, relation=relation))
        differences = ledger.differences(subject.method.mechanisms(ledger.budget, subject.method.options))
        if differences:
            return differences[0]
        spent, epsilon = ledger.spent(), ledger.budget.epsilon
        if spent > epsilon * (1 + 1e-6):
            return f"ε = {spent:.4g} is spent of {epsilon:g}"
        if ledger.charges and math.isfinite(epsilon) and spent < 0.95 * epsilon:
            return f"ε = {spent:.4g} is spent of {epsilon:g}: the rest of the budget is left"
    return None


def charged(subject: Subject) -> Guard:
    """Whether a method whose result depends on the records has charged for them, and none has charged for nothing."""
    (theta, ledger), (other, _) = subject.run(), subject.run(seed=9)
    reads = not torch.allclose(theta, other, rtol=1e-5, atol=1e-7)  # the last bits may hang on where memory lies
    if reads != bool(ledger.charges):
        return "records change the result without a charge" if reads else "records are charged for and not used"
    if not subject.method.private and ledger.spent() < math.inf:
        return f"it claims no privacy and has charged ε = {ledger.spent():.4g}"
    return None


def clipped(subject: Subject) -> Guard:
    """Whether records of any size, or of no number at all, move the result by what clipped ones can."""
    if subject.method.role != "method":
        return None
    theta, scaled, poisoned = (subject.run(scale=scale)[0] for scale in (1.0, 100.0, math.nan))
    if not (scaled.isfinite().all() and poisoned.isfinite().all()):
        return "records that are huge or no numbers make parameters that are none"
    # A hundred times larger values in a method that does not clip would move it by far more than a fresh draw of the
    # noise at a tenth of the budget does.
    loud = Budget(epsilon=BUDGET.epsilon / 10, delta=BUDGET.delta, relation=BUDGET.relation)
    spread, moved = subject.spread(loud), float((scaled - theta).norm())
    if moved > 10 * spread:
        return f"records a hundred times as large move the result by {moved / spread:.2g} times the spread of the noise"
    return None


def hidden(subject: Subject) -> Guard:
    """Whether noise hides the records as the budget shrinks.

    Other records must move the result less than half as far as at the usual budget, as they do where the method shrinks
    what it does not believe, or by a small part of what a fresh draw of the noise does.
    """
    if subject.method.role != "method":
        return None
    tiny = Budget(epsilon=1e-3, delta=BUDGET.delta, relation=BUDGET.relation)
    before, after = (
        float((subject.run(budget=budget)[0] - subject.run(budget=budget, seed=9)[0]).norm())
        for budget in (BUDGET, tiny)
    )
    if after < 0.5 * before or after < 0.05 * subject.spread(tiny):
        return None
    return f"at ε = {tiny.epsilon} other records still move the result by {after / before:.2g} of what they do at 2"


CHECKS: tuple[Callable[[Subject], Guard], ...] = (released_alone, record_wise, declared, charged, clipped, hidden)


def findings(name: str) -> Iterator[str]:
    """What the checks find in a registered method, each with the name of its check.

    >>> list(findings("public_only"))
    []
    """
    subject = Subject(name)
    for check in CHECKS:
        try:
            found = check(subject)
        except PrivacyError as error:
            found = str(error)
        if found:
            yield f"{check.__name__}: {found}"


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


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers, or no numbers at the same places."""
    return a.shape == b.shape and torch.equal(a.nan_to_num(nan=1e30), b.nan_to_num(nan=1e30))
