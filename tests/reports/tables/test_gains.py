"""Gains over the public model, against computations by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from toy_store import EPSILONS, PRIVATE, add, only, point

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.reports.sections import Section
from dphyper.reports.tables.gains import Gains, gains


def test_gains_agree_with_a_computation_by_hand_and_harm_is_counted(section: Section) -> None:
    gained = gains(section)
    row = point(gained, metric="frechet", task="kettle", method="hypernetwork", epsilon=4.0)
    pairs = np.array([42 + own - 60 - floor for own, floor in zip((0.0, 1.0, -0.7), (1.0, -0.7, 0.0), strict=True)])
    half = stats.t.ppf(0.975, 2) * np.std(pairs, ddof=1) / math.sqrt(3)
    assert (row["difference"], row["half"], row["verdict"]) == (pairs.mean(), pytest.approx(half), "better")
    harmed = point(gained, metric="frechet", task="kettle", method="dp_sgd", epsilon=1.0)
    assert (harmed["difference"], harmed["verdict"]) == (pytest.approx(10.0), "worse")
    assert not {"public_only", "real_versus_real"} & {*gained["method"]}
    own = gained[gained["method"].isin(["hypernetwork", "dp_sgd"]) & gained["task"].isin(PRIVATE) & gained["private"]]
    count = {word: sum(own["verdict"] == word) for word in ("better", "worse")}
    assert count["better"] == len(EPSILONS) * len(PRIVATE)  # the hypernetwork everywhere
    assert count["worse"] >= 2 * len(PRIVATE)  # DP-SGD, which lies 10, 6 and 2 above
    caption = Gains.make(section, "").caption
    assert f"better and {count['worse']} worse" in caption
    assert f"{len(own)} in FD (EfficientNet-Lite0), {count['better']} of them better" in caption


def test_every_metric_that_tables_show_has_its_rows_in_its_own_direction(tmp_path: Path, coverage: str) -> None:
    store = Store(tmp_path)
    for method, distance, share in (("public_only", 60.0, 0.5), ("hypernetwork", 40.0, 0.3)):
        for seed in range(3):
            shift = 0.01 * seed * (method == "hypernetwork")
            metrics = {"coverage": share + shift, "denoising_loss": 0.0812 + shift}
            cell = Cell(task="kettle", method=method, epsilon=1.0, seed=seed, embedding_dim=8)
            add(store, cell, "private", distance + seed, metrics=metrics)
    section = only(store)
    verdicts = gains(section).query("task == 'kettle'").set_index("metric")["verdict"]
    # The kernel distance reads the same features as the Fréchet distance, and tables leave it out.
    assert verdicts.to_dict() == {"frechet": "better", "coverage": "worse", "denoising_loss": "no difference shown"}
    table = Gains.make(section, "")
    assert table is not None
    cells = table.cells["ε = 1"].droplevel(["Task", "Method"])
    assert [*cells.index] == ["Denoising loss", "FD (EfficientNet-Lite0)", "Coverage"]
    assert cells["Denoising loss"] == "100 ± 248"  # in units of 1e-4
    assert cells["Coverage"] == "−0.190 ± 0.025"
    assert "below 0 the method is better than the public model (in coverage above 0)" in table.caption
    assert "Denoising loss in units of 1e-4." in table.caption
    assert "1 in coverage, 0 of them better and 1 worse" in table.caption


def test_without_the_public_model_there_is_no_gain(tmp_path: Path) -> None:
    add(Store(tmp_path), Cell(task="kettle"), "private", 1.0)
    assert Gains.make(only(Store(tmp_path)), "") is None
