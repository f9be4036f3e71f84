"""Quantiles over draws of the privacy noise, against a computation by hand."""

from pathlib import Path

import numpy as np
import pytest
from toy_store import add, fill, only, point, winning

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.reports.aggregate import aggregate
from dphyper.reports.tables.noise_draws import NoiseDraws, noise_quantiles


def test_draws_of_the_noise_are_averaged_inside_a_seed_and_shown_by_quantiles(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    values = {0: [10.0, 20.0, 60.0], 1: [110.0, 130.0, 150.0]}
    for seed, distances in values.items():
        for draw, frechet in enumerate(distances):
            add(
                store, Cell(task="kettle", epsilon=1.0, seed=seed, noise_draw=draw, embedding_dim=8), "private", frechet
            )
    section = only(store)
    shown = point(aggregate(section.values), metric="frechet", method="hypernetwork", task="kettle")
    assert (shown["mean"], shown["seeds"]) == (80.0, 2)  # of the seeds' means 30 and 130, not of six draws
    (found,) = noise_quantiles(section).to_dict("records")
    centred = [80.0 + 1.5**0.5 * x for x in (-20, -10, 30, -20, 0, 20)]
    assert (found["draws"], found["mean"], found["worst"]) == (6, 80.0, pytest.approx(80 + 30 * 1.5**0.5))
    assert [found[q] for q in ("q10", "q50", "q90")] == pytest.approx(np.quantile(centred, [0.1, 0.5, 0.9]))
    table = NoiseDraws.make(section, "")
    assert table is not None
    assert "| kettle | Hypernetwork, k = 8 | ε = 1 | 80.0 |" in table.to_markdown()
    one = noise_quantiles(only(fill(Store(tmp_path / "one"), winning)))
    assert one.empty
    assert NoiseDraws.make(only(Store(tmp_path / "one")), "") is None


def test_where_more_is_better_the_worst_draw_is_the_lowest(tmp_path: Path, rising_headline: None) -> None:
    store = Store(tmp_path)
    for draw, value in enumerate((10.0, 20.0, 60.0)):
        add(store, Cell(task="kettle", epsilon=1.0, noise_draw=draw, embedding_dim=8), "private", value)
    (found,) = noise_quantiles(only(store)).to_dict("records")
    assert found["worst"] == pytest.approx(30 - 20 * 1.5**0.5)
