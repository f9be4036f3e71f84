"""Paired differences between the hypernetwork and its rivals."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from toy_store import add, only, point

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.reports.aggregate import Interval
from dphyper.reports.differences import differences, verdict_on
from dphyper.reports.sections import Section
from dphyper.reports.tables.differences import Differences


def test_a_paired_difference_is_the_t_interval_of_the_pairs(section: Section) -> None:
    row = point(differences(section), metric="frechet", task="kettle", epsilon=1.0, rival_method="dp_sgd")
    pairs = np.array([(42 + a) - (70 + b) for a, b in zip((0, 1, -0.7), (1, -0.7, 0), strict=True)])
    low, high = stats.ttest_1samp(pairs, 0).confidence_interval(0.95)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((pairs.mean(), low, high))
    assert row["verdict"] == "better"


@pytest.mark.parametrize(("metric", "expected"), [("frechet", "better"), ("coverage", "worse")])
def test_what_is_better_follows_the_metric(metric: str, expected: str, coverage: str) -> None:
    assert verdict_on(Interval(-3.0, 1.0, 5), metric) == expected
    assert verdict_on(Interval(-3.0, 4.0, 5), metric) == "no difference shown"
    assert verdict_on(Interval(-3.0, float("nan"), 1), metric) == "one seed, no interval"


def test_holm_leaves_the_clear_differences_and_seeds_to_tell_are_asked_of_the_others(tmp_path: Path) -> None:
    """Of four rivals the second nearest has p = 0.02: alone that says better, three times it does not."""
    store = Store(tmp_path)
    for seed, noise in enumerate((0.0, 1.0, -1.0)):
        add(store, Cell(task="kettle", seed=seed, embedding_dim=8), "private", 40.0)
        for name, gap in {"far": 500.0, "near": 4.0, "none": 1.0, "nil": 0.01}.items():
            add(store, Cell(task="kettle", method=name, seed=seed), "private", 40.0 + gap + noise)
    table = Differences.make(only(store), "private").cells.droplevel(["Task", "Budget"])
    assert table.loc["− far (fixed)"].tolist()[1:] == ["3", "better", "better", "–"]
    assert table.loc["− near (fixed)"].tolist()[1:] == ["3", "better", "no difference shown", "–"]
    # A difference of one standard deviation: tables of the paired t-test have 10 pairs for a power of 0.8.
    assert table.loc["− none (fixed)", "Seeds to tell"] == "about 10"
    assert table.loc["− nil (fixed)", "Seeds to tell"] == "over 100"
    assert table.loc["− DP-SGD", ["Verdict", "After Holm"]].tolist() == ["not run", "–"]


def test_every_metric_is_compared(section: Section) -> None:
    assert {*differences(section)["metric"]} == {"frechet", "kernel"}
