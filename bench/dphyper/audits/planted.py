"""Bugs of published code, planted on purpose, and the guard that catches each.

Every entry puts a faulty release or method and its sound counterpart to the same guard, which must find the fault and
must find nothing in the sound one: a guard that catches nothing is thereby shown to be broken. The sources name code in
which the fault was read; they are no judgement of the papers. The faults themselves are in
`dphyper.audits.faulty_releases` and `dphyper.audits.faulty_methods`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from unittest.mock import patch

from dphyper.audits import contract, faulty_methods
from dphyper.audits.faulty_releases import faulty_releases
from dphyper.audits.guards import Guard
from dphyper.bench.catalog import METHODS


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One bug and what its guard said.

    Attributes:
        bug: What is wrong.
        source: Where it was seen.
        guard: Name of the guard, or of the check of the contract suite.
        finding: What the guard said of the faulty release; None if it missed it.
        sound: What the guard said of the sound release; None as it should be.
    """

    bug: str
    source: str
    guard: str
    finding: Guard
    sound: Guard

    @property
    def caught(self) -> bool:
        """Whether the guard tells the faulty release from the sound one."""
        return self.finding is not None and self.sound is None


def planted_releases() -> list[Planted]:
    """Put every faulty release and its sound counterpart to their guard; some seconds.

    >>> all(planted.caught for planted in planted_releases())
    True
    """
    return [
        Planted(
            bug=release.bug,
            source=release.source,
            guard=release.guard.__name__,
            finding=release.guard(*release.faulty),
            sound=release.guard(*release.sound),
        )
        for release in faulty_releases()
    ]


def planted_methods() -> list[Planted]:
    """Put every faulty method, and the sound one that it is made of, to the contract suite; some seconds."""
    places = {name: f"{faulty_methods.__name__}:{name}" for name in (faulty_methods.SOUND, *faulty_methods.FAULTY)}
    with patch.dict(METHODS.locations, places):
        sound = next(contract.findings(faulty_methods.SOUND), None)
        return [
            Planted(
                bug=(METHODS[name].__doc__ or "").splitlines()[0].rstrip("."),
                source="an outside method",
                guard=check,
                finding=next((found for found in contract.findings(name) if found.startswith(check)), None),
                sound=sound,
            )
            for name, check in faulty_methods.FAULTY.items()
        ]


def planted_table(planted: Sequence[Planted]) -> str:
    """What the functions above gave, one a line: caught or missed, by which guard, and what it said."""
    return "\n".join(
        f"{'caught' if p.caught else 'MISSED'}  {p.guard:16}  {p.bug} ({p.source}): {p.finding or 'nothing found'}"
        + (f"; and the sound one was rejected: {p.sound}" if p.sound else "")
        for p in planted
    )
