"""The first row of every report table, from real rows of a former schema, is what it always was."""

import json
from pathlib import Path

import pytest

from dphyper.bench.store import Store
from dphyper.reports.page import write_report
from dphyper.reports.table import TABLES

ROWS = Path(__file__).parents[1] / "bench" / "data" / "rows_schema_3.parquet"
FIRST_ROWS = json.loads((Path(__file__).parent / "data" / "first_rows.json").read_text())


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """File stem to Markdown, of a report on 72 rows on two private tasks."""
    folder = tmp_path_factory.mktemp("golden")
    store = Store(folder / "store")
    assert store.merge(ROWS) == 72
    write_report(store, folder / "report")
    return {path.stem: path.read_text() for path in folder.glob("report/*/*.md")}


def test_every_table_is_there(tables: dict[str, str]) -> None:
    assert set(tables) == set(FIRST_ROWS)
    # Rows of a former schema do not have the metrics of the table of memorising.
    assert {stem.removeprefix("private_") for stem in tables} == set(TABLES) - {"memorisation"}


@pytest.mark.parametrize("stem", sorted(FIRST_ROWS))
def test_first_row(tables: dict[str, str], stem: str) -> None:
    assert tables[stem].splitlines()[2] == FIRST_ROWS[stem]
