"""Means, intervals and what is best, against computations by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from toy_store import fill, only, point, winning

from dphyper.bench.store import Store
from dphyper.reports.aggregate import aggregate, at_every_epsilon, best, best_series
from dphyper.reports.sections import ALL, POINT, Section
from dphyper.reports.tables.main import methods_against_epsilon


def test_means_and_intervals_agree_with_a_computation_by_hand(section: Section) -> None:
    values = [42.0 + 3 + noise for noise in (0.0, 1.0, -0.7)]
    row = point(aggregate(section.values), metric="frechet", task="kettle", method="hypernetwork", epsilon=4.0)
    low, high = stats.t.interval(0.95, 2, np.mean(values), np.std(values, ddof=1) / math.sqrt(3))
    assert (row["mean"], row["low"], row["high"], row["seeds"]) == pytest.approx((np.mean(values), low, high, 3))
    assert row["half"] == pytest.approx(4.302652729911275 * np.std(values, ddof=1) / math.sqrt(3))


def test_one_seed_has_no_interval_and_is_shown_so(section: Section) -> None:
    row = point(aggregate(section.values), metric="frechet", task=ALL, method="my_method")
    assert row["mean"] == 10.0
    assert math.isnan(row["half"])
    table = methods_against_epsilon(section, "private", [ALL])
    assert table.cells.loc[("Private methods", "my_method", "fixed"), "ε = 4"] == "10.0 ± n/a"
    # It is the lowest number of its column, yet without an interval it is not bold.
    assert not table.bold.loc[("Private methods", "my_method", "fixed")].any()


@pytest.mark.parametrize(("rising", "expected"), [(False, "hypernetwork"), (True, "dp_sgd")])
def test_the_best_follows_the_direction_of_the_metric(
    rising: bool, expected: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if rising:
        request.getfixturevalue("rising_headline")
    values = at_every_epsilon(only(fill(Store(tmp_path), winning)))
    values = values[(values["metric"] == "frechet") & (values["task"] == "kettle") & (values["epsilon"] == 1.0)]
    assert {dict(zip(["metric", *POINT], key, strict=True))["method"] for key in best(values)} == {expected}
    private = values[values["role"] == "method"]
    assert {*best_series(private)["method"]} == {expected}
    assert best_series(private.head(0)).empty
