"""The ledger of one run: what was released from the private records, in which role, and what it cost.

Every charge is written down, and to disk where the ledger has a path, *before* any noise is drawn; a charge that
would exceed the budget raises and leaves the ledger as it was. A role is charged once: a run that is resumed gets
the stored output of a release that was completed, and an error for one that was interrupted, never a second draw
with fresh noise. What died unseen with its process is taken back by `forget_unseen`. What a run had drawn before it
raised stays charged (`close_attempt`): its failure was seen, and whoever tries until a run succeeds pays for all tries.
The JSON form (``docs/ledger.md``) suffices to derive ε again without running anything.

What it does not guarantee: that the run had no other access to the records. `PrivateData` sees to that.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attr
import dp_accounting
import numpy as np

from dphyper.core.errors import PrivacyError, UserError
from dphyper.core.files import write_json
from dphyper.privacy.accounting import epsilon_of
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import (
    BestOfTrials,
    GaussianMechanism,
    Mechanism,
    NoisyHistogram,
    OneShotMean,
    PoissonGradientSteps,
)
from dphyper.privacy.noise import NoiseSource

SCHEMA = 2
_KINDS: dict[str, type[GaussianMechanism]] = {
    kind.__name__: kind for kind in (OneShotMean, PoissonGradientSteps, NoisyHistogram)
}


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One line of the ledger.

    Attributes:
        role: What the release is for; unique in the ledger, and its identity when a run is resumed.
        mechanism: The calibrated mechanism.
        complete: False from the charge until the release was drawn whole.
        output: The released numbers where they are kept (one-shot releases), for a resumed run.
        attempt: 0 for the run that the ledger is of; for a release of an earlier one that failed, its number from 1 on.
    """

    role: str
    mechanism: Mechanism
    complete: bool = False
    output: tuple[float, ...] | None = None
    attempt: int = 0


class Ledger:
    """All charges of one run against one budget.

    Args:
        budget: What may be spent in total.
        path: File that holds the ledger at all times; None for a ledger in memory.

    Attributes:
        budget: As given.
        charges: The lines, in the order of charging.
        n: Nominal number of records, set by `bind`.
        noise: ``{"source": "os" | "reproducible", "sampler": "rounded"}``, set by `bind`. Rows of former versions have
            the samplers ``continuous``, whose digits show in the release, and ``discrete``.

    >>> from dphyper.privacy.budget import Relation
    >>> from dphyper.privacy.accounting import calibrate
    >>> budget = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
    >>> ledger = Ledger(budget)
    >>> (mean,) = calibrate(budget, OneShotMean())
    >>> ledger.charge(mean, role="embedding")
    >>> round(ledger.spent(), 4)
    1.0
    """

    def __init__(self, budget: Budget, *, path: Path | None = None) -> None:
        self.budget = budget
        self.charges: list[Charge] = []
        self.n: int | None = None
        self.noise: dict[str, str] | None = None
        self._path = path

    @classmethod
    def open(cls, path: Path, budget: Budget) -> "Ledger":
        """The ledger in that file, continued, or a new one that will be kept there.

        Raises:
            PrivacyError: The file holds a ledger of another budget.
            UserError: The file holds a ledger of another schema.
        """
        if not path.exists():
            return cls(budget, path=path)
        ledger = cls.from_json(json.loads(path.read_text()))
        if ledger.budget != budget:
            raise PrivacyError(f"ledger '{path}' was opened for {ledger.budget}, not for {budget}: use another folder")
        ledger._path = path
        return ledger

    @property
    def private(self) -> bool:
        """Whether ε may be claimed: no record was used, or ε is finite and nobody can compute the noise again."""
        secret = (self.noise or {}).get("source") != "reproducible"
        return not self.charges or (secret and math.isfinite(self.spent()))

    @property
    def has_selection(self) -> bool:
        """Whether a choice among trials on the private records was charged."""
        return any(isinstance(charge.mechanism, BestOfTrials) for charge in self.charges)

    def bind(self, *, n: int, noise: NoiseSource) -> None:
        """Record the nominal n and the noise source; a resumed run must come with the same.

        Raises:
            PrivacyError: The ledger is bound to another n or noise source, or δ is not below 1/n.
        """
        if math.isfinite(self.budget.epsilon) and not self.budget.delta < 1 / n:
            raise PrivacyError(
                f"delta = {self.budget.delta} with n = {n} records: expected far below 1/n = {1 / n:.3g}"
            )
        described = {
            "source": "reproducible" if noise.is_reproducible else "os",
            "sampler": "rounded",
        }
        if self.charges and (self.n, self.noise) != (n, described):
            raise PrivacyError(
                f"the ledger has n = {self.n}, noise {self.noise}; the run has n = {n}, noise {described}"
            )
        self.n, self.noise = n, described

    def charge(self, mechanism: Mechanism, role: str) -> None:
        """Enter a release before it is drawn.

        Raises:
            PrivacyError: The role was charged before, or the total would exceed the budget. The ledger is then
                unchanged.
        """
        if any(charge.role == role for charge in self.current):
            raise PrivacyError(
                f"role '{role}' is charged already: drawing it again with fresh noise would be a second release. If "
                "a run was interrupted in it, start over in a new folder, and keep nothing that run produced"
            )
        self._permit(mechanism, role)
        self.charges.append(Charge(role=role, mechanism=mechanism))
        self._write()

    def _permit(self, mechanism: Mechanism, role: str) -> None:
        total = self._epsilon([*(charge.mechanism for charge in self.charges), mechanism])
        failed = len({charge.attempt for charge in self.charges if charge.attempt})
        if total > self.budget.epsilon and failed:
            raise PrivacyError(
                f"role '{role}' would bring the cell to ε = {total:.4g}, above its budget {self.budget.epsilon:.4g}, "
                f"with what {failed} failed attempt{'s' * (failed > 1)} released: a run that failed has been seen to "
                "fail. Mend the fault, run the cell as another `noise_draw`, and report that there was this one"
            )
        if total > self.budget.epsilon:
            raise PrivacyError(
                f"role '{role}' would bring the run to ε = {total:.4g}, above its budget {self.budget.epsilon:.4g} at "
                f"δ = {self.budget.delta:g} ({self.budget.relation}): calibrate all mechanisms of the run together"
            )

    def complete(self, role: str, output: Sequence[float] | None = None) -> None:
        """Mark a charged release as drawn, and keep its output where a resumed run can use it."""
        index = [(charge.role, charge.attempt) for charge in self.charges].index((role, 0))
        kept = None if output is None else tuple(float(value) for value in output)
        self.charges[index] = dataclasses.replace(self.charges[index], complete=True, output=kept)
        self._write()

    def output(self, role: str, mechanism: Mechanism) -> tuple[float, ...] | None:
        """The stored output of a completed release, None if there is none.

        Raises:
            PrivacyError: The role was completed by another mechanism.
        """
        for charge in self.current:
            if charge.role == role and charge.output is not None:
                if charge.mechanism != mechanism:
                    raise PrivacyError(f"role '{role}' was released by {charge.mechanism}, not by {mechanism}")
                return charge.output
        return None

    def forget_unseen(self) -> bool:
        """Take back the charges whose releases nobody can have seen, and say whether there were any.

        For a run whose process died, leaving no row, and that starts over: a release whose numbers were not kept died
        with it, so that drawing it again is no second release of anything. Those that were kept stay charged and are
        used again. A private selection is never taken back: long ones are interrupted more often, so that those which
        end would not have the law that is charged.
        """
        unseen = [c for c in self.current if c.output is None and not isinstance(c.mechanism, BestOfTrials)]
        if unseen:
            self.charges = [charge for charge in self.charges if charge not in unseen]
            self._write()
        return bool(unseen)

    def close_attempt(self) -> None:
        """Keep the charges of a run that raised beside those of the next, which compose with them.

        Releases whose numbers were kept stay those of the present run, which uses them again.
        """
        number = 1 + max((charge.attempt for charge in self.charges), default=0)
        closed = [charge for charge in self.current if charge.output is None]
        self.charges = [
            dataclasses.replace(charge, attempt=number) if charge in closed else charge for charge in self.charges
        ]
        if closed:
            self._write()

    @property
    def current(self) -> list[Charge]:
        """The charges of the present run, without those of attempts that failed."""
        return [charge for charge in self.charges if not charge.attempt]

    def differences(self, declared: Sequence[Mechanism]) -> list[str]:
        """How the releases of the present run differ from those that its method declares, one line each.

        Args:
            declared: What `Method.mechanisms` gives for the budget; the order does not matter.
        """
        missing, undeclared = list(declared), []
        for charge in self.current:
            same = [mechanism for mechanism in missing if _same_mechanism(mechanism, charge.mechanism)]
            if same:
                missing.remove(same[0])
            else:
                undeclared.append(
                    f"role '{charge.role}' released {charge.mechanism}, which its method does not declare"
                )
        return undeclared + [f"{mechanism} is declared by its method, and not in its ledger" for mechanism in missing]

    def spent(self) -> float:
        """ε of all charges together at the budget's δ, agreed on by two accountants; 0 without a charge."""
        return self._epsilon([charge.mechanism for charge in self.charges])

    def _epsilon(self, mechanisms: Sequence[Mechanism]) -> float:
        return epsilon_of([m.event() for m in mechanisms], self.budget.delta, self.budget.relation)

    def _write(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON, as ``docs/ledger.md`` describes; ``inf`` becomes a string."""
        relation = self.budget.relation
        return {
            "schema": SCHEMA,
            "unit": "record",
            "budget": _plain(dataclasses.asdict(self.budget)),
            "n": self.n,
            "noise": self.noise,
            "private": self.private,
            "epsilon_spent": _plain(self.spent()),
            "charges": [
                {
                    "role": charge.role,
                    "mechanism": mechanism_json(charge.mechanism),
                    "event": event_json(charge.mechanism.event()),
                    "sensitivity": _plain(charge.mechanism.sensitivity(relation)),
                    "noise_std": _plain(charge.mechanism.noise_std(relation)),
                    "complete": charge.complete,
                    "output": None if charge.output is None else list(charge.output),
                    "attempt": charge.attempt,
                }
                for charge in self.charges
            ],
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Ledger":
        """Inverse of `to_json`; derived values are derived again, `check_store` compares them.

        Raises:
            UserError: Another schema.
        """
        if plain.get("schema") != SCHEMA:
            raise UserError(f"a ledger of schema {plain.get('schema')}, this version reads {SCHEMA}")
        ledger = cls(Budget(**(plain["budget"] | {"epsilon": float(plain["budget"]["epsilon"])})))
        ledger.n, ledger.noise = plain["n"], plain["noise"]
        for line in plain["charges"]:
            output = None if line["output"] is None else tuple(line["output"])
            mechanism = mechanism_from_json(line["mechanism"])
            ledger.charges.append(
                Charge(
                    role=line["role"],
                    mechanism=mechanism,
                    complete=line["complete"],
                    output=output,
                    attempt=line["attempt"],
                )
            )
        return ledger


class TrialLedger(Ledger):
    """The ledger of one trial of a selection, in memory: it permits the described releases, each once, and no other.

    This is stricter than a budget of the same ε. A trial that spends the same ε at δ by other mechanisms may have
    a larger Rényi divergence at other orders, and the selection was charged for the divergences of these.

    Args:
        budget: Of the run.
        trial: The releases that one trial may make.
    """

    def __init__(self, budget: Budget, trial: Sequence[GaussianMechanism]) -> None:
        super().__init__(budget)
        self._trial = trial

    def _permit(self, mechanism: Mechanism, role: str) -> None:
        left: list[Mechanism] = list(self._trial)
        for charge in self.charges:
            left.remove(charge.mechanism)
        if mechanism not in left:
            raise PrivacyError(
                f"role '{role}': one trial was charged for {', '.join(map(str, self._trial))}, each once; it may not "
                f"draw {mechanism}"
            )


def _same_mechanism(a: Mechanism, b: Mechanism) -> bool:
    """Whether two descriptions are one, up to the last digits of calibrated noise."""
    plain = [_numbers_apart(mechanism_json(mechanism)) for mechanism in (a, b)]
    return plain[0][1] == plain[1][1] and np.allclose(plain[0][0], plain[1][0], rtol=1e-5, atol=0)


def _numbers_apart(plain: Any) -> tuple[list[float], Any]:
    """The floating-point numbers of plain data, and the data without them."""
    if isinstance(plain, float):
        return [plain], None
    if not isinstance(plain, (dict, list)):
        return [], plain
    parts = {
        key: _numbers_apart(value) for key, value in (plain.items() if isinstance(plain, dict) else enumerate(plain))
    }
    return [n for numbers, _ in parts.values() for n in numbers], {key: rest for key, (_, rest) in parts.items()}


def mechanism_json(mechanism: Mechanism) -> dict[str, Any]:
    """A mechanism as plain data: ``kind`` is its class; those of a trial are nested."""
    plain: dict[str, Any] = {"kind": type(mechanism).__name__}
    for field in dataclasses.fields(mechanism):  # type: ignore[arg-type]
        value = getattr(mechanism, field.name)
        plain[field.name] = [mechanism_json(part) for part in value] if field.name == "trial" else _plain(value)
    return plain


def mechanism_from_json(plain: Mapping[str, Any]) -> Mechanism:
    """Inverse of `mechanism_json`.

    >>> trials = BestOfTrials(trial=(NoisyHistogram(noise_multiplier=9.0),), mean_trials=10.0)
    >>> mechanism_from_json(mechanism_json(trials)) == trials
    True
    """
    fields = {name: _value(value) for name, value in plain.items() if name not in ("kind", "trial")}
    if plain["kind"] != BestOfTrials.__name__:
        return _KINDS[plain["kind"]](**fields)
    fields["noise_ratios"] = tuple(fields["noise_ratios"])
    trial: Any = tuple(mechanism_from_json(part) for part in plain["trial"])
    return BestOfTrials(trial=trial, **fields)


def event_json(event: dp_accounting.DpEvent) -> dict[str, Any]:
    """A `dp_accounting` event as plain data: ``kind`` is its class, ``of`` the event or the list of events inside.

    >>> event_json(dp_accounting.PoissonSampledDpEvent(0.25, dp_accounting.GaussianDpEvent(2.0)))["of"]
    {'kind': 'GaussianDpEvent', 'noise_multiplier': 2.0}
    """
    plain: dict[str, Any] = {"kind": type(event).__name__}
    for name in attr.fields_dict(type(event)):
        value = getattr(event, name)
        if isinstance(value, dp_accounting.DpEvent):
            plain["of"] = event_json(value)
        elif isinstance(event, dp_accounting.ComposedDpEvent):
            plain["of"] = [event_json(inner) for inner in value]
        else:
            plain[name] = _plain(value)
    return plain


def event_from_json(plain: Mapping[str, Any]) -> dp_accounting.DpEvent:
    """Inverse of `event_json` for the events that mechanisms emit."""
    fields = {key: _value(value) for key, value in plain.items() if key not in ("kind", "of")}
    inner = plain.get("of")
    if isinstance(inner, list):
        fields["events"] = [event_from_json(event) for event in inner]
    elif inner is not None:
        fields["event"] = event_from_json(inner)
    return getattr(dp_accounting.dp_event, plain["kind"])(**fields)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return "inf" if value == math.inf else value


def _value(plain: Any) -> Any:
    """Inverse of `_plain` for a number."""
    return math.inf if plain == "inf" else plain
