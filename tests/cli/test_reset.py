"""``dphyper reset``: a cell that can never be finished is given up, and what it spent is told, then and later."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dphyper.audits.store_check import _check_given_up
from dphyper.bench.store import SCHEMA, Row, Store
from dphyper.core.specs import Cell
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import OneShotMean

CELL = Cell(task="8", epsilon=4.0)


def charged(store: Store) -> Path:
    """The ledger of a cell that was killed after its release was charged."""
    path = store.directory(CELL.id) / "ledger.json"
    ledger = Ledger(Budget(epsilon=4.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE), path=path)
    (mechanism,) = calibrate(ledger.budget, OneShotMean())
    ledger.charge(mechanism, role="embedding")
    return path


def test_what_was_spent_on_nothing_is_told(
    tmp_path: Path, dphyper: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    ledger = charged(store)
    (ledger.parent / "theta.safetensors").touch()
    assert dphyper("reset", CELL.id, "--store", tmp_path) == 0
    assert "ε = 4 of 4 at δ = 1e-05 was spent on nothing" in capsys.readouterr().out
    assert [path.name for path in ledger.parent.iterdir()] == ["ledger.given_up.1.json"]
    charged(store)  # the next run spends its budget again
    (finding,) = _check_given_up(ledger.parent)
    assert "it was given up once and begun anew: all together spent ε = 5.99" in finding
    ledger.write_text("{")
    assert dphyper("reset", CELL.id, "--store", tmp_path) == 0
    assert "in the worst case all its budget" in capsys.readouterr().out
    assert dphyper("reset", CELL.id, "--store", tmp_path) == 0
    assert "it had released nothing" in capsys.readouterr().out


def test_what_cannot_be_given_up_is_refused(tmp_path: Path, refusal: Callable[..., str]) -> None:
    store = Store(tmp_path)
    assert "unknown cell 'x'" in refusal("reset", "x", "--store", tmp_path)
    charged(store)
    row = Row(**{**dict.fromkeys(Row.__required_keys__, ""), "schema": SCHEMA, "cell": CELL.id, "status": "done"})  # type: ignore[typeddict-item]
    store.write(CELL, row)
    assert "is done: drawing it again would be a second release" in refusal("reset", CELL.id, "--store", tmp_path)
    assert (store.directory(CELL.id) / "ledger.json").exists()
