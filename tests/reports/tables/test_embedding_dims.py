"""Each embedding dimension beside the best one."""

from pathlib import Path

from scipy import stats
from toy_store import add, fill, only, winning

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.reports.tables.embedding_dims import EmbeddingDims


def test_each_k_stands_beside_the_best_k_of_its_epsilon(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for k, distances in {4: (110.0, 112.0), 8: (120.0, 126.0), 16: (130.0, 132.0)}.items():
        for seed, frechet in enumerate(distances):
            cell = Cell(task="kettle", epsilon=1.0, seed=seed, embedding_dim=k)
            add(store, cell, "private", frechet, embedding_dim=k)
    add(store, Cell(task="kettle", epsilon=4.0, embedding_dim=8), "private", 100.0, embedding_dim=8)
    table = EmbeddingDims.make(only(store), "private")
    assert table is not None
    # The differences are 10 and 14, whose interval holds 0, and 20 twice, whose interval does not; one k has no rival.
    half = stats.t.ppf(0.975, 1) * 2
    assert [*table.cells["ε = 1"]] == ["111", f"123 (+ 12 ± {half:.0f})", "131 (+ 20 ± 0)"]
    assert [*table.bold["ε = 1"]] == [True, True, False]
    assert [*table.cells.columns] == ["ε = 1"]
    assert "| kettle | Hypernetwork, k = 4 | **111** |" in table.to_markdown()
    assert EmbeddingDims.make(only(fill(Store(tmp_path / "one"), winning)), "private") is None


def test_where_more_is_better_each_k_stands_beside_the_highest(tmp_path: Path, rising_headline: None) -> None:
    store = Store(tmp_path)
    for k, values in {4: (110.0, 112.0), 16: (130.0, 132.0)}.items():
        for seed, value in enumerate(values):
            cell = Cell(task="kettle", epsilon=1.0, seed=seed, embedding_dim=k)
            add(store, cell, "private", value, embedding_dim=k)
    table = EmbeddingDims.make(only(store), "private")
    assert table is not None
    assert table.bold is not None
    assert [*table.cells["ε = 1"]] == ["111.0 (− 20.0 ± 0.0)", "131.0"]
    assert [*table.bold["ε = 1"]] == [False, True]
    assert "how far it lies below the highest of its method" in table.caption
