"""Means, intervals and what is best, against computations by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from toy_store import fill, only, point, winning

from dphyper.bench.store import Store
from dphyper.reports.aggregate import aggregate, at_every_epsilon, best, best_series, crossed, interval
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


PAIRS_3_3 = [(training, draw) for training in range(3) for draw in range(3)]


def test_a_crossed_interval_agrees_with_the_analysis_of_variance_by_hand() -> None:
    """Mean squares 48, 12 and 1.5 from the effects (−4, 0, 4), (−2, 0, 2) and a rest that sums to 0 both ways."""
    rest = np.array([[1, -1, 0], [-1, 1, 0], [0, 0, 0]]) * math.sqrt(1.5)
    table = 10 + np.array([-4, 0, 4])[:, None] + np.array([-2, 0, 2]) + rest
    squares, freedoms = np.array([48.0, 12.0, 1.5]), np.array([2, 2, 4])
    whole = squares[0] + squares[1] - squares[2]
    freedom = whole**2 / (squares**2 / freedoms).sum()
    found = crossed(PAIRS_3_3, table.ravel())
    half = stats.t.ppf(0.975, freedom) * math.sqrt(whole / 9)
    assert found[:4] == pytest.approx((10.0, half, 3, 3))
    assert found.p == pytest.approx(2 * stats.t.sf(10 / math.sqrt(whole / 9), freedom))


def test_values_that_trainings_share_have_the_interval_of_the_draws() -> None:
    """As real images judged by real ones: no training moves them, and three copies are no more evidence."""
    assert crossed(PAIRS_3_3, [1.0, 2.0, 4.0] * 3)[:2] == pytest.approx(interval([1.0, 2.0, 4.0])[:2])


def test_a_hole_leaves_the_largest_whole_block() -> None:
    values = dict(zip(PAIRS_3_3, map(float, range(9)), strict=True))
    del values[2, 1], values[2, 2]
    block = [values[pair] for pair in PAIRS_3_3 if pair[0] < 2]
    assert crossed([*values], values.values()) == crossed(PAIRS_3_3[:6], block)
    # One draw of each training: over trainings alone. A second training with one draw of five: over draws alone.
    assert crossed([(0, 4), (1, 4), (2, 4)], [1.0, 2.0, 3.0]) == interval([1.0, 2.0, 3.0])._replace(
        seeds=1, trainings=3
    )
    five = [(0, draw) for draw in range(5)]
    assert crossed([*five, (1, 0)], [1.0, 2.0, 3.0, 4.0, 5.0, 99.0]) == interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert math.isnan(crossed([(0, 0), (1, 1)], [1.0, 2.0]).half), "no training shares a draw with another"


@pytest.mark.parametrize(
    ("trainings", "draws", "variances", "least"),
    [
        (3, 3, (1.0, 0.0, 0.2), 0.935),
        (3, 3, (1.0, 1.0, 1.0), 0.935),
        (3, 5, (1.0, 0.0, 0.2), 0.935),
        (2, 5, (1.0, 1.0, 0.1), 0.92),
        (2, 10, (1.0, 1.0, 0.1), 0.88),  # the worst: with two trainings only, and many draws, the interval is too short
    ],
)
def test_the_crossed_interval_covers_and_the_one_over_draws_alone_does_not(
    trainings: int, draws: int, variances: tuple[float, float, float], least: float
) -> None:
    """Studies with known variances of trainings, draws and the rest: 95 of 100 intervals are to hold the true mean, 0.

    The Monte-Carlo error of 1,000 studies is 0.7 of 100, of which two are allowed.
    """
    rng, studies = np.random.default_rng(0), 1000
    pairs = [(training, draw) for training in range(trainings) for draw in range(draws)]
    shapes = ((studies, trainings, 1), (studies, 1, draws), (studies, trainings, draws))
    effects = [math.sqrt(own) * rng.standard_normal(shape) for own, shape in zip(variances, shapes, strict=True)]
    tables = effects[0] + effects[1] + effects[2]
    covered = {
        "both": [crossed(pairs, table.ravel()).sign == 0 for table in tables],
        "one training": [interval(table[0]).sign == 0 for table in tables],
        "pooled": [interval(table.ravel()).sign == 0 for table in tables],
    }
    rates = {name: np.mean(held) for name, held in covered.items()}
    assert rates["both"] > least
    assert rates["one training"] < 0.91
    assert rates["pooled"] < 0.81
