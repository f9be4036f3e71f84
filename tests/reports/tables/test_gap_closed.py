"""Shares of the gap to no privacy, against computations by hand."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from toy_store import add, only, point

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.reports.sections import Section
from dphyper.reports.tables.gap_closed import GapClosed, gap_closed


def test_share_of_the_gap_agrees_with_a_computation_by_hand(section: Section) -> None:
    """The public mean (50 and a noise of its own) is the better zero, the ceiling lies 30 below it on average."""
    row = point(gap_closed(section), metric="frechet", task="kettle", method="hypernetwork", epsilon=4.0)
    gains = np.array([50 - 42 + zero - own for zero, own in zip((-0.7, 0.0, 1.0), (0.0, 1.0, -0.7), strict=True)])
    half = stats.t.ppf(0.975, 2) * np.std(gains, ddof=1) / math.sqrt(3)
    found = (row["closed"], row["half"], row["seeds"], row["gap"], row["zero"])
    assert found == (pytest.approx(8 / 30), pytest.approx(half / 30), 3, pytest.approx(30.0), "public_mean")
    assert point(gap_closed(section), metric="frechet", task="kettle", method="dp_sgd", epsilon=1.0)["closed"] < 0
    assert not {"public_mean", "public_only", "nonprivate_lora", "real_versus_real"} & {*gap_closed(section)["method"]}
    table = GapClosed.make(section, "").to_markdown()
    assert len(re.findall(r"\| kettle \|.*\| Hypernetwork, k = 8 .*0\.27 ± ", table)) == 1


def test_share_of_the_gap_is_taken_on_the_seeds_of_the_method(tmp_path: Path) -> None:
    """A rival that ran on the seed with the small gap only is not measured by the great gap of the others."""
    store = Store(tmp_path)
    for seed, ceiling in enumerate((50.0, 20.0, 20.0)):
        for method, frechet in {"public_only": 60.0, "nonprivate_lora": ceiling, "hypernetwork": ceiling + 5}.items():
            add(store, Cell(task="kettle", method=method, seed=seed, epsilon=1.0), "private", frechet)
    add(store, Cell(task="kettle", method="dp_sgd", seed=0, epsilon=1.0), "private", 55.0)
    closed = gap_closed(only(store))
    own, rival = (point(closed, metric="frechet", task="kettle", method=name) for name in ("hypernetwork", "dp_sgd"))
    assert (own["closed"], own["gap"], own["seeds"]) == (pytest.approx(25 / 30), pytest.approx(30.0), 3)
    assert (rival["closed"], rival["gap"], rival["seeds"]) == (pytest.approx(0.5), pytest.approx(10.0), 1)


def test_share_of_the_gap_needs_its_controls_and_a_gap(tmp_path: Path) -> None:
    levels = {"hypernetwork": 0.30, "public_only": 0.40, "nonprivate_lora": 0.20}

    def closed(name: str, **changes: float) -> pd.DataFrame:
        store = Store(tmp_path / name)
        for method, loss in {**levels, **changes}.items():
            add(
                store, Cell(task="kettle", method=method, epsilon=1.0), "private", 9.0, metrics={"denoising_loss": loss}
            )
        shares = gap_closed(only(store))
        assert (GapClosed.make(only(store), "") is None) == shares.empty
        return shares

    row = point(closed("all"), metric="denoising_loss", method="hypernetwork", task="kettle")
    assert row["closed"] == pytest.approx(0.5)
    assert math.isnan(row["half"]), "one seed has no interval"
    assert closed("no_gap", nonprivate_lora=0.45).empty
    del levels["nonprivate_lora"]
    assert closed("no_ceiling").empty


def test_where_more_is_better_the_better_zero_is_the_higher_one(tmp_path: Path, coverage: str) -> None:
    store = Store(tmp_path)
    shares = {"public_only": 0.2, "public_mean": 0.3, "nonprivate_lora": 0.7, "hypernetwork": 0.4, "dp_sgd": 0.1}
    for method, share in shares.items():
        for seed in range(2):
            cell = Cell(task="kettle", method=method, epsilon=1.0, seed=seed, embedding_dim=8)
            add(store, cell, "private", 9.0, metrics={"coverage": share})
    closed = gap_closed(only(store))
    assert {*closed["metric"]} == {"coverage"}, "all distances are equal, so that they have no gap"
    own, rival = (point(closed, task="kettle", method=name) for name in ("hypernetwork", "dp_sgd"))
    assert (own["zero"], own["gap"], own["closed"]) == ("public_mean", pytest.approx(0.4), pytest.approx(0.25))
    assert rival["closed"] == pytest.approx(-0.5)
