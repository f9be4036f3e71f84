"""Distances to private and held-out records, and their ratio."""

from pathlib import Path

import pytest
from toy_store import add, only, point

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.reports.sections import Section
from dphyper.reports.tables.memorisation import Memorisation, nearest_records


def test_the_ratio_stands_beside_both_distances(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed, scale in enumerate((1.0, 2.0)):
        metrics = {"nearest_private": 3.0 * scale, "nearest_heldout": 4.0 * scale}
        add(store, Cell(task="kettle", method="nonprivate_lora", seed=seed), "private", 9.0, metrics=metrics)
        add(store, Cell(task="kettle", method="dp_sgd", seed=seed), "private", 9.0)
    section = only(store)
    found = nearest_records(section)
    assert {*found["method"]} == {"nonprivate_lora"}
    row = point(found, task="kettle")
    assert (row["ratio"], row["half"]) == (0.75, pytest.approx(0.0))
    table = Memorisation.make(section, "private")
    assert "| 0.75 ± 0.00 | 4.50 | 6.00 | 2 |" in table.to_markdown()
    assert "rows of private methods on private tasks do not have them" in table.caption


def test_without_the_metrics_there_is_no_table(section: Section) -> None:
    assert Memorisation.make(section, "private") is None
