"""What methods declare to release: of every registered one, and of an outside one whose code is wrong."""

from typing import Any

import pytest

from dphyper.audits.declared import attackable_releases, declared_releases, in_one_line
from dphyper.audits.faulty_methods import MeanPicture
from dphyper.audits.mechanism import attacked_parts
from dphyper.bench.catalog import METHODS
from dphyper.core.errors import UserError
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.mechanisms import BestOfTrials, Mechanism, OneShotMean

BUDGET = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_parts_to_attack_or_one_line_of_refusal(name: str) -> None:
    if METHODS[name].private and "epsilon" in METHODS[name].uses:
        parts = attacked_parts(attackable_releases(name, BUDGET))
        assert parts
        assert all(part.noise_multiplier for part in parts)
    else:
        with pytest.raises(UserError, match="claims no ε to audit"):
            attackable_releases(name, BUDGET)


def test_a_selection_is_declared_whole_and_one_trial_of_it_attacked() -> None:
    (selection,) = attackable_releases("dp_sgd_tuned", BUDGET)
    assert isinstance(selection, BestOfTrials)
    assert attacked_parts((selection,)) == selection.trial


class Raises(MeanPicture):
    """Its mechanisms raise."""

    @classmethod
    def mechanisms(cls, budget: Budget, options: Any) -> tuple[Mechanism, ...]:
        raise ZeroDivisionError("first line\nsecond line")


class Nonsense(MeanPicture):
    """Its mechanisms are none."""

    returned: Any = None

    @classmethod
    def mechanisms(cls, budget: Budget, options: Any) -> tuple[Mechanism, ...]:
        return cls.returned  # type: ignore[no-any-return]


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the classes above as an outside package would."""
    for kind in (MeanPicture, Raises, Nonsense):
        monkeypatch.setitem(METHODS.locations, kind.__name__, f"{kind.__module__}:{kind.__name__}")


def test_code_that_raises_is_one_line(outside: None) -> None:
    assert len(attackable_releases("MeanPicture", BUDGET)) == 1
    with pytest.raises(UserError) as refused:
        attackable_releases("Raises", BUDGET)
    assert str(refused.value) == (
        "what method 'Raises' declares to release cannot be built (ZeroDivisionError: first line): mend its "
        "`mechanisms`"
    )


@pytest.mark.parametrize(
    "returned", [None, 3, "OneShotMean", ("OneShotMean",), [OneShotMean(noise_multiplier=1.0)], OneShotMean()]
)
def test_what_is_no_tuple_of_mechanisms_is_one_line(
    outside: None, returned: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Nonsense, "returned", returned)
    with pytest.raises(UserError, match="expected a tuple of mechanisms") as refused:
        attackable_releases("Nonsense", BUDGET)
    assert "\n" not in str(refused.value)
    monkeypatch.setattr(Nonsense, "returned", calibrate(BUDGET, OneShotMean()))
    assert declared_releases("Nonsense", {}, BUDGET) == calibrate(BUDGET, OneShotMean())


def test_an_error_without_a_text_is_its_kind() -> None:
    assert in_one_line(ValueError()) == "ValueError: "
