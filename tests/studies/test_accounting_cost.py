"""The cost of accounting is measured on a store with finished cells."""

import re
from pathlib import Path
from typing import Any

import pytest

from dphyper.audits import contract
from dphyper.bench.store import SCHEMA, Row, Store
from dphyper.core.errors import UserError
from dphyper.core.files import write_json
from dphyper.core.specs import Cell
from dphyper.studies import accounting_cost


def add_cell(store: Store, status: str) -> None:
    """A cell of `dp_sgd` with its row and its ledger."""
    cell = Cell(task="8", method="dp_sgd", epsilon=2.0, options={"steps": 3, "multiplicity": 1})
    facts: dict[str, Any] = {name: getattr(cell, name, "") for name in Row.__required_keys__}
    facts |= {
        "schema": SCHEMA,
        "cell": cell.id,
        "status": status,
        "private": True,
        "development": False,
        "protocol": "p",
    }
    row = Row(**facts)  # type: ignore[typeddict-item]
    store.write(cell, row)
    _, ledger = contract.adapt(contract.tiny_method(cell.method), contract.tiny_records())
    write_json(store.directory(cell.id) / "ledger.json", ledger.to_json())


def test_the_cost_of_accounting_is_measured_on_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_cell(Store(tmp_path), "done")
    accounting_cost.main(tmp_path, repetitions=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(accounting_cost.MECHANISMS) + 1
    assert re.search(r"ms a cell, \d+\.\d\d ms cached \(1 cells\)$", lines[-1])


def test_a_store_without_a_finished_cell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no row"):
        accounting_cost.main(tmp_path)
    add_cell(Store(tmp_path), "failed")
    with pytest.raises(UserError, match="has no finished cell"):
        accounting_cost.main(tmp_path)
