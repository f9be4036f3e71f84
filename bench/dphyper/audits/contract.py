"""What every private method must keep, as checks that an outside method goes through as well.

Each check runs a method on a tiny model, with tiny data, as the harness would, and returns one line of finding or None.
They look at what a method does, not at what it says: releases are frozen while the records behind them are exchanged;
every function that the method gives to `PrivateData` is tried at every place of a batch; the states of all generators
are compared before and after. `findings` runs all of them. No check proves privacy: a method that waits for
its thousandth run to leak passes.

The instruments that look inside a run are those of `dphyper.audits.watching`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from dphyper.audits.declared import in_one_line
from dphyper.audits.guards import Guard
from dphyper.audits.watching import SplitNoise, Tape, WatchedData, WatchedRows, equal_numbers
from dphyper.bench.catalog import METHODS
from dphyper.bench.method import Adaptation, Method
from dphyper.bench.public import PublicRecords
from dphyper.core.errors import PrivacyError, UserError
from dphyper.privacy import private_data
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.targets.diffusion import new_scheduler, new_unet
from dphyper.targets.lora import LoRADiffusion

BUDGET = Budget(epsilon=2.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
NO_BUDGET = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
NUM_RECORDS = 24


@cache
def tiny_target(channels: int = 1) -> LoRADiffusion:
    """An untrained model of 8×8 pixels."""
    torch.manual_seed(0)
    unet = new_unet(image_size=8, channels=channels, block_out_channels=(16, 32), layers_per_block=1)
    return LoRADiffusion(unet, new_scheduler(), rank=2, layers=("attention", "time", "norms"), sampling_steps=2, seed=0)


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

    The releases of one run are recorded and played to three more: on other records, on other records of another number,
    and on these without even calling the functions of records. All must give the same parameters and diagnostics, bit
    for bit. A method that carries the exact mean, a count or a decision past the mechanism does not.
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
        if not equal_numbers(other, theta) or diagnostics != others:
            moved = float((other - theta).norm() / theta.norm().clamp(min=1e-30))
            return f"with equal releases and {what} the result is another, by {moved:.2g} of its size"
    return None


def record_wise(subject: Subject) -> Guard:
    """Whether each function given to `PrivateData` treats records one by one, to the last bit, and draws secretly."""
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
    # Without clipping, values a hundred times as large move the result by far more than a fresh draw of the noise
    # does, even at a tenth of the budget.
    loud = Budget(epsilon=BUDGET.epsilon / 10, delta=BUDGET.delta, relation=BUDGET.relation)
    spread, moved = subject.spread(loud), float((scaled - theta).norm())
    if moved > 10 * spread:
        return f"records a hundred times as large move the result by {moved / spread:.2g} times the spread of the noise"
    return None


def hidden(subject: Subject) -> Guard:
    """Whether noise hides the records as the budget shrinks.

    Other records must move the result less than half as far as at the usual budget, because the method shrinks what it
    does not believe, or less than a twentieth as far as a fresh draw of the noise does.
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
    try:
        subject = Subject(name)
    except UserError:
        raise
    except Exception as error:  # of whatever kind: the code may be anyone's
        yield f"it cannot be built: {in_one_line(error)}"
        return
    for check in CHECKS:
        try:
            found = check(subject)
        except PrivacyError as error:
            found = str(error)
        except Exception as error:  # of whatever kind: the code may be anyone's
            found = f"it fails with {in_one_line(error)}"
        if found:
            yield f"{check.__name__}: {found}"
