"""The ledger of one run: what was released from the private records, in which role, and what it cost.

A charge is written down before any noise is drawn, and to disk where the ledger has a path. A charge that would exceed
the budget raises, and the ledger stays as it was. The JSON form (``docs/ledger.md``) suffices to derive ε again without
running anything.

A role is charged once, and no release that anybody can have seen is drawn again with fresh noise. In a resumed run:

* A release with a stored output gives that output.
* Any other release that was charged raises. Where the process died, nobody can have seen it, and `forget_unseen` takes
  its charge back first.
* Where the former run raised, it was seen to fail. `close_attempt` keeps its charges beside those of the next run:
  whoever tries until a run succeeds pays for all tries.

What it does not guarantee: that the run had no other access to the records. `PrivateData` sees to that.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dphyper.core.errors import PrivacyError, UserError
from dphyper.core.files import DamagedFileError, read_json, write_json
from dphyper.privacy.accounting import epsilon_of
from dphyper.privacy.budget import Budget
from dphyper.privacy.json_form import event_json, mechanism_from_json, mechanism_json, plain_value
from dphyper.privacy.mechanisms import BestOfTrials, GaussianMechanism, Mechanism
from dphyper.privacy.noise import NoiseSource

LEDGER_SCHEMA = 2  # of the JSON form; raised when a key or its meaning changes, and described in docs/ledger.md


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One line of the ledger.

    Attributes:
        role: What the release is for. It is unique among the charges of an attempt: a resumed run knows the release by
            it.
        mechanism: The calibrated mechanism.
        complete: False from the charge until the whole release is drawn.
        output: The released numbers of a one-shot release, for a resumed run; None of any other release.
        attempt: 0 for the present run. Attempts that failed are numbered from 1 on.
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
        path: File that holds the ledger at all times; None keeps it in memory alone.

    Attributes:
        budget: As given.
        charges: The lines, in the order of charging.
        n: Nominal number of records, set by `bind`.
        noise: ``{"source": "os" | "reproducible", "sampler": "rounded"}``, set by `bind`. Former versions had the
            samplers ``continuous``, whose digits show in the release, and ``discrete``.

    >>> from dphyper.privacy.accounting import calibrate
    >>> from dphyper.privacy.budget import Relation
    >>> from dphyper.privacy.mechanisms import OneShotMean
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
        """Continue the ledger in that file, or begin one there.

        Raises:
            PrivacyError: The ledger in the file has another budget.
            UserError: The ledger in the file has another schema.
            DamagedFileError: The file holds no ledger.
        """
        if not path.exists():
            return cls(budget, path=path)
        plain = read_json(path)
        try:
            ledger = cls.from_json(plain)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DamagedFileError(f"'{path}' holds no ledger ({type(error).__name__}: {error})") from error
        if ledger.budget != budget:
            raise PrivacyError(f"ledger '{path}' was opened for {ledger.budget}, not for {budget}: use another folder")
        ledger._path = path
        return ledger

    @property
    def private(self) -> bool:
        """Whether ε may be claimed: nothing was released, or ε is finite and nobody can compute the noise again."""
        secret = (self.noise or {}).get("source") != "reproducible"
        return not self.charges or (secret and math.isfinite(self.spent()))

    @property
    def has_selection(self) -> bool:
        """Whether a choice among trials on the private records was charged."""
        return any(isinstance(charge.mechanism, BestOfTrials) for charge in self.charges)

    def bind(self, *, n: int, noise: NoiseSource) -> None:
        """Record the nominal n and the noise source. A run that is resumed must have the same.

        Raises:
            PrivacyError: The ledger is bound to another n or noise source, or δ is not below 1/n.
        """
        if math.isfinite(self.budget.epsilon) and not self.budget.delta < 1 / n:
            raise PrivacyError(
                f"delta = {self.budget.delta} with n = {n} records: expected far below 1/n = {1 / n:.3g}"
            )
        source = {"source": "reproducible" if noise.is_reproducible else "os", "sampler": "rounded"}
        if self.charges and (self.n, self.noise) != (n, source):
            raise PrivacyError(f"the ledger has n = {self.n}, noise {self.noise}; the run has n = {n}, noise {source}")
        self.n, self.noise = n, source

    def charge(self, mechanism: Mechanism, role: str) -> None:
        """Enter a release before it is drawn.

        Raises:
            PrivacyError: The role was charged before, or the total would exceed the budget. The ledger is then
                unchanged.
        """
        if any(charge.role == role for charge in self.current):
            raise PrivacyError(
                f"role '{role}' is charged already: drawing it again with fresh noise would be a second release. If "
                "a run was interrupted in it, give the cell up with  dphyper reset  and count what it spent"
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
        """Mark a charged release as drawn, and store its output where a resumed run can use it."""
        index = [(charge.role, charge.attempt) for charge in self.charges].index((role, 0))
        numbers = None if output is None else tuple(float(value) for value in output)
        self.charges[index] = dataclasses.replace(self.charges[index], complete=True, output=numbers)
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
        """Take back the charges of releases that nobody can have seen, and say whether there were any.

        For a run that starts over because its process died and left no row. A release without a stored output died
        with the process, so drawing it again is no second release. One with a stored output stays charged and is used
        again. A private selection is never taken back: long ones are interrupted more often, so the number of trials
        of those that end would not have the law that was charged.
        """
        unseen = [c for c in self.current if c.output is None and not isinstance(c.mechanism, BestOfTrials)]
        if unseen:
            self.charges = [charge for charge in self.charges if charge not in unseen]
            self._write()
        return bool(unseen)

    def close_attempt(self) -> None:
        """Give the charges of a run that raised a number of their own; those of the next run compose with them.

        Releases with a stored output stay in the present attempt: the next run uses them again.
        """
        number = 1 + max((charge.attempt for charge in self.charges), default=0)
        gone = [charge for charge in self.current if charge.output is None]
        self.charges = [
            dataclasses.replace(charge, attempt=number) if charge in gone else charge for charge in self.charges
        ]
        if gone:
            self._write()

    @property
    def current(self) -> list[Charge]:
        """The charges of the present run: all but those of attempts that failed."""
        return [charge for charge in self.charges if not charge.attempt]

    def differences(self, declared: Sequence[Mechanism]) -> list[str]:
        """One line for each difference between the releases of the present run and those that its method declares.

        Args:
            declared: What `Method.mechanisms` gives for the budget, in any order.
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
        """The ledger as plain data for JSON, in the form that ``docs/ledger.md`` describes."""
        relation = self.budget.relation
        return {
            "schema": LEDGER_SCHEMA,
            "unit": "record",
            "budget": plain_value(dataclasses.asdict(self.budget)),
            "n": self.n,
            "noise": self.noise,
            "private": self.private,
            "epsilon_spent": plain_value(self.spent()),
            "charges": [
                {
                    "role": charge.role,
                    "mechanism": mechanism_json(charge.mechanism),
                    "event": event_json(charge.mechanism.event()),
                    "sensitivity": plain_value(charge.mechanism.sensitivity(relation)),
                    "noise_std": plain_value(charge.mechanism.noise_std(relation)),
                    "complete": charge.complete,
                    "output": None if charge.output is None else list(charge.output),
                    "attempt": charge.attempt,
                }
                for charge in self.charges
            ],
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Ledger":
        """Inverse of `to_json`. Derived values (ε, events, sensitivities) are not read; `check_store` compares them.

        Raises:
            UserError: The data have another schema.
        """
        if plain.get("schema") != LEDGER_SCHEMA:
            raise UserError(f"a ledger of schema {plain.get('schema')}, this version reads {LEDGER_SCHEMA}")
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
    """The ledger of one trial of a selection, in memory. It permits the listed releases, each once, and no other.

    This is stricter than a budget of the same ε, and must be. The selection was charged for the Rényi divergences of
    these releases; others of the same ε at δ may have larger divergences at other orders.

    Args:
        budget: The budget of the run.
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
    """Whether two mechanisms are equal up to 1e-5 of their numbers, which calibration elsewhere may change."""
    plain = [_numbers_apart(mechanism_json(mechanism)) for mechanism in (a, b)]
    return plain[0][1] == plain[1][1] and np.allclose(plain[0][0], plain[1][0], rtol=1e-5, atol=0)


def _numbers_apart(plain: Any) -> tuple[list[float], Any]:
    """The floating-point numbers of plain data, and the data with None in their places."""
    if isinstance(plain, float):
        return [plain], None
    if not isinstance(plain, (dict, list)):
        return [], plain
    parts = {
        key: _numbers_apart(value) for key, value in (plain.items() if isinstance(plain, dict) else enumerate(plain))
    }
    return [n for numbers, _ in parts.values() for n in numbers], {key: rest for key, (_, rest) in parts.items()}
