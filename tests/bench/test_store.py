"""The store: rows in and out, each number under its own name, and what is no store."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dphyper.bench.store import SCHEMA, Row, Store, flat, read_rows
from dphyper.core.errors import UserError
from dphyper.core.files import write_json
from dphyper.core.specs import Cell


def write(store: Store, cell: Cell, **changes: Any) -> Row:
    """A row with the keys that every row has, and what ``changes`` says."""
    values: dict[str, Any] = dict.fromkeys(Row.__required_keys__, "")
    values |= {
        "schema": SCHEMA,
        "cell": cell.id,
        "status": "done",
        "epsilon": cell.epsilon,
        "seed": cell.seed,
        "n": cell.n,
    }
    values |= {"embedding_dim": 0, "noise_draw": 0, "protocol": "p", "private": True, "development": False, **changes}
    row = Row(**values)  # type: ignore[typeddict-item]
    store.write(cell, row)
    write_json(store.directory(cell.id) / "ledger.json", {"charges": []})
    return row


NUMBERS = {
    "metrics": {"frechet": 300.125, "mine": 0.5},
    "real_metrics": {"frechet": 10.0},
    "diagnostics": {"embedding_shift": 1.25},
}


def test_numbers_of_a_row_are_columns_of_their_own_names(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, Cell(task="a"), **NUMBERS)
    write(store, Cell(task="b"), status="failed", error="ValueError")
    frame = store.rows()
    expected = {"frechet": 300.125, "mine": 0.5, "real_frechet": 10.0, "embedding_shift": 1.25}
    done = frame[frame["status"] == "done"].iloc[0]
    assert {name: done[name] for name in expected} == expected
    assert frame.loc[frame["status"] == "failed", [*expected]].isna().all(axis=None)
    assert not {"metrics", "real_metrics", "diagnostics"} & {*frame}


@pytest.mark.parametrize("metrics", [{"task": 1.0}, {"real_frechet": 2.0}, {"embedding_shift": 1.0}])
def test_a_number_called_as_another_column_is_refused(metrics: dict[str, float]) -> None:
    with pytest.raises(UserError, match="names two columns of a row"):
        flat({**NUMBERS, "metrics": {"frechet": 1.0, **metrics}})
    assert flat(NUMBERS)["frechet"] == 300.125


def test_rows_go_through_a_file_without_loss(tmp_path: Path) -> None:
    store, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    row = write(store, Cell(task="a", epsilon=float("inf")), **NUMBERS)
    write(store, Cell(task="b"), status="failed")
    path = store.export()
    assert other.merge(path) == 1  # failed rows are not taken over
    assert other.row(row["cell"]) == row
    assert other.merge(path) == 0
    assert len(read_rows(path)) == 2


def test_a_status_is_that_of_the_row(tmp_path: Path) -> None:
    store, cell = Store(tmp_path), Cell(task="a")
    assert store.status(cell.id) == "to do"
    write(store, cell, status="failed")
    assert store.status(cell.id) == "failed"
    write(store, cell)
    assert store.status(cell.id) == "done"
    assert store.protocols() == {"p"}


def test_what_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file: name a folder"):
        Store(tmp_path / "file")
    with pytest.raises(UserError, match="has no row: run a sweep into it first"):
        Store(tmp_path / "empty").rows()
    with pytest.raises(UserError, match=r"expected the rows\.parquet of a store"):
        Store(tmp_path / "store").merge(tmp_path / "file")
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(UserError, match="does not hold rows with their specs"):
        Store(tmp_path / "store").merge(tmp_path / "other.parquet")


@pytest.mark.parametrize(
    ("schema", "help_"), [(3, "run  dphyper migrate"), (99, "read it with the version that wrote it")]
)
def test_rows_of_another_schema_are_refused(tmp_path: Path, schema: int, help_: str) -> None:
    store, cell = Store(tmp_path), Cell(task="a")
    write(store, cell, schema=schema)
    for read in (store.rows, store.require_current):
        with pytest.raises(UserError, match=f"rows of schema {schema}, this version reads {SCHEMA}: {help_}"):
            read()


def test_an_edited_spec_is_not_taken_over(tmp_path: Path) -> None:
    store, cell = Store(tmp_path / "one"), Cell(task="a")
    write(store, cell)
    path = store.directory(cell.id) / "cell.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 5}))
    with pytest.raises(UserError, match="it was edited or is of another version"):
        Store(tmp_path / "two").merge(store.export())
