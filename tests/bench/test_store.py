"""The store: rows in and out, each number under its own name, and what is no store."""

import json
import re
import shutil
from collections.abc import Callable
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
    store.directory(cell.id).mkdir(parents=True, exist_ok=True)
    write_json(store.directory(cell.id) / "ledger.json", {"charges": []})
    store.write(cell, row)
    return store.row(cell.id)


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


def test_a_status_is_that_of_the_row_and_writes_nothing(tmp_path: Path) -> None:
    store, cell = Store(tmp_path / "store"), Cell(task="a")
    assert store.status(cell.id) == "to do"
    assert not store.root.exists()
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


def test_an_edited_spec_is_not_taken_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, cell = Store(tmp_path / "one"), Cell(task="a")
    write(store, cell)
    path = store.directory(cell.id) / "cell.json"
    good = store.export()
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 5}))
    with pytest.raises(UserError, match="has no row"):
        store.export()
    assert "its spec is that of another cell, or was edited" in capsys.readouterr().err
    assert Store(tmp_path / "two").merge(good) == 1


def damage_row(folder: Path) -> None:
    (folder / "row.json").write_text("{")


def edit_number(folder: Path) -> None:
    text = (folder / "row.json").read_text()
    (folder / "row.json").write_text(text.replace("300.125", "200.125"))


def take_hash_away(folder: Path) -> None:
    row = json.loads((folder / "row.json").read_text())
    del row["digest"]
    (folder / "row.json").write_text(json.dumps(row))


def cut_ledger(folder: Path) -> None:
    (folder / "ledger.json").write_bytes((folder / "ledger.json").read_bytes()[:5])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_row, r"row\.json' is damaged \(JSONDecodeError"),
        (lambda folder: (folder / "row.json").write_bytes(b""), r"row\.json' is damaged"),
        (lambda folder: (folder / "row.json").write_bytes(b"\x89PNG"), r"row\.json' is damaged \(UnicodeDecodeError"),
        (lambda folder: (folder / "row.json").write_text("[]"), "holds no mapping"),
        (lambda folder: (folder / "row.json").write_text("{}"), "its row has no"),
        (take_hash_away, "its row has no digest"),
        (edit_number, "its row is not what was written: run its sweep again"),
        (lambda folder: (folder / "cell.json").write_text("{"), "its spec cannot be read"),
        (lambda folder: (folder / "cell.json").unlink(), "its spec is that of another cell, or was edited"),
        (cut_ledger, "its ledger cannot be read .*dphyper reset"),
        (lambda folder: (folder / "ledger.json").unlink(), "its ledger is missing, so that nothing can be claimed"),
        (lambda folder: write_json(folder / "ledger.json", {"charges": [1]}), "its ledger is not the one"),
        (lambda folder: folder.rename(folder.with_name("copy")), "holds the row of cell .*: remove this copy"),
    ],
)
def test_damage_is_one_line_and_costs_one_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object], said: str
) -> None:
    store, hurt, sound = Store(tmp_path), Cell(task="a"), Cell(task="b")
    for cell in (hurt, sound):
        write(store, cell, **NUMBERS)
    damage(store.directory(hurt.id))
    for _ in range(2):
        assert list(store.rows()["cell"]) == [sound.id]
    assert (store.status(hurt.id), store.status(sound.id)) == ("to do", "done")
    assert store.protocols() == {"p"}
    assert len(pd.read_parquet(store.export())) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert re.search(said, lines[0])
    assert "counts as missing" in lines[0]


def test_a_copied_folder_counts_once(tmp_path: Path) -> None:
    store, cell = Store(tmp_path), Cell(task="a")
    write(store, cell, **NUMBERS)
    shutil.copytree(store.directory(cell.id), store.directory(cell.id + " (copy)"))
    assert len(store.rows()) == 1


@pytest.mark.parametrize("column", ["frechet", "epsilon", "row"])
def test_an_edited_number_in_a_table_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    store, cells = Store(tmp_path / "one"), [Cell(task="a"), Cell(task="b")]
    for cell in cells:
        write(store, cell, **NUMBERS)
    path = store.export()
    frame = pd.read_parquet(path)
    new = frame.loc[0, "row"].replace("300.125", "200.125") if column == "row" else 0.5
    frame.loc[0, column] = new
    frame.to_parquet(path)
    assert len(read_rows(path)) == 1
    assert Store(tmp_path / "two").merge(path) == 1
    assert "is left out: its" in capsys.readouterr().err


def test_merging_a_folder_brings_files_along_and_gives_up_what_was_begun(tmp_path: Path) -> None:
    store, other, cell = Store(tmp_path / "one"), Store(tmp_path / "two"), Cell(task="a")
    write(store, cell, **NUMBERS)
    (store.directory(cell.id) / "theta.safetensors").write_bytes(b"theta")
    begun = other.directory(cell.id)
    begun.mkdir(parents=True)
    write_json(begun / "ledger.json", {"charges": ["spent here"]})
    assert other.merge(store.root) == 1
    assert other.row(cell.id) == store.row(cell.id)
    assert (begun / "theta.safetensors").read_bytes() == b"theta"
    assert "spent here" in (begun / "ledger.given_up.1.json").read_text()
    assert other.merge(store.root) == 0
    with pytest.raises(UserError, match="is the store itself"):
        other.merge(other.root)


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "expected the name of a folder"), ("~/runs", "only a shell expands ~"), ("{}/file/x", "lies under")],
)
def test_a_name_that_means_another_folder_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=said):
        Store(name.format(tmp_path))
